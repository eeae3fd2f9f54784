"""A tiny model as `mac-caption` finds it, and recordings for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from processing_mac import AudioCaptioningPipeline
from processing_mac.cli_mac import main


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.fixture
def model_folder(captioner, tmp_path) -> str:
    """A released folder whose own code must not run."""
    captioner.save_pretrained(tmp_path / "mac")
    for code in (tmp_path / "mac").glob("*.py"):
        code.write_text("raise RuntimeError('this code must not run')")
    return str(tmp_path / "mac")


@pytest.fixture
def sounds(tmp_path, sound, monkeypatch) -> Path:
    """The working directory: three recordings in `sounds`, and things that are none."""
    for seed, name in enumerate(["b.wav", "a/C.FLAC", "a/d.ogg"], start=1):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(12 if seed == 2 else 3, seed), 16_000)
    (tmp_path / "sounds" / "notes.txt").write_text("no sound")
    (tmp_path / "sounds" / "folder.wav").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("sounds")


@pytest.fixture
def run(model_folder) -> Callable[..., int]:
    """Runs `mac-caption` on the CPU with that model."""
    return lambda *arguments: main([*map(str, arguments), "--model", model_folder, "--device", "cpu"])


@pytest.fixture
def hear(captioner) -> Callable[..., dict[str, Any]]:
    """Tells what `mac-caption` says of a recording: of a long one, the captions of its segments, each once."""

    def hear(file: str, **options: Any) -> dict[str, Any]:
        [record] = captioner(file, return_segments=True, **options)
        if record["segments"][1:]:
            record["caption"] = "; ".join(dict.fromkeys(segment["caption"] for segment in record["segments"]))
        return record

    return hear
