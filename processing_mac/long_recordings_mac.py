"""
Captions recordings of any length window by window, in memory that does not grow with their length.

A part is decoded, captioned and forgotten before the next one is. The one caption of such a recording is made of what
its windows say, since a model that was trained on single windows does not know what several of them mean. Up to how
many windows a model was trained on stands in its processor (`trained_windows`); so many it hears at once.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from .audio_mac import TooLongError, load_waveform, read_blocks
from .decoding_mac import stated_seconds
from .feature_extraction_mac import FRAME_LENGTH, FRAME_SHIFT
from .listening_mac import MIN_SEGMENT_SECONDS
from .pipeline_mac import AudioCaptioningPipeline
from .web_addresses_mac import hide_password


BLOCK_WINDOWS = 6  # about a minute of sound is held and captioned at a time


class Window(NamedTuple):
    """A window of a recording: its start and end in seconds, and its waveform, (samples,)."""

    start: float
    end: float
    waveform: np.ndarray


def load_short(extractor: Any, windows: int, file: str) -> np.ndarray:
    """
    Load the waveform, (samples,), of a recording of at most so many windows.

    Raises:
        TooLongError: It is longer, or it is a pipe, which can be read only once; `caption_windows` takes these.
        ValueError: It cannot be read.
    """
    if os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file):
        raise TooLongError(f"{file}: of unknown length")
    return load_waveform(
        file,
        target_rate=extractor.sampling_rate,
        url_limits=extractor.url_limits,
        max_seconds=windows * extractor.window_seconds,
    )


def caption_windows(
    captioner: AudioCaptioningPipeline, audio: Any, prompt: str | None = None, known: Sequence[dict[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """
    Caption each window of a recording as soon as it is decoded.

    The captions are those of the pipeline's `return_segments=True`, but for the mean of the whole recording, which is
    not known before its end; it is taken from each frame in any case, so that only rounding differs.

    Args:
        captioner: Pipeline that writes the captions.
        audio: Path or address of the recording, or whatever else `read_blocks` takes.
        prompt: Prompt of every window; the pipeline's own if None.
        known: Its first segments, a multiple of `BLOCK_WINDOWS`, from an earlier run; these parts are only decoded.

    Yields:
        The other segments with `start` and `end` in seconds and `caption`, in order.

    Raises:
        ValueError: The recording cannot be read, which may show only after some segments.
    """
    rate = captioner.feature_extractor.sampling_rate
    for windows, _ in read_windows(captioner.feature_extractor, audio, len(known)):
        clips = [{"array": window.waveform, "sampling_rate": rate} for window in windows]
        results = captioner(clips, batch_size=len(clips), prompt=prompt, return_segments=False)
        for window, [result] in zip(windows, results, strict=True):
            yield {"start": window.start, "end": window.end, "caption": result["caption"]}


def read_windows(extractor: Any, audio: Any, known: int = 0) -> Iterator[tuple[list[Window], bool]]:
    """
    Read a recording of any length a few windows at a time.

    Args:
        extractor: Feature extractor of the model.
        audio: Path or address of the recording, or whatever else `read_blocks` takes.
        known: Number of its first windows, a multiple of `BLOCK_WINDOWS`, that are decoded but not given.

    Yields:
        At most `BLOCK_WINDOWS` windows, in order, and whether they are the last.

    Raises:
        ValueError: The recording cannot be read, which may show only after some windows.
    """
    rate = extractor.sampling_rate
    size = round(extractor.window_seconds * rate)
    shortest = round(MIN_SEGMENT_SECONDS * rate)
    start = 0  # sample at which the windows that follow begin
    for part, is_last in cut_parts(read_blocks(audio, None, rate, "", extractor.url_limits), size, shortest):
        starts = list(range(0, len(part) if is_last else BLOCK_WINDOWS * size, size))
        if is_last:  # a short rest belongs to the window before it
            starts = starts[:1] + [begin for begin in starts[1:] if len(part) - begin >= shortest]
            if len(part) < FRAME_LENGTH and start == 0:
                name = hide_password(audio) if isinstance(audio, str) else "audio"
                raise ValueError(
                    f"{name}: {len(part)} samples at {rate} Hz; expected at least {FRAME_LENGTH} (25 ms)."
                )
        if start + starts[-1] < known * size:
            start += BLOCK_WINDOWS * size
            continue
        ends = [*starts[1:], len(part) if is_last else BLOCK_WINDOWS * size]
        reach = size + FRAME_LENGTH - FRAME_SHIFT  # the last frame of a window reaches beyond its end
        yield (
            [
                Window(round((start + begin) / rate, 3), round((start + end) / rate, 3), part[begin : begin + reach])
                for begin, end in zip(starts, ends, strict=True)
            ],
            is_last,
        )
        start += BLOCK_WINDOWS * size


def cut_parts(blocks: Iterable[np.ndarray], size: int, shortest: int) -> Iterator[tuple[np.ndarray, bool]]:
    """
    Cut blocks of sound into parts of `BLOCK_WINDOWS` windows of `size` samples.

    Yields:
        Each part, (samples,), with what follows it already, and whether it is the last. What follows a part that is
        not the last has at least `shortest` samples, so that it is worth a window of its own.
    """
    step = BLOCK_WINDOWS * size
    held: list[np.ndarray] = []
    samples = 0
    for block in blocks:
        held.append(block)
        samples += len(block)
        while samples >= step + shortest:
            whole = np.concatenate(held)
            yield whole, False
            held, samples = [whole[step:].copy()], samples - step
    yield np.concatenate(held) if held else np.zeros(0, np.float32), True


def caption_long_file(
    captioner: AudioCaptioningPipeline, file: str, show: Any = None, known: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """
    Caption a long recording with a bar that counts minutes of sound, if standard error is a terminal.

    Args:
        captioner: Pipeline that writes the captions.
        file: Path or address of the recording.
        show: Called with each segment as soon as it is there; None for nobody.
        known: First segments of the recording, as `caption_windows` takes them.

    Returns:
        `caption`, what is heard in order, and `segments`.

    Raises:
        ValueError: The recording cannot be read.
    """
    seconds = stated_seconds(file) if os.path.isfile(file) else None
    segments = list(known)
    bar = "{desc} {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} min [{elapsed}<{remaining}]"
    heard = known[-1]["end"] / 60 if known else 0.0
    with tqdm(
        total=seconds and seconds / 60, initial=heard, desc=os.path.basename(file)[:40], unit="min", disable=None,
        leave=False, bar_format=bar if seconds else "{desc} {n:.1f} min [{elapsed}]",
    ) as minutes:  # fmt: skip
        for segment in caption_windows(captioner, file, known=known):
            segments.append(segment)
            if show is not None:
                show(segment)
            minutes.update((segment["end"] - segment["start"]) / 60)
    return {"caption": join_captions([segment["caption"] for segment in segments]), "segments": segments}


def join_captions(captions: Iterable[str]) -> str:
    """Make one caption of those of windows: each thing that is heard once, in the order in which it is first heard."""
    return "; ".join(dict.fromkeys(filter(None, (caption.strip() for caption in captions))))


__all__ = ["Window", "caption_long_file", "caption_windows", "join_captions", "load_short", "read_windows"]
