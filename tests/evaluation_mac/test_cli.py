"""`mac-eval`: what each task writes of a collection."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_files import ROWS, read_csv, write_manifest
from huggingface_hub import ModelCard

from evaluation_mac import score_captions
from evaluation_mac.cli import main
from evaluation_mac.metrics.text_encoder import TextEncoder
from evaluation_mac.protocols.likelihood import score_by_likelihood


NAMES = ["a.wav", "b.wav", "c.wav"]


def read_scores() -> dict[str, dict]:
    return json.loads(Path("out/results.json").read_text(encoding="utf-8"))["scores"]


def test_captioning(folder, captioner, capsys, run):
    assert run("captioning", "--batch-size", "2", "--num-beams", "2", "--dataset", "Three Sounds") == 0
    captions = [captioner(name, num_beams=2)[0]["caption"] for name in NAMES]
    assert [(row["audio"], row["caption"]) for row in read_csv("out/captions.csv")] == list(
        zip(NAMES, captions, strict=True)
    )
    expected = score_captions(captions, [[text for text in row[2:] if text] for row in ROWS], resamples=1000)
    scores = read_scores()
    for name, value in expected["corpus"].items():
        assert scores[name] == {"value": value, "interval_95": list(expected["intervals"][name])}, name
    clips = read_csv("out/clips.csv")
    assert [float(row["cider_d"]) for row in clips] == [row["cider_d"] for row in expected["per_caption"]]
    assert clips[0]["references"] == "a dog barks | the dog is barking"
    report = Path("out/report.md").read_text(encoding="utf-8")
    assert "# Captioning on Three Sounds" in report and "| rouge_l | " in report
    assert capsys.readouterr().out == report


def test_rows_of_one_recording_are_one_clip(folder, run) -> None:
    """As AudioCaps' tables have them: a caption a row."""
    assert run("captioning") == 0
    Path("out").rename("joined")
    rows = [(name, source, caption) for name, source, *captions in ROWS for caption in filter(None, captions)]
    write_manifest(folder / "data.csv", rows[::-1], "audio,source,caption")
    assert len(rows) > len(ROWS) and run("captioning") == 0
    read = [{row["audio"]: row["cider_d"] for row in read_csv(f"{name}/clips.csv")} for name in ("joined", "out")]
    assert read[0] == read[1]


def test_naming_accuracy_counts_known_sources(folder, monkeypatch, run):
    said = {"a.wav": "a dog barks", "b.wav": "a dog barks", "c.wav": "a clock ticks", "d.wav": "a cat meows"}
    (folder / "d.wav").write_bytes((folder / "a.wav").read_bytes())
    write_manifest(folder / "data.csv", [*ROWS, ("d.wav", "silence", "nothing is heard", "")])
    monkeypatch.setattr(
        "evaluation_mac.protocols.captioning.caption_files",
        lambda captioner, files, batch_size: iter([(file, {"caption": said[file]}) for file in files]),
    )
    assert run("captioning", "--naming", "esc50") == 0
    naming = read_scores()["naming_accuracy"]
    assert naming["value"] == pytest.approx(1 / 3)
    assert naming["interval_95"][0] < 1 / 3 < naming["interval_95"][1]
    assert [row["naming_accuracy"] for row in read_csv("out/clips.csv")] == ["1", "0", "0", ""]
    assert "Most missed: rain (1), church_bells (1)." in Path("out/report.md").read_text(encoding="utf-8")


def test_naming_accuracy_by_relation(folder, monkeypatch, run):
    rows = [
        ("a.wav", "dog followed by rain", "a dog barks, followed by rain", ""),
        ("b.wav", "dog while rain", "a dog barks while rain falls", ""),
        ("c.wav", "rain while dog", "rain falls while a dog barks", ""),
    ]
    said = {"a.wav": "a dog barks, followed by rain", "b.wav": "rain falls while a dog barks", "c.wav": "rain falls"}
    write_manifest(folder / "data.csv", rows)
    monkeypatch.setattr(
        "evaluation_mac.protocols.captioning.caption_files",
        lambda captioner, files, batch_size: iter([(file, {"caption": said[file]}) for file in files]),
    )
    assert run("captioning", "--naming", "esc50") == 0
    scores = {name: score["value"] for name, score in read_scores().items() if name.startswith("naming")}
    assert scores == pytest.approx(
        {"naming_accuracy": 2 / 3, "naming_accuracy_followed_by": 1, "naming_accuracy_while": 1 / 2}
    )
    assert read_scores()["naming_accuracy_while"]["interval_95"] == [0, 1]
    report = Path("out/report.md").read_text(encoding="utf-8")
    assert "| naming_accuracy_while | 0.5 | 0 to 1 |" in report


def test_naming_needs_sources_that_its_words_know(folder, capsys, run):
    write_manifest(folder / "data.csv", [("a.wav", "a violin", "a violin plays", "")])
    with pytest.raises(SystemExit):
        run("captioning", "--naming", "esc50")
    assert "--naming needs a `source` that is one of the 50 ESC-50 categories" in capsys.readouterr().err


def test_classification_by_caption(folder, clap_folder, run):
    assert run("classification", "--text-encoder", clap_folder) == 0
    clips = read_csv("out/clips.csv")
    right = [row["prediction"] == row["source"] for row in clips]
    assert read_scores()["accuracy"]["value"] == pytest.approx(np.mean(right))
    results = json.loads(Path("out/results.json").read_text(encoding="utf-8"))
    assert results["labels"] == ["church_bells", "dog", "rain"]
    assert np.sum(results["confusion"]) == 3 and np.trace(results["confusion"]) == sum(right)


def test_classification_by_likelihood(folder, model, processor, run):
    assert run("classification", "--by", "likelihood") == 0
    labels = ["church_bells", "dog", "rain"]
    losses = score_by_likelihood(model, processor, NAMES, [f"sound of {text.replace('_', ' ')}" for text in labels])
    scaled = (losses - losses.amin(0)) / (losses.amax(0) - losses.amin(0))
    predicted = [labels[index] for index in scaled.argmin(dim=1)]
    assert [row["prediction"] for row in read_csv("out/clips.csv")] == predicted


def test_a_protocol_scores_all_labels(folder, bert_folder, clap_folder, monkeypatch, run, refused):
    asked = []

    def caption_files(captioner, files, batch_size):
        config = captioner.model.generation_config
        asked.append(
            (config.do_sample, config.temperature, config.max_new_tokens, captioner._forward_params["prompt"])
        )
        return iter([(file, {"caption": "Audio caption: rain in the dog"}) for file in files])

    monkeypatch.setattr("evaluation_mac.protocols.captioning.caption_files", caption_files)
    assert "--protocol ltu scores all labels" in refused("classification", "--protocol", "ltu")
    message = refused("classification", "--protocol", "sam", "--labels", "esc50", "--num-beams", "2")
    assert "leave out --num-beams" in message
    assert "leave it out with" in refused("classification", "--protocol", "sam", "--by", "likelihood")
    told = ("--protocol", "ltu", "--labels", "ESC-50", "--text-encoder", bert_folder)
    assert run("classification", *told, "--batch-size", "8") == 0
    assert asked == [(True, 0.1, 400, "Close-ended question: Write an audio caption describing the sound.")]
    results = json.loads(Path("out/results.json").read_text(encoding="utf-8"))
    assert len(results["labels"]) == 50 and results["settings"]["protocol"] == "ltu"
    assert "# Classification on data, protocol ltu" in Path("out/report.md").read_text(encoding="utf-8")
    assert results["skipped"] == {"macro_f1 and map of 47 of 50 labels": "no clip has them"}
    encoder = TextEncoder(bert_folder)
    texts = [f"sound of {label.replace('_', ' ')}" for label in results["labels"]]
    best = results["labels"][
        int((encoder.embed_text(["sound of rain in the dog"]) @ encoder.embed_text(texts).T).argmax())
    ]
    assert {row["prediction"] for row in read_csv("out/clips.csv")} == {best}
    other = ("--protocol", "sam", "--labels", "esc50", "--text-encoder", bert_folder)
    assert "other settings" in refused("classification", *other)
    write_manifest(folder / "data.csv", [("a.wav", "unicorn", "", "")])
    assert "a.wav: no label 'unicorn' among the 50 of esc50" in refused("classification", *told)


def test_captions_as_sam_publishes_them(folder, monkeypatch, run, refused):
    asked = []

    def caption_files(captioner, files, batch_size):
        config = captioner.model.generation_config
        asked.append((config.num_beams, captioner._forward_params["prompt"]))
        return iter([(file, {"caption": "Audio caption: a dog barks"}) for file in files])

    monkeypatch.setattr("evaluation_mac.protocols.captioning.caption_files", caption_files)
    assert run("captioning", "--protocol", "sam", "--dataset", "Clotho") == 0
    assert asked == [(1, "Close-ended question: Create a caption for audio, in Clotho style.")]
    assert {row["caption"] for row in read_csv("out/clips.csv")} == {"a dog barks"}
    assert "leave out --refine" in refused("captioning", "--protocol", "sam", "--refine", "clap")


def test_likelihood_of_all_labels(folder, run, refused):
    Path("labels.txt").write_text("dog\nrain\nchurch bells\ncat\n", encoding="utf-8")
    assert run("classification", "--by", "likelihood", "--labels", "labels.txt") == 0
    assert len(json.loads(read_csv("out/losses.csv")[0]["losses"])) == 4
    assert read_csv("out/clips.csv")[2]["source"] == "church bells"  # the manifest says church_bells
    assert "other settings (labels)" in refused("classification", "--by", "likelihood")


def test_a_data_set_by_its_table(folder, capsys):
    Path("ESC-50/audio").mkdir(parents=True)
    for name in NAMES:
        Path(name).rename(f"ESC-50/audio/{name}")
    write_manifest(folder / "ESC-50/esc50.csv", [row[:2] for row in ROWS], "filename,category")
    command = ["--model", "mac", "--dataset", "esc50", "--audio-root", "ESC-50/audio", "--output", "out"]
    assert main(["classification", *command, "--by", "likelihood"]) == 0
    clips = read_csv("out/clips.csv")
    assert [(row["audio"], row["source"]) for row in clips] == [
        (f"ESC-50/audio/{name}", source) for name, source, *_ in ROWS
    ]
    assert next(iter(read_scores())) == "accuracy"
    assert main(["tokens", *command[:-1], "looked"]) == 0
    with pytest.raises(SystemExit):
        main(["captioning", *command])
    assert "ESC-50 has labels and no captions" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["captioning", "--model", "mac", "--output", "out"])
    assert "--data is missing, or --audio-root with a --dataset that is known: audiocaps" in capsys.readouterr().err


def test_recordings_of_a_manifest_in_another_folder(folder, run):
    Path("elsewhere").mkdir()
    for name in NAMES:
        Path(name).rename(f"elsewhere/{name}")
    assert run("captioning", "--audio-root", "elsewhere") == 0
    assert [row["audio"] for row in read_csv("out/clips.csv")] == [f"elsewhere/{name}" for name in NAMES]


def test_retrieval(folder, model, processor, run):
    assert run("retrieval") == 0
    texts = ["a dog barks", "the dog is barking", "rain falls on a roof", "a bell rings twice"]
    losses = score_by_likelihood(model, processor, NAMES, texts)
    first = losses.argmin(dim=0).tolist()
    own = [first[0] == 0, first[1] == 0, first[2] == 1, first[3] == 2, first[2] == 2]  # a row is a query
    assert read_scores()["t2a_recall_1"]["value"] == pytest.approx(np.mean(own))
    ranks = json.loads(Path("out/results.json").read_text(encoding="utf-8"))["ranks"]
    assert (len(ranks["t2a"]), len(ranks["a2t"])) == (5, 3)
    asked = Path("out/losses.csv").read_bytes()
    assert run("retrieval", "--protocol", "sentences") == 0
    own = [first[0] == 0, first[1] == 0, first[2] in (1, 2), first[3] == 2]  # two clips share a caption
    assert read_scores()["t2a_recall_1"]["value"] == pytest.approx(np.mean(own))
    assert Path("out/losses.csv").read_bytes() == asked


def test_updates_the_card(folder, run):
    card = Path("mac/README.md")
    card.write_text("---\nlicense: apache-2.0\n---\n\n# A model\n\nText.\n", encoding="utf-8")
    told = ["--by", "likelihood", "--update-card", "--dataset", "Three Sounds"]
    assert run("classification", *told) == 0
    assert run("classification", *told, "--dataset-id", "user/sounds", "--dataset-split", "test") == 0
    loaded = ModelCard.load(card)
    assert loaded.data.license == "apache-2.0" and loaded.text.strip() == "# A model\n\nText."
    results = {result.metric_name: result for result in loaded.data.eval_results}
    assert len(loaded.data.eval_results) == len(results) == 4
    assert results["accuracy"].metric_value == pytest.approx(read_scores()["accuracy"]["value"], abs=1e-4)
    accuracy = results["accuracy"]
    assert (accuracy.dataset_name, accuracy.dataset_type) == ("Three Sounds", "user/sounds")
    assert accuracy.dataset_split == "test"


def test_refined_captions_and_what_they_were_chosen_from(folder, captioner, clap_folder, run):
    assert run("captioning", "--refine", clap_folder, "--refine-from", "nbest", "--num-beams", "3") == 0
    rows = read_csv("out/captions.csv")
    assert [row["audio"] for row in rows] == NAMES
    for row in rows:
        candidates, similarities = json.loads(row["candidates"]), json.loads(row["similarities"])
        assert len(candidates) == len(similarities) == 3
        assert candidates[0] == captioner(row["audio"], num_beams=3)[0]["caption"]
        assert row["caption"] == candidates[int(np.argmax(similarities))]
    assert [row["caption"] for row in read_csv("out/clips.csv")] == [row["caption"] for row in rows]
