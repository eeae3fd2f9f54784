"""Captions audio that never ends: windows are cut from blocks of any size; memory and time a window stay flat."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import soxr
import torch

from .audio_mac import read_blocks
from .audio_state_mac import AudioState
from .feature_extraction_mac import FRAME_LENGTH, FRAME_SHIFT


# Samples that the last frame of a window shares with the next window, with Kaldi's front end.
LOOK_AHEAD = FRAME_LENGTH - FRAME_SHIFT
MIN_SEGMENT_SECONDS = 0.5  # a shorter rest at the end of a clip belongs to the segment before it
CONTEXT = 1.0  # seconds before and after a place that are compared to tell whether the sound changes there
CHANGE = 0.4  # cosine distance above which it does; docs/listening.md tells how it was chosen


class CaptionStream:
    """
    Captions what it is given, window by window, for ever.

        stream = CaptionStream(captioner.model, captioner.processor)
        for segment in stream.over(blocks): ...

    A window's log-mel has the frames that it has in the whole recording, in blocks of any size. One thing differs: the
    mean that is taken off is that of the window and not of the whole clip, which moves quiet cells by rounding alone,
    since the front end takes each frame's own mean off as well.

    Args:
        model: MAC model.
        processor: Processor of the model.
        every: Seconds of a segment, or with `cut="change"` the most seconds.
        memory: "window": each caption speaks of its window; "recording": of all that was heard so far, which only a
            language model with a state of one size can do for ever.
        prompt: What to ask of each window; the processor's default if None.
        merge: Whether neighbouring segments that say the same become one. A segment then comes when the next differs.
        cut: "every": a segment ends after `every` seconds; "change": earlier, where the encoder's tokens change.
        generate_kwargs: Arguments of `generate`.

    Raises:
        ValueError: An argument is out of its range, or the language model's cache would grow without end.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        every: float = 10.24,
        memory: Literal["window", "recording"] = "window",
        prompt: str | None = None,
        merge: bool = True,
        cut: Literal["every", "change"] = "every",
        **generate_kwargs: Any,
    ):
        extractor = processor.feature_extractor
        if not 2 * CONTEXT <= every <= extractor.window_seconds:
            raise ValueError(f"`every` is {every}; expected {2 * CONTEXT:g} to {extractor.window_seconds:g} s.")
        if memory not in ("window", "recording") or cut not in ("every", "change"):
            raise ValueError(f"memory={memory!r}, cut={cut!r}; expected window or recording, every or change.")
        self.model, self.processor, self.extractor = model, processor, extractor
        self.memory, self.prompt, self.merge, self.cut = memory, prompt, merge, cut
        self.generate_kwargs = generate_kwargs
        self.rate = extractor.sampling_rate
        self.length = round(every * 100) * self.rate // 100  # samples of a segment, whole frames
        self.look_ahead = LOOK_AHEAD if extractor.front_end == "kaldi" else 0
        self.blocks = np.zeros(0, np.float32)  # what was not captioned yet
        self.begin = 0  # place of its first sample in the stream
        self.received = 0
        self.source_rate: float | None = None
        self.resampler: soxr.ResampleStream | None = None
        self.pending: dict[str, Any] | None = None  # with `merge`: a segment that may go on
        self.state = AudioState(model, processor, prompt) if memory == "recording" else None

    def over(self, blocks: Iterable[np.ndarray]) -> Iterator[dict[str, Any]]:
        """Caption blocks of samples as they come, and close at their end."""
        for block in blocks:
            yield from self.push(block)
        yield from self.close()

    def push(self, samples: Any, sampling_rate: float | None = None) -> list[dict[str, Any]]:
        """
        Hear more samples.

        Args:
            samples: The next samples, (samples,) floats in [-1, 1] or PCM integers of up to 32 bits, any number.
            sampling_rate: Their rate in Hz, 8,000 to 192,000 and the same for the whole stream; the model's if None.

        Returns:
            The segments that are complete now, each with `start` and `end` in seconds, and `caption`.

        Raises:
            ValueError: The samples have another shape or type, NaN, Inf or values far beyond [-1, 1], or another rate
                than those before.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise ValueError(f"samples of shape {samples.shape}; expected one axis, with the channels averaged.")
        if samples.dtype.kind == "f" and not np.isfinite(samples).all():
            where = self.received + int(np.argmin(np.isfinite(samples)))
            raise ValueError(f"the stream has NaN or Inf at sample {where}; expected numbers.")
        rate: Any = float(self.rate if sampling_rate is None else sampling_rate)
        for block in read_blocks(samples, rate, rate, "the stream") if len(samples) else ():  # checked, not resampled
            self.blocks = np.concatenate([self.blocks, self.resample(block, rate)])
        self.received += len(samples)
        return self.caption_complete()

    def resample(self, samples: np.ndarray, rate: float) -> np.ndarray:
        """Convert samples, (samples,), to the model's rate; a stream has one rate."""
        if self.source_rate is None:
            self.source_rate = rate
            if rate != self.rate:
                self.resampler = soxr.ResampleStream(rate, self.rate, 1, dtype="float32", quality="HQ")
        if rate != self.source_rate:
            raise ValueError(f"the rate changed from {self.source_rate:g} to {rate:g} Hz; a stream has one.")
        return samples if self.resampler is None else self.resampler.resample_chunk(samples)

    def close(self) -> list[dict[str, Any]]:
        """Caption what is left, and return the last segments. What is pushed later begins another one."""
        if self.resampler is not None:
            rest = self.resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            self.blocks = np.concatenate([self.blocks, rest])
        self.resampler = self.source_rate = None
        found: list[dict[str, Any]] = []
        shortest = MIN_SEGMENT_SECONDS * self.rate
        while len(self.blocks) >= shortest or (self.begin == 0 and len(self.blocks) >= FRAME_LENGTH):
            found += self.caption(self.find_cut(self.blocks[: self.length]))
        if self.pending is not None:
            self.pending["end"] = round((self.begin + len(self.blocks)) / self.rate, 3)
        self.begin, self.blocks = self.begin + len(self.blocks), self.blocks[:0]
        last, self.pending = self.pending, None
        return found + ([last] if last else [])

    def caption_complete(self) -> list[dict[str, Any]]:
        """Caption all segments whose samples and look-ahead are there."""
        found: list[dict[str, Any]] = []
        while len(self.blocks) >= self.length + self.look_ahead:
            found += self.caption(self.find_cut(self.blocks[: self.length]))
        return found

    def log_mel(self, end: int) -> torch.Tensor:
        """Compute the windows of the first `end` samples, (1, frames, mel bins)."""
        frames = self.extractor.raw_log_mel(self.blocks[: end + self.look_ahead])
        return self.extractor.to_windows(frames[: max(-(-end // FRAME_SHIFT), 1)])

    @torch.inference_mode()
    def find_cut(self, samples: np.ndarray) -> int:
        """Return how many of the samples the next segment takes: all, or with `cut="change"` up to a change."""
        if self.cut == "every":
            return len(samples)
        windows = self.log_mel(len(samples)).to(self.model.device, self.model.dtype)
        tokens = self.model.get_audio_features(windows, return_dict=True).last_hidden_state[0, 1:]
        rows, columns = self.model.config.audio_config.grid
        if len(tokens) != rows * columns:
            raise ValueError("the encoder prunes its tokens: a change of sound cannot be placed; use cut='every'.")
        step = self.extractor.window_seconds / rows  # seconds of a row of the grid
        used = round(len(samples) / self.rate / step)
        place = first_change(tokens.view(rows, columns, -1)[:used].mean(1).float().cpu(), round(CONTEXT / step))
        return len(samples) if place is None else round(place * step * 100) * self.rate // 100

    def caption(self, end: int) -> list[dict[str, Any]]:
        """Caption the first `end` samples and forget them."""
        windows = self.log_mel(end)
        if self.state is None:
            text = self.ask(windows)
        else:
            self.state.hear(windows.to(self.model.dtype), end / self.rate)
            check_bounded(self.state.cache)
            text = self.state.ask(**self.generate_kwargs)
        start, self.begin = self.begin, self.begin + end
        self.blocks = self.blocks[end:].copy()
        segment = {"start": round(start / self.rate, 3), "end": round(self.begin / self.rate, 3), "caption": text}
        if not self.merge:
            return [segment]
        *done, self.pending = merge_equal([self.pending, segment] if self.pending else [segment])
        return done

    def ask(self, windows: torch.Tensor) -> str:
        """Caption one window, (1, frames, mel bins), as a clip of its own."""
        inputs = {
            name: tensor.to(self.model.device) for name, tensor in self.processor.encode([1], self.prompt).items()
        }
        features = windows.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            output = self.model.generate(**inputs, input_features=features, **self.generate_kwargs)
        return self.processor.batch_decode(output[:, inputs["input_ids"].shape[1] :])[0]


def first_change(rows: torch.Tensor, context: int) -> int | None:
    """
    Find the first place where the encoder's rows change.

    Args:
        rows: Tokens of each time step, (time steps, width), averaged over frequency.
        context: Number of rows before and after a place that are averaged and compared.

    Returns:
        The row before which the sound changes: the place of the greatest cosine distance within `context` of the
        first that is above `CHANGE`; None if there is none.
    """
    if len(rows) < 2 * context + 1:
        return None
    means = rows.unfold(0, context, 1).mean(-1)  # (places, width)
    distance = 1 - torch.cosine_similarity(means[:-context], means[context:])
    above = (distance > CHANGE).nonzero()
    if not len(above):
        return None
    first = int(above[0])
    return context + first + int(distance[first : first + context].argmax())


def check_bounded(cache: Any) -> None:
    """Refuse a cache with keys and values, which grows with every window."""
    if any(getattr(layer, "keys", None) is not None for layer in cache.layers):
        raise ValueError(
            "memory='recording' needs a language model whose state has one size, such as Mamba-2; the keys and values "
            "of this one would grow without end. Use memory='window'."
        )


def merge_equal(segments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbouring segments (`start`, `end`, `caption`) that say the same and have no gap between them."""
    merged: list[dict[str, Any]] = []
    for segment in segments:
        if merged and merged[-1]["caption"] == segment["caption"] and merged[-1]["end"] >= segment["start"]:
            merged[-1] = merged[-1] | {"end": segment["end"]}
        else:
            merged.append(dict(segment))
    return merged


__all__ = ["CaptionStream", "merge_equal"]
