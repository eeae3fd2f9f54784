"""Captions with known scores; tiny random encoders, saved as their users find them; a collection for `mac-eval`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from command_files import ROWS, write_manifest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    PreTrainedTokenizerFast,
)

from evaluation_mac.cli import main
from processing_mac import AudioCaptioningPipeline


HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def golden_captions() -> dict[str, Any]:
    """Captions of our own wording, scored once by pycocoevalcap 1.2; METEOR with the numbers its program printed."""
    return json.loads((HERE / "golden_captions.json").read_text("utf-8"))


WORDS = ["[PAD]", "[UNK]", "a", "the", "dog", "cat", "barks", "sleeps", "is", "barking", "loudly", "in", "rain"]


@pytest.fixture(scope="session")
def encoder_words() -> list[str]:
    """The vocabulary of the encoders."""
    return WORDS


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory) -> str:
    """The folder of a two-layer BERT."""
    folder = tmp_path_factory.mktemp("bert")
    save_tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory) -> str:
    """The folder of a CLAP that hears one second."""
    folder = tmp_path_factory.mktemp("clap")
    save_tokenizer(folder)
    ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc").save_pretrained(folder)
    torch.manual_seed(0)
    text = ClapTextConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    audio = ClapAudioConfig(
        spec_size=128, window_size=4, patch_embeds_hidden_size=8, hidden_size=16, depths=[1, 1],
        num_attention_heads=[1, 2], num_hidden_layers=2,
    )  # fmt: skip
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.fixture
def folder(captioner, tmp_path, sound, monkeypatch) -> Path:
    """The working directory: a model, three recordings and their manifest."""
    captioner.save_pretrained(tmp_path / "mac")
    for seed, (name, *_) in enumerate(ROWS, start=1):
        soundfile.write(tmp_path / name, sound(2, seed), 16_000)
    write_manifest(tmp_path / "data.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder) -> Callable[..., int]:
    """Runs a task of `mac-eval` on that manifest."""
    return lambda task, *arguments: main([task, "--model", "mac", "--data", "data.csv", "--output", "out", *arguments])


@pytest.fixture
def refused(run, capsys) -> Callable[..., str]:
    """Runs a task that cannot be done, and tells what it says."""

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            run(*arguments)
        assert exit.value.code == 2
        return capsys.readouterr().err

    return refused
