"""Fills activation stores: recordings → frames and log-mel, frames → SAE features. Resumable part by part."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix, vstack
from tqdm import tqdm

from ...audio.clips import Clip
from ...audio.reading import load_audio
from ...audio.units import MEL_FRAMES_PER_ENCODER_FRAME, SAMPLE_RATE, WINDOW_SAMPLES
from ...errors import AnalysisError, AudioError
from ...files import write_atomically, write_text
from ...sae.autoencoder import SAE, calibrate_threshold
from ...sae.formats import save_sae
from ...training.encoders import FrameEncoder
from ...training.stream import DOMAINS
from .activations import FEATURES, INDEX, MATRIX, PARTS, ActivationStore, FramesFile, Window

CLIPS_A_PART = 32
ENCODED_AT_ONCE = 4096
THRESHOLD_FRAMES = 20_000
"""frames that an SAE without a threshold gets one from, spread over all"""


def build_store(encoder: FrameEncoder, clips: Sequence[Clip], out: str | Path) -> ActivationStore:
    """Encode recordings at the encoder's taps. Called again, it goes on where it stopped.

    Long recordings are cut every 30 s. Files that can't be read are skipped with a line. AnalysisError if
    none is left, if activations don't fit float16, or if ``out`` holds those of other audio, weights or taps.
    """
    out, key = Path(out), _key(encoder, clips)
    if (out / INDEX).exists():
        store = ActivationStore.open(out)
        if store.key != key:
            raise AnalysisError(f"{out} holds activations of other audio, weights or taps; choose another")
        return store
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    parts: list[FramesFile] = []
    windows: list[Window] = []
    with tqdm(total=len(clips), desc="encode", unit="file") as progress:
        for number in range(-(-len(clips) // CLIPS_A_PART)):
            group = clips[number * CLIPS_A_PART : (number + 1) * CLIPS_A_PART]
            path = out / PARTS / f"{key[:8]}-{number:05d}.safetensors"
            found = _finished(path) or _write_part(path, encoder, group)
            first = windows[-1].rows.stop if windows else 0
            windows += [window._replace(first=first + window.first) for window in found]
            parts.append(FramesFile(path.name, sum(window.frames for window in found)))
            progress.update(len(group))
    if not windows:
        raise AnalysisError("none of the audio files could be read")
    parts = [part for part in parts if part.frames]
    with safe_open(out / PARTS / parts[0].name, "numpy") as file:
        taps = {tap: int(file.get_slice(tap).get_shape()[1]) for tap in encoder.taps}
    store = ActivationStore(out, encoder.model, encoder.fingerprint, key, taps, tuple(windows), tuple(parts))
    index = {name: value for name, value in asdict(store).items() if name != "path"}
    write_text(out / INDEX, json.dumps(index))
    return store


def add_sae(store: ActivationStore, name: str, sae: SAE) -> None:
    """Keep an SAE and its features on all of the store's frames, under ``features/NAME``.

    One without a threshold gets the one that keeps its k features a frame on these recordings. AnalysisError
    if the name is taken by another SAE, SAEFormatError if the SAE is of another tap or width.
    """
    folder = store.path / FEATURES / name
    if not name or Path(name).name != name:
        raise AnalysisError(f"{name!r} can't be the name of a folder")
    if (folder / MATRIX).exists():
        if not torch.equal(store.sae(name).W_enc, sae.W_enc):
            raise AnalysisError(f"{store.path} has another SAE named {name}; give it a name: NAME=PATH")
        return
    frames = store.frames(sae.config.tap or _only_tap(store))
    if sae.config.architecture != "jumprelu":
        step = max(1, len(frames) // THRESHOLD_FRAMES)
        calibrate_threshold(sae, torch.from_numpy(frames[::step]).float())
    write_features(store, name, sae, csr_matrix(vstack(list(_encoded(sae, frames, name)))))


def write_features(store: ActivationStore, name: str, sae: SAE, matrix: csr_matrix) -> None:
    """Keep an SAE with its features [rows, d_sae] under ``features/NAME``."""
    folder = store.path / FEATURES / name
    folder.mkdir(parents=True, exist_ok=True)
    save_sae(sae, folder)
    with write_atomically(folder / MATRIX) as temporary:
        save_file(
            {
                "data": matrix.data.astype(np.float32),
                "indices": matrix.indices.astype(np.int32),
                "indptr": matrix.indptr.astype(np.int64),
                "width": np.array([sae.config.d_sae]),
            },
            temporary,
        )


@torch.no_grad()
def _encoded(sae: SAE, frames: NDArray[np.float16], name: str) -> Iterator[csr_matrix]:
    for start in tqdm(range(0, len(frames), ENCODED_AT_ONCE), desc=f"features of {name}", unit="block"):
        block = torch.from_numpy(frames[start : start + ENCODED_AT_ONCE]).float()
        yield csr_matrix(sae.encode(block).numpy())


def _only_tap(store: ActivationStore) -> str:
    if len(store.taps) > 1:
        raise AnalysisError("the SAE doesn't say which tap it reads; encode that tap alone")
    return next(iter(store.taps))


def _write_part(path: Path, encoder: FrameEncoder, clips: Sequence[Clip]) -> list[Window]:
    """Encode some recordings into one file, their windows in its header, rows counted from 0."""
    windows: list[Window] = []
    tensors: dict[str, list[NDArray[np.float16]]] = {name: [] for name in ("mel", *encoder.taps)}
    mel_of = FeatureExtractor()
    rows = 0
    for clip, start, audio in _pieces(clips):
        for frames in encoder([audio]):
            for tap, h in frames.taps.items():
                tensors[tap].append(_half(h[: frames.content].cpu(), tap))
            tensors["mel"].append(_mel(mel_of, audio, frames.content))
            windows.append(_window(clip, start, rows, frames.content))
            rows += frames.content
    with write_atomically(path) as temporary:
        save_file(
            {name: _joined(blocks) for name, blocks in tensors.items()},
            temporary,
            metadata={"windows": json.dumps(windows)},
        )
    return windows


def _joined(blocks: Sequence[NDArray[np.float16]]) -> NDArray[np.float16]:
    """[rows, width], row by row in memory: safetensors writes that as it lies, whatever the strides say."""
    return np.ascontiguousarray(np.concatenate(blocks)) if blocks else np.zeros((0, 1), np.float16)


def _pieces(clips: Sequence[Clip]) -> Iterator[tuple[Clip, int, NDArray[np.float32]]]:
    """Each recording's pieces of at most a window, with their first samples."""
    for clip in clips:
        try:
            audio = load_audio(clip.path)
        except AudioError as error:
            tqdm.write(f"skipped: {error}")
            continue
        for start in range(0, len(audio), WINDOW_SAMPLES):
            yield clip, start, audio[start : start + WINDOW_SAMPLES]


def _window(clip: Clip, start: int, first: int, frames: int) -> Window:
    return Window(
        clip=clip.key,
        path=str(clip.path),
        start=start / SAMPLE_RATE,
        domain=DOMAINS[clip.kind],
        label=clip.class_,
        source=clip.source,
        group=clip.group,
        language=clip.language,
        text=clip.text,
        first=first,
        frames=frames,
    )


def _half(h: torch.Tensor, tap: str) -> NDArray[np.float16]:
    half = h.half()
    if not half.isfinite().all():
        raise AnalysisError(f"activations at {tap} don't fit float16; leave that tap out")
    return half.numpy()


def _mel(extractor: FeatureExtractor, audio: NDArray[np.float32], frames: int) -> NDArray[np.float16]:
    """[frames, 80]: the mean of the two mel frames that each encoder frame covers."""
    each = MEL_FRAMES_PER_ENCODER_FRAME
    mel = extractor(audio, padding=0)[:, : each * frames]
    mel = np.pad(mel, ((0, 0), (0, each * frames - mel.shape[1])), mode="edge")
    return mel.reshape(len(mel), frames, each).mean(-1).T.astype(np.float16)


def _finished(path: Path) -> list[Window] | None:
    try:
        with safe_open(path, "numpy") as file:
            return [Window(*window) for window in json.loads(file.metadata()["windows"])]
    except (OSError, SafetensorError):
        return None


def _key(encoder: FrameEncoder, clips: Sequence[Clip]) -> str:
    """Hash of weights, taps and recordings, by name, label and size."""
    digest = hashlib.sha256(json.dumps([encoder.fingerprint, encoder.taps]).encode())
    for clip in clips:
        size = clip.path.stat().st_size if clip.path.exists() else 0
        digest.update(f"\n{clip.key}\t{clip.kind}\t{clip.class_}\t{clip.group}\t{size}".encode())
    return digest.hexdigest()
