"""The stand-in answers the real client as the Hub does; else the tests of pushing would prove nothing."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn


TOKEN = "hf_" + "a" * 34


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    stand_in = HubStandIn({TOKEN: "user", "hf_other": "other"}, part_bytes=1000)
    with stand_in.running():
        yield stand_in


def ask(hub: HubStandIn, folder: Path, script: str, token: str | None = TOKEN) -> list:
    """Run a script on `api`; it adds to `results`."""
    setting = (
        "import json\n"
        "from huggingface_hub import *\n"
        "from huggingface_hub import errors\n"
        "api, results = HfApi(), []\n"
        "def name_of_error(function, *args, **kwargs):\n"
        "    try:\n"
        "        function(*args, **kwargs)\n"
        "    except Exception as error:\n"
        "        results.append(type(error).__name__)\n"
        "    else:\n"
        "        results.append('no error')\n"
    )
    script = setting + textwrap.dedent(script) + "\nprint(json.dumps(results))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=hub.environment(folder / "home", token),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_repositories_users_and_errors(hub: HubStandIn, tmp_path: Path) -> None:
    results = ask(
        hub,
        tmp_path,
        """
        results.append(api.whoami()["name"])
        results.append(api.create_repo("model", private=True).repo_id)
        results.append(api.create_repo("user/model", exist_ok=True).repo_id)
        name_of_error(api.create_repo, "model")
        name_of_error(api.create_repo, "other/model")
        name_of_error(api.model_info, "user/nothing")
        name_of_error(api.model_info, "user/model", revision="nothing")
        name_of_error(api.hf_hub_download, "user/model", "nothing")
        name_of_error(api.model_info, "user/model", token="hf_other")
        name_of_error(api.model_info, "user/model", token=False)
        name_of_error(api.whoami, token="hf_wrong")
        results.append(api.repo_exists("user/model") and not api.file_exists("user/model", "nothing"))
        """,
    )
    assert results == [
        "user", "user/model", "user/model", "HfHubHTTPError", "HfHubHTTPError", "RepositoryNotFoundError",
        "RevisionNotFoundError", "RemoteEntryNotFoundError", "RepositoryNotFoundError", "RepositoryNotFoundError",
        "HfHubHTTPError", True,
    ]  # fmt: skip


def test_small_and_large_files_in_one_piece_and_in_parts(hub: HubStandIn, tmp_path: Path) -> None:
    results = ask(
        hub,
        tmp_path,
        """
        from pathlib import Path
        contents = {"a.txt": b"text", "empty": b"", "one.bin": bytes(900), "sub/parts.bin": bytes(range(250)) * 10}
        api.create_repo("model")
        adding = [CommitOperationAdd(name, content) for name, content in contents.items()]
        first = api.create_commit("user/model", adding, commit_message="add")
        results.append(all(
            Path(api.hf_hub_download("user/model", name)).read_bytes() == content for name, content in contents.items()
        ))
        results.append(sorted(api.list_repo_files("user/model")))
        results.append([(e.path, e.size) for e in api.list_repo_tree("user/model", "sub")])
        results.append([e.lfs is not None for e in api.get_paths_info("user/model", ["a.txt", "one.bin"])])
        again = [CommitOperationAdd(name, content) for name, content in contents.items()]
        results.append(api.create_commit("user/model", again, commit_message="again").oid == first.oid)
        api.create_commit("user/model", [CommitOperationDelete("a.txt")], commit_message="remove")
        results.append(api.file_exists("user/model", "a.txt"))
        results.append(Path(api.hf_hub_download("user/model", "a.txt", revision=first.oid)).read_text())
        name_of_error(api.create_commit, "user/model", [CommitOperationAdd("b", b"b")], commit_message="late",
                      parent_commit=first.oid)
        wrong = CommitOperationAdd("README.md", b"---\\nlanguage: English\\n---\\n")
        name_of_error(api.create_commit, "user/model", [wrong], commit_message="wrong card")
        """,
    )
    assert results == [
        True, [".gitattributes", "a.txt", "empty", "one.bin", "sub/parts.bin"], [["sub/parts.bin", 2500]],
        [False, True], True, False, "text", "HfHubHTTPError", "ValueError",
    ]  # fmt: skip
    parts = [request for request in hub.requests if request.server == "store" and request.method == "PUT"]
    assert sorted(len(request.body) for request in parts) == [500, 900, 1000, 1000]
    assert not [
        request for request in hub.requests if request.server == "store" and "authorization" in request.headers
    ]


def test_branches_tags_and_pull_requests(hub: HubStandIn, tmp_path: Path) -> None:
    results = ask(
        hub,
        tmp_path,
        """
        from pathlib import Path
        def read(revision):
            return Path(api.hf_hub_download("user/model", "a", revision=revision)).read_text()
        def write(text, **options):
            return api.create_commit("user/model", [CommitOperationAdd("a", text)], commit_message="write", **options)
        api.create_repo("model")
        one = write(b"one")
        api.create_tag("user/model", tag="v1")
        api.create_branch("user/model", branch="try/this")
        name_of_error(api.create_branch, "user/model", branch="try/this")
        api.create_branch("user/model", branch="try/this", exist_ok=True)
        write(b"two", revision="try/this")
        results.append(write(b"three", create_pr=True).pr_num)
        results += [read(name) for name in ("main", "v1", "try/this", "refs/pr/1", one.oid)]
        refs = api.list_repo_refs("user/model", include_pull_requests=True)
        results.append([ref.name for ref in (*refs.branches, *refs.tags, *refs.pull_requests)])
        """,
    )
    names = ["main", "try/this", "v1", "refs/pr/1"]
    assert results == ["HfHubHTTPError", 1, "one", "one", "two", "three", "one", names]


def test_a_download_goes_on_where_it_broke_off(hub: HubStandIn, tmp_path: Path) -> None:
    results = ask(
        hub,
        tmp_path,
        """
        import io
        from huggingface_hub.file_download import http_get, hf_hub_url
        api.create_repo("model")
        api.create_commit("user/model", [CommitOperationAdd("x.bin", bytes(range(200)))], commit_message="add")
        for name in ("x.bin", ".gitattributes"):
            whole = open(api.hf_hub_download("user/model", name), "rb").read()
            file = io.BytesIO(whole[:50])
            file.seek(50)
            http_get(hf_hub_url("user/model", name), file, resume_size=50)
            results.append(file.getvalue() == whole)
        """,
    )
    assert results == [True, True]
    assert [request.headers["range"] for request in hub.requests if "range" in request.headers] == ["bytes=50-"] * 3
