"""
Other wordings of captions, which training may draw in their place: a file of JSON lines, a caption each.

    {"caption": "a dog barks twice", "paraphrases": ["a dog is barking two times", "twice a dog barks"]}

`mac-paraphrase` writes such files. An empty list says that no paraphrase of the caption was good enough.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_mac.data.problems import Problems


def read_paraphrases(path: Path, problems: Problems) -> Iterator[tuple[int, str, list[str]]]:
    """
    Read a file of paraphrases.

    Args:
        path: Path of the file.
        problems: List to which what is wrong is added: lines that are no such objects, and captions that come twice.

    Yields:
        The line number from 1, the caption and its paraphrases.

    Raises:
        ValueError: The file is missing, or is no text in UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file of paraphrases.")
    first: dict[str, int] = {}
    with open(path, encoding="utf-8-sig") as file:
        try:
            for line, text in enumerate(file, start=1):
                row = parse(text)
                if row is None:
                    problems.append(
                        f'{path}, line {line}: expected {{"caption": TEXT, "paraphrases": [TEXT, ...]}} and no empty '
                        f"text; got {text.strip()[:80]!r}."
                    )
                elif row["caption"] in first:
                    problems.append(f"{path}, line {line}: the caption of line {first[row['caption']]} again.")
                else:
                    first[row["caption"]] = line
                    yield line, row["caption"], row["paraphrases"]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected UTF-8 text ({error}).") from error


def parse(text: str) -> dict[str, Any] | None:
    """Parse a line of the file; None if it is no caption with its paraphrases."""
    try:
        row = json.loads(text)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("paraphrases"), list):
        return None
    texts = [row.get("caption"), *row["paraphrases"]]
    return row if all(isinstance(one, str) and one.strip() for one in texts) else None


def load_paraphrases(path: str | None) -> dict[str, list[str]]:
    """Load the paraphrases of each caption that has some, from a file that was checked; none without a file."""
    rows = read_paraphrases(Path(path), Problems()) if path else ()
    return {caption: paraphrases for _, caption, paraphrases in rows if paraphrases}
