"""What a Hub stores: repositories with commits, branches and tags, and the contents of large files."""

import base64
import fnmatch
import hashlib
import json
from dataclasses import dataclass, field


LARGE_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.h5", "*.onnx")  # as a new repository's .gitattributes has them
LARGE_BYTES = 10_000_000


class Refusal(Exception):
    """An answer other than 200, with the error code that the client understands."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit


@dataclass(frozen=True)
class File:
    """One file of a commit: its own bytes, or the sha256 of what the large store holds."""

    size: int
    blob_id: str  # git's
    content: bytes = b""
    sha256: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob_id

    @classmethod
    def regular(cls, content: bytes) -> "File":
        return cls(len(content), git_blob_id(content), content)

    @classmethod
    def large(cls, sha256: str, size: int) -> "File":
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return cls(size, git_blob_id(pointer.encode()), sha256=sha256)


@dataclass(frozen=True)
class Commit:
    sha: str
    message: str
    files: dict[str, File]


@dataclass
class Repository:
    """Branches and tags name commits; a commit holds all files."""

    repo_id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_PATTERNS)
        self.add_commit("main", "initial commit", {".gitattributes": File.regular(attributes.encode())})

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a pull request or its own hash."""
        sha = {**self.tags, **self.branches, **self.pull_requests}.get(revision, revision)
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def file(self, revision: str, path: str) -> tuple[Commit, File]:
        commit = self.at(revision)
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", commit.sha)
        return commit, commit.files[path]

    def add_commit(self, branch: str, message: str, files: dict[str, File], pull_request: bool = False) -> Commit:
        """All of a commit at once, on a branch or on a new pull request from it."""
        parent = self.branches.get(branch)
        listed = sorted((path, file.etag) for path, file in files.items())
        sha = hashlib.sha1(json.dumps([parent, len(self.commits), message, listed]).encode()).hexdigest()
        commit = self.commits[sha] = Commit(sha, message, files)
        if pull_request:
            self.pull_requests[f"refs/pr/{len(self.pull_requests) + 1}"] = sha
        else:
            self.branches[branch] = sha
        return commit

    def changed(self, revision: str, operations: list[dict], store: dict[str, bytes]) -> dict[str, File]:
        """The files of a revision after the operations of a commit's payload."""
        files = dict(self.at(revision).files)
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            if kind == "file":
                files[value["path"]] = File.regular(decode(value))
            elif kind == "lfsFile":
                content = store.get(value["oid"])
                if content is None or len(content) != value["size"]:
                    raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                files[value["path"]] = File.large(value["oid"], value["size"])
            elif kind == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise Refusal(400, f"The stand-in knows no operation {kind!r}")
        return files


def decode(value: dict) -> bytes:
    """The content of a file in a commit's payload."""
    if value.get("encoding") != "base64":
        raise Refusal(400, f"Unknown encoding {value.get('encoding')!r}")
    return base64.b64decode(value["content"], validate=True)


def git_blob_id(content: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether a file goes to the large store: by name, by size, or because it is no text."""
    return size > LARGE_BYTES or b"\0" in sample or any(fnmatch.fnmatch(path, pattern) for pattern in LARGE_PATTERNS)
