"""Transcribes speech of any length: overlapping windows are transcribed one by one and joined where they agree."""

import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np


SHORTEST = 400  # samples of a window: one frame of the front end


def transcribe(
    captioner: Any,
    audio: Any,
    sampling_rate: int | None = None,
    *,
    overlap: float = 0.2,
    batch_size: int = 8,
    max_new_tokens: int = 256,
    **kwargs: Any,
) -> str:
    """
    Write down what is said in one recording.

    A captioner reads all windows of a clip and answers once, which for an hour of speech would be one sentence.
    Therefore each window is a clip of its own here. It begins before the last one ends, so that a word that is cut at
    the border of one window is whole in the other.

    Args:
        captioner: Pipeline of a model that was trained to transcribe.
        audio: One clip, in any form that `MacFeatureExtractor.load` takes.
        sampling_rate: Rate in Hz of a bare array.
        overlap: Share of a window that the next one hears again, from 0 to below 1.
        batch_size: Number of windows in a batch.
        max_new_tokens: Greatest number of tokens in a window's text.
        kwargs: Further arguments of the pipeline's call, such as `prompt` and `num_beams`.

    Raises:
        ValueError: The overlap is outside of its range, or the audio cannot be read.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"`overlap` is {overlap}; expected a share, from 0 to below 1.")
    extractor = captioner.processor.feature_extractor
    waveforms = extractor.load(audio, sampling_rate)
    if len(waveforms) != 1:
        raise ValueError(f"Expected one clip, got a list of {len(waveforms)}.")
    windows = cut(waveforms[0], round(extractor.window_seconds * extractor.sampling_rate), overlap)
    kwargs |= {"sampling_rate": extractor.sampling_rate, "max_new_tokens": max_new_tokens}
    answers = captioner(windows, batch_size=batch_size, **kwargs)
    return join_transcripts([answer[0]["caption"] for answer in answers], overlap)


def cut(waveform: np.ndarray, length: int, overlap: float) -> list[np.ndarray]:
    """
    Cut a waveform, (samples,), into overlapping windows.

    Args:
        waveform: Samples of the clip.
        length: Number of samples in a window; the last window may be shorter.
        overlap: Share of a window that the next one holds again.
    """
    step = max(1, round(length * (1 - overlap)))
    starts = range(0, max(len(waveform) - round(length * overlap), 1), step)
    windows = [waveform[start : start + length] for start in starts]
    return [window for window in windows if len(window) >= SHORTEST or len(windows) == 1]


def join_transcripts(texts: Sequence[str], overlap: float) -> str:
    """
    Join the texts of overlapping windows.

    Among the words that the overlap can hold, the longest run that both texts share is found. The result goes from one
    text to the other in the middle of this run, where both heard the words whole. Without such a run one text simply
    follows the other.
    """
    joined: list[str] = []
    for text in texts:
        words = text.split()
        reach = math.ceil(2 * overlap * len(words))  # twice the even share, since speech is faster at some places
        tail = [bare(word) for word in joined[max(len(joined) - reach, 0) :]]
        head = [bare(word) for word in words[:reach]]
        match = SequenceMatcher(None, tail, head, autojunk=False).find_longest_match()
        if match.size:
            middle = match.size // 2
            end = len(joined) - len(tail) + match.a + middle
            joined = joined[:end] + words[match.b + middle :]
        else:
            joined += words
    return " ".join(joined)


def bare(word: str) -> str:
    """Return a word in lower case and without punctuation, which depend on its place in a sentence."""
    return word.strip(".,;:!?\"'").lower()


__all__ = ["join_transcripts", "transcribe"]
