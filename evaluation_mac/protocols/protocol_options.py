"""What a way to write captions decides where the options of `mac-eval` leave it open, and what contradicts it."""

import argparse
from typing import Any

from evaluation_mac.datasets.label_lists import SHIPPED
from evaluation_mac.datasets.published import DATASETS, LTU_PROMPT, find_dataset
from evaluation_mac.datasets.reading import full_labels
from evaluation_mac.protocols.label_protocols import LABEL_PROTOCOLS, LabelProtocol


CAPTION_TASKS = ("captioning", "classification")  # those in which a protocol says how captions are written
OF_CAPTIONS = ("protocol", "num_beams", "batch_size", "text_encoder")  # options that likelihoods do not read
OF_CARDS = ("dataset_id", "dataset_split")
BATCH_SIZE = 8


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
    Fill in prompt, text encoder and batch size.

    Raises:
        ValueError: Nothing would read an option, options contradict the protocol, or it lacks its labels.
    """
    refuse_unread(options)
    options.batch_size = getattr(options, "batch_size", None) or BATCH_SIZE
    by_caption = options.task == "classification" and options.by == "caption"
    protocol = protocol_of(options)
    if by_caption:
        options.text_encoder = options.text_encoder or LABEL_PROTOCOLS[options.protocol or "plain"].text_encoder
    if protocol is None:
        return
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


def refuse_unread(options: argparse.Namespace) -> None:
    """Refuse options of captions where none are written, and of the card where none is."""
    by_likelihood = options.task == "classification" and options.by == "likelihood"
    unread = {name: "is about captions; leave it out with --by likelihood" for name in OF_CAPTIONS if by_likelihood}
    unread |= {name: "is for --update-card" for name in OF_CARDS if not options.update_card}
    for name, reason in unread.items():
        if getattr(options, name, None) is not None:
            raise ValueError(f"--{name.replace('_', '-')} {reason}")


def check_refine(options: argparse.Namespace) -> None:
    """Refuse options of CLAP-Refine that nothing would read."""
    if options.task != "captioning":
        return
    if options.refine_from and not options.refine:
        raise ValueError("--refine-from says what --refine chooses from: name the CLAP model with --refine")
    if options.refine and options.refine_from != "nbest" and options.num_beams:
        raise ValueError("--num-beams: --refine searches with 2 to 8 beams; with --refine-from nbest it can be given")
