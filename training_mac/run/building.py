"""Builds the model that a run starts from: a checkpoint, two pretrained towers with a new connector, or a new one."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.file_download import repo_folder_name
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from modeling_mac import MacConfig, MacForConditionalGeneration
from modeling_mac.configuration_discrete_mac import ATTENTION_NAMES
from modeling_mac.modeling_mamba2_mac import Mamba2MacMixer
from processing_mac import MacFeatureExtractor, MacProcessor
from processing_mac.processing_mac import AUDIO_TOKEN
from training_mac.loop.checkpoints import write_whole
from training_mac.objectives.mohawk import make_student
from training_mac.recipe.fields import Recipe
from training_mac.run.model_fields import PARTS, change_config, is_made_of_teacher, model_below, read_config


def quieten() -> None:
    """Keep off the console what libraries say of every model: bars of files of weights, and older names of fields."""
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks by it


def load_base(base: str, fields: Mapping[str, Any] | None = None) -> tuple[MacForConditionalGeneration, MacProcessor]:
    """
    Load model and processor of a folder or Hub id, with `fields` of its configuration changed; always float32.

    An adapter is merged with the model below it, so that whatever learns from the model need not know of it.

    Raises:
        ValueError: The weights are of 8 bits, or a field does not exist or cannot change.
    """
    config = change_config(read_config(base), fields or {}, base)
    if getattr(config, "quantization_config", None):
        raise ValueError(f"{base} holds weights of 8 bits, from which nothing learns: name what it was rounded from.")
    below = model_below(base)
    model = MacForConditionalGeneration.from_pretrained(below or base, dtype=torch.float32, config=config)
    if below is not None:
        model = PeftModel.from_pretrained(model, base).merge_and_unload()
    if Path(base).is_dir():
        model.name_or_path = str(Path(base).resolve())  # an adapter's folder will name this path as its base model
    return model, MacProcessor.from_pretrained(base)


def find_model(field: str, name: str) -> None:
    """
    Check that a model exists before its files are asked for, since each file would be asked for again and again.

    Raises:
        ValueError: There is no such folder, and no such model on the Hub or none that can be reached.
    """
    if Path(name).exists() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is None or name.startswith("."):
        if Path(name).exists():
            return
        raise ValueError(f"`{field}`: {name} is not there.")
    if (Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")).is_dir():
        return
    try:
        HfApi().model_info(name, timeout=20)
    except Exception as error:  # includes errors of the HTTP library when there is no network
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"`{field}`: {name} is no folder here, and the Hub does not give it ({reason}).") from error


def load_front(base: str | None) -> tuple[Any, str]:
    """Load the feature extractor of a base model, or of a new one; also give the token that stands for audio."""
    if base is None:
        return MacFeatureExtractor(), AUDIO_TOKEN
    processor = MacProcessor.from_pretrained(base)
    return processor.feature_extractor, processor.audio_token


def make_base(recipe: Recipe, prompt: str, texts: Iterable[str], folder: Path) -> None:
    """
    Write the model that a run without a whole `base_model` starts from; `folder` is complete then, or not there.

    Args:
        recipe: Recipe of the first stage, whose `base_model` is an adapter if it has one.
        prompt: Default prompt of the processor of a new model.
        texts: Texts that the tokenizer of a model from nothing is made from.
        folder: Folder to write to.
    """
    model, processor = new_base(recipe, prompt, texts) if recipe.base_model is None else load_base(recipe.base_model)
    with write_whole(folder) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)


def new_base(recipe: Recipe, prompt: str, texts: Iterable[str]) -> tuple[MacForConditionalGeneration, MacProcessor]:
    """Make a model with a new connector at least, and its processor; see `make_base`."""
    make = new_model if recipe.base_audio_tower is None else join_towers
    if is_made_of_teacher(recipe):
        make = new_student
    model, tokenizer = make(recipe, [*texts, prompt])
    config = model.config
    processor = MacProcessor(
        MacFeatureExtractor(**config.audio_config.front_end),
        tokenizer,
        audio_tokens_per_window=config.audio_tokens_per_window,
        audio_tokens_per_run=config.audio_tokens_per_run,
        default_prompt=prompt,
    )
    return model, processor


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a folder or Hub id; `<|audio|>` and padding are added to one that lacks them."""
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": [AUDIO_TOKEN]})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def join_towers(recipe: Recipe, texts: Iterable[str]) -> tuple[MacForConditionalGeneration, PreTrainedTokenizerFast]:
    """Join two pretrained towers by a new connector; `<|audio|>` is added to a tokenizer that lacks it."""
    assert recipe.base_audio_tower is not None and recipe.base_language_model is not None
    tokenizer = load_tokenizer(recipe.tokenizer or recipe.base_language_model)
    parts = {name: recipe.model[name] for name in PARTS if name in recipe.model}
    try:
        model = MacForConditionalGeneration.from_towers(
            recipe.base_audio_tower,
            recipe.base_language_model,
            audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO_TOKEN),
            **{name: value for name, value in recipe.model.items() if name not in parts},
        )
    except StrictDataclassError as error:
        raise ValueError(f"`model`: {error}") from error
    change_config(model.config, parts, "the pretrained towers")
    return model, tokenizer


def new_student(recipe: Recipe, texts: Iterable[str]) -> tuple[MacForConditionalGeneration, PreTrainedTokenizerFast]:
    """Make of the teacher's transformer a discrete Mamba-2, with everything but the attention copied."""
    assert recipe.distill_from is not None
    teacher, processor = load_base(recipe.distill_from)
    if (kind := teacher.config.text_config.model_type) not in ATTENTION_NAMES:
        raise ValueError(
            f"`distill_from`: the language model of {recipe.distill_from} is a {kind!r}; MOHAWK makes a Mamba of a "
            f"transformer, {', '.join(sorted(ATTENTION_NAMES))}."
        )
    fields = {name: value for name, value in recipe.model.get("text_config", {}).items() if name != "model_type"}
    try:
        return make_student(teacher, fields), processor.tokenizer
    except StrictDataclassError as error:
        raise ValueError(f"`model.text_config`: {error.__cause__ or error}") from error


def new_model(recipe: Recipe, texts: Iterable[str]) -> tuple[MacForConditionalGeneration, PreTrainedTokenizerFast]:
    """Make a model from nothing, with a tokenizer trained on the texts or the one that `tokenizer` names."""
    tokenizer = load_tokenizer(recipe.tokenizer) if recipe.tokenizer else train_tokenizer(texts, recipe.vocab_size)
    try:
        config = MacConfig(**with_vocabulary(recipe.model, tokenizer))
    except StrictDataclassError as error:
        raise ValueError(f"`model`: {error}") from error
    model = MacForConditionalGeneration(config)
    if recipe.encoder_of is not None:
        take_encoder(model, recipe.encoder_of)
    if recipe.A_init_range is not None:
        set_decay_rates(model, recipe.A_init_range)
    model.generation_config.update(
        max_new_tokens=40,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[config.audio_token_id],
    )
    return model, tokenizer


def take_encoder(model: MacForConditionalGeneration, trained: str) -> None:
    """
    Copy the encoder of a trained model into a new one.

    Raises:
        ValueError: The trained encoder differs from that of `model`.
    """
    tower = load_base(trained)[0].model.audio_tower
    try:
        model.model.audio_tower.load_state_dict(tower.state_dict())
    except RuntimeError as error:
        raise ValueError(f"`encoder_of`: the encoder of {trained} is not of the sizes in `audio_config`.") from error


@torch.no_grad()
def set_decay_rates(model: MacForConditionalGeneration, rates: Sequence[float]) -> None:
    """
    Spread the heads' decay rates A evenly over the logarithm of a range.

    A head keeps exp(-dt A) of its state from token to token. With Mamba-2's usual 1 and more, half the heads forget
    within some twenty tokens, and a new model is slow to learn what was heard at the start of a window.

    Args:
        model: Model whose language model is a Mamba-2.
        rates: Least and greatest decay rate, per unit of dt.

    Raises:
        ValueError: The rates are no such range, or the language model is no Mamba-2.
    """
    mixers = [module for module in model.model.language_model.modules() if isinstance(module, Mamba2MacMixer)]
    if not mixers:
        raise ValueError(f"`A_init_range` is for Mamba-2, not for {model.config.text_config.model_type}.")
    if len(rates) != 2 or not 0 < rates[0] <= rates[1]:
        raise ValueError(f"`A_init_range` is {list(rates)}; expected two positive numbers, the smaller first.")
    for mixer in mixers:
        mixer.A_log.copy_(torch.linspace(math.log(rates[0]), math.log(rates[1]), mixer.num_heads))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the captions' own words; ids 0 to 2 are end, padding and `<|audio|>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>", AUDIO_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[0],
        pad_token=special[1],
        additional_special_tokens=special[2:],
        padding_side="left",
    )


def with_vocabulary(model: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Add the tokenizer's sizes and ids to the model's settings."""
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text_config = {"model_type": "mamba2", **model.get("text_config", {}), **ids}
    return {**model, "text_config": text_config, "audio_token_id": tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)}
