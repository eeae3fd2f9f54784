"""The naming rule of everyday sounds: kinds, what is part of them, and what may be said of the unknown."""

import sys
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))

from everyday_grammar import Grammar

from evaluation_mac.metrics.everyday_naming import EVERYDAY_WORDS, KINDS, PART_OF, kind_of
from evaluation_mac.metrics.everyday_naming import NAMING as EVERYDAY
from processing_mac.dataset_mac import Clip


def test_no_expression_names_two_kinds() -> None:
    lists = list(EVERYDAY_WORDS.values())
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert set(PART_OF) | set(KINDS) <= set(EVERYDAY_WORDS)
    assert len(KINDS) == 25 and {kind_of(name) for name in EVERYDAY_WORDS} == set(KINDS)


def test_every_wording_of_the_recipe_names_its_kind_alone() -> None:
    for kind in Grammar().kinds.values():
        for text in [text for pair in kind.wording for text in pair]:
            assert EVERYDAY.names(text, kind_of(kind.named)), f"{kind.name}: {text}"


@pytest.mark.parametrize(
    ("caption", "source", "right"),
    [
        ("a man is speaking", "speech", True),
        ("a man is speaking", "man", True),
        ("someone is talking", "man", False),
        ("a man is speaking", "woman", False),
        ("a woman sings", "speech", False),
        ("a piano is playing", "music", True),
        ("a piano is playing while a dog barks", "music", False),
        ("music is playing", "piano", False),
        ("a voice sings", "singing", True),
        ("an animal calls", "some animal", True),
        ("a dog barks", "some animal", False),
        ("a dog barks", "animal", True),
        ("music is playing", "some animal", False),
        ("insects are buzzing around", "some animal or insects", True),
        ("an animal calls", "some animal or insects", True),
        ("a cricket chirps", "some animal or insects", False),
        ("insects are buzzing around while a man speaks", "some animal or insects", False),
        ("an object is being moved", "some metal", False),
        ("an object is being moved", "some metal or object", True),
        ("a woman talks while a dog barks", "speech while animal", True),
        ("a woman talks, followed by the bark of a dog", "speech while animal", False),
        ("a dog barks as music is playing", "speech while animal", False),
        ("a dog barks, then a man talks, then rain and a siren", "animal then speech then water then siren", True),
        ("a dog barks, then a siren wails, and then rain falls", "animal then speech then siren then water", True),
        ("rain falls, then a man talks and finally a dog barks", "animal then speech then water then siren", False),
    ],
)  # fmt: skip
def test_captions_are_judged_fairly(caption: str, source: str, right: bool) -> None:
    assert EVERYDAY.is_scored(source) and EVERYDAY.names(caption, source) is right


def test_an_unknown_kind_is_refused() -> None:
    assert not EVERYDAY.is_scored("volcano") and not EVERYDAY.is_scored(None)
    with pytest.raises(ValueError, match="unknown source 'volcano': expected one of the"):
        EVERYDAY.names("a volcano", "volcano")


def test_noticed_and_claimed_are_counted() -> None:
    from evaluation_mac.protocols.captioning import evaluate_captions

    sources = ["speech while music", "man", "animal", "some machine"]
    captions = ["a woman talks while a piano is playing", "music plays", "a man barks", "a machine is running"]
    clips = [Clip(f"{row}.wav", ("a reference",), source=source) for row, source in enumerate(sources)]
    evaluation = evaluate_captions(clips, captions, naming=EVERYDAY)
    scores = {name: evaluation.scores[name] for name in evaluation.scores if name.endswith(("speech", "music"))}
    assert scores == {"noticed_speech": 0.5, "claimed_speech": 0.5, "noticed_music": 1, "claimed_music": 1 / 3}
    assert evaluation.scores["naming_accuracy"] == 0.5 and evaluation.scores["naming_accuracy_general"] == 1
    assert evaluation.missed == {"man": 1, "animal": 1}
