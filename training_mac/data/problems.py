"""What is wrong with data: the first of many problems, and how many there are."""

from collections.abc import Iterable


SHOWN = 20


class Problems(list[str]):
    """
    A list of which only the first `SHOWN` entries are kept, for a table may have a million rows that are all wrong.

    Attributes:
        total: How many there were.
    """

    def __init__(self, problems: Iterable[str] = ()):
        super().__init__()
        self.total = 0
        self.extend(problems)

    def append(self, problem: str) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.total += 1
        if len(self) < SHOWN:
            super().append(problem)

    def extend(self, problems: Iterable[str]) -> None:
        """Count several; those of another list count whether they were kept there or not."""
        for problem in problems:
            self.append(problem)
        if isinstance(problems, Problems):
            self.total += problems.total - len(problems)

    def __setitem__(self, place: slice, problems: Iterable[str]) -> None:  # type: ignore[override]
        """Replace all of them: what is wrong with a whole table takes the place of what is wrong with its rows."""
        assert place == slice(None)
        self.clear()
        self.total = 0
        self.extend(problems)

    def __str__(self) -> str:
        more = [f"and {self.total - len(self)} more, {self.total} in all."] if self.total > len(self) else []
        return "\n".join([*self, *more])
