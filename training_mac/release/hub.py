"""
Pushes the folder of a finished training to the Hub as one commit.

    python -m training_mac.release.hub runs/mac user/mac     # repeats a push that was cut off

A push shows all or nothing: files are uploaded first, one commit makes them visible. Repeating it uploads only what
is missing there. The token is that of HF_TOKEN, `hf auth login` or `hub_token`; it is never written.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token


# Not pushed, though beside the model: notes of the training, half-written files, and pickles, which could run code or
# hold the token.
EARLIER_CARD = "README.earlier.md"  # card of the run before it changed between a whole model and an adapter
LEFT_OUT = (
    ".*",
    "run.json",
    "trainer_state.json",
    EARLIER_CARD,
    "*.partial",
    "*.part",
    "*.tmp",
    "*.bin",
    "*.pt",
    "*.pth",
)
# Files of an earlier push that would be loaded beside the new files or instead of them: code, weights and their
# shards, and those of an adapter for a whole model or the other way round. Other files are the user's own.
REPLACED = (
    "*_mac.py", "modeling_eat.py", "config.json", "adapter_config.json", "model.safetensors",
    "model-*-of-*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors",
)  # fmt: skip


class PushError(OSError):
    """The Hub was not reached, or refused the push."""


@dataclass(frozen=True)
class HubTarget:
    """
    The repository to push to.

    Args:
        repo_id: Name as `user/name`, or a name below the token's user.
        private: Whether a repository that does not exist yet becomes private; None takes the account's default.
        revision: Branch, which is made if it does not exist; None stands for `main`.
        token: Token of the Hub; None takes that of the environment.

    Raises:
        ValueError: No HTTP header can carry the token.
    """

    repo_id: str
    private: bool | None = None
    revision: str | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and not re.fullmatch(
            r"[!-~]+", self.token
        ):  # an HTTP library's error would print the token
            raise ValueError("The Hub token holds a space, a line break or a letter beyond ASCII, or is empty.")

    @property
    def command(self) -> str:
        """Give the options that repeat the push, to stand after the folder."""
        private = " --private" if self.private else ""
        return self.repo_id + private + (f" --revision {self.revision}" if self.revision else "")


def read_target(settings: Mapping[str, Any], folder: Path, adapter_base: str | None = None) -> HubTarget | None:
    """
    Read what a recipe says of the Hub.

    Args:
        settings: The recipe's `push_to_hub` and `hub_*`, named as in `TrainingArguments`. `hub_strategy` is not read:
            a training is pushed once, at its end. The stages' Trainers must not get them: each would push a part of
            the training, and its `training_args.bin` would hold the token.
        folder: Folder to be pushed; it names the repository if `hub_model_id` does not.
        adapter_base: The model that the adapter in the folder will belong to; None if it will be a whole model.

    Returns:
        The target; None without `push_to_hub`.

    Raises:
        ValueError: The adapter's model is a folder of this machine.
    """
    if not settings.get("push_to_hub"):
        return None
    refuse_local_base(adapter_base)
    repo_id = settings.get("hub_model_id") or folder.resolve().name
    return HubTarget(
        repo_id, settings.get("hub_private_repo"), settings.get("hub_revision"), settings.get("hub_token")
    )


def refuse_local_base(base: str | None) -> None:
    """Refuse an adapter on a model that nobody else could load."""
    if base and (Path(base).is_absolute() or Path(base).is_dir()):
        raise ValueError(
            f"An adapter on {base}, a folder of this machine, would load nowhere else. Push a whole model by "
            "`merge_adapter: true`; or push that base first, and name its Hub id as `base_model` (of an adapter that "
            "is trained already: as `base_model_name_or_path` in adapter_config.json)."
        )


def prepare(target: HubTarget) -> str:
    """
    Make the repository and branch, unless they exist, before a training, so that a wrong token ends it at once.

    Returns:
        The repository's full name.

    Raises:
        PushError: There is no token, it is wrong or must not write there, or the Hub cannot be reached.
    """
    api = HfApi(token=target.token)
    try:
        api.whoami()
        repo_id = api.create_repo(target.repo_id, private=target.private, exist_ok=True).repo_id
        api.auth_check(repo_id, write=True)  # `create_repo` accepts a repository that others own
        if target.revision:
            api.create_branch(repo_id, branch=target.revision, exist_ok=True)
    except Exception as error:
        raise PushError(f"Cannot push to {target.repo_id}: {error}") from error
    return repo_id


def publish(folder: Path, target: HubTarget, message: str = "Upload MAC") -> str:
    """
    Push the files of a folder, without its sub-folders (checkpoints), notes and pickles, as one commit.

    Args:
        folder: Folder of a saved model with its processor, code and card, or of an adapter.
        target: Repository to push to.
        message: Message of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: The folder holds no model, an adapter on a model of this machine, or a file with the token.
        PushError: The push failed, and nothing of it shows. The message says how to repeat it.
    """
    files = find_files(folder)
    if "adapter_config.json" in files:
        refuse_local_base(json.loads(files["adapter_config.json"].read_bytes())["base_model_name_or_path"])
    refuse_token(files.values(), target.token or get_token())
    repo_id = prepare(target)
    api = HfApi(token=target.token)
    try:
        present = api.list_repo_files(repo_id, revision=target.revision)
        stale = [name for name in present if "/" not in name and matches(name, REPLACED) and name not in files]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(name) for name in stale),
            *(CommitOperationAdd(name, path) for name, path in files.items()),
        ]
        # `upload_folder` would split a large folder over several commits.
        commit = api.create_commit(repo_id, operations, commit_message=message, revision=target.revision)
    except Exception as error:
        again = f"python -m training_mac.release.hub {folder} {target.command}"
        raise PushError(
            f"The push to {repo_id} broke off: {error}\nThe model is whole in {folder}. {again}"
        ) from error
    return commit.commit_url


def find_files(folder: Path) -> dict[str, Path]:
    """Find the files that go to the Hub, as {name in the repository: file} in order of their names."""
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ValueError(f"{folder}: no config.json or adapter_config.json; expected a saved model or adapter.")
    return {
        path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not matches(path.name, LEFT_OUT)
    }


def remove_stale(folder: Path, saved: set[str]) -> None:
    """
    Remove what an earlier end of the same run left: an adapter below a merged model, or shards of larger weights.

    A card of the other form is kept under another name, since it may hold figures and words that were written by hand.
    """
    stale = [file for file in folder.iterdir() if file.is_file() and matches(file.name, REPLACED)]
    stale = [file for file in stale if file.name not in saved]
    other_form = {"config.json", "adapter_config.json"} & {file.name for file in stale}
    if other_form and (folder / "README.md").is_file():
        (folder / "README.md").replace(folder / EARLIER_CARD)
        told = "an adapter" if "adapter_config.json" in other_form else "a whole model"
        print(f"{folder}: its card told of {told}; it is kept as {EARLIER_CARD}, and a new one is written.")
    for file in stale:
        file.unlink()


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the patterns fits the name."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def refuse_token(files: Iterable[Path], token: str | None) -> None:
    """Refuse files that hold the token."""
    for path in files:
        if token and path.suffix != ".safetensors" and token.encode() in path.read_bytes():
            raise ValueError(f"{path} holds the Hub token; remove it there before the folder is pushed.")


def main(arguments: list[str] | None = None) -> int:
    """Push a folder; the exit status is 0 when it is on the Hub, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m training_mac.release.hub", description="Push the folder of a trained model, as one commit."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("repo_id", metavar="user/name")
    parser.add_argument("--private", action="store_true", help="if the repository is new")
    parser.add_argument("--revision", metavar="BRANCH", help="(default: main)")
    options = parser.parse_args(arguments)
    try:
        print(publish(options.folder, HubTarget(options.repo_id, options.private or None, options.revision)))
    except (PushError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
