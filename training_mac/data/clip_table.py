"""Millions of clips in little memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow

from processing_mac.dataset_mac import Clip


SCHEMA = pyarrow.schema(
    {
        "audio": pyarrow.string(),
        "captions": pyarrow.list_(pyarrow.string()),
        "phrases": pyarrow.list_(pyarrow.string()),
        "source": pyarrow.string(),
        "prompt": pyarrow.string(),
    }
)


class ClipTable(Sequence):
    """
    Clips as an Arrow table. As objects they would take two to three times the memory, and again in each worker: to
    read an object is to change its count of references, and so to copy the page of memory that it lies in.

    Args:
        clips: Whose audio is a path, or anything else that then stays an object.
    """

    def __init__(self, clips: Iterable[Clip]):
        self.stored: dict[int, Any] = {}
        columns: dict[str, list] = {name: [] for name in SCHEMA.names}
        for row, clip in enumerate(clips):
            for name, column in columns.items():
                column.append(getattr(clip, name))
            if not isinstance(clip.audio, str):
                self.stored[row] = clip.audio
                columns["audio"][-1] = None
        self.table = pyarrow.table(columns, schema=SCHEMA)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(f"{row} of {len(self)} clips.")
        cells = {name: self.table[name][row].as_py() for name in SCHEMA.names}
        audio = self.stored.get(row, cells["audio"])
        return Clip(audio, tuple(cells["captions"]), tuple(cells["phrases"]), cells["source"], cells["prompt"])

    @property
    def recordings(self) -> "Recordings":
        """The audio of each clip."""
        return Recordings(self)


class Recordings(Sequence):
    """The audio column of a table."""

    def __init__(self, clips: ClipTable):
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, row: Any) -> Any:
        return self.clips.stored.get(row) or self.clips.table["audio"][row].as_py()

    def __iter__(self) -> Iterator[Any]:
        for row, audio in enumerate(self.clips.table["audio"].to_pylist()):
            yield audio if audio is not None else self.clips.stored[row]
