"""Reads the objects of a JSON list one at a time, since the whole list would take many times its file's size."""

import json
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any


BLOCK = 1 << 18  # characters that are read at a time
SPACE = " \t\n\r"
NEAR = 16  # characters before the end of a block in which a number or a word may be cut short


def read_json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Give the line number, from 1, and the object of each entry of a JSON list.

    Raises:
        ValueError: The file is missing, or is no list of objects in UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    with open(path, encoding="utf-8-sig") as file:
        text = JsonText(file)
        try:
            opener = "["
            while text.next_character() == opener:
                text.skip(1)
                if text.next_character() == "]" and opener == "[":
                    return
                line, row = text.line, text.value()
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {line}: expected an object; got {str(row)[:50]!r}.")
                yield line, row
                opener = ","
            if text.next_character() != "]":
                found = text.text[text.position : text.position + 20]
                raise ValueError(f"{path}, line {text.line}: expected a list of objects; got {found!r}.")
        except JSONDecodeError as error:
            raise ValueError(f"{path}, line {text.line}: not valid JSON ({error}).") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected UTF-8 text after line {text.line} ({error}).") from error
        except (OSError, RecursionError) as error:
            raise ValueError(f"{path}, line {text.line}: cannot be read ({error}).") from error


class JsonText:
    """
    A text file that is read block by block.

    Attributes:
        text: The part of the file that is held in memory.
        position: Index in `text` of the next value or sign.
        line: Line number of that index, from 1.
    """

    def __init__(self, file: IO[str]):
        self.file, self.decoder = file, json.JSONDecoder()
        self.text, self.position, self.line = "", 0, 1

    def skip(self, characters: int) -> None:
        """Move the position on by so many characters."""
        self.line += self.text.count("\n", self.position, self.position + characters)
        self.position += characters

    def read_more(self) -> bool:
        """Drop the text before the position and read another block; False at the end of the file."""
        block = self.file.read(BLOCK)
        self.text, self.position = self.text[self.position :] + block, 0
        return bool(block)

    def next_character(self) -> str:
        """Give the next character that is no white space; an empty text at the end of the file."""
        while True:
            end = self.position
            while end < len(self.text) and self.text[end] in SPACE:
                end += 1
            self.skip(end - self.position)
            if end < len(self.text):
                return self.text[end]
            if not self.read_more():
                return ""

    def value(self) -> Any:
        """Parse the value that begins at the next character."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
            except JSONDecodeError as error:
                cut_short = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - NEAR
                if not cut_short or not self.read_more():
                    raise
            else:
                self.skip(end - self.position)
                return value
