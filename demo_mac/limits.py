"""How much the page takes: what decoding would make of one recording, and number and bytes of all uploads."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from processing_mac.decoding_mac import stated_sound


MAX_SECONDS = 600  # longest recording
# Most numbers that decoding may make of a recording: seconds x rate x channels. A small file can hold very many.
MAX_VALUES = MAX_SECONDS * 96_000 * 2
LEAST_BYTES = 25  # bytes a second, fewer than any codec of speech needs; a length that asks for fewer is an error
MAX_FILE_BYTES = 100 * 2**20
MAX_STORED_BYTES = 4_000_000_000  # of all recordings together that are not deleted yet
MAX_OPEN_UPLOADS = 8  # uploads that are received at a time
FORM_BYTES = 65_536  # bytes that a form may have beside its file
DRAIN_SECONDS = 20  # for which a refused upload is read on: a browser hears no answer before it has sent all
MEGABYTE = 2**20


def decodable_seconds(path: str, name: str) -> float:
    """
    Tell how many seconds of a recording may be decoded, from what it states of itself; nothing is decoded.

    A stated length is believed if the file is large enough for it; else decoding itself finds the end.

    Args:
        path: Path of the recording.
        name: Its name in errors.

    Raises:
        ValueError: It states to be longer than that.
    """
    stated = stated_sound(path)
    if stated is None:  # what cannot be opened is told when it is decoded, with the reason
        return MAX_SECONDS
    seconds = min(MAX_SECONDS, MAX_VALUES / max(stated.rate * stated.channels, 1))
    believed = stated.seconds is not None and os.path.getsize(path) >= LEAST_BYTES * stated.seconds
    if stated.seconds is not None and believed and stated.seconds > seconds:
        raise ValueError(too_long(name, seconds, stated.rate, stated.channels, stated.seconds))
    return seconds


def too_long(name: str, allowed: float, rate: int, channels: int, seconds: float) -> str:
    """Say that a recording is too long, and why it is allowed no more."""
    told = f"{name}: {clock(seconds)} long; this page takes up to {clock(allowed)}"
    if allowed < MAX_SECONDS:
        told += f" at {rate / 1000:g} kHz in {channels} channels, and {clock(MAX_SECONDS)} of a usual recording"
    return f"{told}."


def clock(seconds: float) -> str:
    """Write a length as minutes and seconds, such as 2:05 min, or below a minute as seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


class UploadLimits:
    """
    Refuses uploads beyond the limits before they are stored (an ASGI middleware).

    Args:
        app: The application.
        folder: Folder in which uploads are stored.
    """

    def __init__(self, app: Any, folder: Path):
        self.app = app
        self.folder = folder
        self.expected: list[int] = []  # bytes of each upload that is received now

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        size = read_length(scope["headers"])
        refusal = self.refuse(size)
        if refusal or size is None:
            await drain(receive)
            await answer(send, *(refusal or (411, "An upload must state its length.")))
            return
        self.expected.append(size)
        try:
            await self.app(scope, receive, send)
        finally:
            self.expected.remove(size)

    def refuse(self, size: int | None) -> tuple[int, str] | None:
        """Return status and reason if an upload of so many bytes is too much now, else None."""
        if size is not None and size > MAX_FILE_BYTES + FORM_BYTES:
            mine, most = size / MEGABYTE, MAX_FILE_BYTES / MEGABYTE
            return 413, f"The file has {mine:.0f} MB; this page takes up to {most:.0f} MB."
        if len(self.expected) >= MAX_OPEN_UPLOADS:
            return 503, f"{len(self.expected)} other recordings are being sent just now. Please try again in a minute."
        if (size or 0) + sum(self.expected) + stored_bytes(self.folder) > MAX_STORED_BYTES:
            return 507, "This page keeps as many recordings as it can at the moment. Please try again in an hour."
        return None


def read_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Read the length of a request's body; None if it is not stated."""
    stated = dict(headers).get(b"content-length", b"")
    return int(stated) if stated.isdigit() else None


def stored_bytes(folder: Path) -> int:
    """Count the bytes of the files below a folder, some of which may be deleted meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


async def drain(receive: Any) -> None:
    """Read and forget the body of a request."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass


async def answer(send: Any, status: int, text: str) -> None:
    """Answer a request with a line of text."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
