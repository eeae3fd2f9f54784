"""Checks of what a user hands to the metrics: every complaint names the rows and what was expected."""

from collections.abc import Sequence


_NAMED = 10  # rows that a message lists before it only counts


def check_captions(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """
    Candidates and references as lists. Captions may be empty, and rows may differ in their number of references.

    Raises:
        ValueError: There is no row at all, unequal numbers of rows, a row without references, or
            something that is no text.
    """
    for name, captions in (("candidates", candidates), ("references", references)):
        if isinstance(captions, (str, bytes, dict)):
            raise ValueError(f"{name}: expected a list with one entry a clip, got {type(captions).__name__}")
    if len(candidates) != len(references):
        rows = range(min(len(candidates), len(references)), max(len(candidates), len(references)))
        raise ValueError(
            f"expected as many candidates as rows of references, got {len(candidates)} and {len(references)}; without "
            f"a counterpart: {_name(rows)}"
        )
    if not len(candidates):
        raise ValueError("expected at least one candidate, got none")
    refuse_rows("candidates: expected a text", [not isinstance(caption, str) for caption in candidates])
    refuse_rows(
        "references: expected a list of texts",
        [
            isinstance(row, str) or not hasattr(row, "__iter__") or any(not isinstance(text, str) for text in row)
            for row in references
        ],
    )
    refuse_rows("references: expected at least one", [len(row) == 0 for row in references])
    return list(candidates), [list(row) for row in references]


def refuse_rows(expected: str, wrong: list[bool]) -> None:
    """Raise a ValueError that lists the rows marked as wrong, if there are any."""
    rows = [row for row, is_wrong in enumerate(wrong) if is_wrong]
    if rows:
        raise ValueError(f"{expected}, which is not so in {_name(rows)}")


def _name(rows: Sequence[int]) -> str:
    """ "row 3", "rows 3, 5", "rows 0, 1, .. and 90 more"; the first row is row 0."""
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:_NAMED]))}{more}"
