"""`mac-caption --ray` on a Ray of two cores: the output of the command without it, also after a worker was killed."""

import json
import os
import signal
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile

from processing_mac.cli_mac import main
from serving_mac import bulk_cli
from serving_mac.bulk_ray import BulkOptions, BulkWorker, caption_on_ray, start_ray


@pytest.fixture(scope="module")
def ray():
    """A Ray of this test, with two cores whatever the machine has."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    patch.setenv("OMP_NUM_THREADS", "1")
    ray = start_ray(None, num_cpus=2)
    yield ray
    ray.shutdown()
    patch.undo()


@pytest.fixture
def command(ray, captioner, tmp_path, monkeypatch):
    """Runs `mac-caption` with that model in a folder of recordings, two of which are broken."""
    captioner.save_pretrained(tmp_path / "mac")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bulk_cli, "start_ray", lambda address: ray)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the Ray of the module stays
    return lambda *arguments: main(["--model", "mac", "--device", "cpu", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path, sound) -> Path:
    (tmp_path / "sounds").mkdir()
    for seed in range(12):
        soundfile.write(tmp_path / "sounds" / f"{seed:02}.wav", sound(1 + seed % 3, seed), 16_000)
    (tmp_path / "sounds" / "03.wav").write_text("no sound")
    return tmp_path / "sounds"


@pytest.mark.parametrize("trained_windows", [1, 2])
def test_the_same_output(command, captioner, folder, sound, tmp_path, capsys, trained_windows):
    """So many windows as a model was trained on are heard at once, here and there; of longer ones, each."""
    captioner.processor.trained_windows = trained_windows
    captioner.processor.save_pretrained(tmp_path / "mac")
    for seconds in (15, 27):
        soundfile.write(folder / f"{seconds}.flac", sound(seconds), 16_000)
    told = []
    for options in ([], ["--segments"]):
        assert command("sounds", "--output", "one.jsonl", *options, "--batch-size", 2) == 1
        assert command("sounds", "--output", "ray.jsonl", *options, "--batch-size", 2, "--ray") == 1
        written = (tmp_path / "ray.jsonl").read_text()
        assert written == (tmp_path / "one.jsonl").read_text()
        told.append({row["audio"]: row["caption"] for row in map(json.loads, written.splitlines())})
        for name in ("one.jsonl", "ray.jsonl"):
            os.remove(tmp_path / name)
    assert told[0] == told[1] and len(told[0]) == 13
    whole = captioner(str(folder / "15.flac"))[0]["caption"]
    assert (told[0]["sounds/15.flac"] == whole) == (trained_windows == 2)
    assert capsys.readouterr().err.count("sounds/03.wav: cannot be read as audio") == 4


def test_a_worker_captions_recordings_of_any_length_from_anywhere(captioner, sound, tmp_path):
    """As the captioner does window by window; three windows are too many to hold at once."""
    captioner.save_pretrained(tmp_path / "mac")
    for name, seconds in (("short.wav", 3), ("long.flac", 27)):
        soundfile.write(tmp_path / name, sound(seconds), 16_000)
        fsspec.filesystem("memory").pipe_file(f"{tmp_path}/{name}", (tmp_path / name).read_bytes())
    fsspec.filesystem("memory").pipe_file(f"{tmp_path}/bad.wav", b"no sound")
    names = [f"{where}/{name}" for where in (tmp_path, f"memory://{tmp_path}") for name in ("short.wav", "long.flac")]
    names += [f"memory://{tmp_path}/bad.wav", f"memory://{tmp_path}/none.wav"]
    worker = BulkWorker(BulkOptions(str(tmp_path / "mac"), 2, {"device": "cpu"}))
    found = worker({"audio": np.array([name.encode() for name in names], dtype=object)})["result"]
    short, long, *remote, bad, none = map(json.loads, found)
    assert [short] == captioner(str(tmp_path / "short.wav")) and remote == [short, long]
    assert long["segments"] == captioner(str(tmp_path / "long.flac"), return_segments=True)[0]["segments"]
    assert "bad.wav: cannot be read as audio" in bad["error"] and "none.wav: cannot be read" in none["error"]


def test_shards_are_continued(command, folder, tmp_path, capsys):
    assert command("sounds/00.wav", "sounds/03.wav", "--output", "shards", "--ray") == 1
    [failed] = map(json.loads, (tmp_path / "shards" / "failed.jsonl").read_text().splitlines())
    assert failed["audio"] == "sounds/03.wav" and "cannot be read as audio" in failed["error"]
    soundfile.write(folder / "03.wav", soundfile.read(folder / "04.wav")[0], 16_000)
    assert command("sounds", "--output", "shards", "--ray") == 0
    assert (tmp_path / "shards" / "failed.jsonl").read_text() == ""
    tables = [pq.read_table(path) for path in sorted((tmp_path / "shards").glob("*.parquet"))]
    assert [len(table) for table in tables] == [1, 11]
    assert command("sounds", "--output", "shards", "--ray") == 0
    assert command("sounds", "--output", "one.jsonl") == 0
    one = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert [row for table in tables for row in table.to_pylist()] == one


def test_addresses_of_fsspec(command, folder, sound, tmp_path, capsys):
    """`local://` is opened by fsspec, in the workers as well; a folder in memory is written by the command alone."""
    output = f"memory://{tmp_path}/out"
    soundfile.write(folder / "long.flac", sound(27), 16_000)
    names = [f"local://{folder}/{name}" for name in ("00.wav", "03.wav", "long.flac")]
    assert command(*names, "--ray", "--output", output) == 1
    with fsspec.open(f"{output}/part-00000.parquet") as file:
        rows = pq.read_table(file).to_pylist()
    assert command(folder / "long.flac", "--output", "one.jsonl") == 0
    expected = json.loads((tmp_path / "one.jsonl").read_text())["caption"]
    assert [row["audio"] for row in rows] == names[::2] and rows[1]["caption"] == expected
    assert f"local://{folder}/03.wav: cannot be read as audio" in capsys.readouterr().err


def test_a_killed_worker_loses_nothing(ray, captioner, folder, tmp_path):
    captioner.save_pretrained(tmp_path / "mac")
    files = [str(folder) + "/" + "./" * turn + name for turn in range(8) for name in sorted(os.listdir(folder))]
    options = BulkOptions(str(tmp_path / "mac"), 1, {"device": "cpu"})
    results, killed = [], []
    for result in caption_on_ray(ray, files, options, actors=2):
        results.append(result)
        if not killed:
            children = psutil.Process().children(recursive=True)
            workers = [child for child in children if "MapWorker" in " ".join(child.cmdline())]
            killed = workers[:1]
            killed[0].send_signal(signal.SIGKILL)
    assert killed and [file for file, _ in results] == files
    for file, result in results:
        if file.endswith("03.wav"):
            assert isinstance(result, ValueError)
        else:
            assert [result] == captioner(file)


def test_what_cannot_be_done(command, folder, capsys):
    for arguments, told in [
        (["nowhere://x", "--ray"], "nowhere://x: cannot be listed"),
        (["sounds", "--ray", "--output", "sounds/00.wav"], "sounds/00.wav: cannot be used as a folder"),
        (["sounds", "--output", "s3://bucket/captions"], "s3://bucket/captions: is an address, which only --ray"),
        (["sounds", "--ray", "--ray-actors", "0"], "--ray-actors"),
        (["sounds", "--ray", "--revision", "r", "--model", "no"], "no is no folder, and as a Hub id cannot be loaded"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            command(*arguments)
        assert told in capsys.readouterr().err


def test_no_cluster(monkeypatch):
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "1")
    with pytest.raises(ValueError, match=r"no Ray cluster at 127\.0\.0\.1:1 "):
        start_ray("127.0.0.1:1")
