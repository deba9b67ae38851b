"""What Prometheus scrapes; a registry for each app, so that two in one process don't meet."""

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
RISKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


class ModelMetrics(NamedTuple):
    """The counters of one model, and those of the server that its sessions add to."""

    registry: CollectorRegistry
    risk: Histogram
    hangups: Counter
    audio: Counter
    processing: Counter
    segments: Counter
    windows: Counter
    steered: Counter

    def wrote(self, risk: float | None) -> None:
        """Count a segment, with its hallucination risk if it was steered."""
        self.segments.inc()
        if risk is not None:
            self.risk.observe(risk)


class Metrics:
    """The server's counters, all named ``whisper_…``."""

    def __init__(self):
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        labels = ("endpoint", "status")
        self.requests = Counter("whisper_requests", "Requests answered", labels, registry=registry)
        self.seconds = Histogram(
            *("whisper_request_seconds", "Time to the end of the answer", ("endpoint",)),
            buckets=SECONDS,
            registry=registry,
        )
        self.hangups = Counter("whisper_hangups", "Clients gone before their answer", registry=registry)
        self._counters = [
            Counter(name, text, ("model",), registry=registry)
            for name, text in (
                ("whisper_audio_seconds", "Audio transcribed"),
                ("whisper_processing_seconds", "Time of workers"),
                ("whisper_segments", "Segments written"),
                ("whisper_windows", "Windows decoded with steering on"),
                ("whisper_windows_steered", "Those that were edited"),
            )
        ]
        self._risk = Histogram(
            *("whisper_hallucination_risk", "Share of a steered segment that was made up, as far as known"),
            ("model",),
            buckets=RISKS,
            registry=registry,
        )
        self._gauges = [
            Gauge(name, text, ("model",), registry=registry)
            for name, text in (
                ("whisper_queue_length", "Requests that wait for a worker, or for their model"),
                ("whisper_running", "Requests that a worker is at"),
                ("whisper_model_loaded", "Whether the model is loaded"),
            )
        ]

    def of(self, model: str) -> ModelMetrics:
        """A model's own."""
        risk = self._risk.labels(model)
        return ModelMetrics(self.registry, risk, self.hangups, *(c.labels(model) for c in self._counters))

    def show(
        self, model: str, queued: Callable[[], int], running: Callable[[], int], loaded: Callable[[], bool]
    ) -> None:
        """Where to read the gauges of a model."""
        for gauge, read in zip(self._gauges, (queued, running, loaded), strict=True):
            gauge.labels(model).set_function(read)
