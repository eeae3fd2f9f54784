"""
The command `mac-search`, which finds recordings in an index of `mac-index` by words.

    mac-search sounds.index "rain on a roof"
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from evaluation_mac.metrics.text_encoder import TextEncoder
from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.caption_options_mac import check_device, positive
from processing_mac.cli_mac import show_any_name
from processing_mac.processing_mac import AUDIO_TOKEN
from processing_mac.unread_options_mac import refuse_given

from .bulk_files import is_text
from .caption_search import CaptionSearch, Hit
from .caption_vectors import kept_encoder
from .index_folder import IndexFolder
from .index_states import StateReader


EPILOG = """\
examples:
  mac-search sounds.index "rain on a roof"                  path, start and end in seconds, caption
  mac-search sounds.index "rain on a roof" --rerank 0       by the captions alone: no model is loaded
  mac-search sounds.index - < queries.txt                   a query a line; bad lines are told and left out

exit code: 0 something was found, 1 nothing was found, 2 nothing could be searched"""


def main(arguments: list[str] | None = None) -> int:
    """Search, print what was found, and return the exit code that the help explains."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    check_device(parser, options)
    show_any_name(sys.stdout)
    if options.words and options.encoder:
        parser.error("--words compares words and --encoder meanings; expected one of them")
    try:
        if not options.rerank:
            unread = ("likelihood", "model", "revision", "device")
            refuse_given(parser, options, unread, "--rerank 0 loads no model")
        queries: Iterable[str] = read_queries(sys.stdin) if options.query == "-" else [check_query(options.query)]
        search = open_search(options)
        found = [print_hits(search, query, options) for query in queries]
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # Python would write what is left to the pipe once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        parser.error(f"{options.index}: cannot be searched now ({error})")
    if not found:
        parser.error("no query on standard input could be searched")
    return 0 if any(found) else 1


def check_query(query: str) -> str:
    """
    Return a query without the white space around it.

    Raises:
        ValueError: It has no words, holds `<|audio|>` or bytes that are no text.
    """
    if not query.strip():
        raise ValueError("the query is blank; expected words")
    if AUDIO_TOKEN in query:
        raise ValueError(f"{query!r} holds {AUDIO_TOKEN}, which stands for the recording")
    if not is_text(query):
        raise ValueError(f"{query!r} is no UTF-8")
    return query.strip()


def read_queries(lines: TextIO) -> Iterator[str]:
    """Read a query a line, as the lines come; blank ones are left out, and so are bad ones, which is said."""
    if hasattr(lines, "reconfigure"):
        lines.reconfigure(errors="surrogateescape")  # so that a bad line does not end the reading
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield check_query(line)
        except ValueError as error:
            print(f"mac-search: line {number} is left out: {error}", file=sys.stderr, flush=True)


def open_search(options: argparse.Namespace) -> CaptionSearch:
    """
    Open the index with the encoder and the model that the options ask for.

    Raises:
        ValueError: One of them cannot be used.
    """
    index = IndexFolder(options.index)
    name = None if options.words else options.encoder or kept_encoder(options.index)
    encoder = TextEncoder(name) if name else None
    reader = None
    if options.rerank:
        settings = index.settings
        model = options.model or settings.model
        if options.revision and os.path.isdir(model):
            raise ValueError(f"--revision: not read, since the model is the folder {model}, without revisions")
        moved = not options.model and os.path.isabs(model) and not os.path.isdir(model)
        captioner = load_captioner(
            DEFAULT_MODEL if moved else model,
            revision=options.revision or (None if options.model or moved else settings.revision),
            device=options.device,
        )
        reader = StateReader(captioner, settings.prompt)
        if moved and reader.weights != settings.weights:
            raise ValueError(f"{options.index}: its model is no longer at {model}; name its folder with --model")
    return CaptionSearch(index, encoder, reader)


def print_hits(search: CaptionSearch, query: str, options: argparse.Namespace) -> int:
    """Print what a query finds, and return how much that is."""
    hits = search.find(query, options.top, options.rerank, options.likelihood)
    for hit in hits:
        print(json.dumps({"query": query, **asdict(hit)}, ensure_ascii=False) if options.json else format_hit(hit))
    sys.stdout.flush()
    if not hits:
        why = (
            "no caption shares a word with it; --encoder compares meanings"
            if search.captions
            else "the index holds no captions"
        )
        print(f"mac-search: {query}: nothing was found: {why}", file=sys.stderr)
    return len(hits)


def format_hit(hit: Hit) -> str:
    """Format a hit as a line of its path, its seconds and its caption; paths below the working directory are short."""
    here = os.getcwd() + os.sep
    return f"{hit.audio.removeprefix(here)}\t{hit.start:.2f}-{hit.end:.2f} s\t{hit.caption}"


def not_negative(text: str) -> int:
    """Read an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, not {text!r}")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="mac-search",
        usage="%(prog)s [options] INDEX QUERY",  # short, since errors stand below it
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Find recordings by words: by their captions, then by how likely the model finds the words.",
        epilog=EPILOG,
    )
    parser.add_argument("index", type=Path, metavar="INDEX", help="folder that mac-index made")
    parser.add_argument("query", metavar="QUERY", help="what to look for; - reads a query a line from standard input")
    parser.add_argument("--top", type=positive, default=10, help="most segments to print (default: 10)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line, with scores")
    how = parser.add_argument_group("how captions are compared with the query")
    how.add_argument("--words", action="store_true", help="by their words (BM25), also where the index keeps vectors")
    how.add_argument(
        "--encoder", metavar="FOLDER",
        help="by their meaning, with this sentence encoder (default: the one that mac-index was given, else by words)",
    )  # fmt: skip
    likely = parser.add_argument_group("how the best of them are ordered by likelihood")
    likely.add_argument(
        "--rerank", type=not_negative, default=100, metavar="N", help="how many; 0 for none (default: 100)"
    )
    likely.add_argument(
        "--likelihood", choices=("captions", "query"), default="captions",
        help="of the captions nearest to the query, or of its own words: for models with a large vocabulary",
    )  # fmt: skip
    likely.add_argument(
        "--model",
        help="folder or Hub id of the index's model (default: where mac-index found it, else the packaged one)",
    )
    likely.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: that of the index)")
    likely.add_argument("--device", help="such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
