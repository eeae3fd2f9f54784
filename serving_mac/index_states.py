"""The model's side of an index: windows heard in batches, their states kept, and asked how likely texts are."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from processing_mac import AudioCaptioningPipeline
from processing_mac.audio_state_mac import AudioState, fill, hash_weights, state_tensors


States = dict[str, torch.Tensor]  # every tensor of the language model's cache by its name, each (rows, …)
ROWS = 32  # states that are asked at a time


class StateReader:
    """
    Hears windows, each as a recording of its own, and asks the states after them.

    A state is that of `AudioState`, which hears and asks one recording at a time: it comes before any prompt.

    Args:
        captioner: Pipeline of the model.
        prompt: What captions and texts answer; the processor's default if None.
    """

    def __init__(self, captioner: AudioCaptioningPipeline, prompt: str | None = None):
        self.captioner, self.model, self.processor = captioner, captioner.model, captioner.processor
        one = AudioState(self.model, self.processor, prompt)
        self.audio_ids = torch.tensor([one.split(1)[0]], device=self.model.device)
        self.prompt_ids = one.prompt_ids()
        self.weights = hash_weights(self.model)

    @torch.inference_mode()
    def hear(
        self, input_features: torch.Tensor, num_beams: int | None = None
    ) -> tuple[list[str], torch.Tensor, States]:
        """
        Hear windows and caption each.

        Args:
            input_features: Normalised log-mel, (windows, frames, mel bins).
            num_beams: Beams of the search; what the model ships with if None.

        Returns:
            The captions, their mean cross-entropy in nats a token, (windows,), and the states, all on the CPU.
        """
        rows, device = len(input_features), self.model.device
        ids, prompts = self.audio_ids.expand(rows, -1), self.prompt_ids.expand(rows, -1)
        features = input_features.to(device, self.model.dtype)
        cache = self.model(input_ids=ids, input_features=features, use_cache=True, logits_to_keep=1).cache
        states = {name: tensor.to("cpu", copy=True) for name, tensor in state_tensors(cache).items()}
        mask = torch.ones(rows, ids.shape[1] + prompts.shape[1], dtype=torch.long, device=device)
        options = {"num_beams": num_beams} if num_beams else {}
        output = self.model.generate(input_ids=prompts, attention_mask=mask, cache=cache, **options)
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        captions = self.processor.batch_decode(sequences[:, prompts.shape[1] :])
        first, cache = self.read_prompt(states)
        return captions, self.losses(first, cache, self.tokenize(captions)), states

    @torch.inference_mode()
    def score(self, states: States, texts: Sequence[str]) -> torch.Tensor:
        """
        Compute how likely texts are as answers of each state.

        Args:
            states: States of `hear`, (rows, …), in any number type.
            texts: Texts to score, each with the token that ends it.

        Returns:
            Mean cross-entropy of each text after each state, (rows, texts) float32 in nats a token; low is likely.

        Raises:
            ValueError: A text is blank or holds the placeholder of audio.
        """
        for text in texts:
            if not text.strip() or self.processor.audio_token in text:
                raise ValueError(f"{text!r}: expected words, and no {self.processor.audio_token}.")
        tokens = self.tokenize(texts)
        scores = []
        for start in range(0, len(next(iter(states.values()))), ROWS):
            first, cache = self.read_prompt({name: rows[start : start + ROWS] for name, rows in states.items()})
            # Right after each other, since states are large: a copy for every text at once would not stay in a CPU.
            scores.append(torch.stack([self.losses(first, copy.deepcopy(cache), [row]) for row in tokens], dim=1))
        return torch.cat(scores)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text with its end."""
        ids = self.processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [[*row, self.processor.tokenizer.eos_token_id] for row in ids]

    def read_prompt(self, states: States) -> tuple[torch.Tensor, Any]:
        """Read the prompt after each state: the logits of what comes next, (rows, 1, vocabulary), and the cache."""
        rows = len(next(iter(states.values())))
        # A cache of the right classes and layouts, whose contents are then replaced.
        cache = self.model(input_ids=self.prompt_ids, use_cache=True, logits_to_keep=1).cache
        cache.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self.model.device))
        fill(cache, states)
        prompts = self.prompt_ids.expand(rows, -1)
        return self.model(input_ids=prompts, cache=cache, use_cache=True, logits_to_keep=1).logits, cache

    def losses(self, first: torch.Tensor, cache: Any, token_ids: list[list[int]]) -> torch.Tensor:
        """
        Compute the mean cross-entropy of one text a row, or of one for all rows, (rows,) float32 on the CPU.

        Args:
            first: Logits of the token after the prompt, (rows, 1, vocabulary).
            cache: Cache after the prompt, which is used up.
            token_ids: Tokens of the text of each row with their ends, or a single list for all.
        """
        batch = self.processor.tokenizer.pad({"input_ids": token_ids}, padding_side="right", return_tensors="pt")
        tokens, mask = (
            batch[name].to(first.device).expand(len(first), -1) for name in ("input_ids", "attention_mask")
        )
        logits = first
        if tokens.shape[1] > 1:  # the model is causal, so that padding on the right needs no mask
            rest = self.model(input_ids=tokens[:, :-1], cache=cache, use_cache=True).logits
            logits = torch.cat([first, rest], dim=1)
        losses = cross_entropy(logits.float().mT, tokens, reduction="none")  # (rows, length)
        return ((losses * mask).sum(dim=1) / mask.sum(dim=1)).cpu()


def size_of(states: States) -> int:
    """Return the size of states in bytes."""
    return sum(tensor.nbytes for tensor in states.values())


def round_states(states: States, dtype: torch.dtype) -> States:
    """
    Convert states to the number type of an index.

    Raises:
        ValueError: They hold a number that this type has not.
    """
    rounded = {name: tensor.to(dtype) for name, tensor in states.items()}
    if not all(tensor.isfinite().all() for tensor in rounded.values()):
        raise ValueError(f"the states of this model have numbers beyond {dtype}; take --precision float32")
    return rounded
