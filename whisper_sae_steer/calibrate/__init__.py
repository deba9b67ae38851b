"""Calibration: recordings with and without speech in, a steering pack and its report out."""

from .calibration import CalibrationConfig, CalibrationReport, CalibrationResult, calibrate

__all__ = ["CalibrationConfig", "CalibrationReport", "CalibrationResult", "calibrate"]
