"""What many tests share: no network, a tiny tokenizer, a tiny random model and its processor."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from modeling_mac import EatConfig, MacConfig, MacForConditionalGeneration
from processing_mac import MacFeatureExtractor, MacProcessor
from training_mac.run.building import train_tokenizer


SENTENCES = ["a dog barks in the yard", "rain falls on a roof", "a bell rings twice", "Describe the audio you hear."]


PUBLISHED = {  # What some tests are held against and the repository does not carry, by folder of MAC_DATA.
    "captions": "the captions of AudioCaps (github.com/cdjkim/audiocaps) and Clotho (zenodo.org/records/4783391), "
    "audiocaps_{train,val,test}.csv and clotho_{train,val,test}.csv,",
    "metrics": "CoNeTTE's captions of Clotho's evaluation set with the scores that its authors published "
    "(github.com/Labbeti/conette-audio-captioning), clotho_eval_scored.csv and clotho_eval_corpus.json,",
    "teacher": "YAMNet as TFLite (kaggle.com/models/google/yamnet, classification-tflite), yamnet.tflite,",
    "tokenizer": "tokenizer.json of huggingface.co/EleutherAI/gpt-neox-20b, renamed to 20B_tokenizer.json,",
}


@pytest.fixture(scope="session")
def published() -> Callable[[str], Path]:
    """A folder of published data; without it the test is skipped with a word on how to get it."""
    data = Path(os.environ.get("MAC_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def find(name: str) -> Path:
        if not (data / name).is_dir():
            pytest.skip(f"put {PUBLISHED[name]} into a folder {name}/ and set MAC_DATA to the folder above it")
        return data / name

    return find


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """Weights, inputs and outputs of a small EAT, made by running upstream's own code."""
    return load_file(Path(__file__).parent / "fixtures" / "eat_tiny.safetensors")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A small byte-level BPE that knows `<|audio|>`; its end and padding are two tokens."""
    return train_tokenizer(SENTENCES, vocab_size=300)


@pytest.fixture
def make_config(tokenizer) -> Callable[..., MacConfig]:
    """Makes the configuration of a tiny MAC; keyword arguments replace its fields."""

    def make(**fields: Any) -> MacConfig:
        audio = EatConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
        text = {
            "model_type": "mamba2", "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8,
            "state_size": 16, "n_groups": 1, "initializer_range": 0.3, "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }  # fmt: skip
        token = tokenizer.convert_tokens_to_ids("<|audio|>")
        return MacConfig(**{"audio_config": audio, "text_config": text, "audio_token_id": token, **fields})

    return make


@pytest.fixture
def model(make_config) -> MacForConditionalGeneration:
    """A tiny random MAC whose captions differ with the clip and with the prompt: large weights, a long memory."""
    torch.manual_seed(0)
    model = MacForConditionalGeneration(make_config(initializer_range=1.0, tie_word_embeddings=False)).eval()
    for layer in model.model.language_model.layers:
        torch.nn.init.constant_(layer.mixer.A_log, -5.0)  # else the clip is forgotten while the prompt is read
    model.generation_config.update(
        max_new_tokens=8,
        eos_token_id=model.config.text_config.eos_token_id,
        pad_token_id=model.config.text_config.pad_token_id,
        suppress_tokens=[model.config.audio_token_id],
    )
    return model


@pytest.fixture
def make_processor(tokenizer) -> Callable[..., MacProcessor]:
    """Makes the processor that feeds a model of this configuration."""

    def make(config: MacConfig, **fields: Any) -> MacProcessor:
        counts = {
            "audio_tokens_per_window": config.audio_tokens_per_window,
            "audio_tokens_per_run": config.audio_tokens_per_run,
        }
        return MacProcessor(MacFeatureExtractor(), fields.pop("tokenizer", tokenizer), **counts, **fields)

    return make


@pytest.fixture
def processor(make_config, make_processor) -> MacProcessor:
    """The processor of the tiny model."""
    return make_processor(make_config())


@pytest.fixture
def sound() -> Callable[..., np.ndarray]:
    """Makes a swelling tone, of another pitch for each seed, in a little noise: (samples,) float32."""

    def make(seconds: float, seed: int = 1, rate: int = 16_000) -> np.ndarray:
        time = np.arange(round(seconds * rate)) / rate
        tone = 0.3 * np.sin(2 * np.pi * (200 + 700 * seed) * time) * np.sin((1 + seed) * time) ** 2
        noise = 0.01 * np.random.default_rng(seed).standard_normal(len(time))
        return (tone + noise).astype(np.float32)

    return make
