"""Writes who made the recordings that a model learnt from, and under which licence: `attribution.csv` by its card."""

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError

from processing_mac.whole_files_mac import write_text_whole
from training_mac.recipe.fields import shipped_model


NAME = "attribution.csv"


def write_attribution(folder: Path, stages: Sequence[Mapping[str, Any]]) -> tuple[bool, list[str]]:
    """
    Join the attribution files beside each stage's data and of the model below: all that the model learnt from.

    Args:
        folder: Folder of the model, which the file is written to.
        stages: Each stage's fields as the recipe and the command line gave them.

    Returns:
        Whether there is any attribution, and the names of the data that came without one.
    """
    data = dict.fromkeys(path for stage in stages for path in data_paths(stage.get("train_data")))
    files = dict.fromkeys(path.parent / NAME for path in data)
    bases = dict.fromkeys(shipped_model(stage["base_model"]) for stage in stages if stage.get("base_model"))
    credited = [*filter(None, map(find_base_file, bases)), *(file for file in files if file.is_file())]
    rows = list({tuple(row.items()): row for row in read_rows(credited)}.values())
    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text_whole(folder / NAME, text.getvalue())
    return bool(rows), [path.name for path in data if not (path.parent / NAME).is_file()]


def data_paths(told: Any) -> list[Path]:
    """Collect the paths in what a recipe says of data: a path, a mapping with one, or a list of these."""
    sources = told if isinstance(told, list) else [told]
    paths = [source.get("path") if isinstance(source, Mapping) else source for source in sources]
    listed = [one for path in paths for one in (path if isinstance(path, list) else [path])]  # shards: a list
    return [Path(path) for path in listed if path]


def find_base_file(base: str) -> Path | None:
    """Find the attribution file of a model in a folder or on the Hub; None if it has none."""
    if Path(base).is_dir():
        file = Path(base) / NAME
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(base, NAME))
    except RemoteEntryNotFoundError:
        return None
    except OSError as error:  # there is no network
        print(f"{base}: whether it has {NAME} is not known, add it by hand if so ({error}).", file=sys.stderr)
        return None


def read_rows(files: Iterable[Path]) -> Iterable[dict[str, str]]:
    """Go through the rows of all files."""
    for file in files:
        with open(file, encoding="utf-8", newline="") as lines:
            yield from csv.DictReader(lines)
