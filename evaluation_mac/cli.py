"""
`mac-eval`: how good a captioner is, in figures.

    mac-eval captioning --model model_cards/mac-small --data validation.csv --output results/captioning
    mac-eval classification --model model_cards/mac-small --data check.csv --output results/classes --by likelihood
    accelerate launch -m evaluation_mac.cli retrieval --model mac-130m --data clotho.csv --output results/retrieval

The same command again continues where it stopped.
"""

import argparse
import hashlib
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from evaluation_mac.metrics.naming import NAMINGS, Naming, load_naming
from evaluation_mac.metrics.text_encoder import CLAP, TextEncoder
from evaluation_mac.protocols.captioning import caption_asker, evaluate_captions, refined_asker
from evaluation_mac.protocols.clap_refine import Clap
from evaluation_mac.protocols.classification import (
    LabelledClip,
    evaluate_classes,
    label_names,
    label_text,
    read_labels,
    similarity_by_caption,
    similarity_by_likelihood,
)
from evaluation_mac.protocols.clip_records import collect_records, keep_settings
from evaluation_mac.protocols.intensity import evaluate_intensity, look_at_all
from evaluation_mac.protocols.retrieval import caption_texts, evaluate_retrieval, likelihood_asker, read_losses
from evaluation_mac.protocols.tokens import evaluate_tokens, write_tokens
from evaluation_mac.protocols.transcription import PROMPT, evaluate_transcripts, transcript_asker
from evaluation_mac.reports.comparison import compare_results
from evaluation_mac.reports.evaluation import Evaluation
from evaluation_mac.reports.model_card import find_card, update_card
from evaluation_mac.reports.plots import draw_plots
from evaluation_mac.reports.report import format_report, write_report
from processing_mac import AudioCaptioningPipeline, load_captioner
from processing_mac.cli_mac import plain_text, positive
from processing_mac.dataset_mac import Clip, read_manifest


class Collector:
    """Asks the model about clips and keeps, of those that could be read, the clip and its record."""

    def __init__(self, options: argparse.Namespace, captioner: AudioCaptioningPipeline):
        self.options = options
        self.captioner = captioner
        self.failed: dict[str, str] = {}

    def captions(self, clips: Sequence[Any]) -> tuple[list[Any], list[str]]:
        """The clips with a caption, and the captions."""
        ask = caption_asker(self.captioner, self.options.batch_size)
        read, records = self.collect("captions.csv", ["caption"], clips, ask, self.options.batch_size)
        return read, [record["caption"] for record in records]

    def refined_captions(self, clips: Sequence[Any]) -> tuple[list[Any], list[str]]:
        """The same by CLAP-Refine; the file holds the candidates, too."""
        options = self.options
        source, num_beams = options.refine_from or "searches", options.num_beams
        ask = refined_asker(self.captioner, Clap(options.refine), source, num_beams)
        fields = ["caption", "candidates", "similarities"]
        read, records = self.collect("captions.csv", fields, clips, ask, options.batch_size)
        return read, [record["caption"] for record in records]

    def losses(self, clips: Sequence[Any], texts: Sequence[str]) -> tuple[list[Any], Any]:
        """The clips with losses, and the (clips, texts) losses."""
        ask = likelihood_asker(self.captioner, texts, self.options.prompt)
        read, records = self.collect("losses.csv", ["losses"], clips, ask, 1)
        return read, read_losses(records)

    def collect(
        self, name: str, fields: list[str], clips: Sequence[Any], ask: Any, batch_size: int
    ) -> tuple[list, list]:
        """The clips with a record, and their records; nothing on processes other than the main one."""
        audio = [clip.audio for clip in clips]
        records, self.failed = collect_records(self.options.output / name, fields, audio, ask, batch_size)
        read = [clip for clip in clips if clip.audio in records]
        return read, [records[clip.audio] for clip in read]


def run_captioning(collector: Collector, clips: list[Clip]) -> Evaluation | None:
    """Caption all clips and score the captions."""
    options = collector.options
    clips, captions = collector.refined_captions(clips) if options.refine else collector.captions(clips)
    return evaluate_captions(clips, captions, options.sentence_encoder, naming_of(options)) if clips else None


def naming_of(options: argparse.Namespace) -> Naming | None:
    """The word lists that were asked for."""
    return load_naming(options.naming) if options.task == "captioning" and options.naming else None


def run_classification(collector: Collector, clips: list[LabelledClip]) -> Evaluation | None:
    """Match captions to labels, or score labels as captions."""
    labels = label_names(clips)
    if collector.options.by == "likelihood":
        clips, losses = collector.losses(clips, [label_text(label) for label in labels])
        return evaluate_classes(clips, labels, similarity_by_likelihood(losses)) if clips else None
    encoder = TextEncoder(collector.options.text_encoder)
    clips, captions = collector.captions(clips)
    return evaluate_classes(clips, labels, similarity_by_caption(captions, labels, encoder)) if clips else None


def run_retrieval(collector: Collector, clips: list[Clip]) -> Evaluation | None:
    """Score every reference for every clip, and search in both directions."""
    texts = caption_texts(clips)
    clips, losses = collector.losses(clips, texts)
    return evaluate_retrieval(clips, texts, losses) if clips else None


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
    """Look at the audio tokens of all the models, one after another."""
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    options.dataset = options.dataset or options.data.stem
    files = list(dict.fromkeys(clip.audio for clip in read_manifest(options.data)))
    names = [Path(model).name for model in options.model]
    for name, model in zip(names if len(set(names)) == len(names) else options.model, options.model, strict=True):
        captioner = load_model(argparse.Namespace(**{**vars(options), "model": model}))
        if (one := evaluate_tokens(captioner, files, failed)) is None:
            raise ValueError(f"--data {options.data}: none of its {len(files)} recordings can be read")
        found[name] = one
    settings = {"models": options.model, "data": str(options.data), "dataset": options.dataset}
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
SCORING = ("data", "dataset", "text_encoder", "sentence_encoder", "naming", "spellings")  # may change between runs
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
        clips = read_clips(options)
        card = find_card(options.model) if options.update_card else None
        require_encoder(options)
        captioner = load_model(options)
        settings = describe(options, captioner)
        if state.is_main_process:
            keep_settings(options.output, {key: settings[key] for key in settings if key not in SCORING})
        collector = Collector(options, captioner)
        evaluation = RUNS[options.task](collector, clips)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if state.is_main_process:
        if evaluation is None:
            parser.error(f"--data {options.data}: none of its {len(clips)} recordings can be read")
        try:
            finish(options, settings, evaluation, collector.failed)
            if card:
                name = options.dataset or options.data.stem
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
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", required=True, help="folder or Hub id of a MAC model")
    common.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")
    common.add_argument("--data", type=Path, required=True, metavar="MANIFEST", help=".csv or .jsonl")
    common.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the results go")
    common.add_argument("--dataset", help="what the results call the data (default: the manifest's name)")
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
    classes = tasks.add_parser("classification", parents=[common, beams], help="labels in the column `source`")
    classes.add_argument("--by", choices=["caption", "likelihood"], default="caption", help="(default: caption)")
    classes.add_argument("--text-encoder", metavar="MODEL", default=CLAP, help=f"for captions (default: {CLAP})")
    retrieval = tasks.add_parser("retrieval", parents=[common], help="captions and clips by likelihood")
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
    tokens = tasks.add_parser("tokens", help="rank and similarity of the audio tokens, several models side by side")
    tokens.add_argument("--model", required=True, action="append", help="MAC folder or Hub id; may be given again")
    tokens.add_argument("--data", type=Path, required=True, metavar="MANIFEST", help=".csv or .jsonl with `audio`")
    tokens.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the results go")
    tokens.add_argument("--dataset", help="what the results call the data (default: the manifest's name)")
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


def check_refine(options: argparse.Namespace) -> None:
    """Refuse options of CLAP-Refine that nothing would read."""
    if options.task != "captioning":
        return
    if options.refine_from and not options.refine:
        raise ValueError("--refine-from says what --refine chooses from: name the CLAP model with --refine")
    if options.refine and options.refine_from != "nbest" and options.num_beams:
        raise ValueError("--num-beams: --refine searches with 2 to 8 beams; with --refine-from nbest it can be given")


def read_clips(options: argparse.Namespace) -> list[Clip] | list[LabelledClip]:
    """The manifest's clips, each recording once."""
    clips = read_labels(options.data) if options.task == "classification" else read_manifest(options.data)
    rows = defaultdict(list)
    for row, clip in enumerate(clips):
        rows[clip.audio].append(row)
    twice = [f"{audio} in rows {', '.join(map(str, found))}" for audio, found in rows.items() if len(found) > 1]
    if twice:
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise ValueError(f"{options.data}: expected every recording once, but {'; '.join(twice[:5])}{more}")
    naming = naming_of(options)
    if naming and not any(naming.is_scored(getattr(clip, "source", None)) for clip in clips):
        raise ValueError(f"{options.data}: --naming needs a `source` that is one of {naming.collection}")
    return clips


def join_processes(parser: argparse.ArgumentParser) -> PartialState:
    """The processes of this run: on CPUs accelerate must be told, else each would think itself alone."""
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    if int(os.environ.get("WORLD_SIZE", "1")) != state.num_processes:
        parser.error("several processes on CPUs need ACCELERATE_USE_CPU=true, or an accelerate config with MULTI_CPU")
    return state


def load_model(options: argparse.Namespace) -> AudioCaptioningPipeline:
    """The model on this process's device."""
    try:
        return load_captioner(
            options.model,
            revision=options.revision,
            device=options.device,
            prompt=options.prompt,
            num_beams=options.num_beams,
        )
    except ValueError as error:
        raise ValueError(f"--model {error}") from error


def require_encoder(options: argparse.Namespace) -> None:
    """Refuse classification by caption, before anything is written, where its text encoder is not at hand."""
    if options.task != "classification" or options.by == "likelihood":
        return
    try:
        TextEncoder(options.text_encoder)
    except ValueError as error:
        raise ValueError(f"`--by likelihood` needs no second model. `--by caption` does, but {error}") from error


def describe(options: argparse.Namespace, captioner: AudioCaptioningPipeline) -> dict[str, Any]:
    """What the results depend on: options, the manifest's content, the version of the weights."""
    settings = {name: value for name, value in vars(options).items() if name not in UNIMPORTANT}
    weights = sorted(Path(options.model).glob("*.safetensors"))
    return settings | {
        "data": str(options.data),
        "dataset": options.dataset or options.data.stem,
        "manifest_sha256": hashlib.sha256(options.data.read_bytes()).hexdigest(),
        "weights": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights]
        or captioner.model.config._commit_hash,
    }


if __name__ == "__main__":
    sys.exit(main())
