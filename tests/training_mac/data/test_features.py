"""Log-mels from a cache are those that are computed, and only what is new is computed."""

import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch

from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import read_manifest
from training_mac.data import features
from training_mac.data.features import LogMels, compute_log_mel


EXTRACTOR = MacFeatureExtractor()


@pytest.fixture
def recordings(manifest: Path, tmp_path: Path) -> list[str]:
    """Copies of the sounds, to be changed."""
    shutil.copytree(manifest.parent, tmp_path / "sounds")
    return [clip.audio for clip in read_manifest(tmp_path / "sounds" / manifest.name)][:3]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is computed from now on."""
    calls: list[str] = []

    def compute(audio: str, extractor: MacFeatureExtractor) -> torch.Tensor:
        calls.append(Path(audio).name)
        return compute_log_mel(audio, extractor)

    monkeypatch.setattr(features, "compute_log_mel", compute)
    return calls


def test_cached_is_computed(recordings: list[str], tmp_path: Path) -> None:
    cached, without = LogMels(recordings, EXTRACTOR, tmp_path / "cache"), LogMels(recordings, EXTRACTOR)
    assert all(torch.equal(one, other) for one, other in zip(cached, without, strict=True))
    assert cached[0].dtype == torch.float16 and cached[0].shape == (298, 128)
    assert [cached.num_frames(0), without.num_frames(0)] == [298, 300]


def test_only_what_is_new_is_computed(recordings: list[str], tmp_path: Path, computed: list[str]) -> None:
    LogMels(recordings[:2], EXTRACTOR, tmp_path / "cache")
    log_mels = LogMels([*reversed(recordings), recordings[0]], EXTRACTOR, tmp_path / "cache")
    assert computed == ["0.wav", "1.wav"]  # 2.wav is the same sound as 0.wav
    assert torch.equal(log_mels[2], log_mels[3]) and not torch.equal(log_mels[1], log_mels[2])


def test_content_counts_not_names(recordings: list[str], tmp_path: Path, computed: list[str]) -> None:
    before = LogMels(recordings, EXTRACTOR, tmp_path / "cache")[0]
    moved = shutil.move(recordings[0], str(tmp_path / "moved.wav"))
    shutil.copy(recordings[1], recordings[0])
    computed.clear()
    log_mels = LogMels([moved, recordings[0], recordings[1]], EXTRACTOR, tmp_path / "cache")
    assert computed == []
    assert torch.equal(log_mels[0], before) and torch.equal(log_mels[1], log_mels[2])


def test_other_filters_have_another_cache(recordings: list[str], tmp_path: Path) -> None:
    LogMels(recordings, EXTRACTOR, tmp_path / "cache")
    assert LogMels(recordings, MacFeatureExtractor(feature_size=64), tmp_path / "cache")[0].shape == (298, 64)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_failure_leaves_whole_parts_only(
    recordings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PART", 1)
    compute = compute_log_mel

    def fail(audio: str, extractor: MacFeatureExtractor) -> torch.Tensor:
        if Path(audio).name == "1.wav":
            raise OSError("No space left on device")
        return compute(audio, extractor)

    monkeypatch.setattr(features, "compute_log_mel", fail)
    with pytest.raises(OSError, match="No space"):
        LogMels(recordings, EXTRACTOR, tmp_path / "cache")
    names = [path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "lock"]
    assert names == [".arrow"]
    monkeypatch.setattr(features, "compute_log_mel", compute)
    assert LogMels(recordings, EXTRACTOR, tmp_path / "cache").left_out == []


def test_unreadable_recordings_are_left_out(recordings: list[str], tmp_path: Path) -> None:
    Path(recordings[1]).write_bytes(b"noise")
    assert LogMels(recordings, EXTRACTOR, tmp_path / "cache").left_out == [1]
    Path(recordings[0]).write_bytes(b"noise")
    assert LogMels(recordings[:2], EXTRACTOR, tmp_path / "other").left_out == [0, 1]


def fill(recordings: list[str], folder: Path) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)
    assert LogMels(recordings, EXTRACTOR, folder)[0].shape == (298, 128)


def test_two_processes_compute_everything_once(recordings: list[str], tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=fill, args=(recordings, tmp_path / "cache")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1
