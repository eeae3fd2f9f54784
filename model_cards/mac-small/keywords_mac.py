"""Sorts the keyword arguments that transformers' processors share, given flat or in groups for text, audio or both."""

from typing import Any, NamedTuple


GROUPS = ("common_kwargs", "text_kwargs", "audio_kwargs", "images_kwargs", "videos_kwargs")
AUDIO = {"sampling_rate", "return_tensors", "padding"}
# Arguments that transformers passes to every processor, and that do not concern MAC.
UNSEEN = {"add_special_tokens", "images", "videos", "return_mm_token_type_ids"}

DEFAULTS = ("padding", "truncation", "max_length", "pad_to_multiple_of")  # that a tokenizer may bring


class TextOptions(NamedTuple):
    """The arguments of transformers' tokenizers that make a batch of rows; by default it is padded and in tensors."""

    padding: bool | str = True
    truncation: bool | str = False
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: str | None = "pt"
    return_offsets_mapping: bool = False
    return_attention_mask: bool | None = True

    def check(self) -> "TextOptions":
        """Return these options, or raise a ValueError for those that cannot be followed."""
        if self.return_tensors not in (None, "pt", "np"):
            raise ValueError(f"`return_tensors` is {self.return_tensors!r}; expected 'pt' or 'np'.")
        if self.max_length is None and (self.padding == "max_length" or self.truncation):
            raise ValueError("`padding='max_length'` and `truncation` need `max_length`, in tokens.")
        return self


def sort_keywords(keywords: dict[str, Any], defaults: dict[str, Any]) -> tuple[TextOptions, dict[str, Any]]:
    """
    Args:
        keywords: Of the call.
        defaults: Of the tokenizer; those that are options of the text hold where the call says nothing.

    Returns:
        The options of the text, and a dictionary with the `sampling_rate` of the audio, in Hz or None.

    Raises:
        TypeError: There is an unknown argument, or one that a processor of windows of sound cannot follow.
        ValueError: An argument is given twice, or there are images or videos.
    """
    groups = {name: dict(keywords.get(name) or {}) for name in GROUPS}
    flat = {name: value for name, value in keywords.items() if name not in GROUPS}
    known = {*TextOptions._fields, *AUDIO, *UNSEEN}
    unknown = {*flat, *groups["common_kwargs"]} - known
    unknown |= groups["text_kwargs"].keys() - known | groups["audio_kwargs"].keys() - AUDIO
    if unknown:
        raise TypeError(f"MacProcessor got unexpected arguments: {', '.join(sorted(unknown))}.")
    for name in ("images", "videos"):
        if flat.get(name) is not None:
            raise ValueError(f"MAC hears and has no eyes: leave out `{name}`.")
    for group in ("text_kwargs", "audio_kwargs"):
        if twice := flat.keys() & groups[group].keys():
            raise ValueError(f"given twice, in `{group}` and outside of it: {', '.join(sorted(twice))}.")
    text = {name: defaults[name] for name in DEFAULTS if name in defaults}
    text |= groups["common_kwargs"] | groups["text_kwargs"] | flat
    audio = groups["common_kwargs"] | groups["audio_kwargs"] | flat
    options = {name: value for name, value in text.items() if name in TextOptions._fields}
    return TextOptions(**options).check(), {"sampling_rate": audio.get("sampling_rate")}


__all__ = ["TextOptions", "sort_keywords"]
