"""WebDataset shards: their list, and the samples and clips that they hold, one after another."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Audio, Features, Value, load_dataset

from processing_mac.dataset_mac import Clip, text_cells
from training_mac.recipe.data_fields import Source


TAR_BLOCK = 512  # bytes; an archive consists of such blocks, and ends with two blocks of zeros


def expand_braces(pattern: str) -> list[str]:
    """Expand `shard-{000..012}.tar` and `{train,val}.tar` as the shell would."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    first, last, names = match.groups()
    if first is None:
        values = names.split(",")
    else:
        values = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [
        one for value in values for one in expand_braces(pattern[: match.start()] + value + pattern[match.end() :])
    ]


def list_shards(source: Source) -> list[str]:
    """
    List the shards that a source names by paths, addresses, `*` and braces.

    Raises:
        ValueError: A local shard is missing.
    """
    shards: list[str] = []
    for pattern in source.path if isinstance(source.path, list) else [source.path]:
        for name in expand_braces(str(pattern)):
            if "://" in name:
                shards.append(name)
                continue
            path = Path(name).absolute()
            found = sorted(path.parent.glob(path.name))
            if not found:
                raise ValueError(f"{name}: no such shard.")
            shards += map(str, found)
    return shards


def check_shard(shard: str) -> None:
    """
    Look at both ends of a local archive: a truncated one would lose samples in silence, or end the training.

    Raises:
        ValueError: The archive, which the message names, is empty, truncated or unreadable.
    """
    if "://" in shard:
        return
    try:
        with open(shard, "rb") as file:
            head = file.read(TAR_BLOCK)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2 * TAR_BLOCK))
            tail = file.read()
    except OSError as error:
        raise ValueError(f"{shard}: cannot be read ({error.strerror}).") from error
    if not head.strip(b"\0"):
        raise ValueError(f"{shard}: an empty archive; expected samples.")
    if head[257:262] == b"ustar" and (size % TAR_BLOCK or tail.strip(b"\0")):
        raise ValueError(f"{shard}: a truncated archive, its end is missing.")


def read_samples(samples: Iterable[dict[str, Any]], source: Source) -> Iterator[dict[str, Any]]:
    """
    Go through the samples of a stream.

    Raises:
        ValueError: A shard cannot be read on; the message names the last sample before.
    """
    last = "the beginning"
    try:
        for sample in samples:
            last = f"{sample['__url__']}, {sample['__key__']}"
            yield sample
    except Exception as error:  # parsers and file systems raise errors of any class
        raise ValueError(f"{source.path}: cannot be read on after {last} ({error}).") from error


def open_shards(source: Source) -> tuple[Any, str]:
    """Open the shards of a source as a stream of samples with encoded audio; also give the name of the audio field."""
    shards = list_shards(source)
    for shard in shards:
        check_shard(shard)
    options: dict[str, Any] = {"data_files": {"train": shards}, "split": "train", "streaming": True}
    try:
        samples = load_dataset("webdataset", **options)
        found = [name for name, feature in samples.features.items() if isinstance(feature, Audio)]
        # `datasets` would decode even encoded audio with torchcodec, but hands bytes on as they are.
        features = Features({**samples.features, **dict.fromkeys(found, Value("binary"))})
        samples = load_dataset("webdataset", features=features, **options)
    except Exception as error:  # parsers and file systems raise errors of any class
        raise ValueError(f"{source.path}: cannot be read as WebDataset shards ({error}).") from error
    column = source.columns.get("audio") or (found[0] if found else "")
    if column not in found:
        raise ValueError(
            f"{source.path}: no audio{f' {column!r}' if column else ''} in its samples; they hold "
            f"{', '.join(name for name in samples.features if not name.startswith('__'))}."
        )
    return samples, column


def sample_clip(sample: dict[str, Any], column: str, source: Source) -> Clip | None:
    """
    Make a sample a clip whose captions are a field of its JSON, else its text file. None without audio or caption.
    """
    if not sample[column]:
        return None
    cells = {**sample, **(sample.get("json") or {})}
    captions = text_cells(cells, source.columns, "caption") or text_cells(cells, {"caption": "txt"}, "caption")
    if not captions:
        return None
    kind, prompt = text_cells(cells, source.columns, "source"), text_cells(cells, source.columns, "prompt")
    audio = {"bytes": sample[column], "path": f"{sample['__url__']}, {sample['__key__']}"}
    phrases = text_cells(cells, source.columns, "phrase")
    return Clip(audio, captions, phrases, kind[0] if kind else None, prompt[0] if prompt else source.prompt)
