"""A captioner as a retriever, in both directions, by the likelihood of captions (Labbé et al., DCASE 2023)."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from evaluation_mac.metrics.bootstrap import weighted_intervals
from evaluation_mac.metrics.retrieval_scores import audio_to_text, find_relevant, retrieval_scores, text_to_audio
from evaluation_mac.protocols.clip_records import Answer, Ask
from evaluation_mac.protocols.likelihood import score_by_likelihood
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation
from processing_mac import AudioCaptioningPipeline
from processing_mac.dataset_mac import Clip


def likelihood_asker(captioner: AudioCaptioningPipeline, texts: Sequence[str], prompt: str | None = None) -> Ask:
    """Recordings -> each with `{"losses"}` of the texts, or its error."""

    def ask(files: list[str]) -> Iterator[tuple[str, Answer]]:
        for file in files:
            try:
                losses = score_by_likelihood(captioner.model, captioner.processor, file, texts, prompt=prompt)
            except ValueError as error:
                yield file, error
            else:
                yield file, {"losses": losses[0].tolist()}

    return ask


def read_losses(records: Sequence[dict[str, str]]) -> np.ndarray:
    """(clips, texts) losses out of records."""
    return np.array([json.loads(record["losses"]) for record in records])


def caption_texts(clips: Sequence[Clip]) -> list[str]:
    """Every different reference, which is scored once."""
    return list(dict.fromkeys(text for clip in clips for text in clip.captions))


def caption_rows(clips: Sequence[Clip]) -> tuple[list[str], np.ndarray]:
    """Every caption of every clip, and whose it is, (clips, captions): only its own clip answers it."""
    texts = [text for clip in clips for text in clip.captions]
    owners = np.repeat(np.arange(len(clips)), [len(clip.captions) for clip in clips])
    return texts, owners == np.arange(len(clips))[:, None]


def caption_sentences(clips: Sequence[Clip]) -> tuple[list[str], np.ndarray]:
    """Every different caption, and whose it is, (clips, captions): any of its clips answers it."""
    texts = caption_texts(clips)
    return texts, np.array([[text in clip.captions for text in texts] for clip in clips])


RETRIEVAL_PROTOCOLS = {"rows": caption_rows, "sentences": caption_sentences}


def evaluate_retrieval(
    clips: Sequence[Clip], texts: Sequence[str], losses: np.ndarray, protocol: str = "rows"
) -> Evaluation:
    """
    Recalls, mAP@10 and median rank, text to audio (`t2a_…`) and audio to text (`a2t_…`), with intervals over queries.

    Args:
        clips: Clips with their references.
        texts: Texts of `caption_texts`, possibly of more clips than these.
        losses: Loss of each text for each clip, (clips, texts), in nats per token.
        protocol: What is a query, one of `RETRIEVAL_PROTOCOLS`: "rows" as Labbé et al. count (AudioCaps' 4,875), or
            "sentences".
    """
    kept, relevant = RETRIEVAL_PROTOCOLS[protocol](clips)
    column = {text: place for place, text in enumerate(texts)}
    losses = losses[:, [column[text] for text in kept]]
    answers = audio_to_text(losses)
    found = {"t2a": find_relevant(text_to_audio(losses), relevant.T), "a2t": find_relevant(answers, relevant)}
    scores: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, queries in found.items():
        scores |= {f"{name}_{key}": value for key, value in retrieval_scores(*queries).items()}
        intervals |= {f"{name}_{key}": interval for key, interval in resample(*queries).items()}
    rows = [
        {"audio": clip.audio, "references": " | ".join(clip.captions), "a2t_rank": int(rank), "a2t_first": kept[first]}
        for clip, rank, first in zip(clips, found["a2t"][0], answers[:, 0], strict=True)
    ]
    return Evaluation(scores, intervals, rows, ranks={name: ranks.tolist() for name, (ranks, _) in found.items()})


def resample(ranks: np.ndarray, precisions: np.ndarray) -> dict[str, tuple[float, float]]:
    """Intervals over queries; what they search in stays as it is."""
    return weighted_intervals(lambda weights: retrieval_scores(ranks, precisions, weights), len(ranks), RESAMPLES)
