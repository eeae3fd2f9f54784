"""Mistakes in what was given are told in a line, as by the other commands; those in the code keep their traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from training_mac.data.data_error import DataError


@contextmanager
def input_errors() -> Iterator[None]:
    """Around checks of recipe, data and folders before training, and pushes: prints why it cannot be, and exits 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        tell(error)
        raise SystemExit(2) from error


@contextmanager
def training_errors() -> Iterator[None]:
    """
    Around the training itself: a disk that is full, recordings that cannot be read and steps without a finite gradient
    end it in a line and exit 1; other errors are the code's.
    """
    try:
        yield
    except (OSError, DataError, FloatingPointError) as error:
        tell(error)
        raise SystemExit(1) from error


def tell(error: Exception) -> None:
    """Print an error; of one in a worker of the data loader, what it said without the worker's traceback."""
    message = str(error).rsplit(f"{type(error).__name__}: ", 1)[-1].strip()
    print(f"mac-train: {message}", file=sys.stderr, flush=True)
