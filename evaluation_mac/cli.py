"""
`mac-eval`: how good a captioner is, in figures.

    mac-eval captioning --model model_cards/mac-small --data validation.csv --output results/captioning
    mac-eval classification --model model_cards/mac-small --data check.csv --output results/classes --by likelihood
    mac-eval classification --model mac-130m --dataset esc50 --audio-root ESC-50 --protocol sam --output esc50
    accelerate launch -m evaluation_mac.cli retrieval --model mac-130m --data clotho.csv --output results/retrieval

The same command again continues where it stopped.
"""

import argparse
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from evaluation_mac.datasets.labelled_clips import LabelledClip, label_names, name_labels
from evaluation_mac.datasets.published import DATASETS, find_dataset
from evaluation_mac.datasets.reading import full_labels, merge_rows, read_data, refuse_twice
from evaluation_mac.metrics.naming import Naming, load_naming
from evaluation_mac.metrics.text_encoder import load_encoder
from evaluation_mac.options import build_parser
from evaluation_mac.protocols.captioning import evaluate_captions
from evaluation_mac.protocols.clap_refine import Clap, ClapRefine
from evaluation_mac.protocols.classification import evaluate_classes, similarity_by_likelihood
from evaluation_mac.protocols.clip_records import keep_settings
from evaluation_mac.protocols.collector import Collector
from evaluation_mac.protocols.intensity import evaluate_intensity, look_at_all
from evaluation_mac.protocols.label_protocols import LABEL_PROTOCOLS, label_text, similarity_by_caption
from evaluation_mac.protocols.protocol_options import check_refine, complete, generation_of
from evaluation_mac.protocols.retrieval import (
    caption_texts,
    evaluate_retrieval,
)
from evaluation_mac.protocols.tokens import evaluate_tokens, listener_of, load_tower, named_sources
from evaluation_mac.protocols.transcription import PROMPT, evaluate_transcripts, transcript_asker
from evaluation_mac.reports.comparison import compare_results
from evaluation_mac.reports.evaluation import Evaluation
from evaluation_mac.reports.model_card import find_card, update_card
from evaluation_mac.reports.plots import draw_plots
from evaluation_mac.reports.report import format_report, write_report
from evaluation_mac.reports.tokens import write_tokens
from processing_mac import AudioCaptioningPipeline, load_captioner
from processing_mac.dataset_mac import Clip


def run_captioning(collector: Collector, clips: list[Clip]) -> Evaluation | None:
    """Caption all clips and score the captions."""
    options = collector.options
    refine = None
    if options.refine:
        refine = ClapRefine(Clap(options.refine), options.refine_from or "searches", options.num_beams)
    clips, captions = collector.captions(clips, refine)
    return evaluate_captions(clips, captions, options.sentence_encoder, naming_of(options)) if clips else None


def naming_of(options: argparse.Namespace) -> Naming | None:
    """The word lists that were asked for."""
    return load_naming(options.naming) if options.task == "captioning" and options.naming else None


def run_classification(collector: Collector, clips: list[LabelledClip]) -> Evaluation | None:
    """Match captions to labels, or score labels as captions."""
    options = collector.options
    labels = list(found.names) if (found := full_labels(options.labels, options.dataset)) else label_names(clips)
    known = find_dataset(options.dataset)
    first = DATASETS[known].score if known else None
    if options.by == "likelihood":
        clips, losses = collector.losses(clips, [label_text(label) for label in labels])
        return evaluate_classes(clips, labels, similarity_by_likelihood(losses), first) if clips else None
    protocol = LABEL_PROTOCOLS[options.protocol or "plain"]
    encoder = load_encoder(options.text_encoder)
    clips, captions = collector.captions(clips)
    if not clips:
        return None
    return evaluate_classes(clips, labels, similarity_by_caption(captions, labels, encoder, protocol), first)


def run_retrieval(collector: Collector, clips: list[Clip]) -> Evaluation | None:
    """Score every reference for every clip, and search in both directions."""
    texts = caption_texts(clips)
    clips, losses = collector.losses(clips, texts)
    return evaluate_retrieval(clips, texts, losses, collector.options.protocol) if clips else None


def run_transcription(collector: Collector, clips: list[Clip]) -> Evaluation | None:
    """Write down what is said in all clips, and count the errors."""
    options = collector.options
    generation = {"overlap": options.overlap, "batch_size": options.batch_size, "num_beams": options.num_beams or 1}
    ask = transcript_asker(
        collector.captioner, prompt=options.prompt or PROMPT, max_new_tokens=options.max_new_tokens, **generation
    )
    clips, records = collector.collect("captions.csv", ["caption"], clips, ask, options.batch_size)
    transcripts = [record["caption"] for record in records]
    return evaluate_transcripts(clips, transcripts, options.spellings) if clips else None


def run_intensity(collector: Collector, clips: list[Clip]) -> Evaluation | None:
    """Compare the loudness of patches with the attention that they get."""
    options = collector.options
    files = [clip.audio for clip in clips]
    named = list(look_at_all(collector.captioner, files, options.keep_rate, collector.failed))
    return evaluate_intensity(named, options.output, options.keep_rate) if named else None


def run_tokens(options: argparse.Namespace) -> int:
    """Look at the audio tokens of all the towers and models, one after another."""
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    files = list(dict.fromkeys(clip.audio for clip in read_clips(options)))
    options.dataset = options.dataset or options.data.stem
    count = min(options.clips or len(files), len(files))
    files = [files[number * len(files) // count] for number in range(count)]
    for name, source, is_tower in named_sources(options.tower, options.model):
        if is_tower:
            listener = load_tower(source, options.device)
        else:
            listener = listener_of(load_model(argparse.Namespace(**{**vars(options), "model": source})))
        if (one := evaluate_tokens(listener, files, failed)) is None:
            raise ValueError(f"{options.data or options.audio_root}: none of its {len(files)} recordings can be read")
        found[name] = one
    settings = {
        "towers": options.tower,
        "models": options.model,
        "data": str(options.data),
        "dataset": options.dataset,
        "clips": count,
    }
    print(write_tokens(options.output, settings, found, failed), end="")
    return 1 if failed else 0


def run_compare(options: argparse.Namespace) -> int:
    """Compare results that are there already."""
    print(compare_results(options.results, options.output), end="")
    return 0


ALONE: dict[str, Any] = {"tokens": run_tokens, "compare": run_compare}  # tasks with a model more than one, or none
UNIMPORTANT = (
    "output",
    "batch_size",
    "device",
    "update_card",
    "dataset_id",
    "dataset_split",
)  # to the results
DEFAULT_PROTOCOLS = ("plain", "rows")
MERGED = ("captioning", "retrieval", "intensity")  # tasks for which a recording may have several texts
SCORING = (  # may change between runs
    "data", "dataset", "audio_root", "text_encoder", "sentence_encoder", "naming", "spellings",
)  # fmt: skip
RUNS: dict[str, Any] = {
    "captioning": run_captioning,
    "classification": run_classification,
    "retrieval": run_retrieval,
    "transcription": run_transcription,
    "intensity": run_intensity,
}


def main(arguments: list[str] | None = None) -> int:
    """Evaluate and report: 0 if all went well, 1 if a recording could not be read, 2 (by exit) if nothing can be."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    state = join_processes(parser)
    options.device = state.device
    if options.task in ALONE:
        try:
            return ALONE[options.task](options)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    try:
        check_options(options)
        clips = read_clips(options)
        card = find_card(options.model) if options.update_card else None
        require_encoder(options)
        captioner = load_model(options)
        settings = describe(options, captioner, clips)
        if state.is_main_process:
            keep_settings(options.output, settings_of_answers(options, settings))
        collector = Collector(options, captioner)
        evaluation = RUNS[options.task](collector, clips)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if state.is_main_process:
        if evaluation is None:
            parser.error(f"{options.data or options.audio_root}: none of its {len(clips)} recordings can be read")
        try:
            finish(options, settings, evaluation, collector.failed)
            if card:
                name = settings["dataset"]
                update_card(card, options.task, name, evaluation, options.dataset_id, options.dataset_split)
        except OSError as error:
            parser.error(f"--output {options.output}: the report cannot be written ({error}); run it again")
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()
    return 1 if collector.failed else 0


def finish(options: argparse.Namespace, settings: dict, evaluation: Evaluation, failed: dict[str, str]) -> None:
    """Write everything and print the table."""
    write_report(options.output, settings, evaluation, failed)
    if not draw_plots(options.output, evaluation):
        print("mac-eval: plots were skipped: pip install 'mamba-audio-captioning[metrics]'", file=sys.stderr)
    print(format_report(settings, evaluation, failed), end="")


def check_options(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other or that nothing would read, and fill in what a protocol says."""
    if options.task not in ALONE:
        check_refine(options)
        complete(options)


def read_clips(options: argparse.Namespace) -> list[Any]:
    """The clips that the task is about, each recording once; `options.data` becomes the file that was read."""
    clips, options.data = read_data(options.task, options.data, options.dataset, options.audio_root)
    if options.task == "tokens":
        return clips
    place = str(options.data or options.audio_root)
    if options.task in MERGED:
        clips = merge_rows(clips)
    refuse_twice(place, clips)
    labels = full_labels(options.labels, options.dataset) if options.task == "classification" else None
    naming = naming_of(options)
    if naming and not any(naming.is_scored(getattr(clip, "source", None)) for clip in clips):
        raise ValueError(f"{place}: --naming needs a `source` that is one of {naming.collection}")
    return name_labels(clips, labels) if labels else clips


def join_processes(parser: argparse.ArgumentParser) -> PartialState:
    """The processes of this run: on CPUs accelerate must be told, else each would think itself alone."""
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    if int(os.environ.get("WORLD_SIZE", "1")) != state.num_processes:
        parser.error("several processes on CPUs need ACCELERATE_USE_CPU=true, or an accelerate config with MULTI_CPU")
    return state


def load_model(options: argparse.Namespace) -> AudioCaptioningPipeline:
    """The model on this process's device."""
    try:
        captioner = load_captioner(
            options.model,
            revision=options.revision,
            device=options.device,
            prompt=options.prompt,
            num_beams=options.num_beams,
        )
    except ValueError as error:
        raise ValueError(f"--model {error}") from error
    captioner.model.generation_config.update(**generation_of(options))
    return captioner


def require_encoder(options: argparse.Namespace) -> None:
    """Refuse classification by caption, before anything is written, where its text encoder is not at hand."""
    if options.task != "classification" or options.by == "likelihood":
        return
    try:
        load_encoder(options.text_encoder)
    except ValueError as error:
        raise ValueError(f"`--by likelihood` needs no second model. `--by caption` does, but {error}") from error


def describe(options: argparse.Namespace, captioner: AudioCaptioningPipeline, clips: list[Any]) -> dict[str, Any]:
    """What the results depend on: options, the manifest's content or names of clips, the version of the weights."""
    settings = {name: value for name, value in vars(options).items() if name not in UNIMPORTANT}
    weights = sorted(Path(options.model).glob("*.safetensors"))
    protocol = getattr(options, "protocol", None)
    told = "" if protocol in (None, *DEFAULT_PROTOCOLS) else f", protocol {protocol}"  # in report and card
    content = options.data.read_bytes() if options.data else "\n".join(str(clip.audio) for clip in clips).encode()
    return settings | {
        "data": str(options.data or options.audio_root),
        "audio_root": str(options.audio_root) if options.audio_root else None,
        "dataset": (options.dataset or options.data.stem) + told,
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
        "weights": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights]
        or captioner.model.config._commit_hash,
    }


def settings_of_answers(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings on which the model's answers depend, and not only how they are scored."""
    kept = {name: value for name, value in settings.items() if name not in SCORING}
    if options.task == "retrieval":
        del kept["protocol"]
    if options.task == "classification":
        labels = full_labels(options.labels, options.dataset) if options.by == "likelihood" else None
        kept["labels"] = list(labels.names) if labels else None  # captions meet any labels, losses are of these
    return kept


if __name__ == "__main__":
    sys.exit(main())
