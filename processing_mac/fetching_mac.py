"""
Opens the files behind paths and addresses.

Addresses are fetched within limits, so that a server that is silent, or never ends, does not stop a batch.
"""

import base64
import http.client
import io
import os
import re
import socket
import stat
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from .web_addresses_mac import Redirects, make_request


IN_MEMORY = 2**24  # bytes; what is longer goes to a temporary file


@dataclass(frozen=True)
class UrlLimits:
    """
    How long and how much a server may send.

    Args:
        connect_seconds: Most seconds until the connection stands.
        silent_seconds: Most seconds without an answer, or with fewer than `slowest` bytes per second.
        total_seconds: Most seconds for one recording.
        megabytes: Greatest size of one recording in megabytes.
        slowest: Least number of bytes per second that a server must send.
    """

    connect_seconds: float = 10.0
    silent_seconds: float = 20.0
    total_seconds: float = 600.0
    megabytes: float = 1000.0
    slowest: int = 1000


def fetch(url: str, limits: UrlLimits) -> BinaryIO:
    """
    Download an `http://` or `https://` address; redirects are followed.

    Returns:
        A temporary file at its start, to be closed by the caller.

    Raises:
        ValueError: It cannot be fetched; the message says why and is meant to follow the address.
    """
    file: Any = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  the caller closes it
    try:
        with _opener(limits).open(make_request(url), timeout=limits.connect_seconds) as response:
            _copy(response, file, limits)
    except Exception as error:  # the errors of HTTP and of connections have no common class
        file.close()
        raise ValueError(f"cannot be fetched ({_explain(error, limits)})") from error
    file.seek(0)
    return file


def _explain(error: Exception, limits: UrlLimits) -> str:
    if isinstance(error, urllib.request.HTTPError):
        return f"HTTP {error.code} {' '.join(str(error.reason).split())}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return (
            f"no answer within the limits of {limits.connect_seconds:g} s to connect "
            f"and {limits.silent_seconds:g} s of silence"
        )
    return str(reason) or type(reason).__name__


def await_name(host: str, port: int, seconds: float) -> None:
    """
    Wait until the host's name is found, or turns out to be none, which the connection will tell.

    The system's look-up knows no time limit, so it runs in a thread that is left behind if it does not come back.

    Raises:
        TimeoutError: The name was not found in time.
    """
    answered = threading.Event()

    def look_up() -> None:
        with suppress(OSError, UnicodeError):  # the second of what cannot be a name, such as `a..b`
            socket.getaddrinfo(host, port)
        answered.set()

    threading.Thread(target=look_up, daemon=True).start()
    if not answered.wait(seconds):
        raise TimeoutError


def _opener(limits: UrlLimits) -> urllib.request.OpenerDirector:
    """Build an opener whose connections get `silent_seconds` as their time limit once they stand."""

    def connect(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        connection = kind(*args, **kwargs)
        establish = connection.connect

        def connect_and_listen() -> None:
            await_name(connection.host, connection.port, limits.connect_seconds)
            establish()
            connection.sock.settimeout(limits.silent_seconds)

        connection.connect = connect_and_listen
        return connection

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: Any) -> Any:
            return self.do_open(partial(connect, http.client.HTTPConnection), request)  # type: ignore[arg-type]

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: Any) -> Any:
            return self.do_open(partial(connect, http.client.HTTPSConnection), request)  # type: ignore[arg-type]

    return urllib.request.build_opener(Http, Https, Redirects)


def _copy(response: Any, file: BinaryIO, limits: UrlLimits) -> None:
    """Write the body of a response to a file and stop with a ValueError when a limit is passed."""
    stated = int(response.headers.get("Content-Length") or 0)
    most = limits.megabytes * 1e6
    if stated > most:
        raise ValueError(f"{stated / 1e6:.0f} MB; the limit is {limits.megabytes:g} MB")
    begin = mark = time.monotonic()
    received = since_mark = 0
    while data := response.read1(io.DEFAULT_BUFFER_SIZE * 8):
        file.write(data)
        received, since_mark, now = received + len(data), since_mark + len(data), time.monotonic()
        if received > most:
            raise ValueError(f"more than the limit of {limits.megabytes:g} MB")
        if now - begin > limits.total_seconds:
            raise ValueError(f"{received} bytes in {now - begin:.0f} s; the limit is {limits.total_seconds:g} s")
        if now - mark > limits.silent_seconds:
            if since_mark < limits.slowest * limits.silent_seconds:
                raise ValueError(
                    f"{since_mark} bytes in {now - mark:.0f} s; a server must send {limits.slowest} a second"
                )
            mark, since_mark = now, 0
    if received < stated:
        raise ValueError(f"the connection ended after {received} of {stated} bytes")


@contextmanager
def open_source(source: str, name: str, limits: UrlLimits) -> Iterator[BinaryIO]:
    """
    Open the file behind a path or an address for the length of a `with` block.

    Args:
        source: Path, or address that begins with http://, https://, file:// or data:.
        name: Name of the source in error messages.
        limits: Limits for addresses.

    Raises:
        ValueError: The source cannot be opened.
    """
    scheme = source.partition(":")[0].lower() if re.match(r"[A-Za-z0-9+]{2,10}://|data:", source) else ""
    try:
        if scheme in ("http", "https"):
            file: Any = fetch(source, limits)
        elif scheme == "data":
            file = io.BytesIO(base64.b64decode(source.partition(",")[2]))
        elif scheme in ("", "file"):
            path = urllib.request.url2pathname(urlsplit(source).path) if scheme else os.path.expanduser(source)
            file = open(_check_path(path), "rb")  # noqa: SIM115  it is closed below
        else:
            raise ValueError(
                f"no addresses of {scheme}:// are read; expected a path, http://, https://, file:// or data:"
            )
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}.") from error
    with file:
        yield file


def _check_path(path: str) -> str:
    """Return a path unchanged if it leads to something that can be read to its end, a file or a pipe."""
    if not os.path.exists(path):
        if os.path.islink(path):
            raise ValueError(f"a link to {os.readlink(path)[:200]!a}, which is not there")
        raise ValueError("no such audio file")
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
        raise ValueError(f"{'a folder' if stat.S_ISDIR(kind) else 'a device'}; expected a file")
    if stat.S_ISREG(kind) and os.path.getsize(path) == 0:
        raise ValueError("the file is empty; expected audio")
    return path


__all__ = ["UrlLimits", "open_source"]
