"""Activation stores that no model made: their windows, frames and features are what a test says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix, issparse

from whisper_sae_steer.analysis.store.activations import INDEX, PARTS, ActivationStore, FramesFile, Window
from whisper_sae_steer.analysis.store.encode import add_sae, write_features
from whisper_sae_steer.sae.autoencoder import SAE, SAEConfig

DOMAINS = ("speech", "speech", "music", "music", "sound", "sound")
D_IN, D_SAE = 12, 40
Texts = str | Sequence[str]


def make_store(
    path: Path,
    features: csr_matrix | ArrayLike | Mapping[str, csr_matrix | ArrayLike] | None = None,
    *,
    domains: Texts = DOMAINS,
    lengths: int | Sequence[int] = 50,
    labels: Texts | None = None,
    groups: Texts | None = None,
    clips: Texts | None = None,
    starts: Sequence[float] | None = None,
    paths: Texts | None = None,
    sources: Texts = "source",
    languages: Texts = "",
    texts: Texts = "",
    taps: Mapping[str, ArrayLike] | None = None,
    mel: ArrayLike | None = None,
    sae: SAE | None = None,
    model: str = "small",
    seed: int = 0,
) -> ActivationStore:
    """Write a finished store. A window per domain; of all else one value for all or one a window.

    ``features`` [rows, F], or several by name of their SAE; alone it is called ``sae``. Without, they are
    those of ``sae``, by default :func:`make_sae`, on the frames of the first tap. What isn't given is
    random but the same for a seed, and each window is a recording and a group of its own whose label
    is its domain.
    """
    count = len(domains) if not isinstance(domains, str) else 1
    domain = _each(domains, count)
    frames = [lengths] * count if isinstance(lengths, int) else list(lengths)
    names = _each(clips, count) if clips is not None else [f"{i}.wav" for i in range(count)]
    columns = zip(
        names,
        _each(paths, count) if paths is not None else [str(path / name) for name in names],
        starts if starts is not None else [0.0] * count,
        domain,
        _each(labels, count) if labels is not None else domain,
        _each(sources, count),
        _each(groups, count) if groups is not None else names,
        _each(languages, count),
        _each(texts, count),
        accumulate([0, *frames[:-1]]),
        frames,
        strict=True,
    )
    windows = tuple(Window(*column) for column in columns)
    rows, rng = sum(frames), np.random.default_rng(seed)
    taps = taps or {"encoder_output": rng.normal(size=(rows, D_IN))}
    tensors = {tap: np.asarray(h, np.float16, order="C") for tap, h in taps.items()}
    mel = rng.normal(size=(rows, 80)) if mel is None else mel
    (path / PARTS).mkdir(parents=True)
    save_file(
        {"mel": np.asarray(mel, np.float16, order="C"), **tensors}, path / PARTS / "part-00000.safetensors"
    )
    widths = {tap: h.shape[1] for tap, h in tensors.items()}
    store = ActivationStore(
        path, model, "f" * 32, "k" * 64, widths, windows, (FramesFile("part-00000.safetensors", rows),)
    )
    index = {name: value for name, value in asdict(store).items() if name != "path"}
    (path / INDEX).write_text(json.dumps(index))
    tap, d_in = next(iter(widths.items()))
    if features is None:
        add_sae(store, "sae", sae or make_sae(d_in, D_SAE, tap, seed))
        return store
    for name, matrix in (features if isinstance(features, Mapping) else {"sae": features}).items():
        sparse = csr_matrix(matrix if issparse(matrix) else np.asarray(matrix, np.float32))
        shape: tuple[int, int] = sparse.get_shape()
        write_features(store, name, sae or make_sae(d_in, shape[1], tap, seed), sparse)
    return store


def make_sae(d_in: int = D_IN, d_sae: int = D_SAE, tap: str = "encoder_output", seed: int = 0) -> SAE:
    """A random jumprelu SAE, about a fifth of whose features fire on normal frames."""
    generator = torch.Generator().manual_seed(seed)
    sae = SAE(SAEConfig(d_in, d_sae, tap=tap, model="small"))
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=-1))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.threshold.fill_(0.8)
    return sae


def sparse_features(rows: int, width: int, active: int, seed: int = 0) -> csr_matrix:
    """Random features, ``active`` positive ones a row: [rows, width] float32."""
    rng = np.random.default_rng(seed)
    columns: NDArray[np.intp] = rng.random((rows, width)).argsort(1)[:, :active]
    data = 1 + rng.random(columns.size, np.float32)
    return csr_matrix((data, columns.ravel(), np.arange(0, columns.size + 1, active)), shape=(rows, width))


def _each(value: Texts, count: int) -> list[str]:
    return [value] * count if isinstance(value, str) else list(value)
