"""Manifests become clips, examples become batches."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from processing_mac.dataset_mac import Clip, read_manifest


@pytest.fixture
def write(tmp_path):
    """Writes a manifest and gives its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_csv_with_everything(write, tmp_path):
    path = write(
        "train.csv",
        "audio,caption_1,caption_2,phrase_1,source,caption_id\n"
        'a/dog.wav,A dog barks,"A dog, far away",a dog,dog,17\n'
        "cat.wav, A cat ,,,,18\n",
    )
    dog = Clip(str(tmp_path / "a/dog.wav"), ("A dog barks", "A dog, far away"), ("a dog",), "dog")
    assert read_manifest(path) == [dog, Clip(str(tmp_path / "cat.wav"), ("A cat",))]
    assert read_manifest(path, audio_root="sounds")[1].audio == str(Path("sounds") / "cat.wav")


def test_csv_from_a_spreadsheet_begins_with_a_mark(write):
    assert read_manifest(write("train.csv", "\ufeffaudio,caption\r\ndog.wav,Ein Hund bellt über den Hof\r\n"))[
        0
    ].captions == ("Ein Hund bellt über den Hof",)


def test_jsonl(write, tmp_path):
    rows = [
        {"audio": "/sounds/dog.wav", "caption": "A dog", "seconds": 3.5},
        {"audio": "cat.wav", "caption_1": "A cat"},
    ]
    path = write("train.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert read_manifest(path) == [Clip("/sounds/dog.wav", ("A dog",)), Clip(str(tmp_path / "cat.wav"), ("A cat",))]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.csv", None, "no such manifest"),
        ("train.txt", "audio,caption\n", "expected a .csv, .jsonl or .parquet"),
        ("train.parquet", "not Parquet", "cannot be read as Parquet"),
        ("train.csv", "audio,caption\n", "holds no rows"),
        ("train.csv", "audio,caption\na.wav,\nb.wav,B\n,C\n", r"line 2: no `caption` or .*\n.*line 4: no `audio`$"),
        ("train.csv", "audio,caption\n" + "a.wav,\n" * 30, r"line 21: no `caption`.*\nand 10 more, 30 in all\.$"),
        ("train.csv", "audio_file,caption\n" + "a.wav,A\n" * 9, r"no column `audio`; .* Did you mean `audio_file`"),
        ("train.csv", "audio,text\na.wav,A\n", r"no column `caption`; it has audio, text\.$"),
        ("train.csv", "audio,caption\na.wav,A dog, far away\n", "line 2: more cells than columns"),
        ("train.csv", "audio;caption\na.wav;A dog, far away\n", "line 1: .* separated by semicolons; expected commas"),
        ("train.csv", "audio\tcaption\na.wav\tA dog\n", "line 1: its columns are separated by tabs; expected commas"),
        ("train.jsonl", '{"audio": "a.wav", "caption": "A"}\n{"audio"', "line 2: not valid JSON"),
        ("train.jsonl", '["a.wav", "A"]\n', "line 1: expected an object"),
        ("train.jsonl", '{"audio": "a.wav", "caption": 7}\n', "line 1: no `caption`"),
        (
            "train.jsonl",
            '{"audio": "a", "caption": "A"}\n{"audio"\n{}\n',
            r"line 2: not valid(.|\n)*line 3: no `audio`",
        ),
    ],
)
def test_bad_manifests_are_refused_by_line(name, text, message, write, tmp_path):
    path = tmp_path / name if text is None else write(name, text)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(path)
    assert str(error.value).startswith(str(path))


BROKEN = {
    "unclosed.csv": (b'audio,caption\na.wav,"a dog barks\nb.ogg,a dog\n', "line 2: not valid CSV"),
    "long.csv": (b'audio,caption\na.wav,"a dog' + b"\nb.wav,x" * 20_000, "line 2: not valid CSV .field larger"),
    "swallowed.csv": (
        b'audio,caption\na.wav,"a dog\nb.wav,a cat"\n',
        "line 2: a quote .* takes in another row",
    ),
    "lone.csv": (b'audio,caption\na.wav,A\nb.wav,"dog" barks\n', "line 3: not valid CSV"),
    "doubled.csv": (b"audio,caption,caption\na.wav,A,B\n", "line 1: two columns are called `caption`"),
    "latin.csv": (
        "audio,caption\na.wav,A\nb.wav,Bäche\n".encode("latin-1"),
        "UTF-8 text, which line 3 is not",
    ),
    "utf16.csv": ("audio,caption\na.wav,A\n".encode("utf-16"), "UTF-8 text, which line 1 is not"),
    "nul.csv": (b"audio,caption\na.wav,a\0b\n", "line 2: holds a NUL"),
    "number.jsonl": (b"5\n", "line 1: expected an object"),
    "doubled.jsonl": (
        b'{"audio": "a.wav", "caption": "A", "caption": "B"}\n',
        "line 1: .*two fields are called",
    ),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "line 1: not valid JSON .*recursion"),
    "surrogate.jsonl": (b'{"audio": "a.wav", "caption": "\\ud800"}\n', "line 1: not valid JSON .*surrogates"),
    "list.jsonl": (
        b'{"audio": ["a.wav"], "caption": "A"}\n',
        "line 1: the audio column holds samples",
    ),
    "empty.parquet": (b"", "cannot be read as Parquet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_row_is_lost_in_silence(name, tmp_path):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}")


def test_files_that_are_none(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("gone")
    for name, message in (("folder.csv", "a folder"), ("link.csv", "a link to nothing")):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            read_manifest(tmp_path / name)


def test_broken_parquet(tmp_path):
    path = tmp_path / "train.parquet"
    rows = pyarrow.table({"audio": ["a.wav"] * 3000, "caption": [f"caption {row}" for row in range(3000)]})
    pyarrow.parquet.write_table(rows, path)
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(1000) + content[1200:])
    with pytest.raises(ValueError, match=r"train.parquet: cannot be read as Parquet"):
        read_manifest(path)
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["audio", "caption", "caption"])
    pyarrow.parquet.write_table(twice, path)
    with pytest.raises(ValueError, match="two columns are called `caption`"):
        read_manifest(path)


def test_captions_of_several_lines_and_blank_lines(write):
    path = write("train.csv", 'audio,caption\n\na.wav,"A dog\nbarks, far away"\n\nb.wav,\n')
    with pytest.raises(ValueError, match=r"train.csv, line 6: no `caption`[^\n]*$"):
        read_manifest(path)


def test_an_address_stays_as_it_is(write, tmp_path):
    path = write("train.csv", "audio,caption\nhttp://127.0.0.1:1/a.wav,A\nb.ogg,B\n")
    assert [clip.audio for clip in read_manifest(path)] == ["http://127.0.0.1:1/a.wav", str(tmp_path / "b.ogg")]


def test_columns_are_mapped_by_name(write, tmp_path):
    path = write("train.csv", "file_name,text_1,text_2,question\na.wav,A,B,What?\n")
    columns = {"audio": "file_name", "caption": "text", "prompt": "question"}
    assert read_manifest(path, columns=columns) == [Clip(str(tmp_path / "a.wav"), ("A", "B"), prompt="What?")]
    with pytest.raises(
        ValueError, match=r"no column `text_3`; .* Did you mean `text_[12]`: `columns: {caption: text_[12]}`"
    ):
        read_manifest(path, columns={"audio": "file_name", "caption": "text_3"})
    with pytest.raises(ValueError, match="maps 'captoin'; expected some of audio, caption"):
        read_manifest(path, columns={"captoin": "text"})


def test_parquet_with_lists_of_captions(tmp_path):
    rows = [{"audio": "a.wav", "caption": ["A", "B"]}, {"audio": None, "caption": ["C"]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:1]), tmp_path / "good.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "bad.parquet")
    assert read_manifest(tmp_path / "good.parquet") == [Clip(str(tmp_path / "a.wav"), ("A", "B"))]
    with pytest.raises(ValueError, match=r"bad.parquet, row 2: no `audio`"):
        read_manifest(tmp_path / "bad.parquet")


def test_a_name_may_begin_with_a_space(write, tmp_path):
    assert read_manifest(write("train.csv", "audio,caption\n birds.wav,A\n"))[0].audio == str(tmp_path / " birds.wav")


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "train.csv").write_bytes("audio,caption\na.wav,Bäche\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train.csv: expected UTF-8 text"):
        read_manifest(tmp_path / "train.csv")
