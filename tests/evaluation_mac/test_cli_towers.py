"""`mac-eval transcription` and `mac-eval intensity`, from the command to the report."""

import csv
import json
from pathlib import Path

import pytest
import soundfile

from evaluation_mac.cli import main
from processing_mac import AudioCaptioningPipeline


@pytest.fixture
def folder(model, processor, tmp_path, sound, monkeypatch) -> Path:
    """A model, two recordings with what is said in them, one that cannot be read, and their manifest."""
    AudioCaptioningPipeline(model, processor=processor, device="cpu").save_pretrained(tmp_path / "mac")
    for seed, name in enumerate(("a.wav", "b.wav"), start=1):
        soundfile.write(tmp_path / name, sound(3, seed), 16_000)
    (tmp_path / "c.wav").write_bytes(b"no sound")
    with open(tmp_path / "data.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["audio", "caption"], ["a.wav", "hello there"], ["b.wav", "good morning"], ["c.wav", "bye"]]
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(task: str, *arguments: str) -> int:
    return main([task, "--model", "mac", "--data", "data.csv", "--output", "out", *arguments])


def scores() -> dict:
    return json.loads(Path("out/results.json").read_text(encoding="utf-8"))["scores"]


def test_transcription(folder, capsys):
    pytest.importorskip("jiwer")
    assert run("transcription", "--max-new-tokens", "4", "--overlap", "0.1") == 1  # c.wav cannot be read
    assert {"wer", "cer"} <= scores().keys()
    assert "c.wav" in capsys.readouterr().out


def test_intensity(folder):
    assert run("intensity", "--keep-rate", "0.5") == 1
    assert "kendall_block_0" in scores()
    assert Path("out/intensity.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("intensity", "--keep-rate", "0"), "0: expected a share above 0"),
        (("transcription", "--overlap", "1"), "1: expected a share, from 0 to below 1"),
        (("transcription", "--spellings", "none.json"), "none.json"),
    ],
)
def test_wrong_use_is_told_in_a_line(folder, capsys, arguments, message):
    pytest.importorskip("jiwer")
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
