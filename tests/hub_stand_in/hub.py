"""What the Hub knows and who may do what; requests and answers."""

import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from .repositories import Refusal, Repository


@dataclass
class Request:
    """What a client sent."""

    server: str  # "hub" or "store"
    method: str
    path: str  # as sent, without its query
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    """
    Args:
        users: {token: user}; a user may write below their own name.
        part_bytes: Files above this size are uploaded in parts of it.
    """

    users: dict[str, str]
    part_bytes: int = 5_000_000
    endpoint: str = ""  # of the API
    store_endpoint: str = ""  # of the large files
    repositories: dict[str, Repository] = field(default_factory=dict)
    store: dict[str, bytes] = field(default_factory=dict)  # {sha256: content}, of what was verified
    uploads: dict[str, bytes] = field(default_factory=dict)  # {address: content}, of what was not yet
    lock: threading.RLock = field(default_factory=threading.RLock)

    def user(self, request: Request) -> str | None:
        """Who asks; nobody without a token."""
        authorization = request.headers.get("authorization")
        if authorization is None:
            return None
        kind, _, token = authorization.partition(" ")
        if kind != "Bearer" or token not in self.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def readable(self, request: Request, repo: str) -> Repository:
        """A repository that the user may see; a private one of others does not exist for them."""
        user, found = self.user(request), self.repositories.get(repo)
        if found is None or (found.private and user != repo.split("/")[0]):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def writable(self, request: Request, repo: str) -> Repository:
        found = self.readable(request, repo)
        if self.user(request) != repo.split("/")[0]:
            raise Refusal(403, f"You don't have the rights to write to {repo}")
        return found


def reply(content: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def refuse(refusal: Refusal) -> Answer:
    answer = reply({"error": refusal.message}, refusal.status)
    answer.headers["X-Error-Message"] = refusal.message
    if refusal.code:
        answer.headers["X-Error-Code"] = refusal.code
    if refusal.commit:
        answer.headers["X-Repo-Commit"] = refusal.commit
    return answer


def serve_bytes(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    """A file, or the range of it that was asked for."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not found:
        return Answer(200, content, headers)
    start, stop = int(found[1]), int(found[2] or len(content) - 1) + 1
    if start >= len(content):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
    part = content[start:stop]
    span = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
    return Answer(206, part, {**headers, "Content-Range": span})
