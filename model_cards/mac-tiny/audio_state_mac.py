"""What a model heard, kept: one state that is asked many prompts, also on another day and without the audio."""

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.nn.functional import cross_entropy

from .whole_files_mac import write_file_whole


# Layers of transformers' caches whose tensors are known; any other is refused, since its copy might be incomplete.
ATTENTION_LAYER, STATE_TENSORS = "DynamicLayer", ("conv_states", "recurrent_states")
STATE_LAYERS = ("StateLayer", "LinearAttentionLayer", "LinearAttentionAndFullAttentionLayer")


class AudioState:
    """
    The language model's cache after the audio of one recording, before any prompt.

        state = captioner.listen("street.mp3")
        state.ask("Describe the audio you hear.")
        state.score(["a car passes", "a dog barks"])
        state.save("street.safetensors")

    Of Mamba-2 it has one size, whatever the length of the recording; of a transformer it is its keys and values.

    Args:
        model: MAC model.
        processor: Processor of the model.
        prompt: What is asked where no other prompt is given; the processor's default if None. Text that it has before
            the audio is heard before the audio.

    Attributes:
        duration: Seconds that were heard.
        windows: Number of windows that were heard.
    """

    def __init__(self, model: Any, processor: Any, prompt: str | None = None):
        self.model, self.processor, self.prompt = model, processor, prompt
        self.cache: Any = None
        self.tokens = 0  # in the cache
        self.windows = 0
        self.duration = 0.0

    @torch.inference_mode()
    def hear(self, input_features: torch.Tensor, seconds: float) -> None:
        """
        Read more windows of the recording.

        Args:
            input_features: Normalised log-mel, (windows, frames, mel bins).
            seconds: Length of what they hold.
        """
        heard = self.split(self.windows)[0] if self.windows else []
        ids = self.split(self.windows + len(input_features))[0][len(heard) :]
        device = self.model.device
        outputs = self.model(
            input_ids=torch.tensor([ids], device=device),
            input_features=input_features.to(device),
            cache=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = outputs.cache
        self.tokens += len(ids)
        self.windows += len(input_features)
        self.duration += seconds

    def split(self, windows: int, prompt: str | None = None) -> tuple[list[int], list[int]]:
        """Return the token ids up to the end of the audio, and those of the prompt after it."""
        ids = self.processor.encode([windows], self.prompt if prompt is None else prompt)["input_ids"][0].tolist()
        end = len(ids) - ids[::-1].index(self.processor.audio_token_id)
        return ids[:end], ids[end:]

    def prompt_ids(self, prompt: str | None = None) -> torch.Tensor:
        """Return the tokens after the audio, (1, length); what a template puts before the audio was read already."""
        before, after = self.split(1, prompt)
        if before != self.split(1)[0]:
            raise ValueError(f"The prompt {prompt!r} has other text before the audio than was heard: listen again.")
        if not after:  # the cache holds no logits: the model must read a token to say the next one
            raise ValueError(f"The prompt {prompt!r} ends with the audio; a state needs at least a token after it.")
        return torch.tensor([after], device=self.model.device)

    def ask(self, prompt: str | None = None, **generate_kwargs: Any) -> str:
        """
        Answer a prompt as the model would from the audio; the state stays as it is.

        Args:
            prompt: What to ask; that of the state if None. An empty one asks nothing, as it does of audio.
            generate_kwargs: Arguments of `generate`, such as `num_beams`.

        Raises:
            ValueError: The prompt has text before the audio that was not heard there, or nothing after the audio.
        """
        [answers] = self.search([generate_kwargs], prompt)
        if len(answers) != 1:
            raise ValueError("A state gives one answer a prompt; ask again for another, or use `search`.")
        return answers[0]

    @torch.inference_mode()
    def search(self, searches: Sequence[dict[str, Any]], prompt: str | None = None) -> list[list[str]]:
        """
        Answer a prompt by several searches; the prompt is read once, and each search goes on from a copy of the state.

        Args:
            searches: Arguments of `generate` of each search, such as `{"num_beams": 4}`.
            prompt: What to ask; that of the state if None.

        Returns:
            The answers of each search, best first; several with `num_return_sequences`.
        """
        asked, cache = self.prompt_ids(prompt), self.fork()
        if len(searches) > 1 and asked.shape[1] > 1:  # a search must read a token itself to have its first logits
            cache = self.model(input_ids=asked[:, :-1], cache=cache, use_cache=True, logits_to_keep=1).cache
            asked = asked[:, -1:]
        # All ids, as `generate` would have them from the audio: penalties of repetition look at those of the prompt.
        before, after = self.split(self.windows, prompt)
        ids = torch.tensor([[*before, *after]], device=asked.device)
        answers = []
        for number, arguments in enumerate(searches, start=1):
            output = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                cache=copy.deepcopy(cache) if number < len(searches) else cache,
                unread_tokens=asked.shape[1],
                **arguments,
            )
            sequences = output if isinstance(output, torch.Tensor) else output.sequences
            answers.append(self.processor.batch_decode(sequences[:, ids.shape[1] :]))
        return answers

    def score(self, texts: Sequence[str], prompt: str | None = None, batch_size: int = 32) -> torch.Tensor:
        """
        Compute how likely the model finds texts as answers.

        Args:
            texts: Texts to score, each with the token that ends it.
            prompt: What they answer; that of the state if None.
            batch_size: Number of texts at a time.

        Returns:
            Mean cross-entropy of each text, (texts,) float32 in nats a token; low is likely.

        Raises:
            ValueError: There is no text, or one is blank or holds the placeholder of audio.
        """
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts: expected a list with at least one text, got {texts!r}.")
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip() or self.processor.audio_token in text:
                raise ValueError(f"texts: row {row} is {text!r}; expected words, and no {self.processor.audio_token}.")
        ids = self.processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return self.score_tokens([[*row, self.processor.tokenizer.eos_token_id] for row in ids], prompt, batch_size)

    @torch.inference_mode()
    def score_tokens(
        self, token_ids: list[list[int]], prompt: str | None = None, batch_size: int = 32
    ) -> torch.Tensor:
        """Do the work of `score` for texts that are tokens already, with their ends."""
        cache, ids = self.fork(), self.prompt_ids(prompt)
        first = self.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1).logits
        order = sorted(range(len(token_ids)), key=lambda row: len(token_ids[row]))  # little padding
        losses = torch.empty(len(token_ids))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.processor.tokenizer.pad(
                {"input_ids": [token_ids[row] for row in rows]}, padding_side="right", return_tensors="pt"
            ).to(ids.device)
            losses[rows] = self.score_batch(first, cache, batch["input_ids"], batch["attention_mask"])
        return losses

    def score_batch(self, first: torch.Tensor, cache: Any, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Compute the mean loss of texts, (texts,) on the CPU.

        Args:
            first: Logits of the token after the prompt, (1, 1, vocabulary).
            cache: Cache after the prompt, which is left as it is.
            tokens, mask: Token ids and what of them counts, (texts, length), padded on the right.
        """
        fork = copy.deepcopy(cache)
        fork.reorder_cache(torch.zeros(len(tokens), dtype=torch.long, device=tokens.device))
        # No mask for the model: it is causal, so nothing that counts comes after padding.
        logits = self.model(input_ids=tokens[:, :-1], cache=fork, use_cache=True).logits
        logits = torch.cat([first.expand(len(tokens), -1, -1), logits], dim=1).float()
        losses = cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
        return ((losses * mask).sum(dim=1) / mask.sum(dim=1)).cpu()

    def fork(self) -> Any:
        """Copy the cache, so that a question changes nothing."""
        if self.cache is None:
            raise ValueError("This state has heard nothing yet.")
        return copy.deepcopy(self.cache)

    def save(self, file: str | Path, dtype: torch.dtype | None = None) -> None:
        """
        Save the state as safetensors, with the hash of the weights that it belongs to.

        Args:
            file: Name of the file, which is written whole or not at all.
            dtype: Number type in the file, such as `torch.float16` for half the size; by default nothing is rounded.

        Raises:
            ValueError: The state has heard nothing, or has numbers that `dtype` has not, which must be one of floats.
            OSError: The file cannot be written; an older one of its name is as it was.
        """
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(
                f"`dtype` is {dtype!r}; expected a number type of torch for floats, such as torch.float16."
            )
        tensors = {
            name: (tensor.to(dtype) if dtype else tensor).contiguous().cpu()
            for name, tensor in state_tensors(self.fork()).items()
        }
        if dtype and not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError(f"{file}: the state has numbers beyond {dtype}; expected a number type that holds them.")
        about = {
            "model": str(getattr(self.model.config, "_name_or_path", "")),
            "weights": hash_weights(self.model),
            "duration": self.duration,
            "windows": self.windows,
            "tokens": self.tokens,
            "prompt": self.prompt,
        }
        with write_file_whole(Path(file)) as temporary:
            temporary.write_bytes(save(tensors, metadata={"mac_audio_state": json.dumps(about)}))

    @classmethod
    @torch.inference_mode()
    def load(cls, file: str | Path, model: Any, processor: Any = None) -> "AudioState":
        """
        Load a state that `save` wrote.

        Args:
            file: Name of the file.
            model: Model that heard it, or its pipeline.
            processor: Processor of the model; a pipeline has it.

        Raises:
            ValueError: The file is no such state or damaged, another model heard it, or the processor is missing.
        """
        if getattr(model, "processor", None) is not None:  # of a pipeline
            model, processor = model.model, processor or model.processor
        if processor is None:
            raise ValueError(f"{file}: is for a model with a processor; expected its pipeline, or its processor, too.")
        try:
            with safe_open(file, "pt") as content:
                about = read_about(content.metadata() or {})
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{file}: is no whole state of `AudioState.save` ({error}).") from error
        if about["weights"] != hash_weights(model):
            raise ValueError(f"{file}: was heard by another model, {about['model'] or 'without a name'}.")
        state = cls(model, processor, about.get("prompt"))  # the first files did not say
        state.duration, state.windows, state.tokens = about["duration"], about["windows"], about["tokens"]
        # A cache of the right classes, whose contents are then replaced.
        state.cache = model(input_ids=state.prompt_ids(), use_cache=True, logits_to_keep=1).cache
        try:
            check_tensors(state_tensors(state.cache), tensors)
        except ValueError as error:
            raise ValueError(f"{file}: is no whole state of `AudioState.save` ({error}).") from error
        fill(state.cache, tensors)
        return state


def read_about(metadata: dict[str, str]) -> dict[str, Any]:
    """
    Read what a file of `AudioState.save` says about its state.

    Raises:
        ValueError: Something of it is missing or of another kind.
    """
    about = json.loads(metadata.get("mac_audio_state", "null"))
    kinds: dict[str, type | tuple[type, ...]] = {
        "model": str, "weights": str, "duration": (int, float), "windows": int, "tokens": int,
        "prompt": (str, type(None)),
    }  # fmt: skip
    if not isinstance(about, dict):
        raise ValueError("its metadata does not describe a state")
    if wrong := [name for name, kind in kinds.items() if not isinstance(about.get(name), kind)]:
        raise ValueError(f"its metadata has no {', '.join(wrong)}")
    return about


def check_tensors(expected: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor]) -> None:
    """
    Refuse tensors that are not those of a cache.

    Raises:
        ValueError: Their names or shapes are others; keys and values, (1, heads, length, width), may have any length.
    """
    if differing := sorted(tensors.keys() ^ expected.keys()):
        raise ValueError(f"its tensors are not those of the model: {', '.join(differing)}")
    for name, tensor in tensors.items():
        shape, wanted = list(tensor.shape), list(expected[name].shape)
        if name.endswith((".keys", ".values")) and len(shape) == len(wanted):
            wanted[-2] = shape[-2]
        if shape != wanted:
            raise ValueError(f"{name} has the shape {shape}, not {wanted}")


def check_layer(layer: Any) -> None:
    """Refuse a layer of a cache that may hold more than the known tensors; the message names it."""
    name = type(layer).__name__
    if name != ATTENTION_LAYER and name not in STATE_LAYERS:
        raise ValueError(f"States of a language model whose cache has layers of the class {name} cannot be saved.")


def state_tensors(cache: Any) -> dict[str, torch.Tensor]:
    """Return every tensor of a cache by the name of its layer and kind."""
    tensors: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(cache.layers):
        check_layer(layer)
        for kind in STATE_TENSORS:
            for index, tensor in getattr(layer, kind, {}).items():
                if tensor is not None:
                    tensors[f"{number}.{kind}.{index}"] = tensor
        for kind in ("keys", "values"):
            if getattr(layer, kind, None) is not None:
                tensors[f"{number}.{kind}"] = getattr(layer, kind)
    return tensors


def fill(cache: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Put saved tensors in the place of those of a cache, in its number types, devices and memory layouts."""
    for name, old in state_tensors(cache).items():
        number, kind, *index = name.split(".")
        layer, new = cache.layers[int(number)], tensors[name].to(old)
        if index:
            new = torch.empty_strided(new.shape, old.stride(), dtype=old.dtype, device=old.device).copy_(new)
            getattr(layer, kind)[int(index[0])] = new
        else:
            setattr(layer, kind, new)


def hash_weights(model: Any) -> str:
    """Hash all weights with their names and number types: two models of one hash hear the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


__all__ = ["AudioState", "hash_weights"]
