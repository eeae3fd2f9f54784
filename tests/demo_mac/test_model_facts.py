"""What the page says of its model."""

from pathlib import Path

from demo_mac.model_facts import first_sentence, read_facts
from processing_mac import DEFAULT_MODEL


def test_the_model_that_ships_says_what_it_knows(model):
    facts = read_facts(DEFAULT_MODEL, model)
    assert facts.name == "mac-small"
    assert facts.knows.startswith("A small audio captioner that knows") and facts.knows.endswith(".")


def test_a_model_without_a_card(model, tmp_path):
    facts = read_facts(str(tmp_path), model)
    assert (facts.name, facts.knows) == (tmp_path.name, "")
    assert facts.size == f"{model.num_parameters() / 1e6:.3g} million parameters"


def test_a_model_of_the_hub_that_is_not_here(model):
    assert read_facts("nobody/nothing", model).knows == ""


def test_pictures_links_and_marks_are_left_out():
    card = """---
license: apache-2.0
---

# My *model*

![a badge](https://elsewhere.example/badge.svg)

It **knows** [birds](https://birds.example) and `bells`. It knows no more.

## More
"""
    assert first_sentence(card) == "It knows birds and bells."
    assert first_sentence("no title at all") == ""


def test_every_card_that_ships_has_a_sentence():
    for card in Path(DEFAULT_MODEL).parent.glob("*/README.md"):
        assert len(first_sentence(card.read_text("utf-8"))) > 20, card
