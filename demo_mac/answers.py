"""The answers to the page's buttons: a file and texts go in, and captions, pictures and probabilities come out."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from evaluation_mac.protocols.likelihood import score_by_likelihood, tokenize_captions
from processing_mac import AudioCaptioningPipeline, MacFeatureExtractor
from processing_mac.audio_mac import TooLongError
from processing_mac.cli_mac import NOTHING_SAID
from processing_mac.decoding_mac import losses_kept
from processing_mac.listening_mac import merge_equal
from processing_mac.long_recordings_mac import caption_windows, join_captions, read_windows

from .limits import clock, decodable_seconds


MAX_LABELS = 100  # labels that are ranked at once
MAX_CHARACTERS = 500  # longest prompt or label that the page takes


class Description(NamedTuple):
    """What the model makes of a recording."""

    caption: str
    segments: list[dict[str, Any]]  # `start` and `end` in seconds and `caption`; neighbours that say the same are one
    waveform: np.ndarray  # what it heard, (samples,) at its rate
    losses: list[str]  # what of the recording is missing or broken, in words


def describe(captioner: AudioCaptioningPipeline, path: str | None, prompt: str = "") -> Description:
    """
    Caption a recording. The caption of one longer than a window is made of what its windows say, in order.

    Args:
        captioner: Pipeline of the model.
        path: Path of the recording; None if there is none yet.
        prompt: Question to the model; the processor's default if blank.

    Raises:
        ValueError: There is no recording, it cannot be read, is too short or too long, or the prompt is wrong; the
            message is in the words of the page's user.
    """
    with losses_kept() as losses:
        waveform = load_recording(captioner, path)
    losses = [hide_folder(loss, path) for loss in losses]
    clip = {"array": waveform, "sampling_rate": captioner.processor.feature_extractor.sampling_rate}
    segments = merge_equal(caption_windows(captioner, clip, check_prompt(prompt)))
    caption = join_captions(segment["caption"] for segment in segments)
    return Description(caption or f"({NOTHING_SAID})", segments, waveform, losses)


def rank_labels(
    captioner: AudioCaptioningPipeline, path: str | None, prompt: str = "", labels: str = ""
) -> dict[str, float]:
    """
    Compute how probable each label is, if exactly one of them is what the model would say.

    A label is scored as a caption, as it is written: the probability of all its tokens and of the end, given recording
    and prompt, normalised to a sum of 1. (`mac-eval classification --by likelihood` compares losses with those of
    other clips, which a page does not have.) Of a recording with more windows than the model was trained on, each
    window is asked by itself, and the probabilities are the mean over its time.

    Args:
        captioner, path, prompt: Arguments with the meaning that they have in `describe`.
        labels: Labels, one a line.

    Raises:
        ValueError: The input is wrong as in `describe`, or the labels are fewer than two, too many or too long.
    """
    names = read_labels(labels)
    waveform = load_recording(captioner, path)
    processor, question = captioner.processor, check_prompt(prompt)
    extractor = processor.feature_extractor
    lengths = np.array([len(token_ids) for token_ids in tokenize_captions(processor, names)])
    shares, seconds = [], []
    for duration, clip in cut_for_ranking(waveform, extractor, processor.trained_windows):
        audio = {"array": clip, "sampling_rate": extractor.sampling_rate}
        losses = score_by_likelihood(captioner.model, processor, audio, names, prompt=question)[0]
        log_probability = -losses.double().numpy() * lengths  # each loss is a mean over tokens
        weights = np.exp(log_probability - log_probability.max())
        shares.append(weights / weights.sum())
        seconds.append(duration)
    return dict(zip(names, np.average(shares, axis=0, weights=seconds).tolist(), strict=True))


def cut_for_ranking(
    waveform: np.ndarray, extractor: MacFeatureExtractor, trained_windows: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Give the seconds and the samples, (samples,), of what the model hears at once: the whole, or each window."""
    rate = extractor.sampling_rate
    if len(waveform) <= round(trained_windows * extractor.window_seconds * rate):
        yield len(waveform) / rate, waveform
        return
    for windows, _ in read_windows(extractor, {"array": waveform, "sampling_rate": rate}):
        for window in windows:
            yield window.end - window.start, window.waveform


def load_recording(captioner: AudioCaptioningPipeline, path: str | None) -> np.ndarray:
    """Load (samples,) float32 at the model's rate; a ValueError shows no folder of the server."""
    if not path:
        raise ValueError("There is no sound yet. Open a file, record one, or choose an example.")
    name = Path(path).name
    seconds = decodable_seconds(path, name)
    try:
        [waveform] = captioner.processor.feature_extractor.load(path, max_seconds=seconds)
    except TooLongError:
        raise ValueError(f"{name}: longer than {clock(seconds)}, which is the most that this page takes.") from None
    except ValueError as error:
        raise ValueError(hide_folder(str(error), path)) from None
    return waveform


def hide_folder(text: str, path: str | None) -> str:
    """Take the folder of a file out of a text: folders of the server are nobody's business."""
    return text.replace(f"{Path(path or '').parent}/", "")


def encode_flac(waveform: np.ndarray, rate: int) -> bytes:
    """Encode samples in [-1, 1], (samples,), in a form that every browser plays and finds its way in."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def check_prompt(prompt: str | None) -> str | None:
    """Check a prompt and give it, or None for the processor's default."""
    prompt = (prompt or "").strip()
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(f"The prompt has {len(prompt)} characters; this page takes up to {MAX_CHARACTERS}.")
    return prompt or None


def read_labels(text: str | None) -> list[str]:
    """Read the labels of a text box, one a line, each once."""
    labels = list(dict.fromkeys(" ".join(line.split()) for line in (text or "").splitlines() if line.strip()))
    if not 2 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"Expected 2 to {MAX_LABELS} different labels, one a line; got {len(labels)}.")
    if too_long := [label for label in labels if len(label) > MAX_CHARACTERS]:
        raise ValueError(f"A label has {len(too_long[0])} characters; this page takes up to {MAX_CHARACTERS}.")
    return labels
