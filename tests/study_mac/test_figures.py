"""The pictures of a study: what their axes and legends say."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from study_mac import figures
from study_mac.study_file import Cell, Study


pytestmark = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that would be written."""
    kept: list = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure) or path)
    return kept


def study_of(**axes) -> Study:
    reference = Cell(tuple((axis, values[0]) for axis, values in axes.items()))
    named = {axis: {value: {} for value in values} for axis, values in axes.items()}
    return Study(Path("s.yaml"), {}, Path("s"), named, reference, (reference,), {}, {}, {})


def test_lines_are_named_only_where_there_are_several(drawn) -> None:
    rows = [{"size": size, "rank": rank, "hits": 0.5} for size in ("s", "l") for rank in ("8", "256")]
    figures.draw_lines(Path("a.png"), study_of(size=["s", "l"], rank=["8", "256"]), rows, "size", "rank", ["hits"])
    figures.draw_lines(Path("a.png"), study_of(size=["s", "l"]), rows[::2], "size", "rank", ["hits"])
    two, one = (figure.axes[0] for figure in drawn)
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["rank 8", "rank 256"]
    assert one.get_legend() is None


def test_token_counts_are_plain_numbers_and_panels_stand_in_two_columns(drawn) -> None:
    rows = [{"connector": name, "audio_tokens": n, "hits": 0.5} for name, n in (("concat", 64), ("stack", 8))]
    figures.draw_against_tokens(Path("a.png"), rows, "hits")
    assert [text.get_text() for text in drawn[0].axes[0].get_xticklabels()] == ["8", "64"]
    figure, panels = figures.new_figure(4)
    assert len(panels) == 4 and figure.get_figwidth() < 10
