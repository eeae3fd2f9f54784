"""Manifests become clips, examples become batches."""

import json
from pathlib import Path

import pytest
import torch

from processing_mac.dataset_mac import CaptionCollator, Clip, read_manifest


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
        ("train.txt", "audio,caption\n", "expected a .csv or .jsonl"),
        ("train.csv", "audio,caption\n", "holds no rows"),
        ("train.csv", "audio,caption\na.wav,\nb.wav,B\n,C\n", r"line 2: no `caption` or .*; line 4: no `audio`\.$"),
        ("train.csv", "file,caption\n" + "a.wav,A\n" * 9, r"line 6: no `audio`; and 4 more\.$"),
        ("train.jsonl", '{"audio": "a.wav", "caption": "A"}\n{"audio"', "line 2: not valid JSON"),
        ("train.jsonl", '["a.wav", "A"]\n', "line 1: expected an object"),
        ("train.jsonl", '{"audio": "a.wav", "caption": 7}\n', "line 1: no `caption`"),
    ],
)
def test_bad_manifests_are_refused_by_line(name, text, message, write, tmp_path):
    path = tmp_path / name if text is None else write(name, text)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(path)
    assert str(error.value).startswith(str(path))


def test_the_collator_gives_what_the_processor_gives(processor, sound):
    clips, captions = [sound(3), sound(25)], ["a dog", "a bell rings twice"]
    windows = [processor.feature_extractor(clip, 16_000)["input_features"] for clip in clips]
    examples = [
        {"input_features": windows[0], "caption": captions[0], "prompt": "Who?"},
        {"input_features": windows[1], "caption": captions[1]},
    ]
    batch = CaptionCollator(processor, loss_on="all")(examples)
    texts = ["Who?", processor.default_prompt]
    expected = processor(clips, text=texts, answer=captions, loss_on="all", sampling_rate=16_000)
    assert set(batch) == set(expected) and all(torch.equal(batch[key], expected[key]) for key in batch)
    assert batch["audio_num_windows"].tolist() == [1, 3]


def test_the_model_learns_from_a_batch(model, processor, sound):
    windows = processor.feature_extractor(sound(3), 16_000)["input_features"]
    batch = CaptionCollator(processor)([{"input_features": windows, "caption": "a dog"}] * 2)
    loss = model.train()(**batch).loss
    loss.backward()
    assert loss.isfinite() and model.model.connector.linear_1.weight.grad.abs().sum() > 0
