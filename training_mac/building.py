"""A new model and processor, or those of a checkpoint to start from."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from modeling_mac import MacConfig, MacForConditionalGeneration
from processing_mac import MacFeatureExtractor, MacProcessor
from training_mac.recipe import Recipe


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the captions' own words; ids 0 to 2 are end, padding and `<|audio|>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>", "<|audio|>"]
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


def build(
    recipe: Recipe, prompt: str | None, texts: Iterable[str]
) -> tuple[MacForConditionalGeneration, MacProcessor]:
    """The recipe's base model, or a new one with a tokenizer of the texts."""
    if recipe.base_model is not None:
        model = MacForConditionalGeneration.from_pretrained(recipe.base_model)
        return model, MacProcessor.from_pretrained(recipe.base_model)
    prompt = prompt or "Describe the audio you hear."
    tokenizer = train_tokenizer([*texts, prompt], recipe.vocab_size)
    config = MacConfig(**with_vocabulary(recipe.model, tokenizer))
    model = MacForConditionalGeneration(config)
    model.generation_config.update(
        max_new_tokens=40,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[config.audio_token_id],
    )
    processor = MacProcessor(
        MacFeatureExtractor(window_frames=config.audio_config.window_frames),
        tokenizer,
        audio_tokens_per_window=config.audio_tokens_per_window,
        audio_tokens_per_run=config.audio_tokens_per_run,
        default_prompt=prompt,
    )
    return model, processor


def with_vocabulary(model: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The model's settings with the tokenizer's sizes and ids."""
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text_config = {"model_type": "mamba2", **model.get("text_config", {}), **ids}
    return {**model, "text_config": text_config, "audio_token_id": tokenizer.convert_tokens_to_ids("<|audio|>")}
