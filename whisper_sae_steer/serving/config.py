"""Options of the server."""

import stat
from dataclasses import dataclass
from pathlib import Path
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
    """name or path of a Whisper model"""
    device: Device = "auto"
    """where CTranslate2 runs; auto: cuda if there is one"""
    compute_type: ComputeType = "default"
    """CTranslate2's; default: that of the files, as far as the device can"""
    pack: str = "auto"
    """steering pack: a path, hub:owner/name, auto (installed or shipped) or none"""
    steer_alpha: float = 1.0
    """strength for requests that don't give their own; 0 is the unsteered library"""
    aliases: tuple[str, ...] = ("whisper-1",)
    """further names that requests may call the model by"""
    workers: int = 1
    """requests transcribed at the same time"""
    cpu_threads: int = 0
    """CPU threads of each; 0: the library's choice"""
    max_queue: int = 32
    """requests that may wait for a worker; more are refused with 429"""
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
        for name in ("max_queue", "cpu_threads", "shutdown_timeout"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, as {getattr(self, name)} is")
        if self.cpu_threads > MOST_THREADS:
            raise ConfigError(f"cpu_threads must be at most {MOST_THREADS}, not {self.cpu_threads}")
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigError("an empty api_key would let nobody in; leave it out to let everybody in")
        if self.wyoming is not None:
            _check_wyoming(self.wyoming)


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
