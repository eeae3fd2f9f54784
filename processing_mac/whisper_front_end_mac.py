"""Whisper's log-mel front end, in natural logarithms and for clips of any length."""

import math
from functools import lru_cache

import torch
from transformers.audio_utils import mel_filter_bank


FRAME_LENGTH, FRAME_SHIFT = 400, 160  # samples at 16 kHz: 25 ms, 10 ms
FLOOR = 1e-10  # of a mel cell's energy
RANGE = 8.0  # powers of ten below the loudest cell of a window at which its quiet cells end
TAIL = 2  # frames that hold a clip's last samples, but whose centre lies behind its end


@lru_cache
def mel_filters(num_mel_bins: int, sampling_rate: int) -> torch.Tensor:
    """Slaney's triangles up to the Nyquist frequency, (FFT bins, mel bins)."""
    filters = mel_filter_bank(
        FRAME_LENGTH // 2 + 1, num_mel_bins, 0.0, sampling_rate / 2, sampling_rate, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters).float()


def whisper_log_mel(waveform: torch.Tensor, num_mel_bins: int, sampling_rate: int, block: int) -> torch.Tensor:
    """
    (samples,) -> (frames, mel bins) natural-log energies; frame i is centred at sample 160 i.

    Before the clip stands its mirror image, as in Whisper, behind it silence, as if it were padded to a window.

    Args:
        block: Frames to compute at a time.
    """
    frames = math.ceil((len(waveform) + FRAME_LENGTH // 2) / FRAME_SHIFT)
    end = (frames - 1) * FRAME_SHIFT + FRAME_LENGTH // 2 - len(waveform)
    mirrored = waveform[1 : FRAME_LENGTH // 2 + 1].flip(0)
    padded = torch.cat([mirrored, waveform, waveform.new_zeros(end)])
    cut = padded.unfold(0, FRAME_LENGTH, FRAME_SHIFT)  # a view
    window = torch.hann_window(FRAME_LENGTH)
    filters = mel_filters(num_mel_bins, sampling_rate)
    blocks = [torch.fft.rfft(part * window).abs().pow(2.0) @ filters for part in cut.split(block)]
    return torch.cat([energies.clamp(min=FLOOR).log() for energies in blocks])


def limit_range(windows: torch.Tensor) -> torch.Tensor:
    """(windows, frames, mel bins) natural logarithms -> powers of ten, none more than 8 below the window's loudest."""
    powers = windows / math.log(10)
    return torch.maximum(powers, powers.amax(dim=(1, 2), keepdim=True) - RANGE)


__all__ = ["limit_range", "whisper_log_mel"]
