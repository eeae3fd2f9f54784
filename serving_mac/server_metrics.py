"""What `/metrics` tells, in Prometheus's text format."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class ServerMetrics:
    """Counters of one server, in a registry of their own, so that several servers may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        known: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("mac_requests", "Requests for a caption by status.", ["status"], **known)
        self.seconds = Histogram("mac_request_seconds", "From head to answer.", buckets=SECONDS, **known)
        self.inside = Gauge("mac_requests_inside", "Requests that are read, waiting or being answered.", **known)
        self.audio = Counter("mac_audio_seconds", "Seconds of audio that were captioned.", **known)
        self.batch = Histogram("mac_batch_recordings", "Recordings in a batch.", buckets=(1, 2, 4, 8, 16, 32), **known)
        self.model = Counter("mac_model_seconds", "Seconds that the model worked.", **known)

    def count_batch(self, jobs: int, seconds: float) -> None:
        """Count a batch of so many jobs that took so many seconds."""
        self.batch.observe(jobs)
        self.model.inc(seconds)
