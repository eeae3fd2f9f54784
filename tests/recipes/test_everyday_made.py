"""Signals, music and voices among the everyday sounds, which nobody recorded."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import everyday_mixes
import everyday_music
import everyday_signals
import everyday_table
import everyday_voices
from everyday_table import Row


RATE = 16_000
rng = np.random.default_rng(0)
TABLE = everyday_table.read_rows()


def rows_of(source: str) -> list[Row]:
    return [row for row in TABLE if row.source == source]


def row(name: str = "", source: str = "voice_fx", **manifest) -> Row:
    columns = dict.fromkeys(everyday_table.MANIFEST, "") | manifest
    return Row(source, 1, name, "", "", [], columns)


def test_every_signal_is_made() -> None:
    for one in {row.manifest["title"]: row for row in rows_of("signals")}.values():
        wave = everyday_signals.make_signal(one)
        told = one.manifest["title"]
        assert RATE <= len(wave) <= 10 * RATE and wave.dtype == np.float32 and np.abs(wave).max() <= 1
        assert wave.any() == (told != "digital silence")
        if told.startswith("pure steady tone"):
            heard = np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave)
            assert heard == pytest.approx(float(told.split()[-2]), abs=1)
        if told == "quiet room tone":
            assert -66 < 20 * np.log10(wave.std()) < -58
    assert np.array_equal(everyday_signals.make_signal(one), wave)  # the same again
    with pytest.raises(ValueError, match="no signal is called 'whale'"):
        everyday_signals.make_signal(row("whale", "signals", title="whale"))


def test_touch_tones_are_dialled_as_often_as_told() -> None:
    for one in [row for row in rows_of("signals") if row.manifest["title"] == "touch tones dialled"][:5]:
        wave = np.abs(everyday_signals.make_signal(one))
        loud = np.convolve(wave, np.ones(320) / 320, "same") > 0.2 * wave.max()
        assert (np.diff(loud.astype(int)) == 1).sum() == int(one.extra.split("=")[1])


def test_every_composition_is_written() -> None:
    styles = {(row.name, row.manifest["caption_hints"].split(";")[1]): row for row in rows_of("fluidr3_gm")}
    for (name, style), one in styles.items():
        programs, notes, tempo = everyday_music.compose(one, everyday_mixes.seeded(one))
        if name in everyday_music.PROGRAMS:
            assert set(programs.values()) == {everyday_music.PROGRAMS[name][0]}
            at_once = max(sum(1 for note in notes if note[0] == start) for start, *_ in notes)
            assert style != " single melody line" or at_once == 1
        assert (9 in {note[4] for note in notes}) == (name in everyday_music.BEATS or name == "drumsolo")
        assert all(0 <= note[2] < 128 for note in notes) and 50 <= tempo <= 180
    with pytest.raises(ValueError, match="expected an ensemble, or an instrument with scale and tempo"):
        everyday_music.compose(row("kazoo", "fluidr3_gm"), rng)


def test_midi_is_what_the_notes_say() -> None:
    data = everyday_music.write_midi({2: 40}, [(0, 1, 60, 90, 2), (1, 0.5, 62, 80, 2)], 120)
    assert data[:14] == b"MThd\0\0\0\6\0\0\0\1\1\xe0" and data[14:18] == b"MTrk"
    assert int.from_bytes(data[18:22], "big") == len(data) - 22
    assert data[22:] == (
        b"\0\xff\x51\x03\x07\xa1\x20"  # 500,000 microseconds a beat
        b"\0\xc2\x28" b"\0\x92\x3c\x5a" b"\x83\x60\x82\x3c\0" b"\0\x92\x3e\x50" b"\x81\x70\x82\x3e\0" b"\0\xff\x2f\0"
    )  # fmt: skip


def test_a_program_that_fails_is_quoted(tmp_path: Path, monkeypatch) -> None:
    for name in ("fluidsynth", "espeak-ng"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ValueError, match="fluidsynth: it is broken"):
        everyday_music.play(rows_of("fluidr3_gm")[0], tmp_path / "a.sf2", tmp_path)
    with pytest.raises(ValueError, match="espeak-ng: it is broken"):
        everyday_voices.speak(rows_of("tts")[0], tmp_path)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_computer_voice_speaks(tmp_path: Path) -> None:
    slow, *_ = ours = [row for row in rows_of("tts") if len(row.cut.split()) == 2]
    wave = everyday_voices.speak(slow, tmp_path)
    assert 1 <= len(wave) / RATE <= 10 and wave.std() > 0.01
    fast = everyday_voices.speak(replace(slow, cut="300 50"), tmp_path)
    assert len(fast) < 0.8 * len(wave) and len(ours) > 40
    assert len(everyday_voices.speak(replace(slow, cut=f"{slow.cut} 0.1+1.25"), tmp_path)) == 1.25 * RATE


def voice(pitch: float, seconds: float = 2) -> np.ndarray:
    """A vowel: pulses through two resonances."""
    time = np.arange(round(seconds * RATE)) / RATE
    pulses = sum(np.cos(2 * np.pi * order * pitch * time) for order in range(1, int(7000 / pitch)))
    spectrum = np.fft.rfft(pulses)
    hertz = np.fft.rfftfreq(len(pulses), 1 / RATE)
    spectrum *= sum(1 / (1 + ((hertz - formant) / 80) ** 2) for formant in (700, 1200))
    wave = np.fft.irfft(spectrum, len(pulses))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def periodicity(wave: np.ndarray, pitch: float) -> float:
    lag = round(RATE / pitch)
    return float(np.corrcoef(wave[:-lag], wave[lag:])[0, 1])


def test_a_whisper_keeps_the_vowel_and_loses_the_pitch() -> None:
    speech = voice(160)
    whispered = everyday_voices.change_voice(row(source="voice_fx", synthetic="lpc-whisper"), speech)
    assert len(whispered) == len(speech)
    assert periodicity(speech, 160) > 0.95 and periodicity(whispered[2000:-2000], 160) < 0.5
    power = np.abs(np.fft.rfft(whispered)) ** 2
    hertz = np.fft.rfftfreq(len(whispered), 1 / RATE)
    band = [power[(hertz > low) & (hertz < low + 300)].mean() for low in (600, 1100, 3000)]
    assert min(band[:2]) > 10 * band[2]


def test_children_and_singers() -> None:
    pyworld = pytest.importorskip("pyworld")
    speech = voice(200)
    child = everyday_voices.change_voice(row(source="voice_fx", synthetic="world-child"), speech)
    pitch, _ = pyworld.harvest(child.astype(np.float64), RATE)
    assert 255 < np.median(pitch[pitch > 0]) < 305 and abs(len(child) - len(speech)) < 200
    song = everyday_voices.change_voice(row(source="voice_fx", synthetic="world-singing"), speech)
    pitch, _ = pyworld.harvest(song.astype(np.float64), RATE)
    assert len(song) / len(speech) == pytest.approx(2.5, abs=0.05) and pitch[pitch > 0].std() > 10
