"""Turns waveforms into log-mel windows, for EAT with Kaldi's filter bank, which is written here in plain torch."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin

from .audio_mac import is_list_of_clips, load_waveform
from .whisper_front_end_mac import TAIL, limit_range, whisper_log_mel


SAMPLING_RATE = 16_000  # Hz, at which EAT was trained; the numbers of samples below hold for this rate
FRAME_LENGTH, FRAME_SHIFT, FFT_LENGTH = 400, 160, 512  # samples: 25 ms, 10 ms
LOW_FREQUENCY = 20.0  # Hz, where Kaldi's lowest triangle begins
PREEMPHASIS = 0.97  # Kaldi's share of the previous sample that is subtracted from each
ENERGY_FLOOR = 1.1920928955078125e-07  # float32 epsilon
DECIBEL = math.log(10) / 10  # one dB in natural-log energy
# Long recordings are processed minute by minute. This bounds the memory, and it is twice as fast, since the tensors of
# a minute stay in the processor's cache.
SAMPLES_PER_BLOCK = 60 * 16_000

FRONT_ENDS = ("kaldi", "whisper")


@lru_cache
def mel_filters(num_mel_bins: int, sampling_rate: int) -> torch.Tensor:
    """
    Build Kaldi's triangular filters, (FFT bins, mel bins), from 20 Hz to the Nyquist frequency.

    They are computed in float32 and in the order of operations of torchaudio's `compliance.kaldi.get_mel_banks`; in
    float64 the log-mel would differ by 1e-3.

    Args:
        num_mel_bins: Number of filters.
        sampling_rate: Rate of the waveform in Hz.
    """

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    low, high = mel(LOW_FREQUENCY), mel(0.5 * sampling_rate)
    step = (high - low) / (num_mel_bins + 1)
    index = torch.arange(num_mel_bins).unsqueeze(1)
    left, center, right = low + index * step, low + (index + 1.0) * step, low + (index + 2.0) * step
    bin_hertz = (sampling_rate / FFT_LENGTH) * torch.arange(FFT_LENGTH / 2)
    bin_mel = (1127.0 * (1.0 + bin_hertz / 700.0).log()).unsqueeze(0)
    rising, falling = (bin_mel - left) / (center - left), (right - bin_mel) / (right - center)
    triangles = torch.clamp(torch.minimum(rising, falling), min=0.0)  # (mel bins, FFT bins - 1)
    return torch.nn.functional.pad(triangles, (0, 1)).T  # no triangle reaches the Nyquist bin


def fbank(waveform: torch.Tensor, num_mel_bins: int = 128, sampling_rate: int = 16_000) -> torch.Tensor:
    """
    Compute Kaldi's log-mel with EAT's settings, with the same bits as torchaudio 2.11's `compliance.kaldi.fbank`.

    Args:
        waveform: Samples, (samples,) float32 in [-1, 1], at least 400 of them.
        num_mel_bins: Number of mel bins.
        sampling_rate: Rate of the waveform in Hz.

    Returns:
        Natural logarithms of the mel energies, (frames, mel bins), where frames = 1 + (samples - 400) // 160.
    """
    frames = waveform.unfold(0, FRAME_LENGTH, FRAME_SHIFT)  # (frames, 400)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = frames - PREEMPHASIS * previous
    frames = frames * torch.hann_window(FRAME_LENGTH, periodic=False)
    power = torch.fft.rfft(frames, n=FFT_LENGTH).abs().pow(2.0)  # (frames, FFT bins)
    energies = power @ mel_filters(num_mel_bins, sampling_rate)
    return energies.clamp(min=ENERGY_FLOOR).log()


def clip_mean(waveform: torch.Tensor) -> torch.Tensor:
    """
    Compute the mean of a waveform, (samples,), in float32 with the same result on any machine.

    The result of `waveform.mean()` depends on the number of threads, which can move the log-mel of quiet bins by 1e-3.
    The two sums here are what it computes on two threads, and the reference values were made with these.
    """
    halves = torch.nn.functional.pad(waveform, (0, len(waveform) % 2)).view(2, -1)
    return halves.sum(dim=1).sum() / len(waveform)


class MacFeatureExtractor(FeatureExtractionMixin):
    """
    Turns clips of any length into windows of normalised log-mel.

    Args:
        feature_size: Number of mel bins.
        sampling_rate: Rate in Hz to which clips are resampled; only 16000, for which frames and filters are made.
        padding_value: Log-mel that fills up the last window of a clip, before it is normalised.
        window_frames: Number of frames in a window, of 10 ms each.
        mean: Log-mel that becomes 0: a cell x becomes (x - mean) / scale. The defaults are EAT's for AudioSet.
        scale: Divisor of the normalisation; for EAT twice the standard deviation.
        url_limits: Fields of `UrlLimits` that replace its defaults for addresses, such as `{"silent_seconds": 5}`.
        front_end: Name of the front end: "kaldi" for EAT's filter bank, or "whisper", whose x are powers of ten. The
            `front_end` of a tower's configuration holds all arguments that an extractor for it needs.

    Raises:
        ValueError: The sampling rate is another, or there is no front end of that name.
    """

    model_input_names = ["input_features", "audio_num_windows"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        window_frames: int = 1024,
        mean: float = -4.268,
        scale: float = 9.138,
        url_limits: dict[str, float] | None = None,
        front_end: str = "kaldi",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if sampling_rate != SAMPLING_RATE:
            raise ValueError(f"`sampling_rate` is {sampling_rate}; MAC's frames are made for {SAMPLING_RATE} Hz.")
        if front_end not in FRONT_ENDS:
            raise ValueError(f"`front_end` is {front_end!r}; expected one of {FRONT_ENDS}.")
        self.front_end = front_end
        self.feature_size = feature_size
        self.sampling_rate = sampling_rate
        self.padding_value = padding_value
        self.window_frames = window_frames
        self.mean = mean
        self.scale = scale
        self.url_limits = url_limits

    @property
    def window_seconds(self) -> float:
        """Seconds from the start of a window to that of the next: 10.24 for EAT."""
        return self.window_frames * FRAME_SHIFT / self.sampling_rate

    def load(self, audio: Any, sampling_rate: Any = None, max_seconds: float | None = None) -> list[np.ndarray]:
        """
        Load one clip or a list of clips as mono float32 waveforms, (samples,), at `self.sampling_rate`.

        A list of numbers is one clip, and so is a pair of an array and its rate. Any other list or tuple is a list of
        clips, and so are a column and rows of `datasets`. See `load_waveform` for what a clip may be and for the
        errors; for a list the message names the row.

        Args:
            audio: One clip or many clips.
            sampling_rate: Rate in Hz of bare arrays.
            max_seconds: Length in seconds above which a clip is refused; None for any length.
        """
        options: dict[str, Any] = {"url_limits": self.url_limits, "max_seconds": max_seconds}
        if not is_list_of_clips(audio):
            return [load_waveform(audio, sampling_rate, self.sampling_rate, **options)]
        if not len(audio):
            raise ValueError("The list of audio is empty; expected at least one clip.")
        return [
            load_waveform(clip, sampling_rate, self.sampling_rate, name=f"audio {row}", **options)
            for row, clip in enumerate(audio)
        ]

    def fetch_audio(self, audio: Any, sampling_rate: int | None = None) -> list[dict[str, Any]]:
        """Load clips with their rate, in the form in which transformers' processors and pipelines ask for audio."""
        return [{"array": clip, "sampling_rate": self.sampling_rate} for clip in self.load(audio, sampling_rate)]

    def raw_log_mel(self, waveform: np.ndarray) -> torch.Tensor:
        """Compute the natural-log mel energies, (frames, mel bins), of (samples,) at `self.sampling_rate`."""
        clip = torch.from_numpy(waveform)
        if self.front_end == "whisper":
            return whisper_log_mel(clip, self.feature_size, self.sampling_rate, SAMPLES_PER_BLOCK // FRAME_SHIFT)
        clip = clip - clip_mean(clip)
        step = SAMPLES_PER_BLOCK - SAMPLES_PER_BLOCK % FRAME_SHIFT
        reach = step + FRAME_LENGTH - FRAME_SHIFT  # the last frame of a block looks into the next block
        starts = range(0, len(clip) - FRAME_LENGTH + 1, step)
        return torch.cat([fbank(clip[s : s + reach], self.feature_size, self.sampling_rate) for s in starts])

    def to_windows(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Pad with `padding_value`, cut and normalise: (frames, mel bins) -> (windows, window_frames, mel bins)."""
        whisper = self.front_end == "whisper"
        if whisper and len(log_mel) > self.window_frames and 0 < len(log_mel) % self.window_frames <= TAIL:
            log_mel = log_mel[: -(len(log_mel) % self.window_frames)]  # these frames alone are not worth a window
        padding = -len(log_mel) % self.window_frames
        log_mel = torch.nn.functional.pad(log_mel, (0, 0, 0, padding), value=self.padding_value)
        windows = log_mel.view(-1, self.window_frames, self.feature_size)
        return ((limit_range(windows) if whisper else windows) - self.mean) / self.scale

    def __call__(
        self, audio: Any, sampling_rate: int | None = None, return_tensors: str | None = "pt"
    ) -> BatchFeature:
        """
        Args:
            audio: One clip or a list of clips, in any form that `load` takes.
            sampling_rate: Rate in Hz of bare arrays.
            return_tensors: Library of the results: "np" for numpy, else torch.

        Returns:
            `input_features`, (windows of all clips, window_frames, mel bins) float32, and `audio_num_windows`,
            (clips,) int64, which tells how many of the windows belong to each clip.

        Raises:
            ValueError: A clip is faulty; the message names its file or row.
        """
        windows = [self.to_windows(self.raw_log_mel(waveform)) for waveform in self.load(audio, sampling_rate)]
        data = {
            "input_features": torch.cat(windows),
            "audio_num_windows": torch.tensor([len(clip) for clip in windows]),
        }
        if return_tensors == "np":
            data = {key: value.numpy() for key, value in data.items()}
        return BatchFeature(data)


__all__ = ["MacFeatureExtractor"]
