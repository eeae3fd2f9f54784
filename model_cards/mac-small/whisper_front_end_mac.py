"""Whisper's log-mel front end, in natural logarithms and for clips of any length."""

import math
from functools import lru_cache

import torch
from transformers.audio_utils import mel_filter_bank


FRAME_LENGTH, FRAME_SHIFT = 400, 160  # samples at 16 kHz: 25 ms, 10 ms
FLOOR = 1e-10  # least energy of a mel cell, before the logarithm
RANGE = 8.0  # powers of ten between the loudest cell of a window and its quietest ones, which are raised to this
TAIL = 2  # most frames at the end that hold a clip's last samples but have their centre behind its end


@lru_cache
def mel_filters(num_mel_bins: int, sampling_rate: int) -> torch.Tensor:
    """Build Slaney's triangular filters up to the Nyquist frequency, (FFT bins, mel bins)."""
    filters = mel_filter_bank(
        FRAME_LENGTH // 2 + 1, num_mel_bins, 0.0, sampling_rate / 2, sampling_rate, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters).float()


def whisper_log_mel(waveform: torch.Tensor, num_mel_bins: int, sampling_rate: int, block: int) -> torch.Tensor:
    """
    Compute a clip's natural-log mel energies, (samples,) -> (frames, mel bins); frame i is centred at sample 160 i.

    As in Whisper, the mirror image of the clip's start stands before it and silence after it.

    Args:
        waveform: Samples of the clip, (samples,) float32.
        num_mel_bins: Number of mel bins.
        sampling_rate: Rate of the waveform in Hz.
        block: Number of frames that are computed at a time, which bounds the memory.
    """
    frames = math.ceil((len(waveform) + FRAME_LENGTH // 2) / FRAME_SHIFT)
    end = (frames - 1) * FRAME_SHIFT + FRAME_LENGTH // 2 - len(waveform)
    mirrored = waveform[1 : FRAME_LENGTH // 2 + 1].flip(0)
    padded = torch.cat([mirrored, waveform, waveform.new_zeros(end)])
    cut = padded.unfold(0, FRAME_LENGTH, FRAME_SHIFT)  # (frames, 400), a view that takes no memory
    window = torch.hann_window(FRAME_LENGTH)
    filters = mel_filters(num_mel_bins, sampling_rate)
    blocks = [torch.fft.rfft(part * window).abs().pow(2.0) @ filters for part in cut.split(block)]
    return torch.cat([energies.clamp(min=FLOOR).log() for energies in blocks])


def limit_range(windows: torch.Tensor) -> torch.Tensor:
    """
    Convert natural logarithms, (windows, frames, mel bins), to powers of ten.

    Cells that are more than `RANGE` below the loudest cell of their window are raised to that.
    """
    powers = windows / math.log(10)
    return torch.maximum(powers, powers.amax(dim=(1, 2), keepdim=True) - RANGE)


__all__ = ["limit_range", "whisper_log_mel"]
