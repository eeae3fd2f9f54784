"""The error of a training that meets something in its data with which it cannot go on."""


class DataError(ValueError):
    """Printed as one line, since a user can mend it; other errors in a training keep their traceback."""
