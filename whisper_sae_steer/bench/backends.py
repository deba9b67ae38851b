"""What the bench asks of a model, and how faster-whisper and openai-whisper answer."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import whisper
from faster_whisper.audio import pad_or_trim
from numpy.typing import NDArray
from whisper.audio import N_FRAMES, N_SAMPLES

from ..models.cache import file_sha256
from ..models.greedy import RawWindow, decode_windows
from ..reports.segments import segment_dict

SEGMENT_FIELDS = (
    "start",
    "end",
    "text",
    "avg_logprob",
    "no_speech_prob",
    "temperature",
    "compression_ratio",
    "speech_prob",
    "hallucination_risk",
)


class Transcript(NamedTuple):
    """What `transcribe` gave: the whole text, and a dict of SEGMENT_FIELDS for each segment."""

    text: str
    segments: list[dict[str, Any]]


class Backend(Protocol):
    """A model to measure, and the words that name it in the rows."""

    name: str
    model_name: str
    compute_type: str
    pack: str | None
    """Names the steering pack and its content; None for a model that runs at α = 0 only."""

    def transcribe(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> Transcript:
        """Transcribe 16 kHz audio with the library's default settings."""
        ...

    def first_window(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> RawWindow:
        """Decode the first 30 s greedily, thresholds off."""
        ...


class FasterBackend:
    """A `faster_whisper.WhisperModel`, ours or the plain one (then at α = 0 only)."""

    name = "faster"

    def __init__(self, model: Any, model_name: str, compute_type: str) -> None:
        self.model = model
        self.model_name = model_name
        self.compute_type = compute_type
        self.pack = _pack(model)

    def transcribe(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> Transcript:
        options = _steering(self.pack, alpha)
        segments, _ = self.model.transcribe(audio, language=language, **options)
        dicts = [_segment(segment_dict(segment, i)) for i, segment in enumerate(segments)]
        return Transcript("".join(segment["text"] for segment in dicts), dicts)

    def first_window(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> RawWindow:
        model = self.model
        frames = model.feature_extractor.nb_max_frames
        # the extractor appends a frame of padding, which transcribe() leaves out too
        features = model.feature_extractor(audio)[:, :-1][:, :frames]
        steering: AbstractContextManager[Any] = nullcontext()
        if _steering(self.pack, alpha):
            steering = model.steering(alpha)
        with steering:
            encoded = model.encode(pad_or_trim(features, frames))
        return decode_windows(model, encoded, [language])[0]


class OpenAIBackend:
    """A `whisper.Whisper`, ours or the plain one (then at α = 0 only).

    Fallback temperatures sample, each transcript from the same seed: the same frames give the same text.
    """

    name = "openai"

    def __init__(self, model: Any, model_name: str) -> None:
        self.model = model
        self.model_name = model_name
        self.fp16 = model.device.type == "cuda"
        self.compute_type = "float16" if self.fp16 else "float32"
        self.pack = _pack(model)

    def transcribe(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> Transcript:
        options = _steering(self.pack, alpha)
        torch.manual_seed(0)
        result = self.model.transcribe(audio, language=language, fp16=self.fp16, **options)
        return Transcript(result["text"], [_segment(segment) for segment in result["segments"]])

    def first_window(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> RawWindow:
        model = self.model
        # as transcribe() does: the mel is padded with zeros, not the audio with silence
        mel: Any = whisper.log_mel_spectrogram(audio, model.dims.n_mels, padding=N_SAMPLES)
        frames = min(N_FRAMES, mel.shape[-1] - N_FRAMES)
        window: Any = whisper.pad_or_trim(mel[:, :frames], N_FRAMES)
        options = whisper.DecodingOptions(
            temperature=0.0,
            language=language if model.is_multilingual else "en",
            fp16=self.fp16,
        )
        window = window.to(model.device, torch.float16 if self.fp16 else torch.float32)
        steering: AbstractContextManager[Any] = nullcontext()
        if _steering(self.pack, alpha):
            steering = model.steering(alpha)
        with torch.no_grad(), steering:  # encoded apart: of features the decoder's own figures are reported
            features = model.embed_audio(window[None])[0]
        result = model.decode(features, options)
        return RawWindow(
            text=result.text.strip(),
            no_speech_prob=round(result.no_speech_prob, 6),
            avg_logprob=round(result.avg_logprob, 6),
        )


def _pack(model: Any) -> str | None:
    steerer = getattr(model, "steerer", None)
    if steerer is None:
        return None
    path = steerer.pack.path
    return "in memory" if path is None else f"{path.stem} {file_sha256(path)[:12]}"


def _steering(pack: str | None, alpha: float) -> dict[str, float]:
    """The option of our models; plain ones, which know no α, get none."""
    return {} if pack is None else {"steer_alpha": alpha}


def _segment(fields: dict[str, Any]) -> dict[str, Any]:
    values = {name: fields.get(name) for name in SEGMENT_FIELDS}
    return {
        name: value if value is None or isinstance(value, str) else round(float(value), 6)
        for name, value in values.items()
    }
