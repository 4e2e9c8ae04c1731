"""Figures of the server for Prometheus."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server, in a registry of their own, so that a process may hold several."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """`waiting` returns how many calls of the network wait."""
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry, "namespace": "tfdetect"}
        self.requests = Counter("requests", "Answered requests.", ["path", "model", "status"], **own)
        self.seconds = Histogram("request_seconds", "Time to answer.", ["path", "model"], buckets=SECONDS, **own)
        self.rows = Histogram("batch_rows", "Images or clips in a call of the network.", ["model"], buckets=ROWS, **own)
        self.waited = Histogram("batch_wait_seconds", "Time that the first request of a call of the network waited.", ["model"],
                                buckets=SECONDS, **own)  # fmt: skip
        self.loads = Counter("loads", "Versions of models that were loaded, or could not be.", ["model", "result"], **own)
        self.version = Gauge("model_version", "The newest version that is served.", ["model"], **own)
        Gauge("queue_length", "Calls of the network that wait.", **own).set_function(waiting)
        ProcessCollector(registry=self.registry)

    def batch(self, model: str, rows: int, waited: float) -> None:
        """Note a call of a network."""
        self.rows.labels(model).observe(rows)
        self.waited.labels(model).observe(waited)
