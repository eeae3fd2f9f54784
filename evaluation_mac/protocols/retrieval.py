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
    """Every different reference. A sentence that several clips share is one query, which any of them answers."""
    return list(dict.fromkeys(text for clip in clips for text in clip.captions))


def evaluate_retrieval(clips: Sequence[Clip], texts: Sequence[str], losses: np.ndarray) -> Evaluation:
    """
    Recalls, mAP@10 and median rank, text to audio (`t2a_…`) and audio to text (`a2t_…`), with intervals over queries.

    Args:
        clips: Clips with their references.
        texts: Texts of `caption_texts`, possibly of more clips than these.
        losses: Loss of each text for each clip, (clips, texts), in nats per token.
    """
    relevant: np.ndarray = np.array([[text in clip.captions for text in texts] for clip in clips])
    of_these_clips = np.asarray(relevant.any(axis=0))
    losses, relevant = losses[:, of_these_clips], relevant[:, of_these_clips]
    answers = audio_to_text(losses)
    found = {"t2a": find_relevant(text_to_audio(losses), relevant.T), "a2t": find_relevant(answers, relevant)}
    scores: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, queries in found.items():
        scores |= {f"{name}_{key}": value for key, value in retrieval_scores(*queries).items()}
        intervals |= {f"{name}_{key}": interval for key, interval in resample(*queries).items()}
    kept = [text for text, is_kept in zip(texts, of_these_clips, strict=True) if is_kept]
    rows = [
        {"audio": clip.audio, "references": " | ".join(clip.captions), "a2t_rank": int(rank), "a2t_first": kept[first]}
        for clip, rank, first in zip(clips, found["a2t"][0], answers[:, 0], strict=True)
    ]
    return Evaluation(scores, intervals, rows, ranks={name: ranks.tolist() for name, (ranks, _) in found.items()})


def resample(ranks: np.ndarray, precisions: np.ndarray) -> dict[str, tuple[float, float]]:
    """Intervals over queries; what they search in stays as it is."""
    return weighted_intervals(lambda weights: retrieval_scores(ranks, precisions, weights), len(ranks), RESAMPLES)
