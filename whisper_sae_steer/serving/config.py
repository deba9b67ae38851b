"""Options of the server."""

import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ..commands.fields import check_choices
from ..commands.values import MOST_THREADS, ComputeType, Device
from ..errors import ConfigError

MAX_PORT = 65_535


@dataclass(frozen=True)
class ServeConfig:
    """Options of :func:`.app.create_app`. Raises ConfigError or AlphaError for values it can't serve with."""

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 for every network"""
    port: int = 8000
    """TCP port; 0: any that is free"""
    wyoming: str | None = None
    """where Home Assistant finds the server, tcp://HOST:PORT or unix:///PATH; that protocol has no keys, so
    whoever reaches the address may use it"""
    model: str = "base"
    """name or path of a Whisper model, for requests that name none"""
    further_models: tuple[str, ...] = ()
    """names or paths of others, each loaded at the first request that names it"""
    idle_unload: float = 300.0
    """seconds without work after which a further model is unloaded; 0: never"""
    device: Device = "auto"
    """where CTranslate2 runs; auto: cuda if there is one"""
    device_index: tuple[int, ...] = (0,)
    """GPUs, by number; of several, each gets a copy of the model"""
    compute_type: ComputeType = "default"
    """CTranslate2's; default: that of the files, as far as the device can"""
    pack: str = "auto"
    """steering pack: a path, hub:owner/name, auto (installed or shipped) or none"""
    steer_alpha: float = 1.0
    """strength for requests that don't give their own; 0 is the unsteered library"""
    aliases: tuple[str, ...] = ("whisper-1",)
    """further names that requests may call the (first) model by"""
    workers: int = 1
    """requests transcribed at the same time, by each model on each device"""
    cpu_threads: int = 0
    """CPU threads of each; 0: the library's choice"""
    max_queue: int = 32
    """requests that may wait for a worker, each model's an equal share; more are refused with 429"""
    max_uploads: int = 64
    """uploads received at the same time; more are refused with 429"""
    max_upload_bytes: int = 25 * 2**20
    """largest audio file; larger ones are refused with 413"""
    max_audio_seconds: float = 3600.0
    """longest audio; longer is refused with 413"""
    upload_timeout: float = 60.0
    """seconds an upload may take, 408 after that"""
    decode_timeout: float = 60.0
    """seconds a file may take to decode, 413 after that"""
    shutdown_timeout: int = 30
    """seconds that running requests may take to finish after SIGTERM"""
    api_key: str | None = None
    """what clients must send as bearer token; better in the environment as WHISPER_SAE_STEER_API_KEY"""

    def __post_init__(self):
        from ..steering.operator import check_alpha  # brings torch: not for --help

        check_choices(self)
        if not 0 <= self.port <= MAX_PORT:
            raise ConfigError(f"port must be from 0 to {MAX_PORT}, not {self.port}")
        for name in ("workers", "max_uploads", "max_upload_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("max_audio_seconds", "upload_timeout", "decode_timeout"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        check_alpha(self.steer_alpha)
        for name in ("max_queue", "cpu_threads", "shutdown_timeout", "idle_unload"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, as {getattr(self, name)} is")
        if not self.device_index or min(self.device_index) < 0:
            raise ConfigError(f"device_index must be numbers of 0 and more, not {self.device_index}")
        if self.further_models and self.pack not in ("auto", "none"):
            raise ConfigError(f"pack {self.pack} is for one model; several are served with auto or none")
        if self.cpu_threads > MOST_THREADS:
            raise ConfigError(f"cpu_threads must be at most {MOST_THREADS}, not {self.cpu_threads}")
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigError("an empty api_key would let nobody in; leave it out to let everybody in")
        if self.wyoming is not None:
            _check_wyoming(self.wyoming)

    @property
    def workers_of_a_model(self) -> int:
        """On all devices together."""
        return self.workers * len(self.device_index)

    @property
    def jobs_of_a_model(self) -> int:
        """That run or wait at most, if the queue is its alone."""
        return self.workers_of_a_model + self.max_queue


@dataclass(frozen=True)
class ReplicaConfig:
    """Where the server runs. Raises ConfigError for options that contradict each other."""

    engine: Literal["local", "ray"] = "local"
    """this process alone, or replicas of the server on a Ray cluster behind it"""
    replicas: int = 1
    """of the server, with --engine ray"""
    max_replicas: int | None = None
    """as many of them under load; no more than --replicas when left out"""
    address: str | None = None
    """of a running Ray cluster; one is started on this machine when left out"""
    gpus: float = 0.0
    """GPUs that Ray reserves for a replica; 0.5: two share one"""

    def __post_init__(self):
        check_choices(self)
        given = (self.replicas, self.max_replicas, self.address, self.gpus)
        if self.engine == "local" and given != (1, None, None, 0):
            raise ConfigError("--replicas, --max_replicas, --address and --gpus are for --engine ray")
        if self.replicas < 1:
            raise ConfigError(f"replicas must be at least 1, not {self.replicas}")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ConfigError(f"max_replicas must be at least {self.replicas}, as replicas is")
        if not 0 <= self.gpus < math.inf:
            raise ConfigError(f"gpus must be a number of 0 or more, not {self.gpus}")


def _check_wyoming(address: str) -> None:
    """ConfigError for what is no address, and for files that a socket would take the place of."""
    parts = urlsplit(address)
    if parts.scheme == "unix" and not parts.netloc and parts.path:
        path = Path(parts.path)
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise ConfigError(f"wyoming: {path} exists, and is no socket")
        return
    try:
        is_tcp = parts.scheme == "tcp" and parts.hostname and parts.port is not None
    except ValueError:  # of a port beyond 65535
        is_tcp = False
    if not is_tcp:
        raise ConfigError(f"wyoming must be tcp://HOST:PORT or unix:///PATH, not {address!r}")
