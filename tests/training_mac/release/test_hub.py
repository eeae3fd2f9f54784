"""A training's folder goes to the Hub whole, once, again after a fault, and without the token."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import DROPPED, HELD, UNANSWERED, HubStandIn

from training_mac.recipe.file import load_stages
from training_mac.release.hub import HubTarget, find_files, publish, read_target, refuse_token
from training_mac.run.folder import Run


ROOT = Path(__file__).parents[3]
TOKEN = "hf_" + "s3cret" * 5
FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(200)) * 20,
    "modeling_mac.py": b"code = 1\n",
    "README.md": b"---\nlanguage: en\n---\n# A card\n",
    "attribution.csv": b"file,author\na.wav,somebody\n",
}


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    stand_in = HubStandIn({TOKEN: "user", "hf_other": "other"}, part_bytes=1500)
    with stand_in.running():
        yield stand_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A trained model, beside what must stay at home."""
    folder = tmp_path / "my-mac"
    (folder / "stage-1").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    for name in ("stage-1/model.safetensors", "training_args.bin", "optimizer.pt", "run.json", ".hidden", "x.partial"):
        (folder / name).write_bytes(b"at home")
    return folder


def start(hub: HubStandIn, folder: Path, *options: str, token: str | None = TOKEN) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "training_mac.release.hub", str(folder), *(options or ("user/my-mac",))],
        cwd=ROOT,
        env=hub.environment(folder.parent / "home", token),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def push(hub: HubStandIn, folder: Path, *options: str, token: str | None = TOKEN) -> tuple[int, str]:
    """Exit code and all that was printed; the token must be nowhere."""
    process = start(hub, folder, *options, token=token)
    printed = "".join(process.communicate(timeout=120))
    assert token is None or "Send: curl" in printed, "the client did not tell what it sent"
    written = [path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()]
    pushed = [file.content for repo in hub.repositories.values() for made in repo.commits.values()
              for file in made.files.values()]  # fmt: skip
    for place in (printed.encode(), *written, *pushed, *hub.store.values()):
        assert (token or TOKEN).encode() not in place
    return process.returncode, printed


def pushed_files(hub: HubStandIn, revision: str = "main") -> dict[str, bytes]:
    files = hub.repositories["user/my-mac"].at(revision).files
    return {
        name: hub.store[file.sha256] if file.sha256 else file.content
        for name, file in files.items()
        if name != ".gitattributes"
    }


def test_a_folder_becomes_one_commit(hub: HubStandIn, folder: Path) -> None:
    code, printed = push(hub, folder)
    repository = hub.repositories["user/my-mac"]
    assert code == 0 and f"/user/my-mac/commit/{repository.branches['main']}" in printed
    assert pushed_files(hub) == FILES and len(repository.commits) == 2
    assert not repository.private


def test_again_it_replaces_code_and_weights_and_leaves_the_rest(hub: HubStandIn, folder: Path) -> None:
    push(hub, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "modeling_mac.py").rename(folder / "modeling_new.py")
    (folder / "attribution.csv").unlink()
    assert push(hub, folder)[0] == 0
    expected = set(FILES) - {"model.safetensors", "modeling_mac.py"}
    assert set(pushed_files(hub)) == expected | {"model-00001-of-00001.safetensors", "modeling_new.py"}
    count = len(hub.repositories["user/my-mac"].commits)
    assert push(hub, folder)[0] == 0 and len(hub.repositories["user/my-mac"].commits) == count == 3


def test_it_leaves_what_is_not_ours_and_an_adapter_replaces_a_model(hub: HubStandIn, folder: Path) -> None:
    theirs = {"app.py": b"print()", "clap.safetensors": b"others", "teacher-model.safetensors": b"others"}
    for name, content in theirs.items():
        (folder / name).write_bytes(content)
    push(hub, folder)
    for name in (*theirs, "config.json", "model.safetensors"):
        (folder / name).unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "user/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"matrices")
    assert push(hub, folder)[0] == 0
    adapter = {"adapter_config.json", "adapter_model.safetensors"}
    assert set(pushed_files(hub)) == (set(FILES) - {"config.json", "model.safetensors"}) | adapter | set(theirs)


def test_a_private_repository_and_a_branch(hub: HubStandIn, folder: Path) -> None:
    assert push(hub, folder, "my-mac", "--private", "--revision", "try/this")[0] == 0
    assert hub.repositories["user/my-mac"].private
    assert pushed_files(hub, "try/this") == FILES and pushed_files(hub) == {}


FAULTS = [
    ("PUT", "/upload/", DROPPED, 0),  # the client tries a part again by itself
    ("PUT", "/upload/", 403, 1),
    ("POST", "/info/lfs/verify", 400, 1),
    ("POST", "/commit/", 500, 1),
    ("POST", "/commit/", DROPPED, 1),
]


@pytest.mark.parametrize(("method", "path", "what", "code"), FAULTS)
def test_a_fault_shows_nothing_and_can_be_repeated(hub: HubStandIn, folder: Path, method, path, what, code) -> None:
    hub.fail(method, path, what)
    ended, printed = push(hub, folder)
    assert ended == code and hub.faults == []
    if code:
        assert pushed_files(hub) == {} and len(hub.repositories["user/my-mac"].commits) == 1
        assert f"python -m training_mac.release.hub {folder} user/my-mac" in printed
        assert push(hub, folder)[0] == 0
    assert pushed_files(hub) == FILES and len(hub.repositories["user/my-mac"].commits) == 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub: HubStandIn, folder: Path) -> None:
    hub.fail("POST", "/commit/", UNANSWERED)
    assert push(hub, folder)[0] == 1
    assert pushed_files(hub) == FILES
    assert push(hub, folder)[0] == 0
    assert len(hub.repositories["user/my-mac"].commits) == 2


def test_a_killed_push_uploads_only_the_rest_when_repeated(hub: HubStandIn, folder: Path) -> None:
    (folder / "other.safetensors").write_bytes(b"other weights")
    hub.fail("POST", "/commit/", HELD)
    process = start(hub, folder)
    assert hub.held.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert pushed_files(hub) == {}
    uploads = len([request for request in hub.requests if request.method == "PUT"])
    assert uploads == 4  # three parts of the weights, one of the others
    assert push(hub, folder)[0] == 0
    assert pushed_files(hub) == {**FILES, "other.safetensors": b"other weights"}
    assert len([request for request in hub.requests if request.method == "PUT"]) == uploads


@pytest.mark.parametrize(
    ("token", "why"), [("hf_wrong", "Invalid user token"), (None, "no token found"), ("hf_other", "403 Forbidden")]
)
def test_who_may_not_write_learns_it_at_once(hub: HubStandIn, folder: Path, token: str | None, why: str) -> None:
    push(hub, folder)
    del hub.requests[:]
    code, printed = push(hub, folder, token=token)
    assert code == 1 and "Cannot push to user/my-mac" in printed and why in printed
    assert not any("/preupload/" in request.path or request.method == "PUT" for request in hub.requests)


def test_without_a_hub(hub: HubStandIn, folder: Path) -> None:
    hub.fail("GET", "/api/whoami-v2", DROPPED)
    code, printed = push(hub, folder)
    assert code == 1 and "Cannot push to user/my-mac" in printed


def test_a_file_with_the_token_is_refused(folder: Path) -> None:
    refuse_token(find_files(folder).values(), TOKEN)
    (folder / "notes.md").write_text(f"my token is {TOKEN}")
    with pytest.raises(ValueError, match=r"notes\.md holds the Hub token") as error:
        refuse_token(find_files(folder).values(), TOKEN)
    assert TOKEN not in str(error.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config.json or adapter_config.json"):
        find_files(tmp_path)


@pytest.mark.parametrize("token", ["hf_two\nlines", "hf_a space", "", "hf_ü"])
def test_a_token_that_no_header_carries_is_refused_unseen(token: str) -> None:
    with pytest.raises(ValueError, match="holds a space") as error:
        HubTarget("user/name", token=token)
    assert not token or token not in str(error.value)


def test_the_target_is_what_the_recipe_says() -> None:
    told = {"push_to_hub": True, "hub_model_id": "user/x", "hub_private_repo": True, "hub_token": TOKEN}
    target = read_target(told, Path("runs/my-mac"))
    assert target == HubTarget("user/x", private=True, token=TOKEN) and TOKEN not in repr(target)
    assert target.command == "user/x --private"
    assert read_target({"push_to_hub": True}, Path("runs/my-mac")) == HubTarget("my-mac")
    assert read_target({**told, "push_to_hub": False}, Path("runs/my-mac")) is None


def test_an_adapter_on_a_folder_of_this_machine_is_refused(base: Path, write_recipe, train, tmp_path: Path) -> None:
    """Before training starts, and where it was trained already."""
    recipe = write_recipe(base_model=str(base), language_model="lora", push_to_hub=True, hub_model_id="user/x")
    with pytest.raises(ValueError, match=r"folder of this machine, would load nowhere else. .*`merge_adapter: true`"):
        train(recipe)
    assert not (tmp_path / "run").exists()
    folder = train(recipe, "--push_to_hub", "false", "--max_steps", "1")
    with pytest.raises(ValueError, match=rf"{base}, a folder of this machine"):
        publish(folder, HubTarget("user/x"))
    settings = {"push_to_hub": True, "hub_model_id": "user/x"}
    assert read_target(settings, folder, adapter_base="user/base") == HubTarget("user/x")


def test_a_merged_adapter_may_be_pushed(base: Path, write_recipe) -> None:
    recipe = write_recipe(base_model=str(base), language_model="lora")
    assert Run(load_stages([str(recipe)])).adapter_base == str(base)
    assert Run(load_stages([str(recipe), "--merge_adapter"])).adapter_base is None
    assert Run(load_stages([str(recipe), "--language_model", "full"])).adapter_base is None


def test_a_base_that_is_yet_to_be_made_is_of_this_machine_too(write_recipe, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(load_stages([str(write_recipe(language_model="lora", output_dir="runs/new"))]))
    with pytest.raises(ValueError, match=rf"{tmp_path}/runs/new/base, a folder of this machine"):
        read_target({"push_to_hub": True}, run.folder, run.adapter_base)


def test_a_training_ends_on_the_hub(hub: HubStandIn, write_recipe, tmp_path: Path) -> None:
    recipe = write_recipe(max_steps=1, stages=[{"encoder": "frozen"}])
    command = [
        sys.executable,
        "train.py",
        str(recipe),
        "--push_to_hub",
        "--hub_model_id",
        "trained",
    ]  # below the token's user
    environment = hub.environment(tmp_path / "home", None) | {"OMP_NUM_THREADS": "1"}

    def run(*options: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )

    hub.fail("POST", "/commit/", 500)
    cut_off = run("--hub_token", TOKEN)
    assert cut_off.returncode == 2 and "Traceback" not in cut_off.stderr and TOKEN not in cut_off.stderr
    assert f"python -m training_mac.release.hub {tmp_path / 'run'} trained" in cut_off.stderr
    done = run("--hub_token", TOKEN)  # the training is finished; the push is what is left
    assert done.returncode == 0, done.stderr[-2000:]
    files = hub.repositories["user/trained"].at("main").files
    assert 'model="user/trained"' in (tmp_path / "run" / "README.md").read_text()
    assert {"config.json", "model.safetensors", "README.md", "pipeline_mac.py"} <= set(files)
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    wrong = run("--output_dir", str(tmp_path / "other"), "--hub_token", "hf_wrong")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr and "Cannot push to trained" in wrong.stderr
    assert not list((tmp_path / "other").glob("stage-*"))
