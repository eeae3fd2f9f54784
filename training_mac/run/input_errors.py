"""Prints mistakes in a user's input as one line, as the other commands do; errors of the code keep their traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from training_mac.data.data_error import DataError


@contextmanager
def input_errors() -> Iterator[None]:
    """Wrap checks of recipe, data and folders before training, and pushes: print why one fails, and exit with 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        tell(error)
        raise SystemExit(2) from error


@contextmanager
def training_errors() -> Iterator[None]:
    """
    Wrap the training itself: a disk that is full, recordings that cannot be read and steps without a finite gradient
    end it with one line and exit status 1, Ctrl-C with one and 130; any other error is a fault of the code.
    """
    try:
        yield
    except (OSError, DataError, FloatingPointError) as error:
        tell(error)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        tell("stopped. The same command goes on from the last checkpoint, if there is one.")
        raise SystemExit(130) from None


def tell(error: Exception | str) -> None:
    """Print a sentence or an error; of one in a worker of the data loader, only the message without the traceback."""
    message = str(error).rsplit(f"{type(error).__name__}: ", 1)[-1].strip()
    print(f"mac-train: {message}", file=sys.stderr, flush=True)
