"""Mistakes in what was given are told in a line, as by the other commands; those in the code keep their traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def input_errors() -> Iterator[None]:
    """Around checks of recipe, data and folders before training, and pushes: prints why it cannot be, and exits 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        print(f"mac-train: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
