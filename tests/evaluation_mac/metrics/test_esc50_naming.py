"""The naming rule: fair to correct captions, strict on captions that name another source."""

from itertools import product
from pathlib import Path

import pytest
import yaml

from evaluation_mac.metrics.esc50_naming import NAMING, OTHER_EXPRESSIONS, SOURCE_WORDS
from evaluation_mac.metrics.naming import load_naming


is_scored, named_sources, names_both = NAMING.is_scored, NAMING.named, NAMING.names_both
names_in_order, names_source, naming_accuracy = NAMING.names_in_order, NAMING.names, NAMING.accuracy
RECIPE = yaml.safe_load((Path(__file__).parents[3] / "recipes" / "esc50_captions.yaml").read_text())
SOURCES = RECIPE["sources"]

NAMES = (
    "dog rooster pig cow frog cat hen insects sheep crow rain sea_waves crackling_fire crickets chirping_birds"
    " water_drops wind pouring_water toilet_flush thunderstorm crying_baby sneezing clapping breathing coughing"
    " footsteps laughing brushing_teeth snoring drinking_sipping door_wood_knock mouse_click keyboard_typing"
    " door_wood_creaks can_opening washing_machine vacuum_cleaner clock_alarm clock_tick glass_breaking helicopter"
    " chainsaw siren car_horn engine train church_bells airplane fireworks hand_saw"
)
CATEGORIES = set(NAMES.split())


def test_all_categories_have_words_and_captions():
    assert set(SOURCE_WORDS) == set(SOURCES) == CATEGORIES
    assert len(CATEGORIES) == 50
    assert not set(RECIPE["no_source"]) & CATEGORIES
    for entries in [*SOURCES.values(), *RECIPE["no_source"].values()]:
        assert len(entries) == 5
        assert all(set(entry) == {"clause", "phrase"} for entry in entries)


def test_word_lists_are_disjoint():
    lists = [*SOURCE_WORDS.values(), OTHER_EXPRESSIONS]
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert all(word == word.lower().strip() and word for words in lists for word in words)


@pytest.mark.parametrize("source", sorted(CATEGORIES))
def test_every_expression_names_its_own_source_alone(source):
    for expression in SOURCE_WORDS[source]:
        assert names_source(f"we hear {expression} here", source), expression


@pytest.mark.parametrize("source", sorted(CATEGORIES))
def test_recipe_captions_name_exactly_their_source(source):
    for entry in SOURCES[source]:
        for text in entry.values():
            assert named_sources(text) == {source}, text
            assert 4 <= len(text.split()) <= 9, text
            assert text == text.lower().strip() and not text.endswith("."), text


def test_captions_of_silence_and_noise_name_no_source():
    for entries in RECIPE["no_source"].values():
        for entry in entries:
            assert not named_sources(entry["clause"]) and not named_sources(entry["phrase"])


def test_composed_captions_name_both_in_order():
    for index, (first, second) in enumerate(product(sorted(CATEGORIES), repeat=2)):
        a, b = SOURCES[first][index % 5], SOURCES[second][index // 5 % 5]
        sequence, overlap = f"{a['clause']}, followed by {b['phrase']}", f"{a['clause']} while {b['clause']}"
        assert names_in_order(sequence, first, second, "followed by"), sequence
        assert names_in_order(overlap, first, second, "while"), overlap
        assert names_in_order(overlap, second, first, "while"), overlap
        assert not names_in_order(sequence, first, second, "while"), sequence
        assert not names_in_order(overlap, first, second, "followed by"), overlap
        assert first == second or not names_in_order(sequence, second, first, "followed by"), sequence


@pytest.mark.parametrize(
    ("caption", "source"),
    [
        ("A dog's bark!", "dog"),
        ("The cat meows, then purrs.", "cat"),
        ("the engines of an airplane roar", "airplane"),
        ("a plane engine whines", "airplane"),
        ("an airplane flies overhead", "airplane"),
        ("a chainsaw saws through wood", "chainsaw"),
        ("a chainsaw engine growls", "chainsaw"),
        ("the motor of a vacuum hums", "vacuum_cleaner"),
        ("a vacuum cleaner motor whirs", "vacuum_cleaner"),
        ("a washing machine motor turns with water", "washing_machine"),
        ("a car idles on the road", "engine"),
        ("a truck driver honks the horn of a truck", "car_horn"),
        ("a train horn blows", "train"),
        ("a rooster crows at the birdbath", "rooster"),
        ("a bird caws", "crow"),
        ("two crows caw in a tree", "crow"),
        ("birds chirp by the water", "chirping_birds"),
        ("insects chirping in the grass", "crickets"),
        ("flies are buzzing", "insects"),
        ("a chicken clucks", "hen"),
        ("water is poured into a glass", "pouring_water"),
        ("someone pours a drink", "pouring_water"),
        ("drops of water fall into a sink", "water_drops"),
        ("rain drops falling on glass", "rain"),
        ("it is pouring rain on a roof", "rain"),
        ("waves break on the water's edge", "sea_waves"),
        ("a glass breaks on a wooden floor", "glass_breaking"),
        ("somebody knocks on a wooden door", "door_wood_knock"),
        ("an old door squeaks", "door_wood_creaks"),
        ("an alarm clock is ringing", "clock_alarm"),
        ("the clock ticks", "clock_tick"),
        ("tick-tock, tick-tock", "clock_tick"),
        ("a cock-a-doodle-doo is heard", "rooster"),
        ("a thunderclap, a clap of thunder", "thunderstorm"),
        ("a fire truck with sirens", "siren"),
        ("a soda can is opened and can be heard fizzing", "can_opening"),
        ("fire crackers go off", "fireworks"),
        ("logs crackle in a fireplace", "crackling_fire"),
        ("a baby is laughing", "laughing"),
        ("a baby wails", "crying_baby"),
        ("a computer mouse clicks", "mouse_click"),
        ("the keys of a keyboard are clicking", "keyboard_typing"),
        ("the church bell rings", "church_bells"),
        ("someone saws a plank of wood", "hand_saw"),
        ("rain is pouring down on a roof", "rain"),
        ("a door is repeatedly opened and closed", "door_wood_creaks"),
        ("a bell rings without any break", "church_bells"),
    ],
)
def test_natural_captions_count(caption, source):
    assert named_sources(caption) == {source}


@pytest.mark.parametrize(
    ("caption", "source"),
    [
        ("a cat meows", "dog"),
        ("a dog barks at a cat", "dog"),
        ("water is running", "pouring_water"),
        ("a door", "door_wood_knock"),
        ("a clock", "clock_alarm"),
        ("something buzzes", "insects"),
        ("something is heard", "wind"),
        ("birds can be heard", "can_opening"),
        ("a category of catalogs", "cat"),
        ("a chainsaw cuts wood", "hand_saw"),
        ("a fire alarm goes off", "crackling_fire"),
        ("a rooster crows", "crow"),
        ("a train engine chugs", "engine"),
        ("an airplane engine roars", "engine"),
        ("wind chimes tinkle", "wind"),
        ("a siren winds down", "wind"),
        ("the strain of a brain", "train"),
        ("", "dog"),
    ],
)
def test_other_captions_do_not_count(caption, source):
    assert not names_source(caption, source)


def test_accuracy_is_the_share_of_right_captions():
    captions = ["a dog barks", "a dog barks", "rain falls", "a cat meows at a dog"]
    assert naming_accuracy(captions, ["dog", "cat", "rain", "cat"]) == 0.5
    with pytest.raises(ValueError, match="4 captions and 1 sources"):
        naming_accuracy(captions, ["dog"])
    with pytest.raises(ValueError, match="at least one"):
        naming_accuracy([], [])


@pytest.mark.parametrize(
    ("caption", "relation", "expected"),
    [
        ("a dog barks, then rain falls", "followed by", True),
        ("rain falls after a dog barks", "followed by", True),
        ("a dog barks before it rains", "followed by", True),
        ("after a dog barks, rain falls", "followed by", True),
        ("after rain falls, a dog barks", "followed by", False),
        ("rain falls, followed by a dog barking", "followed by", False),
        ("a dog barks and rain falls", "followed by", False),
        ("a dog barks, followed by rain and a cat", "followed by", False),
        ("a dog barks", "followed by", False),
        ("rain falls as a dog barks", "while", True),
        ("a dog barks with rain in the background", "while", True),
        ("while a dog barks rain is falling", "while", True),
        ("a dog barks and rain falls", "while", False),
        ("a dog barks while a cat meows", "while", False),
        ("a dog barks while running, followed by rain", "while", False),
    ],
)
def test_order_of_two_recordings(caption, relation, expected):
    assert names_in_order(caption, "dog", "rain", relation) is expected


def test_both_without_order():
    assert names_both("a dog barks and rain falls", "rain", "dog")
    assert names_both("a dog barks, followed by a dog", "dog", "dog")
    assert not names_both("a dog barks", "dog", "rain")
    assert not names_both("a dog barks at a cat in the rain", "dog", "rain")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'dogs'.*'dog'"):
        names_source("a dog barks", "dogs")
    with pytest.raises(ValueError, match=r"'church_bell'.*'church_bells'"):
        names_both("a dog barks", "dog", "church_bell")
    with pytest.raises(ValueError, match="'followed by' or 'while'"):
        names_in_order("a dog barks", "dog", "rain", "then")


def test_a_scene_of_two_is_named_with_its_order():
    assert names_source("a dog is barking, followed by the falling of rain", "dog followed by rain")
    assert not names_source("rain is falling, followed by the barking of a dog", "dog followed by rain")
    assert names_source("rain is falling while a dog is barking", "dog while rain")
    assert not names_source("a dog is barking", "dog while rain")
    assert is_scored("dog while rain") and is_scored("dog")
    assert not is_scored("dog while silence") and not is_scored("noise") and not is_scored(None)


def test_word_lists_are_chosen_by_name():
    assert load_naming("esc50") is NAMING
    with pytest.raises(ValueError, match="no word lists 'esc51'; there are esc50, everyday"):
        load_naming("esc51")
