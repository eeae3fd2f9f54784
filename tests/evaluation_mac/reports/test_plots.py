"""The pictures show the evaluation's own numbers."""

import numpy as np
import pytest

from evaluation_mac.reports.evaluation import Evaluation
from evaluation_mac.reports.plots import draw_plots


figure_module = pytest.importorskip("matplotlib.figure")


@pytest.fixture
def figures(monkeypatch) -> list:
    """The figures that are saved."""
    saved = []
    save = figure_module.Figure.savefig
    monkeypatch.setattr(figure_module.Figure, "savefig", lambda self, path: (saved.append(self), save(self, path)))
    return saved


def test_draws_what_there_is(tmp_path, figures):
    evaluation = Evaluation(
        scores={"accuracy": 0.5, "map": 0.2, "length": 7.0},
        intervals={"accuracy": (0.4, 0.7), "map": (0.25, 0.3)},  # the second does not hold its score
        clips=[],
        labels=["dog", "rain"],
        confusion=[[3, 1], [0, 0]],
        ranks={"t2a": [1, 1, 4], "a2t": [2, 2]},
    )
    assert draw_plots(tmp_path, evaluation)
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("scores.png", "confusion.png", "ranks.png"))
    scores, confusion, ranks = figures
    assert scores.axes[0].lines[0].get_xdata().tolist() == [0.5, 0.2]
    bars = [segment[:, 0].tolist() for segment in scores.axes[0].collections[0].get_segments()]
    assert bars == [[0.4, 0.7], [0.25, 0.3]]
    np.testing.assert_allclose(confusion.axes[0].images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [sum(bar.get_height() for bar in axes.patches) for axes in ranks.axes] == [3, 2]


def test_a_score_of_another_scale_has_its_own_axis(tmp_path, figures):
    scores = {"bleu_4": 0.2, "cider_d": 1.5, "rouge_l": 0.4, "t2a_median_rank": 3.0}
    draw_plots(tmp_path, Evaluation(scores, {name: (value / 2, value) for name, value in scores.items()}, []))
    fractions, others = figures[0].axes
    assert [label.get_text() for label in fractions.get_yticklabels()] == ["bleu_4", "rouge_l"]
    assert [label.get_text() for label in others.get_yticklabels()] == ["cider_d"]
    assert fractions.get_xlim()[1] < 1.1 and "of 0 to 10" in others.get_xlabel()


def test_captions_have_scores_only(tmp_path):
    assert draw_plots(tmp_path, Evaluation({"bleu_1": 0.5}, {"bleu_1": (0.4, 0.6)}, []))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.png"]
