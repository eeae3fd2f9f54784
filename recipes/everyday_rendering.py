"""
Waves of planned scenes, and their log-mels, many at once on one device.

All events of a batch are read, filtered and put into rooms side by side, then added up to scenes.
"""

import math

import numpy as np
import torch
from everyday_bank import LEVEL, RATE
from everyday_planning import BANDS, Event, Plan
from torch import nn

from processing_mac import MacFeatureExtractor
from processing_mac.feature_extraction_mac import (
    ENERGY_FLOOR,
    FFT_LENGTH,
    FRAME_LENGTH,
    FRAME_SHIFT,
    PREEMPHASIS,
    mel_filters,
)


FADE = 160  # samples over which an event fades in and out, so that a cut does not click
LOWEST, HIGHEST = 40.0, 8000.0  # Hz, the first and the last place of a filter's curve
ECHO, DIRECT = 16_000, 32  # samples of a room's echo, and those before it begins
STEADY = 16  # numbers of events in rooms are multiples of this, for few plans of Fourier transforms
TINY = 1e-10  # added to a mean square, so that it is never 0


class Renderer(nn.Module):
    """
    Renders plans.

    Args:
        waves: Samples of a bank at 16 kHz, (samples,) float16.
        samples: Length of a window in samples.
    """

    bank: torch.Tensor
    places: torch.Tensor

    def __init__(self, waves: np.ndarray, samples: int):
        super().__init__()
        self.samples = samples
        self.size = fast_size(samples + ECHO)  # so that the end of an echo does not come back at the start
        frequencies = torch.fft.rfftfreq(self.size, 1 / RATE).clamp(min=LOWEST)
        octaves = torch.log2(frequencies / LOWEST) / math.log2(HIGHEST / LOWEST)
        self.register_buffer("bank", torch.from_numpy(waves), persistent=False)
        self.register_buffer("places", (octaves * (BANDS - 1)).clamp(0, BANDS - 1.001), persistent=False)

    @torch.no_grad()
    def forward(self, plan: Plan) -> torch.Tensor:
        """
        Render a plan with torch's own random numbers.

        Args:
            plan: Plan whose arrays are tensors, on any device.

        Returns:
            Waves at 16 kHz, (scenes, samples) float32, 0 after the end of each scene.
        """
        device = self.bank.device
        events = Event(*(field.to(device, non_blocking=True) for field in plan.events))
        waves, inside = self.read(events)
        spectra = torch.fft.rfft(waves, n=self.size) * self.filters(events.curve)
        self.add_rooms(spectra, events, (plan.events.echo > 0).nonzero().squeeze(1))
        waves = torch.fft.irfft(spectra, n=self.size)[:, : self.samples]
        return self.mix(waves, inside, events, plan)

    def read(self, events: Event) -> tuple[torch.Tensor, torch.Tensor]:
        """Read each event from the bank by cubic interpolation, (events, samples), and tell where it sounds."""
        # Positions are in float64, since in float32 a sample of a long recording is no longer told from the next.
        time = torch.arange(self.samples, device=self.bank.device, dtype=torch.float64) - events.start.unsqueeze(1)
        used, speed = events.used.unsqueeze(1), events.speed.unsqueeze(1)
        position = (time * speed).remainder(events.period.unsqueeze(1))  # (events, samples), in samples of the bank
        inside = (time >= 0) & (time < events.length.unsqueeze(1)) & (position < used - 1)
        edge = (torch.minimum(position, used - 1 - position) / (FADE * speed)).clamp(0, 1).float()
        position = torch.where(events.backwards.unsqueeze(1), used - 1 - position, position)
        lowest = events.base.unsqueeze(1)
        highest = lowest + used - 1
        whole = position.floor()
        part = (position - whole).float()
        index = lowest + whole.long()
        a, b, c, d = (self.bank[(index + k).clamp(lowest, highest)].float() for k in (-1, 0, 1, 2))
        # Catmull and Rom's spline through b and c.
        wave = b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)))
        return wave * edge * inside, inside

    def filters(self, curves: torch.Tensor) -> torch.Tensor:
        """Give the factors of all frequencies, (events, frequencies), of curves in decibels (events, 10)."""
        low = self.places.long()
        part = self.places - low
        return 10 ** ((curves[:, low] * (1 - part) + curves[:, low + 1] * part) / 20)

    def add_rooms(self, spectra: torch.Tensor, events: Event, roomy: torch.Tensor) -> None:
        """
        Add the echo of a room, which is noise that falls, to some events in place.

        Args:
            spectra: Spectra of the events, (events, frequencies).
            events: The events.
            roomy: Numbers of those in rooms, on the host, so that nobody waits for the device.
        """
        if not len(roomy):
            return
        count, device = len(roomy), spectra.device
        rows = torch.cat([roomy, roomy[:1].expand(-count % STEADY)]).to(device)
        seconds = torch.arange(ECHO, device=device) / RATE
        falling = torch.exp(-math.log(1000) * seconds / events.echo[rows].unsqueeze(1).float())
        echo = torch.randn(falling.shape, device=device) * falling
        echo[:, :DIRECT] = 0
        echo = nn.functional.normalize(echo, dim=1) * events.wetness[rows].unsqueeze(1).float()
        echo[:, 0] = 1  # the sound itself
        spectra[rows[:count]] = (spectra[rows] * torch.fft.rfft(echo, n=self.size))[:count]

    def mix(self, waves: torch.Tensor, inside: torch.Tensor, events: Event, plan: Plan) -> torch.Tensor:
        """Add up the events (events, samples), each at its level, to scenes, each at its peak and with its noise."""
        device, count = waves.device, len(plan.lengths)
        lengths, peaks, floors = (field.to(device) for field in (plan.lengths, plan.peaks, plan.floors))
        level = (waves.square().sum(1) / inside.sum(1).clamp(min=1) + TINY).sqrt()
        scale = torch.where(events.silent, torch.ones_like(level), events.gain.float() * LEVEL / level)
        here = torch.arange(self.samples, device=device) < lengths.unsqueeze(1)  # (scenes, samples)
        scenes = torch.zeros(count, self.samples, device=device)
        scenes = scenes.index_add_(0, events.window, waves * scale.unsqueeze(1)) * here
        silent = torch.zeros(count, device=device).index_add_(0, events.window, events.silent.float()) > 0
        factor = torch.where(silent, 1.0, peaks / scenes.abs().amax(1).clamp(min=1e-6))
        noise = torch.randn_like(scenes) * torch.where(silent, 0.0, floors).unsqueeze(1)
        return (scenes * factor.unsqueeze(1) + noise) * here


class BatchedFeatures(nn.Module):
    """
    Does on one device, for windows of any length side by side, what a feature extractor does with one clip.

    Args:
        extractor: Extractor with Kaldi's front end.
    """

    mel: torch.Tensor
    window: torch.Tensor

    def __init__(self, extractor: MacFeatureExtractor):
        super().__init__()
        self.extractor = extractor
        filters = mel_filters(extractor.feature_size, RATE).contiguous()
        self.register_buffer("mel", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(FRAME_LENGTH, periodic=False), persistent=False)

    @torch.no_grad()
    def forward(self, waves: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compute normalised log-mels.

        Args:
            waves: Samples at 16 kHz, (windows, samples), 0 after the end of each.
            lengths: Number of samples of each window, (windows,).

        Returns:
            Normalised log-mels, (windows, frames, mel bins), and the number of frames that are no padding, (windows,).
        """
        here = torch.arange(waves.shape[1], device=waves.device) < lengths.unsqueeze(1)
        waves = (waves - waves.sum(1, keepdim=True) / lengths.unsqueeze(1)) * here
        frames = waves.unfold(1, FRAME_LENGTH, FRAME_SHIFT)  # (windows, frames, 400)
        frames = frames - frames.mean(2, keepdim=True)
        frames = frames - PREEMPHASIS * torch.cat([frames[..., :1], frames[..., :-1]], 2)
        power = torch.fft.rfft(frames * self.window, n=FFT_LENGTH).abs().square()
        log_mel = (power @ self.mel).clamp(min=ENERGY_FLOOR).log()
        count = 1 + (lengths - FRAME_LENGTH) // FRAME_SHIFT
        heard = torch.arange(log_mel.shape[1], device=waves.device) < count.unsqueeze(1)
        log_mel = torch.where(heard.unsqueeze(2), log_mel, self.extractor.padding_value)
        missing = self.extractor.window_frames - log_mel.shape[1]
        log_mel = nn.functional.pad(log_mel, (0, 0, 0, missing), value=self.extractor.padding_value)
        return (log_mel - self.extractor.mean) / self.extractor.scale, count


def fast_size(least: int) -> int:
    """Find the smallest size from `least` on that a Fourier transform likes: a product of twos, threes and fives."""
    size = least
    while not is_smooth(size):
        size += 1
    return size


def is_smooth(size: int) -> bool:
    """Tell whether a number has no prime factor above five."""
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    return size == 1
