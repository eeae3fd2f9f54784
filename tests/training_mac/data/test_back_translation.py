"""There and back with tiny random models, the filters by themselves, and the command that writes the file."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from training_mac.data import paraphrase_cli
from training_mac.data.back_translation import Filter, Translator, paraphrase
from training_mac.data.paraphrases import load_paraphrases


WORDS = ["<pad>", "</s>", "<unk>", "a", "dog", "barks", "twice", "rain", "falls", "on", "the", "roof", "bell", "rings"]
CAPTIONS = ["a dog barks twice", "rain falls on the roof", "the bell rings"]


SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1}


def sizes() -> dict[str, int]:
    """The sizes of a Marian with one layer each way."""
    of_part = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
    layers = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in of_part.items()}
    return {"d_model": 16, "max_position_embeddings": 32, **layers}


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Two random models that translate, and a random encoder of sentences."""
    root = tmp_path_factory.mktemp("models")
    config = MarianConfig(vocab_size=len(WORDS), init_std=1.0, **SPECIAL, **sizes())
    for seed, name in enumerate(("there", "back")):
        torch.manual_seed(seed)
        model = MarianMTModel(config)
        model.generation_config.update(max_length=8, bad_words_ids=[[0], [2]])
        model.save_pretrained(root / name)
        save_tokenizer(root / name)
    bert = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(WORDS), **bert)).save_pretrained(root / "encoder")
    save_tokenizer(root / "encoder")
    return {name: str(root / name) for name in ("there", "back", "encoder")}


def always_alike(texts) -> np.ndarray:
    return np.ones((len(texts), 1))


def test_there_and_back(models) -> None:
    """Each caption by itself gives what it gives in a batch, where shorter ones are padded."""
    there, back = Translator(models["there"]), Translator(models["back"])
    everything = Filter(always_alike, 4, 0.0, 0.0, 99.0)
    found = paraphrase(CAPTIONS, there, back, everything, num_beams=4)
    assert all(0 < len(others) <= 4 for others in found) and found[0] != found[1]
    for caption, others in zip(CAPTIONS, found, strict=True):
        tokens = there.tokenizer(caption, return_tensors="pt")
        abroad = there.tokenizer.decode(there.model.generate(**tokens, num_beams=4)[0], skip_special_tokens=True)
        tokens = back.tokenizer(abroad, return_tensors="pt")
        output = back.model.generate(**tokens, num_beams=4, num_return_sequences=4)
        assert set(others) <= set(back.tokenizer.batch_decode(output, skip_special_tokens=True))


def test_a_prefix_stands_before_each_sentence(models) -> None:
    plain, with_prefix = Translator(models["there"]), Translator(models["there"], prefix="the bell ")
    assert with_prefix.translate(["rings"], 2, 2) == plain.translate(["the bell rings"], 2, 2)


def test_what_says_the_same_in_the_same_words_is_left_out() -> None:
    chooser = Filter(always_alike, 9, 0.5, 0.0, 99.0)
    candidates = ["a dog barks", "a  dog, barks!", "the dog barks", "The dog barks"]
    assert chooser.choose(["A dog barks.", "It rains"], [candidates, ["it rains."]]) == [["the dog barks"], []]
    assert chooser.counts["equal"] == 4 and chooser.counts["kept"] == 1


def test_what_is_much_shorter_or_longer_is_left_out() -> None:
    chooser = Filter(always_alike, 9, 0.5, 0.5, 2.0)
    candidates = ["", *("w " * count for count in (1, 2, 4, 8, 9))]
    [kept] = chooser.choose(["a dog barks twice"], [candidates])
    assert [len(one.split()) for one in kept] == [2, 4, 8] and chooser.counts["length"] == 3


def test_what_means_something_else_is_left_out() -> None:
    """Each candidate is compared with its own caption."""
    angles = {"caption words": 0.0, "near by": 0.5, "other caption": 1.6, "far away": 1.5}

    def embed(texts) -> np.ndarray:
        return np.array([[np.cos(angles[text]), np.sin(angles[text])] for text in texts])

    chooser = Filter(embed, 9, 0.7, 0, 9)
    candidates = ["far away", "near by"]
    found = chooser.choose(["caption words", "other caption"], [candidates, candidates])
    assert found == [["near by"], ["far away"]] and chooser.counts["similarity"] == 2


def test_no_more_than_asked_are_kept() -> None:
    chooser = Filter(always_alike, 2, 0.5, 0, 9)
    assert chooser.choose(["a b"], [["c d", "e f", "g h"]]) == [["c d", "e f"]] and chooser.counts["number"] == 1


def test_a_real_marian_tokenizer_that_needs_a_language(tmp_path: Path) -> None:
    """It is made of SentencePiece models; one with several targets must be told into which it translates."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers import MarianTokenizer

    (tmp_path / "text").write_text("\n".join(CAPTIONS * 20))
    options = {"input": str(tmp_path / "text"), "vocab_size": 25, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(model_prefix=str(tmp_path / "spm"), **options)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    texts = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    folder = tmp_path / "marian"
    folder.mkdir()
    vocabulary = {text: index for index, text in enumerate(["<pad>", "</s>", "<unk>", ">>fra<<", ">>deu<<"])}
    vocabulary |= {text: 5 + index for index, text in enumerate(one for one in texts if one not in vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    model = str(tmp_path / "spm.model")
    MarianTokenizer(model, model, str(folder / "vocab.json")).save_pretrained(folder)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}  # fmt: skip
    config = MarianConfig(
        vocab_size=len(vocabulary), pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **sizes
    )
    MarianMTModel(config).save_pretrained(folder)
    with pytest.raises(ValueError, match="several languages: give the code of one as prefix, >>fra<<"):
        Translator(str(folder))
    translator = Translator(str(folder), ">>deu<< ")
    translator.model.generation_config.max_length = 6
    [[first, second]] = translator.translate(["a dog barks"], 2, 2)
    assert isinstance(first, str) and isinstance(second, str)


@pytest.fixture
def run(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command on a manifest whose recordings are not here."""
    monkeypatch.chdir(tmp_path)
    with open("clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([["audio", "caption"], *((f"{i}.wav", text) for i, text in enumerate(CAPTIONS))])

    def run(*arguments: str) -> int:
        names = ["--there", models["there"], "--back", models["back"], "--sentence-encoder", models["encoder"]]
        usual = ["--data", "clips.csv", "--output", "out.jsonl", "--similarity", "-1", "--shortest", "0"]
        return paraphrase_cli.main([*usual, *names, "--batch-size", "1", *arguments])

    return run


def test_the_file_is_whole_at_its_end(run, capsys) -> None:
    assert run() == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["caption"] for row in rows] == CAPTIONS and not Path("out.jsonl.part").exists()
    assert any(row["paraphrases"] for row in rows)
    assert load_paraphrases("out.jsonl") == {row["caption"]: row["paraphrases"] for row in rows if row["paraphrases"]}
    assert f"{sum(len(row['paraphrases']) for row in rows)} paraphrases are kept" in capsys.readouterr().out


def test_a_stopped_run_goes_on(run, monkeypatch, capsys) -> None:
    """What is done is not done again, half a line is; the outcome is that of a run that was not stopped."""
    run("--output", "whole.jsonl")
    translated: list[str] = []
    translate = Translator.translate

    def stop_at_third(self, texts, *rest):
        translated.extend(texts)
        if CAPTIONS[2] in texts and not Path("went_on").exists():
            raise KeyboardInterrupt
        return translate(self, texts, *rest)

    monkeypatch.setattr(Translator, "translate", stop_at_third)
    assert run() == 130 and "out.jsonl.part keeps what is done" in capsys.readouterr().err
    assert not Path("out.jsonl").exists()
    with open("out.jsonl.part", "a") as file:
        file.write('{"caption": "the b')
    Path("went_on").touch()
    translated.clear()
    assert run() == 0
    assert CAPTIONS[0] not in translated and CAPTIONS[2] in translated
    assert Path("out.jsonl").read_text() == Path("whole.jsonl").read_text()
    translated.clear()
    assert run() == 0 and not translated


def test_other_data_adds_its_captions(run) -> None:
    run()
    before = Path("out.jsonl").read_text()
    Path("more.csv").write_text(f"audio,text\nx.wav,{CAPTIONS[0]}\ny.wav,a bell\n")
    assert run("--data", "more.csv", "--caption-column", "text") == 0
    after = Path("out.jsonl").read_text()
    assert after.startswith(before) and json.loads(after[len(before) :])["caption"] == "a bell"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing.csv"], "nothing.csv: no such manifest"),
        (["--data", "x.tar"], "shards are streamed"),
        (["--number", "9"], "--num-beams: 6 candidates cannot give --number 9"),
        (["--similarity", "1"], "expected a cosine"),
        (["--shortest", "3"], "expected shares in this order"),
        (["--output", "nowhere/out.jsonl"], "no folder nowhere"),
        (["--there", "no/model"], "no/model cannot be loaded as a model that translates"),
        (["--sentence-encoder", "no/encoder"], "the encoder no/encoder cannot be loaded"),
    ],
)
def test_wrong_use(run, arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        run(*arguments)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and message in error and "Traceback" not in error
    assert run() == 0, "a refused run leaves nothing in the way"


def test_files_that_were_made_otherwise(run, models, capsys) -> None:
    run()
    for arguments, message in ((["--number", "2"], "was made with another --number"),
                               (["--back", models["there"]], "another --back")):  # fmt: skip
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in capsys.readouterr().err
    Path("own.jsonl").write_text("mine\n")
    with pytest.raises(SystemExit):
        run("--output", "own.jsonl")
    assert "no own.settings.json tells how it was made" in capsys.readouterr().err
    assert Path("own.jsonl").read_text() == "mine\n"


def test_a_model_that_does_not_translate(models) -> None:
    with pytest.raises(ValueError, match="cannot be loaded as a model that translates"):
        Translator(models["encoder"])
