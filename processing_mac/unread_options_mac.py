"""Which options of `mac-caption` this use of it would not read."""

import argparse
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .segment_files_mac import format_of
from .web_addresses_mac import is_web_address


# A use of the command, and the options that it does not read.
UNREAD = {
    "--stream": ("segments", "whole", "ray", "ray_actors", "shards", "batch_size", "url_megabytes"),
    "--ray": ("format", "whole", "threads", "reconnect", "cut"),
    "recordings and folders without --ray": ("reconnect", "cut", "ray_actors", "shards"),
}


def find_unread(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str | None:
    """
    Find an option that was given, with another value than its default, and that nothing would read.

    Returns:
        A sentence that says so; None if every option is read.
    """
    use = "--stream" if options.stream else "--ray" if options.ray is not None else list(UNREAD)[2]
    given = {name for name, value in vars(options).items() if value != parser.get_default(name)}
    if unread := [name for name in UNREAD[use] if name in given]:
        return f"{', '.join(map(flag, unread))}: not read with {use}"
    sources = [options.stream] if options.stream else options.inputs
    needs = {
        ("revision",): (not os.path.isdir(options.model), f"--model is the folder {options.model}, without revisions"),
        ("reconnect",): (is_web_address(sources[0]), f"--stream {options.stream} is no address"),
        ("url_timeout", "url_megabytes"): (any(map(is_web_address, sources)), "no recording is an address"),
        ("shards",): (is_folder(options.output), "--output is no folder"),
        ("whole",): (not holds_segments_alone(options), "what is heard in each window is written, and nothing else"),
    }
    for names, (is_read, reason) in needs.items():
        if (found := given.intersection(names)) and not is_read:
            return f"{flag(min(found))}: not read, since {reason}"
    return None


def refuse_given(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: Collection[str], reason: str
) -> None:
    """
    Refuse options that were given, with another value than their default, and that nothing would read.

    Raises:
        ValueError: One of `names` was given; the message says the reason.
    """
    given = [flag(name) for name in names if getattr(options, name) != parser.get_default(name)]
    if given:
        raise ValueError(f"{', '.join(given)}: not read, since {reason}")


def flag(name: str) -> str:
    """Write the name of an option as it is given."""
    return f"--{name.replace('_', '-')}"


def is_folder(output: Any) -> bool:
    """Whether an output of --ray, if there is one, is a folder of shards."""
    return output is not None and not str(output).lower().endswith((".jsonl", ".csv"))


def holds_segments_alone(options: argparse.Namespace) -> bool:
    """Whether subtitles, labels or a table of segments are asked for, by `--format` or by the suffix of `--output`."""
    by_suffix = format_of(Path(options.output)) if options.output else None
    return options.format is not None or by_suffix not in (None, "jsonl", "csv")


__all__ = ["find_unread", "refuse_given"]
