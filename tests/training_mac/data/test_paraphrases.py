"""Paraphrases are drawn in place of captions, in training alone; a file that is wrong is told of before."""

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip
from training_mac.data.check import read_and_check
from training_mac.data.paraphrases import load_paraphrases
from training_mac.examples.scenes import SceneMaker
from training_mac.recipe.data_fields import DataRecipe


ROWS = {"the siren wails": ["a siren is wailing", "wailing of a siren"], "the rain falls": []}


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file of paraphrases."""

    def write(rows: dict[str, list[str]], more: str = "") -> str:
        lines = [json.dumps({"caption": caption, "paraphrases": others}) for caption, others in rows.items()]
        (tmp_path / "paraphrases.jsonl").write_text("\n".join([*lines, more]).strip("\n") + "\n")
        return str(tmp_path / "paraphrases.jsonl")

    return write


def words_of(data: DataRecipe, clip: Clip) -> Counter:
    maker = SceneMaker(data, MacFeatureExtractor())
    log_mel = torch.zeros(10, 128)
    return Counter(maker.single((clip, log_mel), np.random.default_rng(seed)).caption for seed in range(400))


def test_drawn_as_often_as_asked(write) -> None:
    siren, rain = (Clip("x.wav", (caption,)) for caption in ROWS)
    assert words_of(DataRecipe("", paraphrases=write(ROWS)), rain) == {"the rain falls": 400}
    for probability, share in ((None, 0.5), (0.2, 0.2), (1.0, 1.0)):
        found = words_of(DataRecipe("", paraphrases=write(ROWS), paraphrase_probability=probability), siren)
        assert 1 - found["the siren wails"] / 400 == pytest.approx(share, abs=0.08)
        first, second = (found[other] for other in ROWS["the siren wails"])
        assert first > 20 and second > 20


def test_without_a_file_nothing_is_drawn_otherwise() -> None:
    """The same seeds give what they gave before: no number is drawn in vain."""
    clip = Clip("x.wav", ("A", "B", "C"))
    rng, drawn = np.random.default_rng(3), SceneMaker(DataRecipe(""), MacFeatureExtractor())
    captions = [drawn.word(clip, rng) for _ in range(20)]
    again = np.random.default_rng(3)
    assert captions == [clip.captions[int(again.integers(3))] for _ in range(20)]


def test_scenes_of_two_are_told_in_other_words_too(write) -> None:
    data = DataRecipe("", paraphrases=write(ROWS), paraphrase_probability=1.0)
    maker, rng = SceneMaker(data, MacFeatureExtractor()), np.random.default_rng(0)
    siren, rain = ((Clip("x.wav", (caption,)), torch.ones(50, 128)) for caption in ROWS)
    assert maker.joined(rain, siren, rng).caption in {
        f"the rain falls, then {other}" for other in ROWS["the siren wails"]
    }
    assert maker.overlaid(siren, rain, rng).caption.endswith("while the rain falls")
    assert "siren is" in maker.background(siren, rain, np.random.default_rng(1)).caption + "siren is"
    assert maker.background(siren, rain, rng).caption in ROWS["the siren wails"]


@pytest.mark.parametrize(
    "line",
    [
        "words",
        "[]",
        '{"caption": "A"}',
        '{"caption": "A", "paraphrases": "B"}',
        '{"caption": "", "paraphrases": []}',
        '{"caption": "A", "paraphrases": [" "]}',
    ],
)
def test_a_line_that_is_no_paraphrase(write, line: str, manifest, processor, tables) -> None:
    with pytest.raises(ValueError, match=r"line 3: expected \{\"caption\""):
        check(DataRecipe(str(manifest), paraphrases=write(ROWS, line)), processor, tables)


def check(data: DataRecipe, processor, tables) -> None:
    read_and_check([data, data], tables, processor.feature_extractor, processor.audio_token)


def test_what_is_wrong_is_told_once_with_its_line(write, manifest, processor, tables) -> None:
    more = '{"caption": "the rain falls", "paraphrases": []}\n{"caption": "a dog", "paraphrases": ["<|audio|>"]}'
    with pytest.raises(ValueError) as error:
        check(DataRecipe(str(manifest), paraphrases=write(ROWS, more)), processor, tables)
    first, *lines = str(error.value).split("\n")
    assert first == "Problems with the data, 3 in all:"
    for problem in ("line 3: the caption of line 2 again", "line 4: <|audio|> in a text",
                    "line 4: no recording of `train_data` has the caption 'a dog'"):  # fmt: skip
        assert sum(problem in line for line in lines) == 1, problem


def test_a_file_that_is_missing_or_no_text(tmp_path, manifest, processor, tables) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, reason in (("nothing", "no such file of paraphrases"), ("bytes", "expected UTF-8 text")):
        with pytest.raises(ValueError, match=f"{name}: {reason}"):
            check(DataRecipe(str(manifest), paraphrases=str(tmp_path / name)), processor, tables)


def test_captions_of_recordings_that_are_left_out(write, manifest, processor, tables, caplog) -> None:
    data = DataRecipe(str(manifest), paraphrases=write(ROWS | {"a dog": []}), skip_bad_audio=True)
    with caplog.at_level(logging.WARNING):
        check(data, processor, tables)
    assert "no recording has 1 of the captions" in caplog.text
    data = DataRecipe(str(manifest), paraphrases=write({"a dog": []}), skip_bad_audio=True)
    with pytest.raises(ValueError, match="line 1: no recording of `train_data` has the caption 'a dog'"):
        check(data, processor, tables)


def test_fields_that_say_nothing_are_refused(write) -> None:
    with pytest.raises(ValueError, match="`paraphrase_probability` is given, but no file"):
        DataRecipe("", paraphrase_probability=0.3)
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="expected a share, above 0"):
            DataRecipe("", paraphrases=write(ROWS), paraphrase_probability=wrong)


def test_a_training_draws_them_and_validates_by_the_references(write, manifest, write_recipe, train, capsys) -> None:
    """A new tokenizer knows their letters, too; a stage that learns no captions refuses them."""
    fields = {"paraphrases": write({"the siren wails": ["Ω"]}), "paraphrase_probability": 1.0}
    folder = train(write_recipe(**fields, eval_strategy="steps", eval_steps=3))
    assert "Î©" in json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]  # the bytes of Ω
    shown = capsys.readouterr().out
    assert "  for  'the siren wails'" in shown and "  for  'Ω" not in shown
    with pytest.raises(ValueError, match="`paraphrases` are of captions, and `objective: tags`"):
        train(write_recipe(**fields, objective="tags", output_dir=str(manifest.parent / "tags")))


def test_the_mapping_of_a_file(write) -> None:
    assert load_paraphrases(write(ROWS)) == {"the siren wails": ROWS["the siren wails"]}
    assert load_paraphrases(None) == {}
