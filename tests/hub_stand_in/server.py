"""
A Hub that the huggingface_hub client can push to and load from: its HTTP API on loopback.

There are two servers, as there are for the Hub: the API, which knows tokens, and a store of large files at another
address, which is reached by signed addresses and must never see a token. Xet storage is not spoken.
"""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .api import ROUTES
from .hub import Answer, Hub, Request, refuse
from .repositories import Refusal


DROPPED = "dropped"  # the connection ends in the middle of the request's body
UNANSWERED = "unanswered"  # the request is served, but its answer is lost
HELD = "held"  # the request is never answered; `HubStandIn.held` is set


@dataclass
class HubStandIn(Hub):
    """The Hub as a server: what it was asked, and what is to go wrong."""

    requests: list[Request] = field(default_factory=list)
    faults: list[tuple[str, str, str | int]] = field(default_factory=list)  # (method, expression, what goes wrong)
    held: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["HubStandIn"]:
        """Serve on two free ports of loopback."""
        servers = [self._start("hub"), self._start("store")]
        self.endpoint, self.store_endpoint = (f"http://127.0.0.1:{server.server_port}" for server in servers)
        try:
            yield self
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()

    def _start(self, name: str) -> ThreadingHTTPServer:
        handler = type("Handler", (StandInHandler,), {"hub": self, "name": name})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def fail(self, method: str, path: str, what: str | int) -> None:
        """Let the next request of this method whose path matches the expression go wrong; an int is a status."""
        self.faults.append((method, path, what))

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The variables of a client process, which keeps its cache below `home` and tells all it does."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        return {
            **others,
            **({"HF_TOKEN": token} if token else {}),
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_DEBUG": "1",
            "TRANSFORMERS_VERBOSITY": "debug",
            "OMP_NUM_THREADS": "1",
        }

    def next_fault(self, method: str, path: str) -> str | int | None:
        """What is to go wrong with this request, once."""
        with self.lock:
            for fault in self.faults:
                if fault[0] == method and re.search(fault[1], path):
                    self.faults.remove(fault)
                    return fault[2]
        return None

    def answer(self, request: Request) -> Answer:
        """Find the request's route and follow it."""
        for method, expression, route in ROUTES[request.server]:
            found = re.fullmatch(expression, request.path)
            if found and request.method in method.split("|"):
                named = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                with self.lock:
                    try:
                        return route(self, request, **named)
                    except Refusal as refusal:
                        return refuse(refusal)
        return refuse(Refusal(404, f"No such page: {request.method} {request.path}"))


class StandInHandler(BaseHTTPRequestHandler):
    """One connection: reads requests, has them answered, goes wrong where asked to."""

    protocol_version = "HTTP/1.1"
    hub: HubStandIn
    name: str

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.name, self.command, parts.path, query, headers)
        fault = self.hub.next_fault(self.command, parts.path)
        if fault == DROPPED:
            self.rfile.read(int(headers.get("content-length", 0)) // 2)
            return self.hang_up()
        request.body = self.read_body(headers)
        self.hub.requests.append(request)
        if fault == HELD:
            self.hub.held.set()
            self.rfile.read(1)  # until the client is gone
            return self.hang_up()
        answer = refuse(Refusal(fault, "Out of order")) if isinstance(fault, int) else self.hub.answer(request)
        if fault == UNANSWERED:
            return self.hang_up()
        self.send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the requests are kept."""
