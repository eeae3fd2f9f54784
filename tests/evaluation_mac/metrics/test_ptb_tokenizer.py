"""Tokens are those of Stanford CoreNLP 3.4.1, frozen here, on awkward lines and on all published captions."""

import csv
import hashlib
import json
from pathlib import Path

import pytest

from evaluation_mac.metrics.ptb_tokenizer import ptb_tokenize


GOLDEN = json.loads((Path(__file__).parents[1] / "golden_tokens.json").read_text("utf-8"))

# How many captions each table holds, and the start of the SHA-256 of the Java program's tokens, one caption a line.
TABLES = {
    "audiocaps_test": (4875, "2bf19c6e1e82567b"),
    "audiocaps_train": (49838, "b3b27974e2443856"),
    "audiocaps_val": (2475, "26c130b314a71f36"),
    "clotho_test": (5225, "c69672495217644b"),
    "clotho_train": (19195, "5ad5fc0b60719ec7"),
    "clotho_val": (5225, "64c6b6bd2485b201"),
}


@pytest.mark.parametrize(("caption", "tokens"), GOLDEN, ids=[repr(caption) for caption, _ in GOLDEN])
def test_tokens_are_those_of_the_java_program(caption, tokens):
    assert ptb_tokenize(caption) == tokens


@pytest.mark.parametrize("table", TABLES)
def test_tokens_of_published_captions(table, published):
    with open(published("captions") / f"{table}.csv", newline="", encoding="utf-8") as file:
        captions = [text for row in csv.DictReader(file) for name, text in row.items() if name.startswith("caption")]
    tokens = "\n".join(map(ptb_tokenize, captions))
    assert (len(captions), hashlib.sha256(tokens.encode()).hexdigest()[:16]) == TABLES[table]


@pytest.mark.parametrize("caption", ["a dog barks", "A Dog, then a cat.", "high-pitched hum, low-pitched buzz."])
def test_the_short_cut_for_plain_captions_changes_nothing(caption):
    # A face keeps a caption from the short cut and becomes a last token of its own.
    assert ptb_tokenize(f"{caption} :|") == f"{ptb_tokenize(caption)} :|"


def test_a_long_caption_takes_no_time():
    assert ptb_tokenize("a-" * 50_000) == "-".join("a" * 50_000)
