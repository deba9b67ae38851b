"""Steer Whisper's encoder output so that it writes no text for audio without speech."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attach import attach
    from .models.weights import available_models
    from .openai import load_model
    from .sae.autoencoder import SAE
    from .sae.formats import load_sae
    from .sae.pretrained import from_pretrained
    from .steering.pack import SteeringPack, load_pack
    from .streaming import StreamingTranscriber

    __version__: str

__all__ = [
    "SAE",
    "SteeringPack",
    "StreamingTranscriber",
    "attach",
    "available_models",
    "from_pretrained",
    "load_model",
    "load_pack",
    "load_sae",
]

_MODULES = {
    "SAE": "sae.autoencoder",
    "SteeringPack": "steering.pack",
    "StreamingTranscriber": "streaming",
    "attach": "attach",
    "available_models": "models.weights",
    "from_pretrained": "sae.pretrained",
    "load_model": "openai",
    "load_pack": "steering.pack",
    "load_sae": "sae.formats",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and not every use needs it."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("whisper-sae-steer")
    elif name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, "__version__"})


class _Package(ModuleType):
    """A package whose public names are never hidden by modules of the same name (``attach``)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
