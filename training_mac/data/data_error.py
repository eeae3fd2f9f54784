"""What a training meets in its data, and cannot go on with."""


class DataError(ValueError):
    """Told in a line, as what a user can mend; other errors in the middle of a training keep their traceback."""
