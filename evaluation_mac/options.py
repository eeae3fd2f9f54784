"""The options of `mac-eval`."""

import argparse
from pathlib import Path

from evaluation_mac.datasets.label_lists import SHIPPED
from evaluation_mac.datasets.published import DATASETS
from evaluation_mac.metrics.naming import NAMINGS
from evaluation_mac.metrics.text_encoder import CLAP
from evaluation_mac.protocols.label_protocols import LABEL_PROTOCOLS
from evaluation_mac.protocols.protocol_options import BATCH_SIZE
from evaluation_mac.protocols.retrieval import RETRIEVAL_PROTOCOLS
from processing_mac.caption_options_mac import plain_text, positive


def build_parser() -> argparse.ArgumentParser:
    """The options and their help."""
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", type=Path, metavar="MANIFEST", help=".csv, .jsonl, .parquet; or a known --dataset's")
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
    common.add_argument("--update-card", action="store_true", help="write the scores into the model's README.md")
    common.add_argument("--dataset-id", metavar="ID", help="the data's id on the Hub, for the card")
    common.add_argument("--dataset-split", metavar="SPLIT", help="which part of it, for the card")
    asked = argparse.ArgumentParser(add_help=False, parents=[common])
    asked.add_argument("--prompt", type=plain_text, help="what to ask (default: what the model was trained with)")
    written = argparse.ArgumentParser(add_help=False, parents=[asked])
    written.add_argument("--num-beams", type=positive, help="beams of the search (default: what the model ships with)")
    written.add_argument("--batch-size", type=positive, help=f"recordings at a time (default: {BATCH_SIZE})")
    parser = argparse.ArgumentParser(
        prog="mac-eval",
        description="Evaluate a captioner: captions, classes, retrieval, transcripts or patches.",
        epilog="Exit code: 0 all evaluated, 1 some recordings could not be read, 2 nothing could be done.",
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    captioning = tasks.add_parser("captioning", parents=[written], help="captions against references")
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
    classes = tasks.add_parser("classification", parents=[written], help="labels in the column `source`")
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
    retrieval = tasks.add_parser("retrieval", parents=[asked], help="captions and clips by likelihood")
    retrieval.add_argument(
        "--protocol",
        choices=list(RETRIEVAL_PROTOCOLS),
        default="rows",
        help="a query is every caption of every recording, as is published, or every different one (default: rows)",
    )
    retrieval.set_defaults(num_beams=None)
    speech = tasks.add_parser("transcription", parents=[written], help="what is said, by word errors")
    speech.add_argument("--overlap", type=below_one, default=0.2, help="share of a window heard twice (default: 0.2)")
    speech.add_argument("--max-new-tokens", type=positive, default=256, help="of a window's text (default: 256)")
    speech.add_argument(
        "--spellings", type=Path, metavar="JSON", help="Whisper's normalizer.json: British as American"
    )
    loudness = tasks.add_parser("intensity", parents=[common], help="which patches the encoder looks at: loud ones?")
    loudness.add_argument("--keep-rate", type=share, default=0.7, help="of each pruning (default: 0.7)")
    loudness.set_defaults(prompt=None, num_beams=None)
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
