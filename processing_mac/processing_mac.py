"""The processor, which turns audio and text into a model's inputs and labels, and generated tokens into captions."""

from collections.abc import Iterable
from typing import Any

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .keywords_mac import TextOptions, sort_keywords

# Not used here. But saving a processor copies its module and whatever that imports: with this line every saved folder
# holds the code of the pipeline, too.
from .pipeline_mac import AudioCaptioningPipeline  # noqa: F401


AUDIO_TOKEN = "<|audio|>"  # placeholder of one audio embedding
DEFAULT_PROMPT = "Describe the audio you hear."  # the prompt of SLAM-AAC

# The audio stands before the prompt, so that the state after the audio can be kept and asked many prompts.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- set parts = [{'type': 'text', 'text': content}] if content is string else content -%}
{%- for part in parts if part['type'] == 'audio' -%}<|audio|>{%- endfor -%}
{%- for part in parts if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{{ eos_token if message['role'] == 'assistant' else '\\n' }}
{%- endfor -%}
"""


class MacProcessor(ProcessorMixin):
    """
    A feature extractor and a tokenizer, with the layout of a prompt.

    A clip is written as `<|audio|>` once for every embedding that the model will put there, followed by the prompt and
    the answer. All fields are saved with the processor.

    Args:
        feature_extractor: Extractor of the class `MacFeatureExtractor`.
        tokenizer: Fast tokenizer that knows `<|audio|>`, built with `padding_side="left"`.
        chat_template: Jinja template of a conversation, in which `<|audio|>` stands once for each clip.
        audio_tokens_per_window: Number of audio tokens of a window, as in the model's `MacConfig`.
        audio_tokens_per_run: Number of audio tokens after which a separator follows, as in the model's `MacConfig`.
        separator: Text between the runs of a long connector, which is one token in the GPT-NeoX vocabulary.
        default_prompt: Prompt that is used where none is given.
        knows_prompts: Whether the model was trained on more prompts than that one, so that it can be asked others.
        trained_windows: Number of windows of the clips that the model was trained on, as a mean; a longer recording
            is better captioned in parts.
    """

    model_input_names = ["input_ids", "attention_mask", "input_features", "audio_num_windows"]

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        audio_tokens_per_window: int = 64,
        audio_tokens_per_run: int = 64,
        separator: str = "&&",
        default_prompt: str = DEFAULT_PROMPT,
        knows_prompts: bool = False,
        trained_windows: int = 1,
    ):
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.audio_token = AUDIO_TOKEN
        self.audio_tokens_per_window = audio_tokens_per_window
        self.audio_tokens_per_run = audio_tokens_per_run
        self.separator = separator
        self.default_prompt = default_prompt
        self.knows_prompts = knows_prompts
        self.trained_windows = trained_windows
        self.audio_token_id = tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
        if self.audio_token_id is None or self.audio_token_id == tokenizer.unk_token_id:
            raise ValueError(
                f"The tokenizer has no token {AUDIO_TOKEN!r}: add it with "
                f'`tokenizer.add_special_tokens({{"additional_special_tokens": ["{AUDIO_TOKEN}"]}})`.'
            )

    def __call__(
        self,
        audio: Any = None,
        text: str | list[str] | None = None,
        answer: str | list[str] | None = None,
        loss_on: str = "answer",
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            audio: One clip or a list of clips, in any form that `MacFeatureExtractor.load` takes.
            text: Prompt of each clip, or a single prompt for all, or text that already holds `<|audio|>` once for its
                clip, as `apply_chat_template` writes it; `default_prompt` if None.
            answer: Caption of each clip that the model shall learn, from which `labels` are made.
            loss_on: Part of the text that is labelled: "answer" for the answer with its end, "all" for the prompt,
                too.
            kwargs: Arguments of transformers' processors, flat or in `text_kwargs`, `audio_kwargs` and
                `common_kwargs`: `sampling_rate` in Hz of bare arrays, and the fields of `TextOptions`. The
                `padding_side` should be "left" to generate and "right" to train; by default it is right with answers.

        Returns:
            `input_ids` and `attention_mask`, (clips, length), `input_features`, (windows, frames, mel bins),
            `audio_num_windows`, (clips,), and, with answers, `labels`, (clips, length).

        Raises:
            ValueError: Audio is faulty or missing, numbers of clips and texts differ, or `max_length` cuts audio.
            TypeError: There is an unknown argument.
        """
        options, audio_options = sort_keywords(kwargs, self.tokenizer.init_kwargs)
        if audio is None:
            raise ValueError("`audio` is missing: MAC's text always speaks of a clip. To continue from a cached clip, "
                             "use the tokenizer alone.")  # fmt: skip
        features = self.feature_extractor(audio, **audio_options)
        texts = self.encode(features["audio_num_windows"].tolist(), text, answer, loss_on, options)
        tensors = {**texts, **features}
        if options.return_tensors == "np":
            tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
        return BatchFeature(tensors)

    def encode(
        self,
        num_windows: list[int],
        text: str | list[str] | None = None,
        answer: str | list[str] | None = None,
        loss_on: str = "answer",
        options: TextOptions | None = None,
    ) -> dict[str, torch.Tensor]:
        """The text side of `__call__`, for clips whose features are already at hand: `num_windows` of each clip."""
        options, clips = options or TextOptions(), len(num_windows)
        prompts = [self.expand_audio(*pair) for pair in zip(self.write_prompts(text, clips), num_windows, strict=True)]
        encoded = self.tokenizer(prompts, add_special_tokens=False, return_offsets_mapping=True)
        rows = [
            {"input_ids": ids, "offset_mapping": offsets}
            for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
        if answer is not None:
            self.append_answers(rows, prompts, match_clips(answer, clips, "answer"), loss_on)
        if not options.return_offsets_mapping:
            for row in rows:
                del row["offset_mapping"]
        return self.pad(rows, options, "left" if answer is None else "right")

    def append_answers(
        self, rows: list[dict[str, list]], prompts: list[str], answers: list[str], loss_on: str
    ) -> None:
        """Add answers, their ends and labels to the rows of prompts."""
        if loss_on not in ("answer", "all"):
            raise ValueError(f"`loss_on` is {loss_on!r}; expected 'answer' or 'all'.")
        encoded = self.tokenizer(answers, add_special_tokens=False, return_offsets_mapping=True)
        for number, (row, prompt, answer) in enumerate(zip(rows, prompts, answers, strict=True)):
            reply, tokens = encoded["input_ids"][number], row["input_ids"]
            if self.audio_token_id in reply:
                raise ValueError(f"answer {number} holds {self.audio_token}, which stands for audio: {answer!r}.")
            reply = [*reply, self.tokenizer.eos_token_id]
            unlabelled = len(tokens) if loss_on == "answer" else len(tokens) - tokens[::-1].index(self.audio_token_id)
            row["labels"] = [-100] * unlabelled + tokens[unlabelled:] + reply
            row["input_ids"] = tokens + reply
            spans = [*encoded["offset_mapping"][number], (len(answer), len(answer))]  # characters of prompt + answer
            row["offset_mapping"] += [(start + len(prompt), end + len(prompt)) for start, end in spans]

    def write_prompts(self, text: str | list[str] | None, clips: int) -> list[str]:
        """Write the text of each clip, with `<|audio|>` once; bare prompts go through the chat template."""
        texts = match_clips(self.default_prompt if text is None else text, clips, "text")
        written = []
        for row, prompt in enumerate(texts):
            count = prompt.count(self.audio_token)
            if count > 1:
                raise ValueError(
                    f"text {row} holds {self.audio_token} {count} times; expected once, for its one clip."
                )
            written.append(prompt if count else self.write_prompt(prompt))
        return written

    def write_prompt(self, prompt: str) -> str:
        """Put a prompt into the chat template, with `<|audio|>` for its clip."""
        content = [{"type": "audio"}, {"type": "text", "text": prompt}]
        return self.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def expand_audio(self, text: str, num_windows: int) -> str:
        """Repeat `<|audio|>` for every embedding of the clip, with separators between the runs of a long connector."""
        run = self.audio_token * self.audio_tokens_per_run
        runs_per_window = self.audio_tokens_per_window // self.audio_tokens_per_run
        separator = self.separator if runs_per_window > 1 else ""
        return text.replace(self.audio_token, separator.join([run] * (runs_per_window * num_windows)))

    def pad(self, rows: list[dict[str, list]], options: TextOptions, padding_side: str) -> dict[str, torch.Tensor]:
        """
        Cut and pad rows as `options` say.

        What is padding is read from the mask and never from the token id, since PAD may be the same token as EOS.
        """
        if options.truncation:
            self.truncate(rows, options)
        batch = self.tokenizer.pad(
            {"input_ids": [row["input_ids"] for row in rows]},
            padding=options.padding,
            max_length=options.max_length if options.padding == "max_length" else None,
            pad_to_multiple_of=options.pad_to_multiple_of,
            padding_side=options.padding_side or padding_side,
        )
        if len({len(ids) for ids in batch["input_ids"]}) > 1:
            raise ValueError("the rows differ in length, and `padding` is off: one tensor cannot hold them.")
        padded = {name: torch.tensor(batch[name]) for name in ("input_ids", "attention_mask")}
        real = padded["attention_mask"].bool()
        for name, filling, width in (("labels", -100, ()), ("offset_mapping", 0, (2,))):
            if name in rows[0]:
                padded[name] = torch.full((*real.shape, *width), filling)
                padded[name][real] = torch.tensor([item for row in rows for item in row[name]])
        if not options.return_attention_mask:
            del padded["attention_mask"]
        return padded

    def truncate(self, rows: list[dict[str, list]], options: TextOptions) -> None:
        """Cut rows to `max_length` tokens; a ValueError says where this would cut the audio."""
        left = self.tokenizer.truncation_side == "left"
        for number, row in enumerate(rows):
            cut = len(row["input_ids"]) - (options.max_length or 0)
            kept = slice(cut, None) if left else slice(None, options.max_length)
            if cut > 0 and row["input_ids"][kept].count(self.audio_token_id) < row["input_ids"].count(
                self.audio_token_id
            ):
                raise ValueError(
                    f"`max_length` of {options.max_length} tokens would cut the audio of row {number}, which has "
                    f"{len(row['input_ids'])} tokens with its text."
                )
            if cut > 0:
                row.update({name: values[kept] for name, values in row.items()})

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str | list[str]:
        """Decode generated ids to clean text: (length,) to a string, (clips, length) or lists to a list of strings."""
        text = self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)
        return clean(text) if isinstance(text, str) else [clean(caption) for caption in text]

    def batch_decode(self, token_ids: Any, **kwargs: Any) -> list[str]:
        """Decode every row of a batch, (clips, length) or a list of lists, to a caption."""
        return [self.decode(row, **kwargs) for row in token_ids]

    def apply_chat_template(self, conversation: Any, *args: Any, tokenize: bool = False, **kwargs: Any) -> Any:
        """
        Write a conversation as text, as transformers documents it, or with `tokenize=True` make model inputs of it.

        In the second case the audio of the conversation is loaded. An audio part holds, as `audio`, `url` or `path`,
        anything that `MacFeatureExtractor.load` takes; bare arrays must have the extractor's own rate.
        """
        if tokenize:
            kwargs.setdefault("return_dict", True)
            conversation = self.load_conversation(conversation)
        return super().apply_chat_template(conversation, *args, tokenize=tokenize, **kwargs)

    def load_conversation(self, part: Any) -> Any:
        """
        Load the audio in a conversation, a batch of them or a part of one.

        It is not left to transformers' loader, whose errors name no file.
        """
        if isinstance(part, (list, tuple)):
            return [self.load_conversation(item) for item in part]
        if not isinstance(part, dict):
            return part
        if part.get("type") != "audio":
            return {key: self.load_conversation(value) if key == "content" else value for key, value in part.items()}
        for key in ("audio", "url", "path"):
            if key in part:
                [waveform] = self.feature_extractor.load(part[key], self.feature_extractor.sampling_rate)
                return {"type": "audio", "audio": waveform}
        return part


def match_clips(texts: str | list[str], clips: int, name: str) -> list[str]:
    """Return one text for each clip; a single string serves all clips."""
    if isinstance(texts, str):
        return [texts] * clips
    rows = list(texts) if isinstance(texts, Iterable) else [texts]
    if others := [row for row in rows if not isinstance(row, str)]:
        raise ValueError(f"`{name}` holds {others[0]!r}; expected a string, or one for each clip.")
    if len(rows) != clips:
        raise ValueError(f"`{name}` has {len(rows)} rows for {clips} clips of audio; expected one each.")
    return rows


def clean(text: str) -> str:
    """Replace each run of white space by one space, and remove it at both ends."""
    return " ".join(text.split())


__all__ = ["MacProcessor"]
