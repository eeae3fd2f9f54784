"""What a way to write captions decides where the options of `mac-eval` leave it open, and what contradicts it."""

import argparse
from typing import Any

from evaluation_mac.datasets.label_lists import SHIPPED
from evaluation_mac.datasets.published import DATASETS, LTU_PROMPT, find_dataset
from evaluation_mac.datasets.reading import full_labels
from evaluation_mac.protocols.label_protocols import LABEL_PROTOCOLS, LabelProtocol


CAPTION_TASKS = ("captioning", "classification")  # those in which a protocol says how captions are written


def protocol_of(options: argparse.Namespace) -> LabelProtocol | None:
    """The protocol by which captions are written; None where none was asked for."""
    asked = options.task in CAPTION_TASKS and options.protocol
    return LABEL_PROTOCOLS[options.protocol] if asked else None


def generation_of(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `generate` that the protocol demands."""
    protocol = protocol_of(options)
    return dict(protocol.generation) if protocol else {}


def complete(options: argparse.Namespace) -> None:
    """
    Fill in prompt and text encoder.

    Raises:
        ValueError: Options contradict the protocol, or it lacks its labels.
    """
    by_caption = options.task == "classification" and options.by == "caption"
    protocol = protocol_of(options)
    if by_caption:
        options.text_encoder = options.text_encoder or LABEL_PROTOCOLS[options.protocol or "plain"].text_encoder
    if protocol is None:
        return
    if options.task == "classification" and not by_caption:
        raise ValueError("--protocol is about captions; leave it out with --by likelihood")
    if not protocol.is_published:
        return
    for name in ("num_beams", "refine"):
        if getattr(options, name, None):
            told = f"--{name.replace('_', '-')}"
            raise ValueError(f"--protocol {options.protocol} says how captions are decoded; leave out {told}")
    if by_caption and full_labels(options.labels, options.dataset) is None:
        raise ValueError(
            f"--protocol {options.protocol} scores all labels of the data, also those of no recording: give --labels, "
            f"a file or one of {', '.join(SHIPPED)}"
        )
    known = find_dataset(options.dataset)
    options.prompt = options.prompt or (DATASETS[known].prompt if known else LTU_PROMPT)


def check_refine(options: argparse.Namespace) -> None:
    """Refuse options of CLAP-Refine that nothing would read."""
    if options.task != "captioning":
        return
    if options.refine_from and not options.refine:
        raise ValueError("--refine-from says what --refine chooses from: name the CLAP model with --refine")
    if options.refine and options.refine_from != "nbest" and options.num_beams:
        raise ValueError("--num-beams: --refine searches with 2 to 8 beams; with --refine-from nbest it can be given")
