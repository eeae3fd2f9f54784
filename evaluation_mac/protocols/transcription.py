"""Transcription: what is said in every clip of a manifest, with its word and character error rates."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation_mac.metrics.bootstrap import bootstrap_intervals
from evaluation_mac.metrics.word_errors import word_errors
from evaluation_mac.protocols.clip_records import Answer, Ask
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation
from processing_mac import AudioCaptioningPipeline
from processing_mac.dataset_mac import Clip
from processing_mac.transcribing_mac import transcribe


PROMPT = "Transcribe the speech."


def transcript_asker(captioner: AudioCaptioningPipeline, **options: Any) -> Ask:
    """Recordings -> each with `{"caption"}`, its transcript, or its error; `options` are those of `transcribe`."""

    def ask(files: list[str]) -> Iterator[tuple[str, Answer]]:
        for file in files:
            try:
                yield file, {"caption": transcribe(captioner, file, **options)}
            except ValueError as error:
                yield file, error

    return ask


def evaluate_transcripts(
    clips: Sequence[Clip], transcripts: Sequence[str], spellings: Path | None = None
) -> Evaluation:
    """
    Word and character error rates with intervals.

    Args:
        clips: Clips, each with one caption, which is what is said.
        transcripts: Transcript of each clip.
        spellings: File of spellings that `word_errors` takes as equal; None for none.

    Raises:
        ValueError: A clip has several captions, or one that says nothing.
    """
    for clip in clips:
        if len(clip.captions) != 1:
            raise ValueError(f"{clip.audio} has {len(clip.captions)} captions; a transcript has one reference.")
    references = [clip.captions[0] for clip in clips]
    scores = word_errors(transcripts, references, spellings)
    rows = [
        {"audio": clip.audio, "transcript": transcript, "reference": reference, "wer": float(wer), "cer": float(cer)}
        for clip, transcript, reference, (wer, cer) in zip(
            clips, transcripts, references, scores.per_caption(), strict=True
        )
    ]
    corpus = dict(zip(scores.names, scores.corpus().tolist(), strict=True))
    return Evaluation(corpus, bootstrap_intervals([scores], RESAMPLES), rows)
