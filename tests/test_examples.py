"""The shipped example sounds are what the script makes, small, and in several formats."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile


FOLDER = Path(__file__).parents[1] / "examples"
SPEC = importlib.util.spec_from_file_location("make_examples", FOLDER / "make_examples.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    script.main(["--output", str(folder)])
    return folder


def test_the_folder_holds_exactly_the_scripts_sounds(remade):
    shipped = {path.name for path in FOLDER.iterdir() if soundfile_can_read(path)}
    assert shipped == set(script.EXAMPLES) == {path.name for path in remade.iterdir()}
    assert sum((FOLDER / name).stat().st_size for name in shipped) < 1_000_000
    assert {Path(name).suffix for name in shipped} == {".wav", ".flac", ".ogg", ".opus"}


@pytest.mark.parametrize("name", script.EXAMPLES)
def test_the_script_reproduces_the_shipped_file(remade, name):
    shipped, rate = soundfile.read(FOLDER / name)
    again, _ = soundfile.read(remade / name)
    assert rate == script.RATE == 16_000 and shipped.ndim == 1
    assert shipped.shape == again.shape
    lossless = script.EXAMPLES[name][2].startswith("PCM")
    error = np.sqrt(np.mean((shipped - again) ** 2)) / np.sqrt(np.mean(shipped**2))
    assert np.max(np.abs(shipped - again)) < 1.5 / 2**15 if lossless else error < 0.1


@pytest.mark.parametrize("name", script.EXAMPLES)
def test_levels_and_lengths(name):
    samples, rate = soundfile.read(FOLDER / name)
    assert 5 <= len(samples) / rate <= 12
    assert abs(20 * np.log10(np.max(np.abs(samples))) + 3) < 1.5
    assert abs(np.mean(samples)) < 1e-3


def test_one_sound_is_longer_than_a_window():
    assert max(soundfile.info(FOLDER / name).duration for name in script.EXAMPLES) > 10.24


def test_same_samples_every_time():
    assert np.array_equal(script.make("clock.wav"), script.make("clock.wav"))


def soundfile_can_read(path):
    return path.suffix.lstrip(".").upper() in {"WAV", "FLAC", "OGG", "OPUS", "MP3"}
