"""What an exported model writes in the runtime it is for, beside the unsteered and the hooked one."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import faster_whisper
import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from tqdm import tqdm
from whisper import Whisper

from .. import faster, openai
from ..attach import attach
from ..audio.clips import Clip
from ..audio.reading import load_audio
from ..audio.synthetic import generate
from ..audio.units import SAMPLE_RATE
from ..models.convert import load_torch
from ..models.taps import empty_mel
from ..models.weights import Weights
from ..reports import metrics
from ..reports.metrics import WordErrors
from .recordings import recording
from .writers import CHECKPOINT, Format, to_transformers

Audio = NDArray[np.float32]
Transcribe = Callable[[Audio, str | None], str]
"""audio and language, None to detect it, to text"""
CheckExtent = Literal["full", "quick", "none"]
SYNTHETIC_SOUNDS = 24
"""in what is checked with when no recordings are given"""
QUICK_CLIPS = 4
"""of each kind, at most, in a quick check"""
TIMED_RUNS = 5
"""of each encoder"""


class CheckClip(NamedTuple):
    """A piece of audio to check with."""

    audio: Audio
    language: str | None
    reference: str | None
    """what is said; None if nothing is"""


class ModelFigures(NamedTuple):
    """What one model wrote."""

    texts: int
    """sounds without speech that got text (FPR_text)"""
    errors: WordErrors
    """of the speech"""


class Check(NamedTuple):
    """The three models on the same audio."""

    sounds: int
    utterances: int
    unsteered: ModelFigures
    hooked: ModelFigures
    exported: ModelFigures

    @property
    def passed(self) -> bool:
        """Whether the exported model is within 1 pp of FPR_text and 0.1 pp of WER of the hooked one."""
        texts = self.exported.texts - self.hooked.texts
        errors = self.exported.errors.errors - self.hooked.errors.errors
        return texts <= 0.01 * self.sounds and errors <= 0.001 * self.hooked.errors.words


def packaged_clips(count: int = SYNTHETIC_SOUNDS) -> list[CheckClip]:
    """Audio that comes with the package: ``count`` synthetic sounds, and one sentence."""
    sentence = recording("speech")
    sounds = [CheckClip(made.audio, None, None) for made in generate(count, 0)]
    return [*sounds, CheckClip(sentence.audio, "en", sentence.text)]


def clips_to_check(clips: Sequence[Clip]) -> list[CheckClip]:
    """Audio of clips; AudioError if one can't be read."""
    return [
        CheckClip(load_audio(clip.path), clip.language or None, clip.text if clip.kind == "speech" else None)
        for clip in clips
    ]


def check(
    weights: Weights, pack: Path, alpha: float, folder: Path, form: Format, compute_type: str,
    sounds: Sequence[CheckClip],
) -> Check:  # fmt: skip
    """Transcribe sounds in the runtime of ``form``: unsteered, hooked at α, and as exported to ``folder``.

    ``compute_type`` is CTranslate2's, for form ct2.
    """
    unsteered, hooked, exported = _RUNTIMES[form](weights, pack, alpha, folder, compute_type)
    figures = [
        _figures(transcribe, sounds, name)
        for name, transcribe in (("unsteered", unsteered), ("hooked", hooked), ("exported", exported))
    ]
    utterances = sum(sound.reference is not None for sound in sounds)
    return Check(len(sounds) - utterances, utterances, *figures)


def _figures(transcribe: Transcribe, sounds: Sequence[CheckClip], name: str) -> ModelFigures:
    texts, errors = 0, [WordErrors(0, 0, 0, 0)]
    for sound in tqdm(sounds, desc=f"check, {name}", unit="clip"):
        text = transcribe(sound.audio, sound.language)
        if sound.reference is None:
            texts += metrics.has_text(text)
        elif (found := metrics.word_errors(sound.reference, text, sound.language or "en")) is not None:
            errors.append(found)
    return ModelFigures(texts, metrics.total(errors))


Three = tuple[Transcribe, Transcribe, Transcribe]


def _three(text: Callable[..., str], ours: Any, plain: Any, alpha: float) -> Three:
    """``text`` of a model of ours, unsteered and steered, and of a plain one."""
    return (
        lambda audio, language: text(ours, audio, language, steer_alpha=0.0),
        lambda audio, language: text(ours, audio, language, steer_alpha=alpha),
        lambda audio, language: text(plain, audio, language),
    )


def _in_faster(weights: Weights, pack: Path, alpha: float, folder: Path, compute_type: str) -> Three:
    ours = faster.WhisperModel(str(weights.ct2_dir), compute_type=compute_type, pack=pack)
    plain = faster_whisper.WhisperModel(str(folder), compute_type=compute_type)

    def text(model: Any, audio: Audio, language: str | None, **options: Any) -> str:
        return "".join(segment.text for segment in model.transcribe(audio, language=language, **options)[0])

    return _three(text, ours, plain, alpha)


def _in_openai(weights: Weights, pack: Path, alpha: float, folder: Path, compute_type: str) -> Three:
    del compute_type
    ours = openai.load_model(str(weights.ct2_dir), pack=pack)
    plain = whisper.load_model(str(folder / CHECKPOINT))
    fp16 = plain.device.type == "cuda"

    def text(model: Any, audio: Audio, language: str | None, **options: Any) -> str:
        return model.transcribe(audio, language=language, fp16=fp16, **options)["text"]

    return _three(text, ours, plain, alpha)


def _in_transformers(weights: Weights, pack: Path, alpha: float, folder: Path, compute_type: str) -> Three:
    from transformers import pipeline

    del compute_type
    exported = pipeline("automatic-speech-recognition", str(folder))
    model = to_transformers(load_torch(weights))
    parts: dict[str, Any] = {"tokenizer": exported.tokenizer, "feature_extractor": exported.feature_extractor}
    ours = pipeline("automatic-speech-recognition", model, **parts)

    def text(model: Any, audio: Audio, language: str | None) -> str:
        english = not model.model.generation_config.is_multilingual
        options = {} if english else {"language": language, "task": "transcribe"}
        raw = {"raw": audio, "sampling_rate": SAMPLE_RATE}
        return model(raw, return_timestamps=True, generate_kwargs=options)["text"]

    handle = attach(model, pack, 0.0)

    def hooked(audio: Audio, language: str | None) -> str:
        handle.alpha = alpha
        try:
            return text(ours, audio, language)
        finally:
            handle.alpha = 0.0

    return (
        lambda audio, language: text(ours, audio, language),
        hooked,
        lambda audio, language: text(exported, audio, language),
    )


_RUNTIMES: dict[Format, Callable[[Weights, Path, float, Path, str], Three]] = {
    "ct2": _in_faster,
    "openai": _in_openai,
    "hf": _in_transformers,
}


@torch.no_grad()
def encoder_time(model: Whisper, of: Whisper) -> float:
    """Time of ``model``'s encoder over that ``of`` another: medians, a window each, in turn."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for run in tqdm(range(2 * TIMED_RUNS), desc="time the encoder", unit="window"):
        which = (model, of)[run % 2]
        mel = torch.from_numpy(empty_mel(which.dims.n_mels)).to(which.device)
        started = time.perf_counter()
        which.embed_audio(mel).sum().item()
        times[run % 2].append(time.perf_counter() - started)
    return float(np.median(times[0]) / np.median(times[1]))
