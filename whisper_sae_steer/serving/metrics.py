"""What Prometheus scrapes; a registry for each app, so that two in one process don't meet."""

from collections.abc import Callable

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
        self.audio = Counter("whisper_audio_seconds", "Audio transcribed", registry=registry)
        self.processing = Counter("whisper_processing_seconds", "Time of workers", registry=registry)
        self.segments = Counter("whisper_segments", "Segments written", registry=registry)
        self.risk = Histogram(
            *("whisper_hallucination_risk", "Share of a steered segment that was made up, as far as known"),
            buckets=RISKS,
            registry=registry,
        )
        self.windows = Counter("whisper_windows", "Windows decoded with steering on", registry=registry)
        self.steered = Counter("whisper_windows_steered", "Those that were edited", registry=registry)
        self._queued = Gauge("whisper_queue_length", "Requests that wait for a worker", registry=registry)
        self._running = Gauge("whisper_running", "Requests that a worker is at", registry=registry)

    def wrote(self, risk: float | None) -> None:
        """Count a segment, with its hallucination risk if it was steered."""
        self.segments.inc()
        if risk is not None:
            self.risk.observe(risk)

    def show(self, queued: Callable[[], float], running: Callable[[], float]) -> None:
        """Where to read the gauges."""
        self._queued.set_function(queued)
        self._running.set_function(running)
