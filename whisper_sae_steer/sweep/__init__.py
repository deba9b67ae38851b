"""Many settings of sparse autoencoders, trained side by side on the same frames and compared."""

from .config import SweepConfig
from .gate import GateFrames, gate_frames
from .results import Sweep, SweptSAE, SweptSetting
from .run import sweep

__all__ = ["GateFrames", "Sweep", "SweepConfig", "SweptSAE", "SweptSetting", "gate_frames", "sweep"]
