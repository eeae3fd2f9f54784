"""Lists of the names of classes: those of eight published data sets, which ship, and those of a file."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from processing_mac.dataset_mac import read_rows


FOLDER = Path(__file__).parent / "labels"
SHIPPED = ("esc50", "vocalsound", "tut17", "dcase17", "beijing_opera", "fsd50k", "vggsound", "audioset")
NAMES, CODES = ("label", "display_name"), ("code", "mid")  # columns: ours, and those of class_labels_indices.csv


def letters(text: str) -> str:
    """Give what a name is known by: its letters and digits, in lower case."""
    return "".join(filter(str.isalnum, text.lower()))


@dataclass(frozen=True)
class LabelList:
    """
    The names of all classes of a data set, in order.

    Args:
        origin: What messages call the list.
        names: Names as they are published.
        codes: Name of each code by which a table may call it, such as AudioSet's "/m/09x0r".

    Raises:
        ValueError: There is no name, or two differ in nothing but case and punctuation.
    """

    origin: str
    names: tuple[str, ...]
    codes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"{self.origin}: holds no labels.")
        for name in self.names:
            if (other := self.by_letters[letters(name)]) != name or self.names.count(name) > 1:
                raise ValueError(f"{self.origin}: {other!r} and {name!r} are one label; expected every label once.")

    @cached_property
    def by_letters(self) -> dict[str, str]:
        """Name by its letters; of several with the same the first."""
        return {letters(name): name for name in reversed(self.names)}

    def find(self, label: str) -> str:
        """
        Give the name in the list that a label means, whatever its case and punctuation; it may also be a code.

        Raises:
            ValueError: The list lacks it.
        """
        found = self.codes.get(label.strip()) or self.by_letters.get(letters(label))
        if found is None:
            near = difflib.get_close_matches(letters(label), self.by_letters, n=1)
            hint = f" Did you mean {self.by_letters[near[0]]!r}?" if near else ""
            raise ValueError(f"no label {label!r} among the {len(self.names)} of {self.origin}.{hint}")
        return found


def read_label_list(name: str | Path) -> LabelList:
    """
    Read a list that ships, by its name, or one from a file.

    Args:
        name: One of `SHIPPED`, however spelled ("ESC-50"), or a path: a text with one label a line, or a CSV with a
            column `label` or `display_name`, and maybe `code` or `mid`, by which a table may call it.

    Raises:
        ValueError: There is no such list, or the file holds none.
    """
    shipped = next((one for one in SHIPPED if letters(one) == letters(str(name))), None)
    path = FOLDER / f"{shipped}.csv" if shipped else Path(name)
    if not path.is_file():
        raise ValueError(f"{name}: no such list of labels; expected a file, or one of {', '.join(SHIPPED)}.")
    origin = shipped or str(path)
    if path.suffix != ".csv":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return LabelList(origin, tuple(filter(None, map(str.strip, lines))))
    return from_rows(origin, (row for _, row in read_rows(path)))


def from_rows(origin: str, rows: Iterable[Mapping[str, str | None]]) -> LabelList:
    """Make a list of the rows of a CSV."""
    names: list[str] = []
    codes: dict[str, str] = {}
    for row in rows:
        name, code = (
            (next((row[c] for c in columns if row.get(c)), None) or "").strip() for columns in (NAMES, CODES)
        )
        if not any(column in row for column in NAMES):
            raise ValueError(f"{origin}: expected a column `label` or `display_name`; it has {', '.join(row)}.")
        if name:
            names.append(name)
            codes |= {code: name} if code else {}
    return LabelList(origin, tuple(names), codes)
