"""The options of a calibration."""

from dataclasses import dataclass

from ..errors import CalibrationError
from ..kernels import GateKind
from ..steering.metadata import Strategy
from .directions import Selection, check_choice


@dataclass(frozen=True)
class CalibrationConfig:
    """Options of :func:`.calibration.calibrate`; CalibrationError for those that can't go together."""

    strategy: Strategy = "direction"
    """what the edit is: one constant vector, or what single features give"""
    selection: Selection = "attribution"
    """how features are chosen; gradient and contrast are dense baselines"""
    gate: GateKind = "window"
    """what decides on the edit: a window's highest speech score, each frame's, or nothing"""
    synthetic: int = 60
    """synthetic sounds added to the recordings without speech"""
    seed: int = 0
    """of all random choices"""

    def __post_init__(self) -> None:
        check_choice(self.strategy, self.selection)
        for name in ("synthetic", "seed"):
            if getattr(self, name) < 0:
                raise CalibrationError(f"{name} must be 0 or more, not {getattr(self, name)}")
