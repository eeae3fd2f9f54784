"""
The command `mac-caption`, which writes captions for recordings and folders of recordings.

    mac-caption dog.wav rain.flac
    mac-caption recordings --output captions.jsonl      # the same command again continues where it stopped
    mac-caption dog.wav --model user/name --revision v1
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from processing_mac import AudioCaptioningPipeline, load_captioner

from .audio_mac import AUDIO_SUFFIXES, TooLongError
from .caption_file_mac import CaptionFile
from .caption_options_mac import build_parser, check_device
from .captioning_mac import caption_files
from .finding_audio_mac import find_audio
from .free_cores_mac import FreeCores
from .listening_mac import merge_equal
from .long_recordings_mac import BLOCK_WINDOWS, caption_long_file, load_short
from .segment_files_mac import (
    SUFFIXES,
    TABLES,
    GrowingSegments,
    SegmentFiles,
    SegmentText,
    format_of,
    write_segments,
)
from .stream_cli_mac import caption_stream, open_stream_output
from .unfinished_mac import UnfinishedSegments
from .unread_options_mac import find_unread
from .web_addresses_mac import hide_password


Output = CaptionFile | SegmentFiles | GrowingSegments
NOTHING_SAID = "the model said nothing to this prompt"


def main(arguments: list[str] | None = None) -> int:
    """
    Caption the recordings and return the exit code.

    Returns:
        0 if all recordings were captioned, 1 if some could not be read, 2 if the captions cannot be written, 130 after
        Ctrl-C, 141 if nobody reads the output any more. If nothing can be done, the parser exits with 2.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    show_any_name(sys.stdout)
    if bool(options.inputs) == bool(options.stream):
        parser.error("expected recordings and folders, or --stream with one source")
    if unread := find_unread(parser, options):
        parser.error(unread)
    check_device(parser, options)
    if options.ray is not None:
        return importlib.import_module("serving_mac.bulk_cli").caption_in_bulk(parser, options)
    if isinstance(options.output, str):
        parser.error(f"--output {options.output}: is an address, which only --ray writes to")
    files = find_audio(options.inputs)
    if not files and not options.stream:
        parser.error(f"no audio in {', '.join(options.inputs)}: looked for {' '.join(AUDIO_SUFFIXES)}")
    try:
        output = open_output(options, files)
    except ValueError as error:
        parser.error(f"--output {error}")
    except OSError as error:
        parser.error(f"--output {options.output}: cannot be written ({error.strerror or error})")

    def work() -> int:
        free_cores = FreeCores()  # it looks before the loading, so that the first batch knows what there is
        captioner = open_captioner(parser, options)
        if options.stream:
            return caption_stream(captioner, options, output)
        assert not isinstance(output, GrowingSegments)  # which is of a stream
        return 1 if caption_all(captioner, files, output, options, free_cores) else 0

    try:
        return end_in_words(work, options, output)
    finally:
        if output is not None:
            output.close()


def end_in_words(work: Callable[[], int], options: argparse.Namespace, output: Any) -> int:
    """Return the exit code of the work; what stops it, or the writing of its output, is told in a line."""
    try:
        return work()
    except KeyboardInterrupt:
        tqdm.write(f"mac-caption: stopped. {what_is_kept(output)}".rstrip(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python would write what is left to the pipe once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        tqdm.write("mac-caption: stopped, since nobody reads its output any more", file=sys.stderr)
        return 141
    except OSError as error:
        target = f"--output {options.output}" if output else "the output"
        tqdm.write(
            f"mac-caption: {target}: cannot be written ({error}). {what_is_kept(output)}".rstrip(), file=sys.stderr
        )
        return 2


def open_captioner(parser: argparse.ArgumentParser, options: argparse.Namespace) -> AudioCaptioningPipeline:
    """Load the model as the options say; the parser ends the command if that is not possible."""
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        captioner = load_captioner(
            options.model,
            revision=options.revision,
            device=options.device,
            prompt=options.prompt,
            return_segments=options.segments,
            num_beams=options.num_beams,
            dtype=options.dtype,
            int8=options.int8,
            compile=options.compile,
        )
    except ValueError as error:
        parser.error(f"--model {error}")
    limits = {"silent_seconds": options.url_timeout, "megabytes": options.url_megabytes}
    captioner.feature_extractor.url_limits = {name: value for name, value in limits.items() if value is not None}
    return captioner


def caption_all(
    captioner: AudioCaptioningPipeline,
    files: list[str],
    output: CaptionFile | SegmentFiles | None,
    options: argparse.Namespace,
    free_cores: FreeCores | None,
) -> int:
    """
    Caption all recordings, those of one window in batches and longer ones window by window.

    Returns:
        Number of recordings that could not be read.
    """
    failed = unsaid = 0
    show = show_as(options.format, len(files))
    if options.threads or captioner.device.type != "cpu" or captioner.is_compiled:
        free_cores = None
    todo = [file for file in files if output is None or file not in output.done]
    extractor, windows = captioner.feature_extractor, captioner.processor.trained_windows
    load = None if options.whole else partial(load_short, extractor, windows)
    with tqdm(total=len(files), initial=len(files) - len(todo), unit="file", disable=output is None) as bar:
        for file, result in caption_files(captioner, todo, options.batch_size, load, free_cores):
            if isinstance(result, TooLongError):
                if free_cores:
                    free_cores.take()
                result = caption_long(captioner, file, output, options)
                if output is not None and not options.segments and not isinstance(result, ValueError):
                    unsaid += len(result["segments"]) > 1  # a pipe may hold a short recording
            if isinstance(result, ValueError):
                failed += 1
                tqdm.write(f"mac-caption: {result}", file=sys.stderr)
            else:
                if not result["caption"].strip():
                    tqdm.write(f"mac-caption: {hide_password(file)}: {NOTHING_SAID}", file=sys.stderr)
                if output is None:
                    print(show(file, result).rstrip("\n"), flush=True)
                else:
                    output.append({"audio": file, **result})
                    output.unfinished(file).unlink(missing_ok=True)
            bar.update()
    if unsaid:
        longer = "1 recording is" if unsaid == 1 else f"{unsaid} recordings are"
        tqdm.write(
            f"mac-caption: {longer} longer than a window; --segments also writes what is heard when", file=sys.stderr
        )
    return failed


def caption_long(
    captioner: AudioCaptioningPipeline,
    file: str,
    output: CaptionFile | SegmentFiles | None,
    options: argparse.Namespace,
) -> dict[str, Any] | ValueError:
    """
    Caption a recording window by window, and keep what is there so far beside the output, for a run that goes on.

    Without an output or a format, segments are printed as they come; the result then is without them.
    """
    waiting: list[dict[str, Any]] = []

    def print_waiting() -> None:
        with tqdm.external_write_mode(sys.stdout):
            print(*map(format_segment, waiting), sep="\n", flush=True)
        waiting.clear()

    def print_segment(segment: dict[str, Any]) -> None:
        # One segment alone, of a short recording in a pipe, says no more than its caption.
        waiting.append(segment)
        if segment["start"] > 0 or options.segments:
            print_waiting()

    try:
        if output is not None:
            names = ("model", "revision", "dtype", "int8", "compile", "prompt", "num_beams")
            settings = {name: getattr(options, name) for name in names}
            unfinished = UnfinishedSegments(output.unfinished(file), file, settings, BLOCK_WINDOWS)
            return caption_long_file(captioner, file, unfinished.append, unfinished.segments)
        if options.format:
            return caption_long_file(captioner, file)
        return {"caption": caption_long_file(captioner, file, print_segment)["caption"]}
    except ValueError as error:
        if waiting:
            print_waiting()
        if output is not None:  # a later run would break off at the same place
            output.unfinished(file).unlink(missing_ok=True)
        return error


def what_is_kept(output: Any) -> str:
    """Say what a run that ends too early leaves behind."""
    if isinstance(output, GrowingSegments):
        return "Captions written so far are kept"
    return "Captions written so far are kept; the same command goes on after them" if output else ""


def open_output(options: argparse.Namespace, files: list[str]) -> Output | None:
    """Open what `--output` names, and let its suffix choose the format where `--format` does not."""
    if options.stream:
        return open_stream_output(options.output, options.format) if options.output else None
    by_suffix = format_of(options.output) if options.output else None
    if options.format is None and by_suffix not in ("jsonl", "csv"):
        options.format = by_suffix
    options.segments = options.segments or options.format is not None
    if options.output is None:
        if options.format not in (None, *TABLES) and len(files) > 1:
            raise ValueError(f"is needed for {len(files)} recordings with --format {options.format}: a folder.")
        return None
    if options.format:
        segment_files = SegmentFiles(options.output, options.format, files)
        if there := segment_files.already_there():
            print(f"mac-caption: {there}", file=sys.stderr)
        return segment_files
    if by_suffix is None:
        raise ValueError(f"{options.output}: expected a name that ends in {', '.join(SUFFIXES)}; or --format.")
    return CaptionFile(options.output, options.segments)


def show_as(format: str | None, recordings: int) -> Callable[[str, dict[str, Any]], str]:
    """Choose how records are printed: as segments in this format, of several recordings in one table, or captions."""
    if format is None:
        return format_caption
    if recordings > 1:
        table = SegmentText(format)
        return lambda file, record: table.write(merge_equal(record["segments"]), audio=file)
    return lambda file, record: write_segments(record["segments"], format)


def show_any_name(stream: Any) -> None:
    """
    Let a terminal of any encoding show the names of all files.

    A name that is no UTF-8 keeps its own bytes on a UTF-8 terminal; any other terminal shows escapes.
    """
    if hasattr(stream, "reconfigure"):
        is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def format_caption(file: str, record: dict[str, Any]) -> str:
    """Format a record as `path<TAB>caption`, below its segments, which are indented."""
    return "\n".join([*map(format_segment, record.get("segments", [])), f"{file}\t{record['caption']}"])


def format_segment(segment: dict[str, Any]) -> str:
    """Format a segment as an indented line of its seconds and its caption."""
    return f"    {segment['start']:.2f}-{segment['end']:.2f} s\t{segment['caption']}"


if __name__ == "__main__":
    sys.exit(main())
