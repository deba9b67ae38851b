"""Calibration windows: clips, noisy copies of speech and synthetic sounds, encoded once and kept on disk."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..audio.clips import Clip
from ..audio.mixing import mix
from ..audio.reading import audio_seconds, load_audio
from ..audio.synthetic import generate
from ..audio.units import (
    SAMPLE_RATE,
    SAMPLES_PER_ENCODER_FRAME,
    WINDOW_FRAMES,
    WINDOW_SAMPLES,
    content_frames,
)
from ..errors import AudioError
from ..files import write_atomically
from ..models.taps import WindowEncoder

MAX_WINDOWS = 4
"""windows taken from one long recording"""
FOLDS = 4
"""parts of the recordings, each judged by what was fitted on the others"""
HELD_BACK = 0
"""the part that nothing is fitted on"""
SNRS = (20.0, 10.0, 5.0, 0.0)
WORD_SNRS = SNRS[:3]
"""of a word in noise, over the time it takes"""
GAINS = (0.0, 0.0, -20.0, -40.0)
"""dB applied to noisy copies of speech"""
SHORT_SECONDS = (0.4, 1.2)
"""length of the pieces that stand for one-word utterances"""
VAD_SAMPLES = 512
VAD_THRESHOLD = 0.6


class WindowRecipe(NamedTuple):
    """How one window's audio is made; a pure function of its clips."""

    key: str
    clip: Clip | None
    """None for synthetic sound"""
    start: int = 0
    """first sample of the window in the clip"""
    noise: Clip | None = None
    snr: float = 0.0
    gain: float = 0.0
    short: float = 0.0
    """seconds around the loudest moment that are kept; 0 for all"""
    at: int | None = None
    """first sample of the speech in a window full of noise; None: the noise is as long as the speech"""
    synthetic: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class CalibrationWindow:
    """An encoded window. ``frames()`` reads its activations from disk."""

    key: str
    clip: Clip | None
    is_speech: bool
    reference: str
    """transcript, where it covers just what the window holds"""
    fold: int
    """part that its recording belongs to, see FOLDS"""
    content: int
    """frames that cover audio"""
    speech: NDArray[np.bool_]
    """[1500] frames in which a voice activity detector hears the clean speech"""
    path: Path

    def frames(self) -> Tensor:
        """[1500, d] float32."""
        return torch.from_numpy(np.load(self.path)["frames"]).float()

    @property
    def held_back(self) -> bool:
        """Whether nothing that is shipped is fitted on it."""
        return self.fold == HELD_BACK

    @property
    def source(self) -> str:
        return self.clip.source if self.clip else "synthetic"

    @property
    def language(self) -> str | None:
        return (self.clip.language or None) if self.clip else None


def fold_of(group: str) -> int:
    """The part that a recording belongs to: by its name, so no clip is in two."""
    # not the hash that clips.select ranks by: it takes the lowest, which would all be in the first
    digest = hashlib.sha256(f"held back {group}".encode()).hexdigest()
    return int(FOLDS * int(digest[:8], 16) / 2**32)


def held_back(group: str) -> bool:
    """Whether nothing may be fitted on a recording."""
    return fold_of(group) == HELD_BACK


def plan(nonspeech: Sequence[Clip], speech: Sequence[Clip], synthetic: int, seed: int) -> list[WindowRecipe]:
    """Every window to encode: clips, a short piece and a noisy copy of each utterance, synthetic sounds.

    What is as short as such a piece is taken only as it is. Noise is mixed in from the same part (fitted or
    held back) as the speech.
    """
    rng, lengths = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    recipes = [
        WindowRecipe(f"{clip.key}@{start}", clip, start)
        for clip in [*nonspeech, *speech]
        for start in _starts(clip)
    ]
    for clip in speech:
        noise, snr, gain = _noise(rng, nonspeech, clip), float(rng.choice(SNRS)), float(rng.choice(GAINS))
        short = round(float(lengths.uniform(*SHORT_SECONDS)), 2)
        if clip.seconds is not None and clip.seconds <= SHORT_SECONDS[1]:
            continue
        if noise:
            key = f"{clip.key}+{noise.key}@{snr:g}dB{gain:+g}dB"
            recipes.append(WindowRecipe(key, clip, 0, noise, snr, gain))
        recipes.append(WindowRecipe(f"{clip.key}~{short}s", clip, short=short))
    for made in generate(synthetic, seed):
        recipes.append(WindowRecipe(f"synthetic/{made.name}", None, synthetic=made.audio))
    return recipes


def words_in_noise(nonspeech: Sequence[Clip], speech: Sequence[Clip], seed: int) -> list[WindowRecipe]:
    """A short piece of each speech clip somewhere in 30 s of noise."""
    rng = np.random.default_rng([seed, 2])
    recipes: list[WindowRecipe] = []
    for clip in speech:
        if noise := _noise(rng, nonspeech, clip):
            short, snr = round(float(rng.uniform(*SHORT_SECONDS)), 2), float(rng.choice(WORD_SNRS))
            at = int(rng.integers(WINDOW_SAMPLES - int(short * SAMPLE_RATE)))
            key = f"{clip.key}~{short}s@{at}+{noise.key}@{snr:g}dB"
            recipes.append(WindowRecipe(key, clip, noise=noise, snr=snr, short=short, at=at))
    return recipes


def _noise(rng: np.random.Generator, nonspeech: Sequence[Clip], clip: Clip) -> Clip | None:
    """Some noise of the same part as ``clip``, if there is any."""
    noises = [n for n in nonspeech if held_back(n.group) == held_back(clip.group)]
    return noises[int(rng.integers(len(noises)))] if noises else None


def encode(encoder: WindowEncoder, recipes: Sequence[WindowRecipe], folder: Path) -> list[CalibrationWindow]:
    """Encode what ``folder`` doesn't hold yet. Clips that can't be read are skipped with a line."""
    folder.mkdir(parents=True, exist_ok=True)
    vad = get_vad_model()
    with ThreadPoolExecutor(encoder.workers) as pool:
        encoded = pool.map(partial(_encoded, encoder, vad, folder), recipes)
        try:
            windows = list(tqdm(encoded, "encode", len(recipes), unit="window"))
        except BaseException:  # Ctrl-C waits for the windows at hand, not for all
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [window for window in windows if window is not None]


def _encoded(
    encoder: WindowEncoder, vad: object, folder: Path, recipe: WindowRecipe
) -> CalibrationWindow | None:
    """A window, encoded if ``folder`` doesn't hold it yet; None if its clip can't be read."""
    path = folder / f"{hashlib.sha256(recipe.key.encode()).hexdigest()[:24]}.npz"
    if not path.exists():
        try:
            audio, clean = _audio(recipe)
        except AudioError as error:
            tqdm.write(f"skipped: {error}")
            return None
        with write_atomically(path) as temporary:
            np.savez(
                temporary,
                frames=_stored(encoder([audio])[0]),
                content=max(1, content_frames(len(audio))),
                speech=speech_frames(vad, clean) if clean is not None else np.zeros(WINDOW_FRAMES, bool),
            )
    saved = np.load(path)
    clip = recipe.clip
    return CalibrationWindow(
        key=recipe.key,
        clip=clip,
        is_speech=clip is not None and clip.kind == "speech",
        reference=clip.text if clip and not recipe.short and saved["content"] < WINDOW_FRAMES else "",
        fold=fold_of(clip.group if clip else recipe.key),
        content=int(saved["content"]),
        speech=saved["speech"],
        path=path,
    )


def _stored(frames: Tensor) -> NDArray[np.float16] | NDArray[np.float32]:
    """In half the space, but where blocks of large models write more than float16 holds (65,504)."""
    half = frames.half()
    return (half if half.isfinite().all() else frames).numpy()


def _starts(clip: Clip) -> Iterator[int]:
    """First samples of a clip's windows; a last piece under a second is left out."""
    seconds = clip.seconds if clip.seconds is not None else audio_seconds(clip.path)
    count = max(1, min(MAX_WINDOWS, int((seconds + 29) // 30)))
    for index in range(count if clip.kind != "speech" else 1):
        yield index * WINDOW_SAMPLES


def _audio(recipe: WindowRecipe) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """A window's audio, and its clean speech if it has any."""
    if recipe.synthetic is not None or recipe.clip is None:
        assert recipe.synthetic is not None
        return recipe.synthetic[:WINDOW_SAMPLES], None
    audio = load_audio(recipe.clip.path)[recipe.start : recipe.start + WINDOW_SAMPLES]
    if not len(audio):
        raise AudioError(f"{recipe.clip.path} is shorter than its manifest says")
    if recipe.clip.kind != "speech":
        return audio, None
    if recipe.short:
        audio = loudest(audio, recipe.short)
    if recipe.noise is None:
        return audio, audio
    if recipe.at is not None:
        share = len(audio) / WINDOW_SAMPLES
        audio = np.pad(audio, (recipe.at, WINDOW_SAMPLES - recipe.at - len(audio)))
        return mix(audio, load_audio(recipe.noise.path), recipe.snr + 10 * np.log10(share)), audio
    return mix(audio, load_audio(recipe.noise.path), recipe.snr, recipe.gain), audio


def loudest(audio: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """The piece of ``audio`` of this length around its loudest tenth of a second."""
    tenth = SAMPLE_RATE // 10
    energy = np.convolve(audio.astype(np.float64) ** 2, np.ones(tenth), mode="same")
    length = int(seconds * SAMPLE_RATE)
    start = max(0, min(int(energy.argmax()) - length // 2, len(audio) - length))
    return audio[start : start + length]


def speech_frames(vad: object, clean: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Frames [1500] in which Silero (shipped with faster-whisper) hears speech."""
    padded = np.pad(clean, (0, -len(clean) % VAD_SAMPLES))
    probabilities = np.asarray(vad(padded)).reshape(-1)  # type: ignore[operator]
    centre = np.arange(WINDOW_FRAMES) * SAMPLES_PER_ENCODER_FRAME + SAMPLES_PER_ENCODER_FRAME // 2
    index = centre // VAD_SAMPLES
    inside = index < len(probabilities)
    speech = np.zeros(WINDOW_FRAMES, dtype=bool)
    speech[inside] = probabilities[index[inside]] > VAD_THRESHOLD
    return speech
