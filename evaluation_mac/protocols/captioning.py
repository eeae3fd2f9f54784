"""Captioning: a caption for every clip of a manifest, scored against its references."""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from evaluation_mac.metrics.bootstrap import bootstrap_intervals
from evaluation_mac.metrics.caption_scores import averaged
from evaluation_mac.metrics.naming import Naming, kind_of_scene
from evaluation_mac.metrics.scoring import METRICS, score_captions
from evaluation_mac.protocols.clap_refine import ClapRefine
from evaluation_mac.protocols.clip_records import Answer, Ask
from evaluation_mac.reports.evaluation import RESAMPLES, Evaluation
from processing_mac import AudioCaptioningPipeline
from processing_mac.captioning_mac import caption_files
from processing_mac.dataset_mac import Clip


def caption_asker(captioner: AudioCaptioningPipeline, batch_size: int, refine: ClapRefine | None = None) -> Ask:
    """
    Recordings -> each with `{"caption"}` or its error; with `refine` by CLAP-Refine, with what it chose from.

    A model that samples draws the same for the same batch of recordings.
    """

    def ask(files: list[str]) -> Iterator[tuple[str, Answer]]:
        torch.manual_seed(zlib.crc32("\n".join(files).encode("utf-8", "surrogateescape")))
        if refine is None:
            yield from caption_files(captioner, files, batch_size)
            return
        for file in files:
            try:
                yield file, refine.caption(captioner, file)
            except ValueError as error:
                yield file, error

    return ask


def evaluate_captions(
    clips: Sequence[Clip],
    captions: Sequence[str],
    sentence_encoder: str | None = None,
    naming: Naming | None = None,
) -> Evaluation:
    """
    All captioning metrics that can run here, with intervals, and whether a caption names its source.

    `naming_accuracy` is the share of captions that name the `source` of their clip and no other source of the
    collection; of a scene of two ("dog followed by rain", "dog while rain") it must name both and how they relate. It
    counts the clips whose sources are the collection's; where some are scenes, each sort is counted alone, too:
    `naming_accuracy_followed_by`, `naming_accuracy_while`, `naming_accuracy_in_order`, `naming_accuracy_general` (see
    `Naming.names`). "everyday" also says of speech and of music in what share of the clips that have it it is named,
    `noticed_speech`, and of those that have not, `claimed_speech`.

    Args:
        clips: Recordings with references and maybe sources.
        captions: Candidate caption of each clip.
        sentence_encoder: Folder or Hub name of the encoder for "sentence_similarity".
        naming: Words of the sources; None for no naming accuracy.
    """
    metrics = [name for name in METRICS if name != "sentence_similarity" or sentence_encoder]
    references = [clip.captions for clip in clips]
    result = score_captions(captions, references, metrics, sentence_encoder=sentence_encoder, resamples=RESAMPLES)
    rows = [
        {"audio": clip.audio, "caption": caption, "references": " | ".join(clip.captions), **scores}
        for clip, caption, scores in zip(clips, captions, result["per_caption"], strict=True)
    ]
    evaluation = Evaluation(result["corpus"], result["intervals"], rows, result["skipped"])
    if naming is not None and any(naming.is_scored(clip.source) for clip in clips):
        add_naming(evaluation, [clip.source for clip in clips], naming)
    return evaluation


def add_naming(evaluation: Evaluation, sources: Sequence[str | None], naming: Naming) -> None:
    """Add the naming accuracy, and a column for each clip."""
    known = [naming.is_scored(source) for source in sources]
    groups: dict[str, list[float]] = {"naming_accuracy": []}
    for row, source, is_known in zip(evaluation.clips, sources, known, strict=True):
        row["source"] = source or ""
        row["naming_accuracy"] = int(naming.names(row["caption"], str(source))) if is_known else ""
        if is_known:
            groups["naming_accuracy"].append(row["naming_accuracy"])
            if sort := kind_of_scene(str(source)):
                groups.setdefault(f"naming_accuracy_{sort}", []).append(row["naming_accuracy"])
            for kind in naming.noticed:
                is_there = any(kind in naming.all_of(one) for one in naming.kinds_of(str(source)))
                group = f"{'noticed' if is_there else 'claimed'}_{kind}"
                groups.setdefault(group, []).append(int(naming.mentions(row["caption"], kind)))
    for name, hits in groups.items():
        share = averaged(name, hits)
        evaluation.scores[name] = float(share.corpus()[0])
        evaluation.intervals |= bootstrap_intervals([share], RESAMPLES)
    missed = Counter(row["source"] for row in evaluation.clips if row["naming_accuracy"] == 0)
    evaluation.missed = dict(missed.most_common())
