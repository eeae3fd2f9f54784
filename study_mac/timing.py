"""How long a training step takes on this machine: run, for a large model with one and two layers of each tower."""

import copy
import json
import time
from collections.abc import Sequence

import torch

from modeling_mac import MacConfig, MacForConditionalGeneration
from training_mac.loop.adapters import attach_adapter, set_trainable
from training_mac.recipe.file import Stage


ON_CPU = {True: 4, False: 1}  # clips of a step that is timed on a CPU, of a whole model or of a few layers
KNOWN: dict[str, float] = {}  # what was timed already, by all that it depends on


def clip_seconds(config: MacConfig, stages: Sequence[Stage], text: int, whole: bool, bf16: bool) -> float:
    """
    Seconds of a step's forward and backward for one clip, with weights that are random.

    The time of a tower is linear in its layers. So a model that may not fit is timed with one layer in each tower,
    with two in the one and with two in the other; embeddings, connector and head are in all three.

    Args:
        config: Model that is trained.
        stages: Stages of the recipe, of which the last says what trains and how many clips a step has.
        text: Number of tokens of an example's text.
        whole: Time the model itself.
        bf16: On a GPU, compute in bfloat16.
    """
    last = stages[-1].recipe
    ways = [last.encoder, last.connector, last.language_model, last.lora_rank, last.lora_targets, last.cached_epochs]
    key = json.dumps([config.to_dict(), *ways, text, whole, bf16], default=str, sort_keys=True)
    if key in KNOWN:
        return KNOWN[key]
    if whole:
        KNOWN[key] = step_seconds(config, stages, text, bf16, ON_CPU[True])
        return KNOWN[key]
    depths = [part.num_hidden_layers for part in (config.audio_config, config.text_config)]
    once, tower, language = (
        step_seconds(with_layers(config, *layers), stages, text, bf16, ON_CPU[False])
        for layers in ((1, 1), (2, 1), (1, 2))
    )
    KNOWN[key] = once + max(0.0, tower - once) * (depths[0] - 1) + max(0.0, language - once) * (depths[1] - 1)
    return KNOWN[key]


def with_layers(config: MacConfig, audio: int, text: int) -> MacConfig:
    """The same model with other depths."""
    config = copy.deepcopy(config)
    config.audio_config.num_hidden_layers, config.text_config.num_hidden_layers = audio, text
    return config


def step_seconds(config: MacConfig, stages: Sequence[Stage], text: int, bf16: bool, on_cpu: int) -> float:
    """Seconds a clip of the faster of two steps after a first one, on the GPU if there is one, else of few clips."""
    stage, device = stages[-1], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clips = stage.training.per_device_train_batch_size
    clips = clips if device.type == "cuda" else min(clips, on_cpu)
    model = attach_adapter(MacForConditionalGeneration(config), [one.recipe for one in stages]).to(device)
    set_trainable(model, stage.recipe)
    ids = torch.full((clips, config.audio_tokens_per_window + text), config.audio_token_id, device=device)
    ids[:, config.audio_tokens_per_window :] = 3
    labels, audio = ids.masked_fill(ids == config.audio_token_id, -100), config.audio_config
    if stage.recipe.cached_epochs:
        heard = {"encoder_hidden_states": torch.randn(clips, 1 + audio.num_tokens, audio.hidden_size, device=device)}
    else:
        heard = {"input_features": torch.randn(clips, audio.window_frames, audio.num_mel_bins, device=device)}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16 and device.type == "cuda"):
            loss = model(input_ids=ids, labels=labels, **heard).loss
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / clips
