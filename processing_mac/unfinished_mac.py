"""The segments of a long recording as they come, in a file from which a run that was stopped goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .whole_files_mac import write_file_whole


class UnfinishedSegments:
    """
    The segments so far of one recording, a line of JSON each, below a line that says of what and by what they are.

    Args:
        path: Path of the file. What another recording, another model or an earlier content left there is replaced.
        recording: Path or address of the recording. Of a file, the size and the time of its last change tell whether
            it is the same as before; anything else is new each time.
        settings: What else the captions depend on, such as the model's name.
        multiple: How many segments are made at once; of an earlier run's, a multiple of it is kept.

    Attributes:
        segments: Segments that an earlier run left.

    Raises:
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path, recording: str, settings: Mapping[str, Any], multiple: int = 1):
        self.path = path
        content = {}
        if os.path.isfile(recording):
            status = os.stat(recording)
            content = {"bytes": status.st_size, "changed": status.st_mtime_ns}
        head = json.dumps({"audio": recording, **content, **settings}).encode()
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []  # what is half written comes last
        known = lines[1:] if content and lines[:1] == [head] else []
        known = known[: len(known) // multiple * multiple]
        self.segments: list[dict[str, Any]] = [json.loads(line) for line in known]
        with write_file_whole(path) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in [head, *known]))

    def append(self, segment: dict[str, Any]) -> None:
        """Write one more segment."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(segment, ensure_ascii=False) + "\n")


__all__ = ["UnfinishedSegments"]
