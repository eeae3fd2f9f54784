"""The routes of the API and of the store. Each gets the hub, the request and what its expression names."""

import hashlib
import json
import re
import secrets
from base64 import b64decode
from collections.abc import Callable
from math import ceil
from typing import Any
from urllib.parse import parse_qs

import yaml
from huggingface_hub import ModelCardData

from .hub import Answer, Hub, Request, reply, serve_bytes
from .repositories import File, Refusal, Repository, git_blob_id, is_large


def who_am_i(hub: Hub, request: Request) -> Answer:
    user = hub.user(request)
    if user is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return reply({"type": "user", "name": user, "fullname": user, "orgs": []})


def create_repository(hub: Hub, request: Request) -> Answer:
    user, wanted = hub.user(request), request.json
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    if wanted.get("organization") not in (None, user):
        raise Refusal(403, f"You don't have the rights to create a model under the namespace {wanted['organization']}")
    repo = f"{user}/{wanted['name']}"
    content = {"url": f"{hub.endpoint}/{repo}", "name": repo}
    if repo in hub.repositories:
        return reply({**content, "error": "You already created this model repo"}, 409)
    hub.repositories[repo] = Repository(repo, private=wanted.get("visibility") == "private")
    return reply(content)


def validate_card(hub: Hub, request: Request) -> Answer:
    """What can be said of a card without the Hub's lists: its YAML, its languages' codes, its `model-index`."""
    found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", request.json["content"], re.DOTALL)
    if not found:
        return reply({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        metadata = yaml.safe_load(found[1])
        ModelCardData(**metadata)
        languages = metadata.get("language") or []
        for code in [languages] if isinstance(languages, str) else languages:
            if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", code):
                raise ValueError(f'"language" must be an ISO 639 code, not {code!r}')
    except (yaml.YAMLError, TypeError, ValueError) as error:
        return reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return reply({"errors": [], "warnings": []})


def check_right_to_write(hub: Hub, request: Request, repo: str) -> Answer:
    hub.writable(request, repo)
    return reply({})


def preupload(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    present = hub.writable(request, repo).at(revision).files
    files = []
    for wanted in request.json["files"]:
        large = is_large(wanted["path"], wanted["size"], b64decode(wanted["sample"]))
        known = present.get(wanted["path"])
        files.append(
            {
                "path": wanted["path"],
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                **({"oid": known.etag} if known else {}),
            }
        )
    return reply({"files": files})


def start_upload(hub: Hub, request: Request, repo: str) -> Answer:
    """The batch call of git's LFS: where to put each file, in one piece or in parts; nothing for what is there."""
    hub.writable(request, repo)
    objects = []
    for wanted in request.json["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        entry: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in hub.store:
            address = f"{hub.store_endpoint}/upload/{oid}/{secrets.token_hex(8)}"
            upload: dict[str, Any] = {"href": address}
            if size > hub.part_bytes:
                parts = range(1, ceil(size / hub.part_bytes) + 1)
                header = {str(part): f"{address}/{part}" for part in parts}
                upload = {
                    "href": f"{hub.endpoint}/api/complete/{address.split('/upload/')[1]}",
                    "header": {"chunk_size": str(hub.part_bytes), **header},
                }
            entry["actions"] = {"upload": upload, "verify": {"href": f"{hub.endpoint}/{repo}.git/info/lfs/verify"}}
        objects.append(entry)
    return reply({"transfer": "basic", "objects": objects})


def complete_upload(hub: Hub, request: Request, oid: str, signature: str) -> Answer:
    """Join the parts."""
    address, content = f"/upload/{oid}/{signature}", b""
    for part in request.json["parts"]:
        piece = hub.uploads.pop(f"{address}/{part['partNumber']}", None)
        if piece is None or part["etag"] != f'"{hashlib.md5(piece).hexdigest()}"':
            raise Refusal(400, f"Part {part['partNumber']} is not what was uploaded")
        content += piece
    hub.uploads[address] = content
    return reply({})


def verify_upload(hub: Hub, request: Request, repo: str) -> Answer:
    """Move a whole upload to the store."""
    hub.writable(request, repo)
    wanted = request.json
    for address, content in hub.uploads.items():
        is_it = address.startswith(f"/upload/{wanted['oid']}/") and len(content) == wanted["size"]
        if is_it and hashlib.sha256(content).hexdigest() == wanted["oid"]:
            hub.store[wanted["oid"]] = hub.uploads.pop(address)
            return reply({})
    raise Refusal(404, "Uploaded file not found, or its content is another")


def commit(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    found = hub.writable(request, repo)
    header, *operations = [json.loads(line) for line in request.body.splitlines()]
    if header["key"] != "header" or revision not in found.branches:
        raise Refusal(400, "A commit starts with its header and goes to a branch")
    parent = header["value"].get("parentCommit")
    if parent not in (None, found.branches[revision]):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = found.changed(revision, operations, hub.store)
    to_review = request.query.get("create_pr") == "1"
    made = found.add_commit(revision, header["value"]["summary"], files, to_review)
    url = f"{hub.endpoint}/{repo}/discussions/{len(found.pull_requests)}" if to_review else None
    return reply(
        {"commitUrl": f"{hub.endpoint}/{repo}/commit/{made.sha}", "commitOid": made.sha, "pullRequestUrl": url}
    )


def model_info(hub: Hub, request: Request, repo: str, revision: str = "main") -> Answer:
    found = hub.readable(request, repo)
    made = found.at(revision)
    siblings = [
        {"rfilename": path, **({"size": file.size, "blobId": file.blob_id} if request.query.get("blobs") else {})}
        for path, file in sorted(made.files.items())
    ]
    author = repo.split("/")[0]
    return reply(
        {"_id": git_blob_id(repo.encode()), "id": repo, "modelId": repo, "author": author, "sha": made.sha,
         "private": found.private, "disabled": False, "gated": False, "siblings": siblings, "tags": []}
    )  # fmt: skip


def tree(hub: Hub, request: Request, repo: str, revision: str, folder: str = "") -> Answer:
    """The files below a folder; without `recursive`, its own and the folders in it."""
    made = hub.readable(request, repo).at(revision)
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict] = {}
    for path, file in sorted(made.files.items()):
        name, below, _ = path.removeprefix(prefix).partition("/")
        if not path.startswith(prefix):
            continue
        if below:
            entries.setdefault(prefix + name, {"type": "directory", "path": prefix + name, "oid": "0" * 40, "size": 0})
        if not below or request.query.get("recursive") == "true":
            entries[path] = describe(path, file)
    if folder and not entries:
        raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound", made.sha)
    return reply(list(entries.values()))


def paths_info(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    made = hub.readable(request, repo).at(revision)
    wanted = parse_qs(request.body.decode())["paths"]
    return reply([describe(path, made.files[path]) for path in wanted if path in made.files])


def describe(path: str, file: File) -> dict[str, Any]:
    """A file as the tree lists it."""
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": file.blob_id, "size": file.size}
    if file.sha256:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    return entry


def refs(hub: Hub, request: Request, repo: str) -> Answer:
    found = hub.readable(request, repo)

    def listed(names: dict[str, str], prefix: str) -> list[dict]:
        return [{"name": name, "ref": prefix + name, "targetCommit": sha} for name, sha in names.items()]

    return reply(
        {
            "branches": listed(found.branches, "refs/heads/"),
            "tags": listed(found.tags, "refs/tags/"),
            "pullRequests": listed(found.pull_requests, ""),
            "converts": [],
        }
    )


def create_branch(hub: Hub, request: Request, repo: str, name: str) -> Answer:
    found = hub.writable(request, repo)
    if name in found.branches:
        raise Refusal(409, f"Reference already exists: {name}")
    found.branches[name] = found.at(request.json.get("startingPoint", "main")).sha
    return reply({})


def create_tag(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    found, name = hub.writable(request, repo), request.json["tag"]
    if name in found.tags:
        raise Refusal(409, f"Tag already exists: {name}")
    found.tags[name] = found.at(revision).sha
    return reply({})


def resolve(hub: Hub, request: Request, repo: str, revision: str, path: str) -> Answer:
    """A file; a large one is at the store, its etag and size are told here."""
    made, file = hub.readable(request, repo).file(revision, path)
    headers = {"X-Repo-Commit": made.sha, "Accept-Ranges": "bytes"}
    if file.sha256 is None:
        return serve_bytes(request, file.content, {**headers, "ETag": f'"{file.etag}"'})
    headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
    return Answer(302, b"", {**headers, "Location": f"{hub.store_endpoint}/content/{file.sha256}"})


def put_upload(hub: Hub, request: Request) -> Answer:
    hub.uploads[request.path] = request.body
    return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


def get_content(hub: Hub, request: Request, sha256: str) -> Answer:
    if sha256 not in hub.store:
        raise Refusal(404, "No such key")
    return serve_bytes(request, hub.store[sha256], {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})


REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>[^/]+)"
ROUTES: dict[str, list[tuple[str, str, Callable[..., Answer]]]] = {
    "hub": [
        ("GET", "/api/whoami-v2", who_am_i),
        ("POST", "/api/repos/create", create_repository),
        ("POST", "/api/validate-yaml", validate_card),
        ("POST", r"/api/complete/(?P<oid>\w+)/(?P<signature>\w+)", complete_upload),
        ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", start_upload),
        ("POST", rf"/{REPO}\.git/info/lfs/verify", verify_upload),
        ("GET", rf"/api/models/{REPO}/auth-check/write", check_right_to_write),
        ("POST", rf"/api/models/{REPO}/preupload/{REVISION}", preupload),
        ("POST", rf"/api/models/{REPO}/commit/{REVISION}", commit),
        ("POST", rf"/api/models/{REPO}/branch/(?P<name>.+)", create_branch),
        ("POST", rf"/api/models/{REPO}/tag/{REVISION}", create_tag),
        ("POST", rf"/api/models/{REPO}/paths-info/{REVISION}", paths_info),
        ("GET", rf"/api/models/{REPO}", model_info),
        ("GET", rf"/api/models/{REPO}/revision/{REVISION}", model_info),
        ("GET", rf"/api/models/{REPO}/tree/{REVISION}(/(?P<folder>.+))?", tree),
        ("GET", rf"/api/models/{REPO}/refs", refs),
        ("GET|HEAD", rf"/{REPO}/resolve/{REVISION}/(?P<path>.+)", resolve),
    ],
    "store": [
        ("PUT", r"/upload/.+", put_upload),
        ("GET|HEAD", r"/content/(?P<sha256>\w+)", get_content),
    ],
}
