"""Calibration: recordings with and without speech in, a steering pack and its report out."""

from .calibration import CalibrationResult, calibrate
from .config import CalibrationConfig
from .measure import CalibrationReport

__all__ = ["CalibrationConfig", "CalibrationReport", "CalibrationResult", "calibrate"]
