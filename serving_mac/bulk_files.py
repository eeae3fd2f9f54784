"""Recordings and shards of captions wherever fsspec reaches: local folders, `s3://`, `hf://`, `gs://` and others."""

import io
import json
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from processing_mac.audio_mac import AUDIO_SUFFIXES
from processing_mac.whole_files_mac import write_file_whole


OWN_SCHEMES = ("http", "https", "file", "data")  # which the captioner itself opens, within its limits
SHARD_RECORDS = 1000
FAILED = "failed.jsonl"
SCHEMA = pa.schema(
    [
        ("audio", pa.string()),
        ("caption", pa.string()),
        ("segments", pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), ("caption", pa.string())]))),
    ]
)


def is_remote(name: str) -> bool:
    """Tell whether a name is an address that fsspec opens, and not the captioner or the operating system."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.lower() not in OWN_SCHEMES


def list_remote(address: str) -> list[str]:
    """
    List a remote recording, or the recordings below a remote folder sorted by name.

    Raises:
        ValueError: There is nothing at this address, or no way to it.
    """
    try:
        system, path = fsspec.core.url_to_fs(address)
        if system.isfile(path):
            return [address]
        found = system.find(path)
    except Exception as error:  # every file system has errors of its own
        raise ValueError(f"{address}: cannot be listed ({error})") from error
    return sorted(
        system.unstrip_protocol(name) for name in found if posixpath.splitext(name)[1].lower() in AUDIO_SUFFIXES
    )


@contextmanager
def open_remote(address: str) -> Iterator[BinaryIO]:
    """
    Open a remote file, of which only a part is in memory at a time, while the `with` block lasts.

    Raises:
        ValueError: It cannot be opened or read.
    """
    try:
        with fsspec.open(address, "rb") as file:
            yield file
    except ValueError:  # of what is done with the file
        raise
    except FileNotFoundError as error:  # of which some file systems say no more than the name
        raise ValueError(f"{address}: cannot be read (no such file)") from error
    except Exception as error:  # every file system has errors of its own
        raise ValueError(f"{address}: cannot be read ({error})") from error


class ShardFolder:
    """
    A folder of captions in shards of some thousand records, which a later run continues.

    A shard is written whole or not at all; its number is one above the highest there. `failed.jsonl` names the
    recordings that could not be read in the last run, which the next run tries again.

    Args:
        folder: Local folder or address of fsspec; made if it does not exist.
        kind: Format of the shards: "parquet" or "jsonl".
        with_segments: Whether records have segments.
        shard_records: Records in a shard.

    Attributes:
        done: Names of the recordings that the shards hold.

    Raises:
        ValueError: The folder cannot be read or made, holds shards of other fields, or another run writes to it.
    """

    def __init__(self, folder: str, kind: str, with_segments: bool = False, shard_records: int = SHARD_RECORDS):
        self.folder, self.kind, self.with_segments, self.shard_records = folder, kind, with_segments, shard_records
        self.records: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []
        self.lock: FileLock | None = None
        try:
            self.system, self.path = fsspec.core.url_to_fs(folder)
            self.system.makedirs(self.path, exist_ok=True)
            if not is_remote(folder):
                self.lock = FileLock(Path(self.path) / ".lock")
                self.lock.acquire(timeout=0)
            shards = self.shards()
        except Timeout as error:
            raise ValueError(f"{folder}: another run writes to it") from error
        except Exception as error:  # every file system has errors of its own
            raise ValueError(f"{folder}: cannot be used as a folder of captions ({error})") from error
        try:
            self.done = {name for shard in shards for name in self.names_in(shard)}
        except ValueError:
            self.release()
            raise
        self.number = max((int(posixpath.basename(shard)[5:10]) + 1 for shard in shards), default=0)

    def shards(self) -> list[str]:
        """List the shards of both formats in their order."""
        try:
            found = self.system.ls(self.path, detail=False)
        except FileNotFoundError:  # object stores have no folder before its first file
            return []
        return sorted(name for name in found if posixpath.basename(name).startswith("part-") and is_shard(name))

    def names_in(self, shard: str) -> Iterator[str]:
        """Read which recordings a shard holds; refuse one whose records have other fields."""
        try:
            with self.system.open(shard, "rb") as file:
                if shard.endswith(".parquet"):
                    table = pq.read_table(file)
                    fields, names = table.column_names, table.column("audio").to_pylist()
                else:
                    records = [
                        json.loads(line) for line in file.read().decode("utf-8", "surrogateescape").split("\n") if line
                    ]
                    fields, names = list(records[0]), [record["audio"] for record in records]
        except Exception as error:  # every file system has errors of its own
            raise ValueError(f"{shard}: is no shard such as this command would write ({error})") from error
        if fields != self.fields:
            raise ValueError(f"{shard}: has the fields {', '.join(fields)}; expected {', '.join(self.fields)}")
        return iter(names)

    @property
    def fields(self) -> list[str]:
        """Names of the fields of a record."""
        return SCHEMA.names[: 3 if self.with_segments else 2]

    def can_hold(self, name: str) -> bool:
        """Tell whether shards of this kind can hold the name of a recording: those of Parquet only UTF-8."""
        return self.kind != "parquet" or is_text(name)

    def append(self, record: dict[str, Any]) -> None:
        """Take the record of one recording, whose name this kind of shard can hold; a full shard is written."""
        self.records.append({field: record[field] for field in self.fields})
        if len(self.records) >= self.shard_records:
            self.flush()

    def fail(self, name: str, reason: str) -> None:
        """Take the name of a recording that could not be read."""
        self.failed.append({"audio": name, "error": reason})

    def flush(self) -> None:
        """Write what is waiting, and the list of what failed."""
        if self.records:
            self.write(f"part-{self.number:05}.{self.kind}", self.encode(self.records))
            self.number += 1
            self.records = []
        if self.failed or self.system.exists(posixpath.join(self.path, FAILED)):
            self.write(FAILED, to_lines(self.failed))

    def encode(self, records: list[dict[str, Any]]) -> bytes:
        """Encode records as the content of a shard."""
        if self.kind == "jsonl":
            return to_lines(records)
        content = io.BytesIO()
        schema = pa.schema([SCHEMA.field(name) for name in self.fields])
        pq.write_table(pa.Table.from_pylist(records, schema), content)
        return content.getvalue()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole: under a temporary name where names can be changed, else in one request."""
        if is_remote(self.folder):
            self.system.pipe_file(posixpath.join(self.path, name), content)
        else:
            with write_file_whole(Path(self.path, name)) as temporary:
                temporary.write_bytes(content)

    def __enter__(self) -> "ShardFolder":
        """Return the folder itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write what is waiting, also after an error, and let others write."""
        try:
            self.flush()
        finally:
            self.release()

    def release(self) -> None:
        """Let others write."""
        if self.lock:
            self.lock.release()


def is_shard(name: str) -> bool:
    """Tell whether a name is one that this class gives to its shards."""
    stem, _, suffix = posixpath.basename(name).partition(".")
    return suffix in ("parquet", "jsonl") and len(stem) == 10 and stem[5:].isdecimal()


def is_text(name: str) -> bool:
    """Tell whether a file's name is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_lines(records: list[dict[str, Any]]) -> bytes:
    """Encode records as lines of JSON; names of files may hold any bytes."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return text.encode("utf-8", "surrogateescape")
