"""Validation as users use the model: caption recordings from the prompt alone, and compare with all references."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from evaluation_mac import score_captions
from evaluation_mac.metrics.naming import Naming
from evaluation_mac.metrics.word_errors import word_errors
from processing_mac.dataset_mac import Clip


ERROR_RATES = ("wer", "cer")  # less is better, so `metric_for_best_model` needs `greater_is_better`
SHOWN = 5  # captions that stand below each evaluation beside their references


@torch.no_grad()
def caption_clips(trainer: Any, clips: Sequence[Clip]) -> tuple[list[str], float]:
    """
    Caption the clips on all processes.

    Args:
        trainer: Trainer whose model, processor and batch size are used.
        clips: Clips with the recordings and their references.

    Returns:
        On every process: a caption for each clip, and the mean cross-entropy (nats) of the first references' tokens.
    """
    accelerator, processor = trainer.accelerator, trainer.processing_class
    # FSDP gathers a layer's weights in the wrapper's forward; the other strategies hold them all.
    model = trainer.model if trainer.is_fsdp_enabled else accelerator.unwrap_model(trainer.model)
    was_training = model.training
    model.eval()
    rows = rows_of_process(len(clips), accelerator.num_processes, accelerator.process_index)
    size = trainer.args.per_device_eval_batch_size
    captions: list[tuple[int, str]] = []
    totals = torch.zeros(2, dtype=torch.float64)  # summed loss and number of tokens
    for start in trainer.console.validating(range(0, len(rows), size)):
        batch = rows[start : start + size]
        counted = sum(row < len(clips) for row in batch)
        generated, sums = caption_batch(model, processor, [clips[row % len(clips)] for row in batch], counted)
        captions += zip(batch[:counted], generated, strict=False)
        totals += torch.tensor(sums, dtype=torch.float64)
    model.train(was_training)
    by_row = dict(gather_object(captions))
    totals = torch.tensor(gather_object([totals.tolist()]), dtype=torch.float64).sum(0)
    return [by_row[row] for row in range(len(clips))], float(totals[0] / totals[1])


def rows_of_process(count: int, processes: int, index: int) -> list[int]:
    """Choose every `processes`-th row; a last one beyond the end repeats a clip, to keep step with other processes."""
    return list(range(index, -(-count // processes) * processes, processes))


def caption_batch(
    model: Any, processor: Any, clips: Sequence[Clip], counted: int
) -> tuple[list[str], tuple[float, int]]:
    """Caption a few clips; also give summed cross-entropy and token count of the first `counted` clips' references."""
    features = processor.feature_extractor([clip.audio for clip in clips])
    counts = features["audio_num_windows"].tolist()
    audio = {name: tensor.to(model.device) for name, tensor in features.items()}
    questions = [getattr(clip, "prompt", None) or processor.default_prompt for clip in clips]
    prompt = {name: tensor.to(model.device) for name, tensor in processor.encode(counts, questions).items()}
    generated = model.generate(**prompt, **audio)
    captions = processor.batch_decode(generated[:, prompt["input_ids"].shape[1] :])
    answers = processor.encode(counts, questions, [clip.captions[0] for clip in clips])
    answers["labels"][counted:] = -100
    tokens = int((answers["labels"] != -100).sum())
    loss = model(**{name: tensor.to(model.device) for name, tensor in answers.items()}, **audio).loss
    return captions, (float(loss) * tokens if tokens else 0.0, tokens)  # the mean over no tokens is not a number


def score(
    clips: Sequence[Clip], captions: Sequence[str], metrics: Sequence[str], naming: Naming | None = None
) -> dict[str, float]:
    """
    Compute the metrics over all references and, by the words of `naming`, the share that name their source.

    Raises:
        ValueError: A metric cannot run here; the message says what it needs.
    """
    of_captions = [name for name in metrics if name not in ERROR_RATES]
    result = score_captions(captions, [list(clip.captions) for clip in clips], of_captions)
    if result["skipped"]:
        raise ValueError(f"`eval_metrics`: {'; '.join(f'{name}: {why}' for name, why in result['skipped'].items())}.")
    scores = dict(result["corpus"])
    if len(of_captions) < len(metrics):
        rates = word_errors(captions, [clip.captions[0] for clip in clips])
        scores |= {
            name: rate for name, rate in zip(rates.names, rates.corpus().tolist(), strict=True) if name in metrics
        }
    pairs = zip(captions, (clip.source for clip in clips), strict=True)
    named = [(caption, source) for caption, source in pairs if naming is not None and naming.is_scored(source)]
    if named and naming is not None:
        scores["naming_accuracy"] = naming.accuracy(*zip(*named, strict=True))
    return scores


def beside_references(clips: Sequence[Clip], captions: Sequence[str]) -> list[str]:
    """Write a few captions beside a reference each, always of the same clips."""
    pairs = list(zip(clips, captions, strict=True))
    chosen = pairs[:: max(1, -(-len(pairs) // SHOWN))]
    return [f"{'':22}{caption!r}  for  {clip.captions[0]!r}" for clip, caption in chosen]
