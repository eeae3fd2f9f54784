"""Lists of labels: those that ship, and those of a file."""

from pathlib import Path

import pytest

from evaluation_mac.datasets.label_lists import SHIPPED, read_label_list


SIZES = {
    "esc50": 50, "vocalsound": 6, "tut17": 15, "dcase17": 17, "beijing_opera": 4, "fsd50k": 200, "vggsound": 309,
    "audioset": 527,
}  # fmt: skip


def test_the_lists_that_ship_are_whole() -> None:
    assert {name: len(read_label_list(name).names) for name in SHIPPED} == SIZES
    assert read_label_list("ESC-50").names == read_label_list("esc50").names


def test_a_label_is_found_whatever_its_spelling_or_by_its_code() -> None:
    assert read_label_list("fsd50k").find("bass drum") == "Bass_drum"
    assert read_label_list("tut17").find("city center") == "city_center"
    assert read_label_list("dcase17").find("Air horn truck horn") == "Air horn, truck horn"
    assert read_label_list("vggsound").find("bird chirping_ tweeting") == "bird chirping, tweeting"
    assert read_label_list("audioset").find("/m/09x0r") == "Speech"
    assert read_label_list("beijing_opera").find("bangu") == "Clapper-drum"


def test_a_label_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no label 'doog' among the 50 of esc50\. Did you mean 'dog'\?"):
        read_label_list("esc50").find("doog")


def test_lists_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("dog\n\n church bells \n")
    assert read_label_list(tmp_path / "a.txt").names == ("dog", "church bells")
    (tmp_path / "b.csv").write_text('index,mid,display_name\n0,/m/1,"Male speech, man speaking"\n')
    assert read_label_list(tmp_path / "b.csv").find("/m/1") == "Male speech, man speaking"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "dog\nDog\n", "'dog' and 'Dog' are one label"),
        ("a.txt", "dog\ndog\n", "'dog' and 'dog' are one label"),
        ("a.txt", "\n", "holds no labels"),
        ("a.csv", "name\ndog\n", "expected a column `label` or `display_name`; it has name"),
        ("a.csv", None, "no such list of labels; expected a file, or one of esc50, "),
    ],
)
def test_lists_that_are_none(name, text, message, tmp_path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_label_list(tmp_path / name)
