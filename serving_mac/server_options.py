"""What a server promises and where it says no."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerOptions:
    """
    Limits and habits of a server; `mac-serve --help` explains them in a user's words.

    Args:
        name: Id of the model, which clients send as `model`.
        language: Language of its captions, as clients send it in `language`.
        num_beams: Beams of the search; None for what the model ships with.
        max_batch: Most recordings in a batch.
        batch_wait_ms: Most milliseconds that the first recording of a batch waits for others.
        max_megabytes: Greatest size of a request in millions of bytes.
        max_seconds: Greatest length of a recording in seconds.
        max_requests: Most requests that are read, waiting or being answered at a time; what comes above is sent away.
        timeout_seconds: Most seconds from the head of a request to its answer.
        token: What a client must send as bearer token; None lets everyone in.
    """

    name: str
    language: str = "en"
    num_beams: int | None = None
    max_batch: int = 8
    batch_wait_ms: float = 20.0
    max_megabytes: float = 25.0
    max_seconds: float = 600.0
    max_requests: int = 64
    timeout_seconds: float = 60.0
    token: str | None = None
