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
        self.segments = Counter("whisper_segments", "Segments written", registry=registry)
        self.windows = Counter("whisper_windows", "Windows decoded with steering on", registry=registry)
        self.steered = Counter("whisper_windows_steered", "Those that were edited", registry=registry)
        self._queued = Gauge("whisper_queue_length", "Requests that wait for a worker", registry=registry)
        self._running = Gauge("whisper_running", "Requests that a worker is at", registry=registry)

    def show(self, queued: Callable[[], float], running: Callable[[], float]) -> None:
        """Where to read the gauges."""
        self._queued.set_function(queued)
        self._running.set_function(running)
