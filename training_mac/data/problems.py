"""What is wrong with data, as the first of many problems and their number."""

from collections.abc import Iterable


SHOWN = 20  # problems, which fit on a screen


class Problems(list[str]):
    """
    A list of problems that keeps only the first `SHOWN`, for a table may have a million rows that are all wrong.

    Attributes:
        total: Number of problems, those that were not kept included.
    """

    def __init__(self, problems: Iterable[str] = ()):
        super().__init__()
        self.total = 0
        self.extend(problems)

    def append(self, problem: str) -> None:
        """Count a problem, and keep it if it is one of the first `SHOWN`."""
        self.total += 1
        if len(self) < SHOWN:
            super().append(problem)

    def extend(self, problems: Iterable[str]) -> None:
        """Count several problems; of another list of problems, those that it did not keep count, too."""
        for problem in problems:
            self.append(problem)
        if isinstance(problems, Problems):
            self.total += problems.total - len(problems)

    def __setitem__(self, place: slice, problems: Iterable[str]) -> None:  # type: ignore[override]
        """Replace all problems: what is wrong with a whole table takes the place of what is wrong with its rows."""
        assert place == slice(None)
        self.clear()
        self.total = 0
        self.extend(problems)

    def __str__(self) -> str:
        more = [f"and {self.total - len(self)} more, {self.total} in all."] if self.total > len(self) else []
        return "\n".join([*self, *more])
