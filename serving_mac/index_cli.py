"""
The command `mac-index`, which makes a collection of recordings searchable with `mac-search`.

    mac-index sounds --output sounds.index       # the same command again takes in what is new
    mac-search sounds.index "rain on a roof"
"""

import argparse
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

from evaluation_mac.metrics.text_encoder import TextEncoder
from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.audio_mac import AUDIO_SUFFIXES
from processing_mac.caption_options_mac import check_device, plain_text, positive
from processing_mac.finding_audio_mac import find_audio
from processing_mac.unread_options_mac import refuse_given
from processing_mac.web_addresses_mac import hide_password

from .bulk_files import is_text
from .caption_vectors import keep_vectors, kept_encoder
from .index_folder import SETTINGS, IndexSettings
from .index_hearing import Segment, hear_files
from .index_states import StateReader
from .index_writer import IndexWriter, version_of


EPILOG = """\
examples:
  mac-index sounds --output sounds.index                       a folder; the same command again takes in what is new
  mac-index sounds --output sounds.index --encoder MiniLM      also vectors of the captions, to search by meaning

exit code: 0 all in the index, 1 some recordings could not be read (failed.jsonl names them), 2 nothing could be
done or written, 130 stopped by Ctrl-C or SIGTERM"""

GONE = (FileNotFoundError, NotADirectoryError)


def main(arguments: list[str] | None = None) -> int:
    """Bring an index up to date, and return the exit code that the help explains."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    check_device(parser, options)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was heard is kept
    options.prompt = (options.prompt or "").strip() or None
    try:
        if os.path.isdir(options.model):
            refuse_given(parser, options, ["revision"], f"--model is the folder {options.model}, without revisions")
        files = find_files(options.inputs)
        if not files and not (options.output / SETTINGS).exists():
            raise ValueError(no_audio(options.inputs))
        # A model or an encoder that does not exist must not leave a folder behind.
        captioner = load_captioner(options.model, revision=options.revision, device=options.device)
        encoder = load_encoder(options.encoder) if options.encoder else None
        with IndexWriter(options.output) as writer:
            reader = StateReader(captioner, options.prompt)
            if encoder is None and (kept := kept_encoder(options.output)):
                options.encoder, encoder = kept, load_encoder(kept)
            writer.open(make_settings(options, reader.weights))
            for note in writer.notes:
                tell(note)
            return update(writer, reader, files, encoder, options)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        tell("stopped. What was heard so far is kept; the same command goes on after it")
        return 130
    except OSError as error:
        left = ". What it holds is whole; run it again" if options.output.exists() else ""
        tell(f"--output {options.output}: cannot be read or written ({error}){left}")
        return 2
    except RuntimeError as error:  # of torch, such as memory that does not suffice
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        tell(f"stopped: {reason}. What was heard so far is kept; the same command goes on after it")
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def find_files(inputs: list[str]) -> list[str]:
    """
    List the recordings, each by its absolute path.

    Raises:
        ValueError: An input is an address or does not exist.
    """
    for name in inputs:
        if "://" in name:
            raise ValueError(f"{hide_password(name)}: is an address; an index is of files on this machine")
        if not os.path.exists(name):
            raise ValueError(f"{name}: there is no such file or folder")
    return list(dict.fromkeys(map(os.path.abspath, find_audio(inputs))))


def no_audio(inputs: list[str]) -> str:
    """Say that the inputs hold no recording."""
    return f"no audio in {', '.join(inputs)}: looked for {' '.join(AUDIO_SUFFIXES)}"


def load_encoder(name: str) -> TextEncoder:
    """
    Load a sentence encoder, named by `--encoder` or by the vectors that the index keeps.

    Raises:
        ValueError: It cannot be loaded.
    """
    try:
        return TextEncoder(name)
    except ValueError as error:
        raise ValueError(f"{error}; name the encoder of the captions, where it is now, with --encoder") from error


def make_settings(options: argparse.Namespace, weights: str) -> IndexSettings:
    """Make the settings of the index out of the command's options and the hash of the model's weights."""
    return IndexSettings(
        model=os.path.abspath(options.model) if os.path.isdir(options.model) else options.model,
        revision=options.revision,
        weights=weights,
        prompt=options.prompt,
        num_beams=options.num_beams,
        precision=options.precision,
    )


def update(
    writer: IndexWriter,
    reader: StateReader,
    files: list[str],
    encoder: TextEncoder | None,
    options: argparse.Namespace,
) -> int:
    """Take in what is new, take out what is gone, and return the exit code."""
    before = set(writer.table["audio"])
    held = before.union(writer.lost)
    if not files and not any(is_below(file, options.inputs) for file in held):
        raise ValueError(no_audio(options.inputs))
    if not options.forget:
        refuse_to_forget(options.inputs, files, held)
    files = list(dict.fromkeys([*files, *writer.lost]))
    new = writer.find_new(files)
    failed: dict[str, str] = {}
    try:
        take_in(writer, reader, files, new, failed, options)
    finally:
        writer.flush()
    writer.fail(failed)
    gone = {file for file in before if is_below(file, options.inputs) and isinstance(why_unseen(file), GONE)}
    hidden = {file for file in failed if not isinstance(why_unseen(file), (*GONE, type(None)))}
    writer.prune(gone.union(failed) - hidden)
    if encoder:
        keep_vectors(options.output, writer.table["caption"], encoder, options.encoder)
    now = set(writer.table["audio"])
    tell(
        f"{options.output}: recordings: {len(now)}, segments: {len(writer.table)}; new: {len(now - before)}, "
        f"changed: {len(set(new) & before & now)}, gone: {len(gone)}, not readable: {len(failed)}"
    )
    return 1 if failed else 0


def refuse_to_forget(folders: list[str], files: list[str], held: Collection[str]) -> None:
    """
    Refuse to take out all recordings of a folder, which may be the place of a disk that is not mounted now.

    Args:
        folders: Folders and files that the command names.
        files: Recordings that they list, by their absolute paths.
        held: Recordings of the index.

    Raises:
        ValueError: A folder lists none any more.
    """
    for folder in folders:
        if not any(is_below(file, [folder]) for file in files):
            count = sum(is_below(file, [folder]) for file in held)
            if count:
                raise ValueError(
                    f"{folder}: lists no recording now, and the index holds {count} of it; is its disk mounted? "
                    "If they are gone for good, --forget takes them out"
                )


def take_in(
    writer: IndexWriter,
    reader: StateReader,
    files: list[str],
    new: list[str],
    failed: dict[str, str],
    options: argparse.Namespace,
) -> None:
    """Hear the new files into the index; those that cannot be read get their reason in `failed`."""
    versions = {}
    for file in new:
        try:
            if not is_text(file):
                raise ValueError("its name is no UTF-8, which Parquet cannot hold")
            versions[file] = version_of(file)
        except OSError as error:
            failed[file] = f"{file}: cannot be read ({error.strerror})"
        except ValueError as error:
            failed[file] = f"{file}: {error}"
    for reason in failed.values():
        tell(reason)
    with tqdm(total=len(files), initial=len(files) - len(versions), unit="file", disable=None) as bar:
        for file, found in hear_files(reader, list(versions), options.batch_size, options.num_beams):
            if isinstance(found, Segment):
                size, modified = versions[file]
                row = {"audio": file, "size": size, "modified": modified, "start": found.start, "end": found.end}
                row |= {"caption": found.caption, "loss": found.loss, "is_last": found.is_last}
                writer.append(row, found.state)
                bar.update(found.is_last)
            else:
                failed[file] = str(found)
                tell(str(found))
                bar.update()


def is_below(file: str, folders: list[str]) -> bool:
    """Tell whether a file, by its absolute path, lies below one of the folders."""
    return any(Path(file).is_relative_to(os.path.abspath(folder)) for folder in folders)


def why_unseen(file: str) -> OSError | None:
    """Return the error of looking at a file, which only those of `GONE` say to be deleted; None if it is there."""
    try:
        os.stat(file)
    except OSError as error:
        return error
    return None


def tell(sentence: str) -> None:
    """Print a sentence beside the bar."""
    tqdm.write(f"mac-index: {sentence}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="mac-index",
        usage="%(prog)s [options] FOLDER [FOLDER ...] --output INDEX",  # short, since errors stand below it
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Hear a collection of recordings once, and keep captions and states, for mac-search.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="FOLDER", help="searched through and through; files may be named, too"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="INDEX",
        help="folder of the index; what it holds is not heard again",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="take out the recordings of a folder also where it lists none any more, which is refused without this: "
        "its disk may not be mounted",
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--model", default=DEFAULT_MODEL, help="folder or Hub id (default: the packaged mac-small)")
    model.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")
    model.add_argument(
        "--prompt", type=plain_text, help="what to ask (default, and of a blank one: what it was trained with)"
    )
    model.add_argument("--num-beams", type=positive, help="beams of the search (default: what the model ships with)")
    model.add_argument(
        "--precision", choices=("float16", "float32"), default="float16", help="of the states (default: float16)"
    )
    model.add_argument(
        "--encoder",
        metavar="FOLDER",
        help="sentence encoder, folder or Hub id, to search captions by meaning (default: that of the index)",
    )
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--device", help="such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    machine.add_argument("--batch-size", type=positive, default=8, help="recordings at a time (default: 8)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
