"""The report says what a reader must know: scores with their meanings, examples, and what was left out."""

from evaluation_mac.reports.evaluation import Evaluation
from evaluation_mac.reports.report import format_number, format_report


SETTINGS = {"task": "captioning", "dataset": "Sounds", "model": "mac"}


def test_examples_go_from_the_best_to_the_worst() -> None:
    clips = [
        {"audio": f"in/{n}.wav", "caption": f"a | {n}", "references": f"reference {n} | another", "cider_d": n / 10}
        for n in range(20)
    ]
    report = format_report(SETTINGS, Evaluation({"cider_d": 0.95}, {"cider_d": (0.5, 1.25)}, clips), {})
    table = [line for line in report.splitlines() if line.endswith(".wav` |")]
    assert len(table) == 6
    assert table[0] == "| 1.9 | a \\| 19 | reference 19 | `19.wav` |" and table[-1].startswith("| 0 | a \\| 0 |")
    assert "| cider_d | 0.95 | 0.5 to 1.25 | shared words weighted" in report and "20 recordings" in report


def test_a_reason_is_told_once_for_all_it_concerns() -> None:
    skipped = {"meteor": "METEOR needs java", "spice": "SPICE needs java", "spider": "SPICE needs java"}
    report = format_report(SETTINGS, Evaluation({}, {}, [], skipped, missed={"dog": 3, "rain": 1}), {})
    assert "Not measured: spice, spider. SPICE needs java." in report and "Most missed: dog (3), rain (1)." in report


def test_scores_without_a_meaning_have_no_empty_column() -> None:
    assert "| kept | 0.5 |  |\n" in format_report(SETTINGS, Evaluation({"kept": 0.5}, {}, []), {})


def test_numbers_are_those_that_can_be_told_apart() -> None:
    values = [2.049e-09, -1.7e-06, 0.4222222, 1.0, 35.0, 267.94, -0.17653, 0.00049]
    assert [format_number(value) for value in values] == ["0", "0", "0.4222", "1", "35", "267.9", "-0.1765", "0.0005"]
