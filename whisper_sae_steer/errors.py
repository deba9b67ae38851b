"""Every error this package raises on purpose: one line that says what to do."""


class SteerError(Exception):
    """Base of all errors below; the command line prints its message and exits with 2."""


class AudioError(SteerError, ValueError):
    """Audio that is missing, empty, undecodable, not finite, far too loud or of the wrong shape or dtype."""


class AudioWarning(UserWarning):
    """Audio of which parts could not be decoded; the rest is read."""


class WeightsError(SteerError, RuntimeError):
    """Whisper weights that can't be found, read or trusted."""


class PackError(SteerError, ValueError):
    """A steering pack that is damaged, or made for other weights, another tap or width."""


class SAEFormatError(SteerError, ValueError):
    """A sparse autoencoder on disk that can't be read safely or exactly."""


class HubError(PackError, SAEFormatError):
    """A pack or SAE on the Hugging Face hub that can't be had from there, or not be put there."""


class CalibrationError(SteerError, RuntimeError):
    """Audio too little or too uniform to calibrate on."""


class ManifestError(SteerError, ValueError):
    """A manifest or folder of clips that can't be used."""


class DownloadError(SteerError, RuntimeError):
    """Recordings that can't be fetched from where they are published."""


class ConfigError(SteerError, ValueError):
    """Options that contradict each other, or have values that nothing can be done with."""


class MissingExtraError(SteerError, ImportError):
    """A package that only some of this one's commands need, and that isn't installed."""


class StreamError(SteerError, ValueError):
    """A live session that is set up wrongly, or fed after its end."""


class ExportError(SteerError, ValueError):
    """A model that can't be exported, or not to there."""


class AnalysisError(SteerError, ValueError):
    """Activations, labels or recordings that an analysis can't be made of."""


class AttachError(SteerError, TypeError):
    """A model that can't be attached to."""


class DiskFullError(SteerError, OSError):
    """A folder on a disk without room for what is to be written; made of errno, its words and the folder."""

    def __str__(self) -> str:
        return f"no room in {self.filename} ({self.strerror}); make some, and the same command goes on"


class AlphaError(SteerError, ValueError):
    """A steering strength that is no number, below 0 or far beyond any use."""


class RiskError(SteerError, ValueError):
    """A threshold for the risk of words that can't be applied."""
