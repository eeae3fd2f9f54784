"""Writes the segments of a recording in the formats that tables, video players and Audacity read."""

import csv
import html
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pysubs2

from .caption_file_mac import append_whole, lock_output, refuse_devices
from .listening_mac import merge_equal
from .web_addresses_mac import hide_password
from .whole_files_mac import write_text_whole


Segments = Sequence[dict[str, Any]]  # each with `start` and `end` in seconds, and `caption`
FIELDS = ("start", "end", "caption")


def write_segments(segments: Segments, format: str, *, merge: bool = True) -> str:
    """
    Write the segments of one recording as text.

    Args:
        segments: Segments with `start` and `end` in seconds and `caption`, in the order of time; other fields are
            left out.
        format: One of `FORMATS`: tables "tsv", "csv" and "jsonl" with a row a segment, subtitles "srt" and "vtt", the
            labels of "audacity", or "txt" to read.
        merge: Whether neighbours that say the same become one.

    Raises:
        ValueError: There is no format of that name.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r}; expected one of {', '.join(FORMATS)}.")
    return FORMATS[format](take_rows(merge_equal(segments) if merge else segments))


def take_rows(segments: Segments) -> list[dict[str, Any]]:
    """Keep start, end and caption of segments, each caption in one line."""
    return [
        {"start": segment["start"], "end": segment["end"], "caption": " ".join(segment["caption"].split())}
        for segment in segments
    ]


class SegmentText:
    """
    The text of segments that come one after another: each time what follows the text before.

    Args:
        format: One of `FORMATS`.
    """

    def __init__(self, format: str):
        self.format = format
        self.count = 0  # of the rows so far

    def write(self, segments: Segments, **first: str) -> str:
        """Write more segments; of a table, the columns `first` come before theirs."""
        return "".join(self.write_row({**first, **row}) for row in take_rows(segments))

    def write_row(self, row: dict[str, Any]) -> str:
        """Write a row below the header, a cue with the number that follows, or a line."""
        text = FORMATS[self.format]([row])
        self.count += 1
        if self.format in SUBTITLES:
            header, _, cue = text.partition("1\n")  # the number of a first cue
            return f"{header if self.count == 1 else ''}{self.count}\n{cue}"
        return text.partition("\n")[2] if self.count > 1 and self.format in ("tsv", "csv") else text


def format_of(path: Path) -> str | None:
    """Return the format that the suffix of a file names, or None."""
    return SUFFIXES.get(path.suffix.lower())


def write_table(segments: Segments, delimiter: str) -> str:
    """Write a header and a row for each segment."""
    text = io.StringIO()
    fields = segments[0] if segments else FIELDS
    writer = csv.DictWriter(text, fields, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(segments)
    return text.getvalue()


def write_lines(segments: Segments) -> str:
    """Write a JSON object a line for each segment."""
    return "".join(json.dumps(segment, ensure_ascii=False) + "\n" for segment in segments)


def write_labels(segments: Segments) -> str:
    """Write a label track of Audacity: start, end and text between tabs, without a header."""
    return "".join(f"{segment['start']:.6f}\t{segment['end']:.6f}\t{segment['caption']}\n" for segment in segments)


def write_text(segments: Segments) -> str:
    """Write a line for each segment to read: `m:ss-m:ss  caption`, with hours before the minutes if there are any."""
    return "".join(
        f"{show_time(segment['start'])}-{show_time(segment['end'])}  {segment['caption']}\n" for segment in segments
    )


def show_time(seconds: float) -> str:
    """Write a time in whole seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def write_subtitles(segments: Segments, format: str) -> str:
    """Write subtitles; of WebVTT, in which text may hold markup, `<`, `>` and `&` are escaped."""
    subtitles = pysubs2.SSAFile()
    for segment in segments:
        event = pysubs2.SSAEvent(round(segment["start"] * 1000), round(segment["end"] * 1000))
        event.plaintext = html.escape(segment["caption"], quote=False) if format == "vtt" else segment["caption"]
        subtitles.append(event)
    return subtitles.to_string(format, keep_ssa_tags=True)  # so that words in braces are kept


FORMATS: dict[str, Callable[[Segments], str]] = {
    "tsv": lambda segments: write_table(segments, "\t"),
    "csv": lambda segments: write_table(segments, ","),
    "jsonl": write_lines,
    "srt": lambda segments: write_subtitles(segments, "srt"),
    "vtt": lambda segments: write_subtitles(segments, "vtt"),
    "txt": write_text,
    "audacity": write_labels,
}
TABLES, SUBTITLES = ("tsv", "csv", "jsonl"), ("srt", "vtt")
# Audacity's label tracks end in .txt, too, but it is the text to read that this suffix stands for.
SUFFIXES = {f".{name}": name for name in FORMATS if name != "audacity"}


class GrowingSegments:
    """
    A file of subtitles, labels or lines to read that grows by one segment after the other, each whole or not at all.

    Its times count from its beginning, so that no other run can go on below them. While one run has the file, another
    one cannot have it.

    Args:
        path: Path of the file, which is not there yet or empty.
        format: One of `FORMATS`.

    Raises:
        ValueError: The suffix names another format, the file holds something or is a device, or another run has it.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, format: str):
        refuse_devices(path)
        refuse_other_suffix(path, format)
        self.path, self.text = path, SegmentText(format)
        open(path, "ab").close()  # tells of a missing folder in the system's words
        self.lock = lock_output(path)
        if path.stat().st_size:
            self.close()
            raise ValueError(f"{path}: already there; {format} has the times of one run, so choose another name.")

    def close(self) -> None:
        """Let other runs have the file."""
        self.lock.release()

    def append(self, segment: dict[str, Any]) -> None:
        """Write a segment, with `start` and `end` in seconds and `caption`."""
        append_whole(self.path, self.text.write([segment]))


def refuse_other_suffix(path: Path, format: str) -> None:
    """Raise a ValueError if the suffix of a file names another format than this."""
    labels = format == "audacity" and format_of(path) == "txt"  # label tracks end so, too
    if not labels and format_of(path) not in (None, format):
        raise ValueError(f"{path}: ends as {format_of(path)} does, and --format says {format}.")


class SegmentFiles:
    """
    Where `mac-caption` puts segments: one file for one recording, or a folder with a file for each of several.

    Each file is written whole. A recording whose file is there already is not captioned again. While one run has the
    output, another one cannot have it.

    Args:
        path: The file, or the folder, which is made if it does not exist.
        format: One of `FORMATS`.
        recordings: Names of all recordings of the run.

    Attributes:
        done: Names of the recordings that have their file.

    Raises:
        ValueError: The suffix of `path` names another format, two recordings would share a file, there are several and
            `path` is a file, or another run has it.
        OSError: The folder cannot be made, or it is not there.
    """

    def __init__(self, path: Path, format: str, recordings: Sequence[str]):
        self.format = format
        refuse_devices(path)
        if not path.is_dir():
            refuse_other_suffix(path, format)
        self.files = {recordings[0]: path} if len(recordings) == 1 and not path.is_dir() else {}
        if not self.files:
            if path.is_file() or format_of(path):
                raise ValueError(f"{path}: is one file for {len(recordings)} recordings; expected a folder.")
            suffix = ".txt" if format == "audacity" else f".{format}"
            self.files = {name: path / (Path(name).name + suffix) for name in recordings}
            owners = {file: name for name, file in self.files.items()}
            for name, file in self.files.items():
                if owners[file] != name:
                    both = f"{hide_password(name)} and for {hide_password(owners[file])}"
                    raise ValueError(f"{file}: would be written for {both}.")
            path.mkdir(parents=True, exist_ok=True)
        self.lock = lock_output(path.resolve())  # a folder named "." has no name otherwise
        # An empty file is what a run that was stopped, or a stream without sound, left.
        self.done = {name for name, file in self.files.items() if file.exists() and file.stat().st_size}

    def close(self) -> None:
        """Let other runs have the output."""
        self.lock.release()

    def already_there(self) -> str:
        """Say which files will not be written, of which nobody knows what recording they were made of; maybe none."""
        there = [str(file) for name, file in self.files.items() if name in self.done]
        if not there[1:]:
            return "".join(f"{file}: already there, left as it is" for file in there)
        return f"{there[0]} and {len(there) - 1} more: already there, left as they are"

    def unfinished(self, recording: str) -> Path:
        """Name the file for the segments of a long recording that is being captioned."""
        file = self.files[recording]
        return file.with_name(f"{file.name}.unfinished.jsonl")

    def append(self, record: dict[str, Any]) -> None:
        """Write the file of one recording, of which `record` has `audio` and `segments`."""
        write_text_whole(self.files[record["audio"]], write_segments(record["segments"], self.format))


__all__ = [
    "FORMATS",
    "SUFFIXES",
    "TABLES",
    "GrowingSegments",
    "SegmentFiles",
    "SegmentText",
    "format_of",
    "refuse_other_suffix",
    "write_segments",
]
