"""Training sparse autoencoders on Whisper's encoder frames."""

from .store import FrameStore, build_store
from .trainer import TrainConfig, TrainReport, train

__all__ = ["FrameStore", "TrainConfig", "TrainReport", "build_store", "train"]
