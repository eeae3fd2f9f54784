"""Ten data sets, read as they are published: small tables of the same form, with recordings of nothing."""

import json
from pathlib import Path

import pytest

from evaluation_mac.datasets.published import DATASETS, find_dataset, labels_of, read_published


# Data set: its table, the table's content, and recordings with the captions or labels that are to be read.
FORMS = {
    "audiocaps": (
        "test.csv",
        "audiocap_id,youtube_id,start_time,caption\n1,7fmOlUlwoNg,20,Rattling noise\n"
        '2,6BJ455B1aAs,0,"A rocket, loud"\n3,7fmOlUlwoNg,20,Rattling noise\n',
        {"test/Y7fmOlUlwoNg.wav": ("Rattling noise", "Rattling noise"), "6BJ455B1aAs_0.flac": ("A rocket, loud",)},
    ),
    "clotho": (
        "clotho_captions_evaluation.csv",
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\nSanta Motor.wav,a,b,c,d,e\n",
        {"evaluation/Santa Motor.wav": ("a", "b", "c", "d", "e")},
    ),
    "esc50": (
        "meta/esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\n1-100032-A-0.wav,1,0,dog,True,100032,A\n",
        {"audio/1-100032-A-0.wav": ("dog",)},
    ),
    "vocalsound": (
        "datafiles/te.json",
        '{"data": [{"wav": "/data/vs/data_16k/f1_0_cough.wav", "labels": "/m/01b_21"}]}',
        {"audio_16k/f1_0_cough.wav": ("Cough",)},
    ),
    "tut17": (
        "evaluation_setup/evaluate.txt",
        "audio/1.wav\tresidential_area\naudio/2.wav\tcafe/restaurant\t2\n",
        {"audio/1.wav": ("residential_area",), "audio/2.wav": ("cafe/restaurant",)},
    ),
    "dcase17": (
        "groundtruth_weak_label_evaluation_set.csv",
        "-5QrB_zLg_30.000_40.000.wav\t30.000\t40.000\tTrain\n"
        "-5QrB_zLg_30.000_40.000.wav\t30.000\t40.000\tTrain horn\n",
        {"Y-5QrB_zLg_30.000_40.000.wav": ("Train", "Train horn")},
    ),
    "beijing_opera": (None, "", {"205972__ajaysm__daluo-01.wav": ("Large gong",)}),
    "fsd50k": (
        "FSD50K.ground_truth/eval.csv",
        'fname,labels,mids\n37199,"Electric_guitar,Music","/m/02sgy,/m/04rlf"\n',
        {"FSD50K.eval_audio/37199.wav": ("Electric_guitar", "Music")},
    ),
    "vggsound": (
        "vggsound.csv",
        "---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n"
        'abc,20,"bird chirping, tweeting",test\n',
        {"---g-f_I2yQ_000001.mp4": ("people marching",), "abc.wav": ("bird chirping, tweeting",)},
    ),
    "audioset": (
        "eval_segments.csv",
        "# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=1\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"\n',
        {"Y-0RWZT-miFs.wav": ("Keys jangling", "Car")},
    ),
}  # fmt: skip


def write(root: Path, table: str | None, text: str, recordings: dict) -> None:
    for name in [*recordings, *([table] if table else [])]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    if table:
        (root / table).write_text(text, encoding="utf-8")


def test_every_data_set_is_tried() -> None:
    assert FORMS.keys() == DATASETS.keys()


@pytest.mark.parametrize("dataset", FORMS)
def test_a_data_set_is_read_as_it_is_published(dataset: str, tmp_path: Path) -> None:
    table, text, expected = FORMS[dataset]
    write(tmp_path, table, text, expected)
    recordings, read = read_published(dataset, tmp_path)
    assert read == (table and tmp_path / table)
    said = {one.audio: one.labels if labels_of(dataset) else one.captions for one in recordings}
    assert said == {str(tmp_path / name): what for name, what in expected.items()}


@pytest.mark.parametrize("dataset", [name for name, (table, *_) in FORMS.items() if table])
def test_a_table_that_is_missing_is_named_with_its_place(dataset: str, tmp_path: Path) -> None:
    table, _, recordings = FORMS[dataset]
    write(tmp_path / "audio", None, "", recordings)
    with pytest.raises(ValueError) as error:
        read_published(dataset, tmp_path / "audio")
    assert Path(str(table)).name in str(error.value) and str(tmp_path / "audio") in str(error.value)
    assert DATASETS[dataset].home in str(error.value)


@pytest.mark.parametrize("dataset", FORMS)
def test_recordings_that_are_missing_are_named_with_their_place(dataset: str, tmp_path: Path) -> None:
    table, text, recordings = FORMS[dataset]
    write(tmp_path, table, text, {})
    with pytest.raises(ValueError, match="expected the recordings of") as error:
        read_published(dataset, tmp_path)
    stem = Path(next(iter(recordings))).stem.removeprefix("Y").split("_")[0]
    assert table is None or stem in str(error.value)


def test_a_table_may_lie_beside_the_recordings(tmp_path: Path) -> None:
    table, text, recordings = FORMS["esc50"]
    write(tmp_path, table, text, recordings)
    [recording], read = read_published("esc50", tmp_path / "audio")
    assert read == tmp_path / "meta/esc50.csv" and recording.audio == str(tmp_path / "audio/1-100032-A-0.wav")


def test_one_of_two_recordings_may_be_missing(tmp_path: Path) -> None:
    table, text, _ = FORMS["tut17"]
    write(tmp_path, table, text, {"audio/2.wav": ()})
    first, second = read_published("tut17", tmp_path)[0]
    assert first.audio == str(tmp_path / "1.wav") and second.audio == str(tmp_path / "audio/2.wav")


def test_files_of_ltu_do_as_well(tmp_path: Path) -> None:
    rows = '[{"audio_id": "/data/a.wav", "output": "Labels: Electric guitar; Music", "task": "cla"}]'
    write(tmp_path, "fsd50k_eval.json", rows, {"a.flac": ()})
    [one] = read_published("fsd50k", tmp_path, tmp_path / "fsd50k_eval.json")[0]
    assert one.labels == ("Electric_guitar", "Music")
    outputs = ("Audio caption: A dog: it barks.", "A cat")
    rows = json.dumps([{"audio_id": "a.wav", "output": output} for output in outputs])
    write(tmp_path, "clotho.json", rows, {})
    [one] = read_published("clotho", tmp_path, tmp_path / "clotho.json")[0]
    assert one.captions == ("A dog: it barks.", "A cat")


@pytest.mark.parametrize(
    ("dataset", "table", "text", "message"),
    [
        (
            "esc50",
            "esc50.csv",
            "filename,category\na.wav,unicorn\n",
            "line 2: no label 'unicorn' among the 50 of esc50",
        ),
        (
            "esc50",
            "esc50.csv",
            "file,class\na.wav,dog\n",
            "line 2: nothing in `filename`; expected filename, category",
        ),
        (
            "tut17",
            "meta.txt",
            "audio/a.wav bus\n",
            "line 1: expected recording, scene, by a tab; got 'audio/a.wav bus'",
        ),
        ("vocalsound", "te.json", "{", "te.json: not valid JSON"),
        ("vocalsound", "te.json", '{"data": [{"wav": "a.wav"}]}', "te.json, entry 1: expected"),
        ("vocalsound", "te.json", '{"rows": []}', "te.json: expected"),
        ("fsd50k", "eval.csv", "fname,labels,mids\n", "eval.csv: holds no rows of the test part of FSD50K"),
        ("vggsound", "vggsound.csv", "a,1,dog barking,train\n", "vggsound.csv: holds no rows of the test part"),
    ],
)
def test_tables_of_another_form(dataset, table, text, message, tmp_path) -> None:
    write(tmp_path, table, text, {"a.wav": ()})
    with pytest.raises(ValueError, match=message):
        read_published(dataset, tmp_path)


def test_two_tables_of_one_name_must_be_told_apart(tmp_path: Path) -> None:
    for part in ("development", "evaluation"):
        write(tmp_path / part, "meta.txt", "audio/1.wav\tbus\n", {"audio/1.wav": ()})
    with pytest.raises(
        ValueError, match=r"found .*development.meta.txt, .*evaluation.meta.txt; say which one with --data"
    ):
        read_published("tut17", tmp_path)


def test_names_are_known_however_they_are_spelled() -> None:
    assert find_dataset("ESC-50") == "esc50" and find_dataset("Beijing Opera") == "beijing_opera"
    assert find_dataset("ESC-50 fold 5") is None and find_dataset(None) is None
