"""`mac-caption … --ray`: the same command and the same output, on a Ray cluster or on all cores of this machine."""

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from processing_mac import load_captioner
from processing_mac.caption_file_mac import CaptionFile
from processing_mac.cli_mac import NOTHING_SAID, end_in_words, format_caption
from processing_mac.finding_audio_mac import find_audio
from processing_mac.web_addresses_mac import hide_password

from .bulk_files import ShardFolder, is_remote, list_remote
from .bulk_ray import BulkOptions, caption_on_ray, start_ray
from .server_loading import loading_beside_workers


def caption_in_bulk(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """
    Caption recordings on Ray and return the exit code, which is that of `mac-caption`.

    Args:
        parser: Parser of `mac-caption`, for its errors.
        options: Its options.
    """
    output = None
    try:
        files = [file for name in options.inputs for file in (list_remote if is_remote(name) else find_local)(name)]
        files = list(dict.fromkeys(files))
        if not files:
            raise ValueError(f"no audio in {', '.join(options.inputs)}")
        output = open_output(options)
        todo = [file for file in files if output is None or file not in output.done]
        if todo:  # a model that cannot be loaded is told here, and not by every worker
            here = loading_beside_workers(options.device, options.int8, options.compile)
            load_captioner(options.model, **worker_options(options).captioner | here)
        ray = start_ray(options.ray or None) if todo else None
    except (OSError, ValueError) as error:
        parser.error(str(error))

    def work() -> int:
        results = caption_on_ray(ray, todo, worker_options(options), options.ray_actors) if todo else ()
        with (
            output if isinstance(output, ShardFolder) else nullcontext(),
            tqdm(total=len(files), initial=len(files) - len(todo), unit="file", disable=output is None) as bar,
        ):
            failed = 0
            for file, result in results:
                failed += not take(output, file, result)
                bar.update()
        return 1 if failed else 0

    try:
        return end_in_words(work, options, output)
    except Exception as error:
        if ray is None or not isinstance(error, ray.exceptions.RayError):
            raise
        parser.error(f"a worker failed: {first_line(error)}")
    finally:
        if ray is not None:
            ray.shutdown()


def find_local(name: str) -> list[str]:
    """List the recordings of one input of this machine."""
    return find_audio([name])


def open_output(options: argparse.Namespace) -> CaptionFile | ShardFolder | None:
    """Open the output: a file of captions, or a folder of shards where the name has no suffix of such a file."""
    if options.output is None:
        return None
    name = str(options.output)
    if not is_remote(name) and Path(name).suffix.lower() in (".jsonl", ".csv"):
        return CaptionFile(Path(name), options.segments)
    return ShardFolder(name, options.shards, options.segments)


def worker_options(options: argparse.Namespace) -> BulkOptions:
    """Take what a worker needs out of the command's options."""
    names = ("revision", "device", "prompt", "num_beams", "dtype", "int8", "compile")
    captioner = {name: getattr(options, name) for name in names} | {"return_segments": options.segments}
    limits = {"silent_seconds": options.url_timeout, "megabytes": options.url_megabytes}
    return BulkOptions(
        model=options.model,
        batch_size=options.batch_size,
        captioner=captioner,
        url_limits={name: value for name, value in limits.items() if value is not None},
        folder=os.getcwd(),
    )


def take(output: CaptionFile | ShardFolder | None, file: str, result: dict[str, Any] | ValueError) -> bool:
    """Print or write one result as `mac-caption` does, and tell whether it holds the captions."""
    if isinstance(output, ShardFolder) and not output.can_hold(file):
        result = ValueError(f"{file!a}: its name is no UTF-8, which Parquet cannot hold; take --shards jsonl")
    if isinstance(result, ValueError):
        tqdm.write(f"mac-caption: {result}", file=sys.stderr)
        if isinstance(output, ShardFolder):
            output.fail(file, str(result))
        return False
    if not result["caption"].strip():
        tqdm.write(f"mac-caption: {hide_password(file)}: {NOTHING_SAID}", file=sys.stderr)
    if output is None:
        print(format_caption(file, result), flush=True)
    else:
        output.append({"audio": file, **result})
    return True


def first_line(error: Exception) -> str:
    """Give the reason of a failed worker, which stands in the last line that Ray tells."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
