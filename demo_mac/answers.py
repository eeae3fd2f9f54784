"""What runs when a button is pressed: a file and texts in, captions, pictures and probabilities out."""

from pathlib import Path

import numpy as np

from evaluation_mac.protocols.likelihood import score_by_likelihood, tokenize_captions
from processing_mac import AudioCaptioningPipeline
from processing_mac.cli_mac import NOTHING_SAID

from .pictures import draw_recording


MAX_SECONDS = 600  # of a recording
MAX_LABELS = 100
MAX_CHARACTERS = 500  # of a prompt or a label


def describe(captioner: AudioCaptioningPipeline, path: str | None, prompt: str = "") -> tuple[str, str]:
    """
    Caption a recording and draw it.

    Args:
        captioner: makes segments (`return_segments=True`).
        path: of the recording; None if there is none yet.
        prompt: what to ask; the processor's default if blank.

    Returns:
        The caption, or in brackets that there is none, and HTML with waveform, log-mel and, of more than one window,
            the segments' captions.

    Raises:
        ValueError: no recording or one that cannot be read, too short or too long, or a wrong prompt; in the words of
            the page's user.
    """
    waveform = load_recording(captioner, path)
    extractor = captioner.processor.feature_extractor
    clip = {"array": waveform, "sampling_rate": extractor.sampling_rate}
    [result] = captioner(clip, prompt=check_prompt(prompt), return_segments=True)
    picture = draw_recording(waveform, extractor, result["segments"])
    return result["caption"].strip() or f"({NOTHING_SAID})", picture


def rank_labels(
    captioner: AudioCaptioningPipeline, path: str | None, prompt: str = "", labels: str = ""
) -> dict[str, float]:
    """
    How probable each label is, if exactly one of them is what the model would say.

    A label is scored as a caption, as written: the probability of all its tokens and of the end, given recording and
    prompt, brought to a sum of 1. (`mac-eval classification --by likelihood` compares losses with those of other
    clips; a page has none.)

    Args:
        captioner, path, prompt: as in `describe`.
        labels: one a line.

    Raises:
        ValueError: as in `describe`; fewer than two labels, or too many or too long ones.
    """
    names = read_labels(labels)
    waveform = load_recording(captioner, path)
    losses = score_by_likelihood(
        captioner.model,
        captioner.processor,
        {"array": waveform, "sampling_rate": captioner.processor.feature_extractor.sampling_rate},
        names,
        prompt=check_prompt(prompt),
    )[0]
    lengths = [len(token_ids) for token_ids in tokenize_captions(captioner.processor, names)]
    log_probability = -losses.double().numpy() * np.array(lengths)  # a loss is a mean over tokens
    weights = np.exp(log_probability - log_probability.max())
    return dict(zip(names, (weights / weights.sum()).tolist(), strict=True))


def load_recording(captioner: AudioCaptioningPipeline, path: str | None) -> np.ndarray:
    """(samples,) float32 at the model's rate, or a ValueError that shows no folder of the server."""
    if not path:
        raise ValueError("There is no sound yet. Open a file, record one, or choose an example.")
    extractor = captioner.processor.feature_extractor
    try:
        [waveform] = extractor.load(path, max_seconds=MAX_SECONDS)
    except ValueError as error:
        raise ValueError(str(error).replace(f"{Path(path).parent}/", "")) from None
    return waveform


def check_prompt(prompt: str | None) -> str | None:
    """A prompt, or None for the processor's default."""
    prompt = (prompt or "").strip()
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(f"The prompt has {len(prompt)} characters; this page takes up to {MAX_CHARACTERS}.")
    return prompt or None


def read_labels(text: str | None) -> list[str]:
    """The labels of a text box, one a line, each once."""
    labels = list(dict.fromkeys(" ".join(line.split()) for line in (text or "").splitlines() if line.strip()))
    if not 2 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"Expected 2 to {MAX_LABELS} different labels, one a line; got {len(labels)}.")
    if too_long := [label for label in labels if len(label) > MAX_CHARACTERS]:
        raise ValueError(f"A label has {len(too_long[0])} characters; this page takes up to {MAX_CHARACTERS}.")
    return labels
