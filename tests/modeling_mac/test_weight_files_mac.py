import argparse
import fnmatch
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modeling_mac import weight_files_mac
from modeling_mac.weight_files_mac import locate, read_config, read_weights


class Bomb:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, legacy):
    file, trace = tmp_path / "model.pt", tmp_path / "trace"
    checkpoint = {"model": {"weight": torch.zeros(2)}, "args": Bomb(trace)}
    torch.save(checkpoint, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"model\.pt holds \w+\.mkdir .*save_file"):
        read_weights(file)
    assert not trace.exists()


def test_training_state_of_fairseq_is_refused_by_its_name(tmp_path):
    torch.save({"model": {"weight": torch.zeros(2)}, "args": argparse.Namespace(arch="eat")}, tmp_path / "eat.pt")
    with pytest.raises(ValueError, match=r"holds argparse\.Namespace"):
        read_weights(tmp_path)


def test_safetensors_come_before_pickles(tmp_path):
    save_file({"from": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save({"from": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert read_weights(tmp_path)["from"] == 1
    assert read_weights(tmp_path / "pytorch_model.bin")["from"] == 0


def test_a_folder_must_say_which_file(tmp_path):
    with pytest.raises(ValueError, match="found: none"):
        read_weights(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "one.pt")
    assert read_weights(tmp_path).keys() == {"a"}
    torch.save({"a": torch.zeros(1)}, tmp_path / "two.pt")
    with pytest.raises(ValueError, match=r"found: one\.pt, two\.pt"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all"])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001.safetensors"}}')
    with pytest.raises(ValueError, match=r"model-00001\.safetensors"):
        read_weights(tmp_path)


def test_a_pickle_of_something_else_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        read_weights(tmp_path)


def test_config(tmp_path):
    assert read_config(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"d_model": 8}')
    assert read_config(tmp_path / "pytorch_model.bin") == {"d_model": 8}
    for content in ("{", "[]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config\.json"):
            read_config(tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A stand-in for the Hub: repositories are folders, downloads are copies."""
    root = tmp_path / "hub"

    def snapshot_download(repo_id: str, allow_patterns: list[str]) -> str:
        if not (root / repo_id).is_dir():
            raise OSError(f"404: {repo_id}")
        folder = tmp_path / "cache" / repo_id
        folder.mkdir(parents=True, exist_ok=True)
        for file in (root / repo_id).iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, folder)
        return str(folder)

    monkeypatch.setattr(weight_files_mac, "snapshot_download", snapshot_download)
    return root


@pytest.mark.parametrize(
    ("files", "downloaded"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin", "notes.md"], {"config.json", "model.safetensors"}),
        (["config.json", "pytorch_model.bin"], {"config.json", "pytorch_model.bin"}),
        (["EAT-base_epoch30_pt.pt"], {"EAT-base_epoch30_pt.pt"}),
    ],
)
def test_hub_ids_download_one_kind_of_weights(hub, files, downloaded):
    (hub / "someone" / "model").mkdir(parents=True)
    for name in files:
        (hub / "someone" / "model" / name).touch()
    assert {file.name for file in locate("someone/model").iterdir()} == downloaded


def test_sources_that_do_not_exist_are_named(hub):
    with pytest.raises(ValueError, match="'someone/nothing' is no local file or folder"):
        locate("someone/nothing")
    (hub / "someone" / "empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="'someone/empty' holds no weights"):
        locate("someone/empty")


def test_an_impossible_hub_id_is_named():
    with pytest.raises(ValueError, match="'/no/such/folder' is no local file or folder"):
        locate("/no/such/folder")
