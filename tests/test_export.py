"""The ONNX example: exported once, then captioned by ONNX Runtime in a process that never imports torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from transformers import pipeline

from processing_mac import DEFAULT_MODEL


EXAMPLES = Path(__file__).parents[1] / "examples"
SOUNDS = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".wav", ".flac", ".ogg", ".opus", ".mp3"})
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_onnxruntime_alone_gives_the_same_captions(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the export needs the extra `onnx`")
    subprocess.run([sys.executable, EXAMPLES / "export_onnx.py", tmp_path], check=True, capture_output=True)
    program = [sys.executable, "-c", WITHOUT_TORCH, EXAMPLES / "caption_onnx.py", tmp_path, *SOUNDS]
    lines = subprocess.run(program, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len(SOUNDS) == 8
    captioner = pipeline("audio-captioning", model=DEFAULT_MODEL)
    # Of the samples that soundfile reads there: of Opus it makes others than PyAV, enough for other words.
    for path, line in zip(SOUNDS, lines, strict=True):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        [said] = captioner({"array": samples.mean(axis=1), "sampling_rate": rate})
        assert line == f"{path}: {said['caption']}"
