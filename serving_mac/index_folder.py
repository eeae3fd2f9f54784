"""
An index as it lies in its folder, for those who read it.

    index.json              model, hash of its weights, prompt, number type
    part-00000.parquet      a row a segment: file, its size and time, start, end, caption, loss, place of its state
    part-00000.safetensors  states, (rows, …) a tensor of the language model's cache; names the hash of its weights
    embeddings.parquet      vectors of the different captions, if a sentence encoder was named
    failed.jsonl            files that could not be read in the last run
    next-part.txt           number of the next part: that of a part that was taken out never comes again

A part is there once its table is, which is written after its states. A row counts if it belongs to the last complete
reading of its file, so that neither a run that was killed nor a file that changed leaves anything wrong.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open

from .index_states import States


SETTINGS, FAILED, NEXT_PART, LOCK = "index.json", "failed.jsonl", "next-part.txt", ".lock"
CHANGED = "the index changed meanwhile; search again"
FORMAT = 1
SCHEMA = pa.schema(
    [
        ("audio", pa.string()),
        ("size", pa.int64()),  # bytes
        ("modified", pa.int64()),  # nanoseconds since 1970
        ("start", pa.float64()),  # seconds
        ("end", pa.float64()),
        ("caption", pa.string()),
        ("loss", pa.float32()),  # of the caption, nats a token
        ("is_last", pa.bool_()),  # segment of its file
        ("row", pa.int32()),  # in the part's tensors
    ]
)


@dataclass(frozen=True)
class IndexSettings:
    """
    What all states of an index have in common.

    Args:
        model: Folder or Hub id of the model.
        revision: Branch, tag or commit of a model on the Hub; None for its main branch.
        weights: Hash of its weights, as `AudioState` keeps it.
        prompt: What the captions answer; None for the model's own prompt.
        num_beams: Beams of the search for captions; None for what the model ships with.
        precision: Number type of the states: "float16" or "float32".
    """

    model: str
    revision: str | None
    weights: str
    prompt: str | None
    num_beams: int | None
    precision: str

    def write(self) -> str:
        """Write the settings as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "IndexSettings":
        """
        Read the settings of an index.

        Raises:
            ValueError: The folder is no index, or one of another format.
        """
        file = folder / SETTINGS
        if not folder.is_dir() or not file.is_file():
            raise ValueError(f"{folder}: is no index; expected a folder that mac-index made")
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            number = fields.pop("format")
            settings = cls(**fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{file}: are no settings of an index ({error})") from error
        if number != FORMAT:
            raise ValueError(f"{file}: is of format {number}; this version reads {FORMAT}")
        return settings

    def refuse_other_model(self, folder: Path, weights: str) -> None:
        """Raise a ValueError unless the weights of a model, by their hash, are those that heard the states."""
        if weights != self.weights:
            raise ValueError(f"{folder}: was made by another model, {self.model}; its states say nothing to this one")


class BrokenPartError(ValueError):
    """A part of an index is damaged."""


def part_files(folder: Path) -> list[Path]:
    """List the tables of the parts in their order."""
    return sorted(file for file in folder.glob("part-*.parquet") if file.stem[5:].isdecimal())


def read_part(file: Path, weights: str) -> pd.DataFrame:
    """
    Read the table of a part, and see that its states are all there and of the index's model.

    Args:
        file: Table of the part.
        weights: Hash of the weights of the index's model.

    Returns:
        The columns of `SCHEMA`, and `part`, the part's name.

    Raises:
        BrokenPartError: The table or the states are damaged or of different sizes, or the states are missing.
        ValueError: The states are of another model.
        OSError: They cannot be read now, which says nothing about what they hold.
    """
    table = read_table(file)
    states = file.with_suffix(".safetensors")
    try:
        states.open("rb").close()  # as in `read_states`
        with safe_open(states, "pt") as content:
            rows = {content.get_slice(name).get_shape()[0] for name in content.keys()}  # noqa: SIM118  no mapping
            heard_by = (content.metadata() or {}).get("weights", weights)  # the first indexes did not say
        if len(rows) != 1 or table["row"].max() >= rows.pop():
            raise ValueError("its table and its states do not belong together")
    except FileNotFoundError as error:
        if states.exists() or not file.exists():  # another run took out the whole part meanwhile
            raise
        raise BrokenPartError(f"{file.parent}: {file.stem} is damaged (it has no states)") from error
    except (ValueError, IndexError, SafetensorError) as error:
        raise BrokenPartError(f"{file.parent}: {file.stem} is damaged ({error})") from error
    if heard_by != weights:
        raise ValueError(f"{file.parent}: {file.stem} was heard by another model; take it out of the folder")
    return table


def read_table(file: Path) -> pd.DataFrame:
    """
    Read the table of a part alone, as `read_part` returns it.

    Raises:
        BrokenPartError: It is damaged.
        OSError: It cannot be read now.
    """
    try:
        content = pq.ParquetFile(file).read()
        if not content.schema.equals(SCHEMA):
            raise ValueError(f"its table has the columns {', '.join(content.column_names)}")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own, of what is damaged, have none
            raise
        raise BrokenPartError(f"{file.parent}: {file.stem} is damaged ({error})") from error
    return content.to_pandas().assign(part=file.stem)


def join_parts(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the tables of parts together, with only those rows that count."""
    table = pd.concat(parts, ignore_index=True) if parts else SCHEMA.empty_table().to_pandas().assign(part="")
    complete = table[table["is_last"]].drop_duplicates("audio", keep="last")[["audio", "size", "modified"]]
    table = table.merge(complete, on=["audio", "size", "modified"])
    return table.drop_duplicates(["audio", "start"], keep="last").reset_index(drop=True)


class IndexFolder:
    """
    An index that is read.

    Args:
        folder: Folder of the index.

    Attributes:
        settings: What all of it has in common.
        table: A row a segment with the columns of `SCHEMA`, and `part`.

    Raises:
        ValueError: The folder is no index, a part of it is damaged or of another model, or it changed meanwhile.
        OSError: It cannot be read now.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = IndexSettings.read(folder)
        try:
            self.table = join_parts([read_part(file, self.settings.weights) for file in part_files(folder)])
        except FileNotFoundError as error:
            raise ValueError(f"{folder}: {CHANGED}") from error
        except BrokenPartError as error:
            raise ValueError(f"{error}; run mac-index again, which mends it") from error

    def states(self, rows: np.ndarray) -> States:
        """
        Read the states of some segments, and of no others, from the disk.

        Args:
            rows: Rows of `table`, (rows,).

        Raises:
            ValueError: A run of mac-index took out a part meanwhile.
        """
        chosen = self.table.iloc[rows]
        found: dict[str, list[torch.Tensor]] = {}
        for part, places in chosen.reset_index(drop=True).groupby("part").groups.items():
            try:
                picked = read_states(self.folder / f"{part}.safetensors", chosen["row"].to_numpy()[places])
            except FileNotFoundError as error:
                raise ValueError(f"{self.folder}: {CHANGED}") from error
            for name, tensor in picked.items():
                target = found.setdefault(name, [tensor[:1]] * len(rows))
                for place, row in zip(places, tensor.split(1), strict=True):
                    target[place] = row
        return {name: torch.cat(parts) for name, parts in found.items()}


def read_states(file: Path, rows: np.ndarray) -> States:
    """Read the states of some rows, (rows,), of a part."""
    file.open("rb").close()  # tells why it cannot be opened; safetensors calls every such file missing
    with safe_open(file, "pt") as content:
        slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118  no mapping
        return {name: torch.cat([part[int(row) : int(row) + 1] for row in rows]) for name, part in slices.items()}
