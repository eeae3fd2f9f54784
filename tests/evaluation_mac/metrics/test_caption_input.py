"""Captions that cannot be scored are refused with the rows named."""

import re

import numpy as np
import pytest

from evaluation_mac.metrics.caption_input import check_captions


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "expected at least one candidate, got none"),
        ("a dog", [["a dog"]], "candidates: expected a list with one entry a clip, got str"),
        (["a dog"], "a dog", "references: expected a list with one entry a clip, got str"),
        (["a", "b", "c"], [["a"]], "got 3 and 1; without a counterpart: rows 1, 2"),
        (["a"], [["a"], ["b"]], "got 1 and 2; without a counterpart: row 1"),
        (
            ["a", None, float("nan")],
            [["a"], ["b"], ["c"]],
            "candidates: expected a text, which is not so in rows 1, 2",
        ),
        (["a", "b"], [["a"], "b"], "references: expected a list of texts, which is not so in row 1"),
        (["a", "b"], [["a", None], ["b"]], "references: expected a list of texts, which is not so in row 0"),
        (["a", "b"], [None, ["b"]], "references: expected a list of texts, which is not so in row 0"),
        (["a", "b"], [["a"], []], "references: expected at least one, which is not so in row 1"),
        (["a"] * 13, [[]] * 13, "rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"),
    ],
)
def test_refused(candidates, references, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_captions(candidates, references)


def test_empty_captions_varying_references_and_arrays_pass():
    candidates, references = check_captions(np.array(["", "naïve"]), (("a",), np.array(["b", ""])))
    assert candidates == ["", "naïve"]
    assert references == [["a"], ["b", ""]]
