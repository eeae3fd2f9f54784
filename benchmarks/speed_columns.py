"""The columns of the speed table: for each, what every variant has to run."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import speed_models
import torch

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacFeatureExtractor


Run = Callable[[], object]
Models = dict[str, MacForConditionalGeneration]

AUDIO, PROMPT, NEW = 64, 32, 30  # tokens of a 10.24 s clip, of text around it, of the caption
WINDOW = (1024, 128)  # frames and mel bins of 10.24 s
LONGEST_COMPILED = 540  # tokens; a graph holds every chunk of the scan, and takes ever longer to compile


def ids_of(model: MacForConditionalGeneration, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(1, speed_models.AUDIO_TOKEN, (batch, length), generator=generator).to(model.device)


def extraction(models: Models) -> dict[str, Run]:
    """10.24 s of sound to log-mel; the same for every variant."""
    sound = np.random.default_rng(0).standard_normal(163_840).astype(np.float32) / 10
    return {"ours": partial(MacFeatureExtractor(), sound, sampling_rate=16_000)}


def eat(models: Models) -> dict[str, Run]:
    """One window through the encoder and the connector, and the encoder's matrix products alone."""
    model = models["ours"]
    window = torch.randn(1, *WINDOW, device=model.device, dtype=model.dtype)
    tower = model.model.audio_tower
    weights = [module.weight for module in tower.modules() if isinstance(module, torch.nn.Linear)]
    tokens = 1 + WINDOW[0] * WINDOW[1] // tower.config.patch_size**2
    inputs = {weight.shape[1]: torch.randn(tokens, weight.shape[1]).to(weight) for weight in weights}
    products = lambda: [torch.nn.functional.linear(inputs[weight.shape[1]], weight) for weight in weights]  # noqa: E731
    return {"ours": partial(model.get_audio_features, window), "floor": products}


def prefill(models: Models, length: int) -> dict[str, Run]:
    """From `length` tokens to the logits of the next one, and the cache (language model only)."""
    runs: dict[str, Run] = {
        name: partial(model, input_ids=ids_of(model, 1, length), use_cache=True, logits_to_keep=1)
        for name, model in models.items()
        if name != "compiled" or length <= LONGEST_COMPILED
    }
    return runs | {"floor": speed_models.floor(models["ours"], 1, length)}


def decode(models: Models) -> dict[str, Run]:
    """One token from a cache of 96."""
    runs: dict[str, Run] = {}
    for name, model in models.items():
        cache = model(input_ids=ids_of(model, 1, AUDIO + PROMPT), use_cache=True).cache
        runs[name] = partial(model, input_ids=ids_of(model, 1, 1), cache=cache, use_cache=True)
    ours = models["ours"]
    return runs | {"floor": speed_models.floor(ours, 1, 1), "bytes": speed_models.moved_bytes(ours)}


def generate(model: MacForConditionalGeneration, batch: int, **options: Any) -> Run:
    """`NEW` tokens after 96, by `generate` (language model only)."""
    ids = ids_of(model, batch, AUDIO + PROMPT)
    length = {"max_new_tokens": NEW, "do_sample": False}
    return partial(model.generate, input_ids=ids, attention_mask=torch.ones_like(ids), **length, **options)


def greedy(models: Models, batch: int) -> dict[str, Run]:
    runs = {name: generate(model, batch) for name, model in models.items()}
    reading = speed_models.floor(models["ours"], batch, AUDIO + PROMPT)
    writing = speed_models.floor(models["ours"], batch, 1)
    return runs | {"floor": lambda: (reading(), [writing() for _ in range(NEW - 1)])}


def beams(models: Models, number: int) -> dict[str, Run]:
    return {name: generate(model, 1, num_beams=number) for name, model in models.items()}


def captions(models: Models, batch: int) -> dict[str, Run]:
    """From log-mel windows to `NEW` tokens, the encoder included."""
    runs = {}
    for name, model in models.items():
        audio = torch.full((batch, AUDIO), speed_models.AUDIO_TOKEN, device=model.device)
        ids = torch.cat([audio, ids_of(model, batch, PROMPT)], dim=1)
        windows = torch.randn(batch, *WINDOW, device=model.device, dtype=model.dtype)
        length = {"max_new_tokens": NEW, "do_sample": False}
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "input_features": windows}
        runs[name] = partial(model.generate, **inputs, **length, suppress_tokens=[speed_models.AUDIO_TOKEN])
    return runs


def training(models: Models, rank: int | None) -> dict[str, Run]:
    """Forward and backward of 4 x 96 tokens with labels on the last 20; all weights, or LoRA of a rank."""
    runs = {}
    for name, model in models.items():
        if name in ("compiled", "graph"):  # for inference
            continue
        model = copy.deepcopy(model) if rank is None else speed_models.add_lora(copy.deepcopy(model), rank)
        ids = ids_of(model, 4, AUDIO + PROMPT)
        labels = ids.masked_fill(torch.arange(ids.shape[1], device=ids.device) < ids.shape[1] - 20, -100)
        runs[name] = partial(training_step, model.train(), ids, labels)
    return runs


@torch.enable_grad()
def training_step(model: MacForConditionalGeneration, ids: torch.Tensor, labels: torch.Tensor) -> None:
    model.zero_grad(set_to_none=True)
    model(input_ids=ids, labels=labels, use_cache=False).loss.backward()


COLUMNS: dict[str, Callable[[Models], dict[str, Run]]] = {
    "extraction": extraction,
    "eat": eat,
    **{f"prefill {length}": partial(prefill, length=length) for length in (64, 96, 512, 540, 3840, 3900)},
    "decode": decode,
    **{f"greedy x {batch}": partial(greedy, batch=batch) for batch in (1, 8)},
    "4 beams": partial(beams, number=4),
    **{f"captions x {batch}": partial(captions, batch=batch) for batch in (1, 8, 32)},
    "training": partial(training, rank=None),
    "training LoRA 8": partial(training, rank=8),
    "training LoRA 256": partial(training, rank=256),
    **{f"first token after {length}": partial(prefill, length=length) for length in (3776, 11264)},
}
