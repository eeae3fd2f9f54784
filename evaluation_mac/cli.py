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

from evaluation_mac.datasets.label_lists import SHIPPED
from evaluation_mac.datasets.labelled_clips import LabelledClip, label_names, name_labels
from evaluation_mac.datasets.published import DATASETS, find_dataset
from evaluation_mac.datasets.reading import full_labels, read_data, refuse_twice
from evaluation_mac.metrics.naming import NAMINGS, Naming, load_naming
from evaluation_mac.metrics.text_encoder import CLAP, load_encoder
from evaluation_mac.protocols.captioning import evaluate_captions
from evaluation_mac.protocols.clap_refine import Clap, ClapRefine
from evaluation_mac.protocols.classification import evaluate_classes, similarity_by_likelihood
from evaluation_mac.protocols.clip_records import keep_settings
from evaluation_mac.protocols.collector import Collector
from evaluation_mac.protocols.intensity import evaluate_intensity, look_at_all
from evaluation_mac.protocols.label_protocols import LABEL_PROTOCOLS, label_text, similarity_by_caption
from evaluation_mac.protocols.protocol_options import check_refine, complete, generation_of
from evaluation_mac.protocols.retrieval import (
    RETRIEVAL_PROTOCOLS,
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
from processing_mac.caption_options_mac import plain_text, positive
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
        check_refine(options)
        complete(options)
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


def build_parser() -> argparse.ArgumentParser:
    """The options and their help."""
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", type=Path, metavar="MANIFEST", help=".csv or .jsonl; or a known --dataset's table")
    data.add_argument(
        "--dataset",
        help="what the results call the data (default: the manifest's name); with --audio-root, one that is known by "
        f"its published table: {', '.join(DATASETS)}",
    )
    data.add_argument(
        "--audio-root", type=Path, metavar="FOLDER", help="where recordings are (default: the manifest's)"
    )
    data.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the results go")
    common = argparse.ArgumentParser(add_help=False, parents=[data])
    common.add_argument("--model", required=True, help="folder or Hub id of a MAC model")
    common.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")
    common.add_argument("--dataset-id", metavar="ID", help="the data's id on the Hub, for the card")
    common.add_argument("--dataset-split", metavar="SPLIT", help="which part of it, for the card")
    common.add_argument("--prompt", type=plain_text, help="what to ask (default: what the model was trained with)")
    common.add_argument("--batch-size", type=positive, default=8, help="recordings at a time (default: 8)")
    common.add_argument("--update-card", action="store_true", help="write the scores into the model's README.md")
    parser = argparse.ArgumentParser(
        prog="mac-eval",
        description="Evaluate a captioner: captions, classes, retrieval, transcripts or patches.",
        epilog="Exit code: 0 all evaluated, 1 some recordings could not be read, 2 nothing could be done.",
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    beams = argparse.ArgumentParser(add_help=False)
    beams.add_argument("--num-beams", type=positive, help="beams of the search (default: what the model ships with)")
    captioning = tasks.add_parser("captioning", parents=[common, beams], help="captions against references")
    captioning.add_argument("--refine", metavar="CLAP", help="let this CLAP model choose among several captions")
    captioning.add_argument(
        "--refine-from",
        choices=["searches", "nbest"],
        help="captions to choose from: of searches with 2, 3 ... 8 beams (default), or the N best of one with N = "
        "--num-beams (default: 8)",
    )
    captioning.add_argument("--sentence-encoder", metavar="MODEL", help="score similarity of sentences with it, too")
    captioning.add_argument(
        "--naming", choices=list(NAMINGS), help="count captions that name their clip's `source`, by these word lists"
    )
    captioning.add_argument(
        "--protocol", choices=["sam"], help="as SAM publishes it: greedily, with LTU's prompt for the --dataset"
    )
    classes = tasks.add_parser("classification", parents=[common, beams], help="labels in the column `source`")
    classes.add_argument("--by", choices=["caption", "likelihood"], default="caption", help="(default: caption)")
    classes.add_argument(
        "--protocol",
        choices=list(LABEL_PROTOCOLS),
        help="how captions meet labels (default: plain)",
    )
    classes.add_argument(
        "--labels", metavar="LIST", help=f"all labels, also those of no recording: a file, or {', '.join(SHIPPED)}"
    )
    classes.add_argument(
        "--text-encoder",
        metavar="MODEL",
        help=f"for captions, or openai:MODEL (default: {CLAP}; ltu: BERT)",
    )
    retrieval = tasks.add_parser("retrieval", parents=[common], help="captions and clips by likelihood")
    retrieval.add_argument(
        "--protocol",
        choices=list(RETRIEVAL_PROTOCOLS),
        default="rows",
        help="a query is every caption of every recording, as is published, or every different one (default: rows)",
    )
    retrieval.set_defaults(num_beams=None)
    speech = tasks.add_parser("transcription", parents=[common, beams], help="what is said, by word errors")
    speech.add_argument("--overlap", type=below_one, default=0.2, help="share of a window heard twice (default: 0.2)")
    speech.add_argument("--max-new-tokens", type=positive, default=256, help="of a window's text (default: 256)")
    speech.add_argument(
        "--spellings", type=Path, metavar="JSON", help="Whisper's normalizer.json: British as American"
    )
    loudness = tasks.add_parser("intensity", parents=[common], help="which patches the encoder looks at: loud ones?")
    loudness.add_argument("--keep-rate", type=share, default=0.7, help="of each pruning (default: 0.7)")
    loudness.set_defaults(num_beams=None)
    tokens = tasks.add_parser(
        "tokens", parents=[data], help="rank and similarity of the audio tokens, several models side by side"
    )
    tokens.add_argument("--model", action="append", default=[], help="MAC folder or Hub id; may be given again")
    tokens.add_argument(
        "--tower", action="append", default=[], help="audio tower alone, such as an untouched EAT; may be given again"
    )
    tokens.add_argument("--clips", type=positive, metavar="N", help="so many of them, spread evenly (default: all)")
    tokens.set_defaults(revision=None, prompt=None, num_beams=None)
    compare = tasks.add_parser("compare", help="results of several models on the same recordings")
    compare.add_argument("results", type=Path, nargs="+", metavar="FOLDER", help="what mac-eval wrote; first: base")
    compare.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the comparison goes")
    return parser


def below_one(text: str) -> float:
    """A number from 0 to below 1."""
    if not 0 <= (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share, from 0 to below 1")
    return value


def share(text: str) -> float:
    """A number above 0, at most 1."""
    if not 0 < (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share above 0, at most 1")
    return value


def read_clips(options: argparse.Namespace) -> list[Any]:
    """The clips that the task is about, each recording once; `options.data` becomes the file that was read."""
    clips, options.data = read_data(options.task, options.data, options.dataset, options.audio_root)
    if options.task == "tokens":
        return clips
    place = str(options.data or options.audio_root)
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
