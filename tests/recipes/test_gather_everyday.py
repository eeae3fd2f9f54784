"""Folders as public sources have them become the everyday sounds and their manifest."""

import csv
import shutil
import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import compare_everyday
import everyday_mixes
import everyday_sources
import everyday_table
import gather_everyday
import prepare_everyday
from everyday_grammar import Grammar
from everyday_table import Part, Row

from processing_mac.audio_mac import load_waveform


RATE = 16_000
rng = np.random.default_rng(0)
TABLE = {row.stem: row for row in everyday_table.read_rows()}


def rows_of(source: str) -> list[Row]:
    return [row for row in TABLE.values() if row.source == source]


def row(name: str = "", source: str = "mixes", parts: list[Part] | None = None, cut: str = "", **manifest) -> Row:
    columns = dict.fromkeys(everyday_table.MANIFEST, "") | manifest
    return Row(source, 1, name, "", cut, parts or [], columns)


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return (level * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def rumble(seconds: float) -> np.ndarray:
    """Noise below 1 kHz, which Opus keeps."""
    return np.convolve(noise(seconds, 0.4), np.ones(16) / 16, "same").astype(np.float32)


def encode(path: Path, wave: np.ndarray, codec: str, **options) -> None:
    """Write sound by PyAV, as WebM or bare G.722."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", **options) as file:
        stream = file.add_stream(codec, rate=48_000 if codec == "libopus" else RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((wave * 2**15).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for one in av.AudioResampler(stream.format, "mono", stream.rate, frame_size=stream.frame_size or 320).resample(
            frame
        ):
            file.mux(stream.encode(one))
        file.mux(stream.encode(None))


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """A few recordings of each kind of source, in the folders that the commands of --list make."""
    folder = tmp_path / "downloads"

    def write(path: str, wave: np.ndarray, rate: int = RATE) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, wave, rate)

    write("audio/Berklee/can_crumple2.mp3", noise(2), RATE)  # it was "berklee" once
    write("CDDA-Soundpacks/sound/CC-Sounds/environment/weather/night/clear_night_1.ogg", noise(25))
    write("mod-sounds/sounds/sounds_airplane_prop.ogg", noise(1.5))
    write("mod-sounds/sounds/sounds_node_dug_glass.1.ogg", noise(0.4))
    write("VoxeLibre/mods/ENTITIES/mobs_mc/sounds/mobs_mc_bear_attack.1.ogg", noise(0.5))
    write("sonic-pi/etc/samples/loop_amen.flac", noise(1.75))
    write("wake-word-benchmark/audio/smart mirror/0a3576a1-8a31-4e09-b340-474243fdf1c7.wav", noise(1.2))
    encode(folder / "dataset-voice-kerstin/audio/de_rhasspy-0236.webm", noise(2), "libopus")
    package = "asterisk-core-sounds-ru-g722/usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU/dictate/record_help.g722"
    encode(folder / package, noise(3), "g722", format="g722")
    container = folder / "openttd-opensfx/usr/share/games/openttd/baseset/opensfx/opensfx.cat"
    container.parent.mkdir(parents=True)
    container.write_bytes(make_cat([noise(2.5 if number == 3 else 1.2) for number in range(73)]))
    return folder


def make_cat(waves: list[np.ndarray]) -> bytes:
    """OpenTTD's container: places and lengths, then each sound with its name before it."""
    table, body = b"", b""
    for wave in waves:
        name, sound = b"a name\0", as_wav(wave)
        table += struct.pack("<II", 8 * len(waves) + len(body) | (0x80000000 if not table else 0), len(sound))
        body += bytes([len(name)]) + name + sound
    return table + body


def as_wav(wave: np.ndarray) -> bytes:
    samples = (wave * 2**15).astype("<i2").tobytes()
    head = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", len(samples))
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(samples)) + b"WAVE" + head + samples


def gather(downloads: Path, *options: str) -> dict[str, dict[str, str]]:
    output = downloads.parent / "everyday"
    gather_everyday.main(["--sources", str(downloads), "--output", str(output), *options])
    return {told["file"]: told for told in prepare_everyday.read_everyday(output)}


RECORDED = list(everyday_sources.SOURCES)


def test_recordings_are_found_wherever_they_lie(downloads: Path, capsys) -> None:
    made = gather(downloads, "--only", *RECORDED)
    out = capsys.readouterr().out
    names = {TABLE[file.removesuffix(".opus")].name for file in made}
    assert names == {
        "can_crumple2", "environment weather night clear night 1", "airplane_prop", "dug_glass.1",
        "mobs_mc_bear_attack.1", "loop_amen", "smart mirror/0a3576a1-8a31-4e09-b340-474243fdf1c7.wav", "0236",
        "record_help", *(row.name for row in rows_of("opensfx")),
    }  # fmt: skip
    assert len(made) == 9 + 2 + 37  # of the night there are three
    assert "opensfx:         37 of 37 recordings" in out and "blanket:         0 of 35 recordings" in out
    assert "kerstin_de:      1 of 170" in out and out.count("missing 164 more") == 1  # 5 are named
    assert "get it: git clone --depth 1 https://github.com/rafaelmardojai/blanket" in out
    seconds = {TABLE[file.removesuffix(".opus")].name: float(told["seconds"]) for file, told in made.items()}
    assert seconds["dug_glass.1"] == seconds["mobs_mc_bear_attack.1"] == 1.1  # within silence
    assert (
        seconds["loop_amen"] == 7.0 and seconds["03"] == 2.5 and seconds["record_help"] == pytest.approx(3, abs=0.05)
    )
    told = made["berklee_olpc/berklee_olpc_00260.opus"]
    assert told["source_id"] == "berklee/can_crumple2.mp3" and told["caption_hints"] == 'name="can crumple2"'
    assert (told["title"], told["group"], told["licence"]) == ("can crumple2", "can crumple", "CC-BY-3.0")
    assert -23 < float(told["rms_db"]) < -19  # Opus leaves some of a hiss out


def test_a_run_is_taken_up_again(downloads: Path) -> None:
    made = gather(downloads, "--only", "luanti_sounds")
    file = downloads.parent / "everyday" / "luanti_sounds/luanti_sounds_00001.opus"
    written = file.stat().st_mtime_ns
    shutil.rmtree(downloads / "mod-sounds")
    again = gather(downloads, "--only", "luanti_sounds", "berklee_olpc")
    assert file.stat().st_mtime_ns == written and len(again) == len(made) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sources", "nowhere"], "nowhere: no such folder"),
        (["--sources", ".", "--only", "blanket"], "no recording of any source"),
        (["--sources", ".", "--only", "blankets"], "--only blankets: no such source; expected some of"),
        ([], "--sources None: no such folder"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, monkeypatch, capsys, options: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        gather_everyday.main(options)
    assert message in capsys.readouterr().err and not (tmp_path / "data/everyday/manifest.csv").exists()


def test_broken_files_are_named_and_others_gathered(downloads: Path, capsys) -> None:
    file = downloads / "mod-sounds/sounds/sounds_airplane_prop.ogg"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    made = gather(downloads, "--only", "luanti_sounds")
    assert [TABLE[name.removesuffix(".opus")].name for name in made] == ["dug_glass.1"]
    assert "sounds_airplane_prop.ogg" in capsys.readouterr().out


def test_all_sources_are_listed(capsys) -> None:
    gather_everyday.main(["--list"])
    out = capsys.readouterr().out
    sources = {row.source for row in TABLE.values()} - {"signals", "mixes", "applause"}
    assert all(f"{source}:" in out for source in sources | {"esc50"})


def test_the_table_tells_all_that_the_recipe_reads() -> None:
    grammar = Grammar()
    for row in TABLE.values():
        told = row.manifest
        assert not any("{" in cell or cell == "-" for cell in told.values()), row
        assert told["fold"] in ("train", "validation") and told["teacher_agree"] in ("0", "1")
        assert told["labels"] and told["kind"] and told["licence"] and told["group"]
    known = [grammar.find(row.manifest["labels"].split(";")) for row in TABLE.values()]
    assert sum(map(bool, known)) > 0.8 * len(known)
    groups = {(row.source, row.manifest["group"]): set() for row in TABLE.values() if not row.parts}
    for row in TABLE.values():
        if not row.parts:
            groups[row.source, row.manifest["group"]].add(row.manifest["fold"])
        assert {TABLE[part.file].manifest["fold"] for part in row.parts if part.file in TABLE} <= {
            row.manifest["fold"]
        }
    assert all(len(folds) == 1 for folds in groups.values())


def test_cells_repeat_those_above_and_name_others(tmp_path: Path) -> None:
    header = [*everyday_table.OWN, *everyday_table.MANIFEST]
    cells = [
        {"source": "a", "number": "1", "name": "x/the_dog2.wav", "title": "{words}", "group": "{stem}", "author": "A"},
        {"number": "2", "name": "x/cat.wav", "author": "-"},
        {"source": "b", "number": "1", "name": "y", "author": "B", "parts": "a/a_00001@-1*0.5 + esc50/1-2-A-3@2*1",
         "source_id": "{parts}", "group": "{first group}"},
    ]  # fmt: skip
    path = tmp_path / "table.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(cells)
    one, two, three = everyday_table.read_rows(path)
    assert [one.manifest[name] for name in ("title", "group", "author")] == ["the dog2", "the dog", "A"]
    assert [two.manifest[name] for name in ("title", "group", "author")] == ["cat", "cat", ""]
    assert three.parts == [Part("a/a_00001", (-1, 0.5)), Part("esc50/1-2-A-3", (2, 1))]
    assert (three.manifest["group"], three.manifest["title"]) == ("the dog", "")
    assert three.manifest["source_id"] == "a: + esc50:1-2-A-3.opus"
    path.write_text(path.read_text().replace("a/a_00001", "a/a_00007"))
    with pytest.raises(ValueError, match="b/b_00001 is made of a/a_00007, which has no row"):
        everyday_table.read_rows(path)


def test_recordings_are_cut_by_the_rule() -> None:
    long = noise(100)
    for which, start in enumerate((2.0, 45.0, 88.0)):
        assert np.array_equal(everyday_sources.cut(long, which, 3), long[int(start * RATE) :][: 10 * RATE])
    assert np.array_equal(everyday_sources.cut(long), long[: 10 * RATE])
    quiet = np.concatenate([noise(0.5, 1e-5), noise(2), noise(0.5, 1e-5)])
    assert np.array_equal(everyday_sources.cut(quiet), quiet[round(0.42 * RATE) : round(2.58 * RATE)])
    faint = np.concatenate([noise(0.5, 0.001), noise(2)])  # 40 dB below: it stays
    assert len(everyday_sources.cut(faint)) == len(faint)
    short = noise(0.3)
    padded = everyday_sources.cut(short)
    assert len(padded) == round(1.1 * RATE) and np.array_equal(padded[1600 : 1600 + len(short)], short)
    assert not everyday_sources.cut(np.zeros(2 * RATE, np.float32)).any()


def test_a_place_of_its_own(tmp_path: Path) -> None:
    own = next(row for row in rows_of("sonic_pi") if row.cut)
    path = tmp_path / "samples" / f"{own.name}.flac"
    path.parent.mkdir()
    soundfile.write(path, wave := noise(12), RATE)
    maker = gather_everyday.Maker(
        everyday_sources.Downloads(tmp_path), everyday_sources.Downloads(tmp_path), tmp_path, [own]
    )
    start, length = (round(float(number) * RATE) for number in own.cut.split("+"))
    assert np.allclose(maker.take(own), wave[start : start + length], atol=1e-4) and length > RATE


def test_a_sound_that_the_container_lacks(tmp_path: Path) -> None:
    path = tmp_path / "opensfx.cat"
    path.write_bytes(make_cat([noise(1), noise(1)]))
    with pytest.raises(ValueError, match="2 sounds; expected number 2"):
        everyday_sources.read_cat(path, 2)


def test_parts_are_laid_where_the_table_says() -> None:
    first, second = noise(1), noise(2)
    parts = [Part("a/a_00001", (-0.5, 2.0)), Part("a/a_00002", (1.0, 0.5))]
    mix = everyday_mixes.make_mix(row(parts=parts, cut="2.5"), [first, second])
    expected = np.zeros(round(2.5 * RATE), np.float32)
    expected[: RATE // 2] = 2 * first[RATE // 2 :]
    expected[RATE:] += 0.5 * second[: round(1.5 * RATE)]
    assert np.allclose(mix, expected)


@pytest.mark.parametrize("decibels", [0, 12])
def test_speech_over_a_sound_is_as_loud_as_told(decibels: int) -> None:
    speech, behind = noise(3, 0.3), np.sin(0.1 * np.arange(RATE)).astype(np.float32)
    hints = f"speech over rain at about {decibels} dB; language=en"
    mix = everyday_mixes.make_mix(
        row(parts=[Part("a"), Part("b")], kind="speech+noise", caption_hints=hints), [speech, behind]
    )
    fit, *_ = np.linalg.lstsq(np.stack([speech, np.resize(behind, len(speech))], 1), mix, rcond=None)
    told = 20 * np.log10(fit[0] * speech.std() / (fit[1] * behind.std()))
    assert told == pytest.approx(decibels, abs=0.5) and len(mix) == len(speech)
    with pytest.raises(ValueError, match="at about N dB"):
        everyday_mixes.make_mix(row(parts=[Part("a"), Part("b")], kind="speech+noise"), [speech, behind])


def test_mixes_without_places_are_made_anew() -> None:
    waves, parts = [noise(1.5), noise(2), noise(1.2)], [Part("a"), Part("b"), Part("c")]
    made = {
        kind: everyday_mixes.make_mix(row(parts=parts, kind=kind, source=source, caption_hints=hints), waves[:count])
        for kind, source, hints, count in (
            ("conversation", "mixes", "3 speakers", 3),
            ("crowd", "mixes", "3 people", 3),
            ("two sounds", "mixes", "both at once: [A] and [B]", 2),
            ("applause", "applause", "", 3),
        )
    }
    assert 5 < len(made["conversation"]) / RATE < 6.6 and len(made["two sounds"]) == 2 * RATE
    assert all(4 <= len(made[kind]) / RATE <= 9.5 for kind in ("crowd", "applause"))
    for mix in made.values():
        assert mix.std() == pytest.approx(everyday_mixes.LEVEL, rel=0.1) and np.abs(mix).max() < 1
    both = everyday_mixes.make_mix(row(parts=parts, kind="two sounds", caption_hints="first then second"), waves[:2])
    assert len(both) == 4 * RATE and not both[round(1.5 * RATE) : 2 * RATE].any()


def test_mixes_are_made_of_what_was_written(downloads: Path, tmp_path: Path, capsys) -> None:
    mix = next(row for row in rows_of("mixes") if row.manifest["kind"] == "speech+noise" and len(row.parts) == 2)
    speech, behind = mix.parts
    (downloads / "ESC-50/audio").mkdir(parents=True)
    soundfile.write(downloads / f"ESC-50/audio/{behind.file.removeprefix('esc50/')}.wav", rain := rumble(5), RATE)
    path = tmp_path / "everyday" / f"{speech.file}.opus"
    path.parent.mkdir(parents=True)
    soundfile.write(path, rumble(3), RATE, format="OGG", subtype="OPUS")
    made = gather(downloads, "--only", "mixes")
    assert set(made) == {f"{mix.stem}.opus", f"{speech.file}.opus"} and made[f"{mix.stem}.opus"]["synthetic"] == "mix"
    assert float(made[f"{mix.stem}.opus"]["seconds"]) == pytest.approx(float(mix.cut), abs=0.01)
    assert "it is made of recordings of picovoice_s2i that are not there" in capsys.readouterr().out
    wave = load_waveform(str(tmp_path / "everyday" / f"{mix.stem}.opus"))
    said = np.zeros(len(wave))
    start, gain = speech.place
    everyday_mixes.add(said, load_waveform(str(path)) * gain, round(start * RATE))
    rest = wave - said
    behind_wave = behind.place[1] * rain[: len(rest)]
    assert np.corrcoef(rest[: len(behind_wave)], behind_wave)[0, 1] > 0.8


def test_programs_that_are_not_installed_are_named(downloads: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit):
        gather(downloads, "--only", "tts", "fluidr3_gm")
    out = capsys.readouterr().out
    assert "missing 84: the program espeak-ng is not installed" in out
    assert "missing 816: the program fluidsynth is not installed" in out


def test_without_the_vocoder_its_voices_are_missing(downloads: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    wanted = {synthetic: next(row for row in rows_of("voice_fx") if row.manifest["synthetic"] == synthetic)
              for synthetic in ("lpc-whisper", "world-child")}  # fmt: skip
    for one in wanted.values():
        path = tmp_path / "everyday" / f"{one.parts[0].file}.opus"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rumble(2), RATE, format="OGG", subtype="OPUS")
    made = gather(downloads, "--only", "voice_fx")
    assert f"{wanted['lpc-whisper'].stem}.opus" in made and f"{wanted['world-child'].stem}.opus" not in made
    assert "pip install pyworld" in capsys.readouterr().out


def test_two_gatherings_are_compared(tmp_path: Path, capsys) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one / "a", one / "b", other / "a", other / "b"):
        folder.mkdir(parents=True)
    wave, delayed = rumble(2), np.zeros(100, np.float32)
    for folder, a, b in (("one", wave, rumble(1)), ("other", np.concatenate([delayed, wave]), rumble(1.5))):
        soundfile.write(tmp_path / folder / "a/a_00001.opus", a, RATE, format="OGG", subtype="OPUS")
        soundfile.write(tmp_path / folder / "b/b_00001.opus", b, RATE, format="OGG", subtype="OPUS")
    compare_everyday.main([str(one), str(other)])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("a:") and "1 recordings, 1 of the same length" in first
    assert float(first.split()[-1]) > 0.9 and "0 of the same length" in second and float(second.split()[-1]) < 0.2
    with pytest.raises(SystemExit):
        compare_everyday.main([str(one), str(tmp_path)])
    assert "no recording in common" in capsys.readouterr().err
