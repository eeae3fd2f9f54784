"""Files -> their segments with captions and states: short files in batches, long ones window by window."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from processing_mac.audio_mac import TooLongError
from processing_mac.long_recordings_mac import Window, load_short, read_windows
from processing_mac.reading_ahead_mac import read_in_batches, warnings_of_decoding_printed

from .index_states import StateReader, States


@dataclass(frozen=True)
class Segment:
    """
    What was heard in one window of a file.

    Args:
        start, end: Where it lies in the file, in seconds.
        caption: What the model says of it.
        loss: Mean cross-entropy of the caption, in nats a token: low where the model is sure.
        is_last: Whether it is the last of its file.
        state: State after it, (1, …).
    """

    start: float
    end: float
    caption: str
    loss: float
    is_last: bool
    state: States


def hear_files(
    reader: StateReader, files: Sequence[str], batch_size: int, num_beams: int | None = None
) -> Iterator[tuple[str, Segment | ValueError]]:
    """
    Hear files, while the next ones are decoded in threads.

    Args:
        reader: Model.
        files: Paths of the recordings.
        batch_size: Recordings of one window in a batch.
        num_beams: Beams of the search for captions; what the model ships with if None.

    Yields:
        Each segment with its file, or the error why a file cannot be read, which may come after some segments. Files
        may come in another order; the segments of each come in theirs.
    """
    extractor = reader.captioner.feature_extractor
    load, rate = partial(load_short, extractor, 1), extractor.sampling_rate
    with warnings_of_decoding_printed(sys.stderr):
        for batch in read_in_batches(load, files, batch_size, rate):
            if isinstance(batch, list):
                windows = [Window(0.0, round(len(clip.waveform) / rate, 3), clip.waveform) for clip in batch]
                heard = hear_windows(reader, windows, [True] * len(windows), num_beams)
                yield from zip((clip.file for clip in batch), heard, strict=True)
            elif isinstance(batch[1], TooLongError):
                yield from hear_long_file(reader, files[batch[0]], num_beams)
            else:
                yield files[batch[0]], batch[1]


def hear_long_file(
    reader: StateReader, file: str, num_beams: int | None
) -> Iterator[tuple[str, Segment | ValueError]]:
    """Hear a file of any length in memory that does not grow with it."""
    try:
        for windows, is_last in read_windows(reader.captioner.feature_extractor, file):
            ends = [False] * (len(windows) - 1) + [is_last]
            yield from ((file, segment) for segment in hear_windows(reader, windows, ends, num_beams))
    except ValueError as error:
        yield file, error


def hear_windows(
    reader: StateReader, windows: Sequence[Window], ends: Sequence[bool], num_beams: int | None
) -> list[Segment]:
    """Hear windows in one batch; `ends` tells for each whether its file ends with it."""
    extractor = reader.captioner.feature_extractor
    features = extractor([window.waveform for window in windows], extractor.sampling_rate)["input_features"]
    captions, losses, states = reader.hear(features, num_beams)
    return [
        Segment(
            window.start,
            window.end,
            caption,
            loss,
            is_last,
            {name: tensor[row : row + 1] for name, tensor in states.items()},
        )
        for row, (window, caption, loss, is_last) in enumerate(
            zip(windows, captions, losses.tolist(), ends, strict=True)
        )
    ]
