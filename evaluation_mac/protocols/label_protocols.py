"""
How captions and labels meet in a text encoder: plainly, as SAM (arXiv 2509.15680), or as LTU and GAMA publish it.

LTU's encoder is OpenAI's text-embedding-ada-002, a paid service; its code has BERT for those without, which is the
default here. Of SAM is published that the encoder is CLAP's and the decoding greedy, but not whether captions get the
prefix or become lower case.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluation_mac.metrics.text_encoder import CLAP, Encoder


PREFIX = "sound of "
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class LabelProtocol:
    """
    A way of writing captions and of comparing them with labels.

    Args:
        text_encoder: Encoder, where none is asked for.
        is_published: Whether it scores the full list of labels and asks what LTU asks.
        lower_case: Whether captions and labels become lower case.
        prefix_captions: Whether "sound of " stands before captions, too, which then lose their quotation marks.
        generation: Arguments of `generate` for the captions.
    """

    text_encoder: str = CLAP
    is_published: bool = True
    lower_case: bool = True
    prefix_captions: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)


PLAIN = LabelProtocol(is_published=False, lower_case=False)
LABEL_PROTOCOLS = {
    "plain": PLAIN,
    "sam": LabelProtocol(generation={"do_sample": False, "num_beams": 1}),
    "ltu": LabelProtocol(
        text_encoder="google-bert/bert-large-uncased",
        prefix_captions=True,
        generation={
            "do_sample": True, "num_beams": 1, "temperature": 0.1, "top_p": 0.95, "top_k": 500,
            "repetition_penalty": 1.1, "max_new_tokens": 400,
        },
    ),
}  # fmt: skip


def label_text(label: str, protocol: LabelProtocol = PLAIN) -> str:
    """What stands for a label where captions are compared."""
    text = PREFIX + label.replace("_", " ")
    return text.lower() if protocol.lower_case else text


def caption_text(caption: str, protocol: LabelProtocol) -> str:
    """What stands for a caption where labels are compared."""
    text = PREFIX + caption.replace('"', "") if protocol.prefix_captions else caption
    return text.lower() if protocol.lower_case else text


def similarity_by_caption(
    captions: Sequence[str], labels: Sequence[str], encoder: Encoder, protocol: LabelProtocol = PLAIN
) -> np.ndarray:
    """(clips, labels) cosines of each clip's caption and each label's text."""
    said = [caption_text(caption, protocol) for caption in captions]
    asked = [label_text(label, protocol) for label in labels]
    if protocol.prefix_captions and encoder.averages:  # LTU's BERT reads no punctuation
        said, asked = ([text.translate(WITHOUT_PUNCTUATION) for text in texts] for texts in (said, asked))
    return encoder.embed_text(said) @ encoder.embed_text(asked).T
