"""The options of `mac-caption`, and how their values are read."""

import argparse
import os
from pathlib import Path

from processing_mac import DEFAULT_MODEL

from .loading_mac import device_problem
from .processing_mac import AUDIO_TOKEN
from .segment_files_mac import FORMATS


THREADS_PER_CORE = 8  # more only wait for each other, and the memory of very many does not suffice
EPILOG = """\
examples:
  mac-caption dog.wav rain.flac                            print what is heard
  mac-caption recordings --output captions.jsonl           a folder; the same command again goes on
  mac-caption night.mp3 --format csv --output night.csv    a long recording, a row a window

exit code: 0 all captioned, 1 some recordings could not be read, 2 nothing could be done or written,
130 stopped by Ctrl-C, 141 nobody reads the output any more"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="mac-caption",
        usage="%(prog)s [options] FILE_OR_FOLDER [FILE_OR_FOLDER ...]\n       %(prog)s [options] --stream SOURCE",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Describe recordings in words. Prints `path<TAB>caption` lines, or writes them to a file.\n"
        "Of a recording of more windows (10.24 s) than the model was trained on (those that ship: one) it says what\n"
        "is heard in each, and then all in a line.",
        epilog=EPILOG,
    )
    parser.add_argument("inputs", nargs="*", metavar="FILE_OR_FOLDER", help="folders are searched through and through")
    what = parser.add_argument_group("what is written")
    what.add_argument(
        "--output",
        type=output_name,
        metavar="FILE",
        help=".jsonl or .csv: a caption for each recording; what it already holds is not captioned again. .srt, .vtt, "
        ".tsv or .txt: segments, as by --format",
    )
    what.add_argument(
        "--format",
        choices=FORMATS,
        help="segments alone, as a table, subtitles, lines to read or labels: printed, or in --output, a file "
        "or, for several recordings, a folder",
    )
    what.add_argument("--segments", action="store_true", help="also start, end and caption of every window of 10.24 s")
    what.add_argument(
        "--whole", action="store_true",
        help="ask for one caption of all windows of a recording at once, also of more windows than the model was "
        "trained on; takes memory for all of it",
    )  # fmt: skip
    model = parser.add_argument_group("the model")
    model.add_argument("--model", default=DEFAULT_MODEL, help="folder or Hub id (default: the packaged mac-small)")
    model.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")
    model.add_argument(
        "--prompt", type=plain_text, help="what to ask (default, and of a blank one: what it was trained with)"
    )
    model.add_argument("--num-beams", type=positive, help="beams of the search (default: what the model ships with)")
    stream = parser.add_argument_group("sound without an end")
    stream.add_argument(
        "--stream",
        metavar="SOURCE",
        help="caption without end: - for raw PCM (s16le, 16 kHz, mono) or a sound file on standard input, mic, an "
        "address that begins with http:// or https://, or a file; --output FILE.jsonl, .csv or .tsv grows from run to "
        "run, other formats are those of one run",
    )
    stream.add_argument("--reconnect", action="store_true", help="open an address of --stream again when it breaks")
    stream.add_argument(
        "--cut",
        choices=["every", "change"],
        default="every",
        help="where segments of --stream end: every 10.24 s, or earlier where the sound changes",
    )
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--device", help="such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    machine.add_argument(
        "--threads",
        type=thread_count,
        help="of the CPU, for one batch at a time (default: a batch on each core that other programs leave free)",
    )
    machine.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="of the weights (default: that of the model); bfloat16 is faster on a CPU with avx512_bf16 or amx",
    )
    machine.add_argument("--int8", action="store_true", help="round the weights to 8 bits: less memory, faster words")
    machine.add_argument(
        "--compile",
        action="store_true",
        help="decode a Mamba-2 as one piece: on a GPU as a CUDA graph, on the CPU a large one of 8 bits (--int8) in "
        "C++, after some seconds for the first captions",
    )
    machine.add_argument("--batch-size", type=positive, default=8, help="recordings at a time (default: 8)")
    web = parser.add_argument_group("recordings from the web")
    web.add_argument(
        "--url-timeout", type=positive, metavar="SECONDS", help="give up on a silent server (default: 20)"
    )
    web.add_argument(
        "--url-megabytes", type=positive, metavar="MB", help="give up on a longer file from a server (default: 1000)"
    )
    ray = parser.add_argument_group("on a cluster", "these need the extra [ray]; see docs/serving.md")
    ray.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="caption on this Ray cluster; on all cores without one"
    )
    ray.add_argument(
        "--ray-actors", type=positive, help="models at a time (default: one a GPU or, without any, a core)"
    )
    ray.add_argument(
        "--shards", choices=("parquet", "jsonl"), default="parquet", help="format of an --output that is a folder"
    )
    return parser


def positive(text: str) -> int:
    """Read an integer above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def thread_count(text: str) -> int:
    """Read a number of threads that this machine can bear."""
    cores = os.cpu_count() or 1
    most = THREADS_PER_CORE * cores
    if (count := positive(text)) > most:
        raise argparse.ArgumentTypeError(
            f"expected at most {most}, {THREADS_PER_CORE} for each of {cores} cores, not {count}"
        )
    return count


def check_device(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End a command, before it does anything, if there is no such `--device`; on Ray it is one of the workers."""
    is_here = getattr(options, "ray", None) is None
    if options.device is not None and (problem := device_problem(options.device, is_here)):
        parser.error(f"--device {options.device}: {problem}")


def output_name(text: str) -> Path | str:
    """Read the name of a file, or an address such as `s3://…`, from which a `Path` would take a slash."""
    return text if "://" in text else Path(text)


def plain_text(text: str) -> str:
    """Check a prompt, which must not hold `<|audio|>`: the processor writes that before it."""
    if AUDIO_TOKEN in text:
        raise argparse.ArgumentTypeError(f"{text!r} holds {AUDIO_TOKEN}, which stands for the recording")
    return text


__all__ = ["build_parser", "check_device", "output_name", "plain_text", "positive"]
