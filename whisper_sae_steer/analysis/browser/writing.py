"""The feature browser: one folder of plain files that a person opens in a browser, with no server.

Pages opened from a disk may not fetch files beside them, so data are scripts: ``data/index.js`` holds what
the list shows of all features that fire, ``data/features-NNNN.js`` the rest of 64 of them, loaded when one
is opened. ``index.html`` is written last: a folder that has one is complete.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix
from tqdm import tqdm

from ...audio.units import ENCODER_FRAME_SECONDS
from ...errors import AnalysisError
from ...files import copy_file, write_text
from ...reports.page import LOOK
from ...sae.autoencoder import SAE
from ..meaning.sound import OFFSETS, mean_mels
from ..results import REPORT, plain
from ..store.activations import ActivationStore
from .excerpts import BANDS, Piece, curve, find_pieces, mean_picture, most_informative, picture, write_sounds
from .figures import FeatureFigures, Related, figures, fires_together, points_alike
from .results import JoinedResults

PAGE = Path(__file__).parent / "page"
"""The files that are the same for all folders."""
INDEX, DATA, AUDIO = "index.html", "data", "audio"
CHUNK = 64
"""features of one data file"""


@dataclass(frozen=True)
class BrowserConfig:
    """How much is written."""

    features: int = 1000
    """features with excerpts; the most informative ones"""
    also: tuple[int, ...] = ()
    """features with excerpts besides those"""
    excerpts: int = 5
    """a feature, at most one of each recording or speaker"""
    seconds: float = 2.5
    """length of an excerpt"""
    related: int = 8
    """features that fire together or point the same way, each"""


class WrittenBrowser(NamedTuple):
    """What :func:`write_folder` wrote."""

    page: Path
    """to open"""
    features: int
    """that fire, and are in the list"""
    shown: int
    """of them with excerpts"""
    sounds: int
    """audio files"""
    silent: int
    """excerpts whose recording could not be read"""
    size: int
    """bytes of the folder"""


class _PageSources(NamedTuple):
    """Everything that the pages of features are made of."""

    store: ActivationStore
    sae: SAE
    name: str
    features: csr_matrix
    mel: NDArray[np.float16]
    figures: FeatureFigures
    results: JoinedResults
    pieces: Mapping[int, Sequence[Piece]]
    sounds: set[str]
    together: Mapping[int, Related]
    near: Mapping[int, Related]
    means: NDArray[np.float32]


def write_folder(
    store: ActivationStore, name: str, results: JoinedResults, out: Path, config: BrowserConfig | None = None
) -> WrittenBrowser:
    """Write or complete the folder ``out`` for the features of a store's SAE. What is there is used again.

    AnalysisError if no feature fires, if one of ``config.also`` doesn't, or if ``out`` is another's folder.
    """
    config = config or BrowserConfig()
    features = store.features(name)
    counted = figures(store, features)
    chosen = choose(counted, results, config)
    _prepare(out)
    pieces = find_pieces(store, features, chosen, config.excerpts, config.seconds)
    distinct = {piece.name(store.key): piece for found in pieces.values() for piece in found}
    sounds = write_sounds(distinct.values(), store.key, out / AUDIO)
    sae, alive, mel = store.sae(name), counted.alive, store.mel()
    together = fires_together(features, alive, config.related)
    found = _PageSources(
        store, sae, name, features, mel, counted, results, pieces, sounds,
        dict(zip(alive.tolist(), together, strict=True)),
        dict(zip(alive.tolist(), points_alike(sae, alive, config.related), strict=True)),
        mean_mels(features, mel, store.window_numbers(), OFFSETS),
    )  # fmt: skip
    wanted = _write_data(found, out)
    write_text(out / DATA / "index.js", f"browser.takeIndex({_js(_index(found, config))});\n")
    _clean(out, wanted | {"index.js"}, {f"{sound}.ogg" for sound in sounds})
    _write_page(results, out)
    silent = sum(piece.name(store.key) not in sounds for some in pieces.values() for piece in some)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return WrittenBrowser(out / INDEX, len(alive), len(chosen), len(sounds), silent, size)


def choose(counted: FeatureFigures, results: JoinedResults, config: BrowserConfig) -> list[int]:
    """Features that get excerpts: in turn the best by each ranking there is, and those asked for.

    AnalysisError if no feature fires at all, or one asked for doesn't.
    """
    if not len(counted.alive):
        raise AnalysisError("no feature of this SAE fires on these recordings; encode others")
    for feature in config.also:
        if feature not in counted.alive:
            raise AnalysisError(f"feature {feature} never fires on these recordings; choose others")
    rankings = [*results.rankings(len(counted.frames)), counted.information.sum(0)]
    return sorted({*most_informative(rankings, counted.alive, config.features), *config.also})


def _prepare(out: Path) -> None:
    """Make the folder incomplete: its page is gone until all is written."""
    if (out / INDEX).exists() and not (out / DATA / "index.js").exists():
        raise AnalysisError(f"{out} holds another page; choose an empty folder")
    (out / INDEX).unlink(missing_ok=True)
    for folder in (DATA, AUDIO):
        (out / folder).mkdir(parents=True, exist_ok=True)


def _write_data(found: _PageSources, out: Path) -> set[str]:
    """The data files of all features that fire; returns their names."""
    by_feature, names = csc_matrix(found.features), set[str]()
    alive = found.figures.alive
    for number in tqdm(range(-(-len(alive) // CHUNK)), desc="pages", unit="file"):
        some = [int(f) for f in alive[number * CHUNK : (number + 1) * CHUNK]]
        pieces = {piece.name(found.store.key): piece for f in some for piece in found.pieces.get(f, ())}
        chunk = {
            "features": [_feature(found, f, by_feature[:, [f]]) for f in some],
            "mels": {name: _picture(found.mel, piece) for name, piece in pieces.items()},
        }
        name = f"features-{number:04d}.js"
        write_text(out / DATA / name, f"browser.takeChunk({number}, {_js(chunk)});\n")
        names.add(name)
    return names


def _picture(mel: NDArray[np.float16], piece: Piece) -> str:
    floor = float(mel[piece.window.rows].min())  # Whisper cuts each window 80 dB below its loudest
    return picture(mel[piece.rows], floor)


def _feature(found: _PageSources, feature: int, column: csc_matrix) -> dict[str, Any]:
    """What the page of one feature shows; ``column`` [rows, 1] are its activations."""
    counted, results = found.figures, found.results
    threshold = getattr(found.sae, "threshold", None)
    return {
        "id": feature,
        "frames": counted.frames[feature],
        "rate": counted.frames[feature] / found.store.rows,
        "max": counted.most[feature],
        "mean": counted.mean[feature],
        "threshold": None if threshold is None else float(threshold[feature]),
        "domains": [
            {"name": name, "rate": rate, "seconds": frames * ENCODER_FRAME_SECONDS}
            for name, rate, frames in zip(
                counted.domains, counted.domain_rates[:, feature], counted.domain_frames, strict=True
            )
        ],
        "where": _where(counted, feature, found.store.rows),
        "labels": results.labels.get(feature),
        "description": results.descriptions.get(feature),
        "stability": results.stability.get(feature),
        "steering": results.steering.get(feature),
        "specialised": results.specialised.get(feature),
        "mean_mel": {
            "data": mean_picture(found.means[feature]),
            "first": OFFSETS[0] * ENCODER_FRAME_SECONDS,
            "last": OFFSETS[-1] * ENCODER_FRAME_SECONDS,
            "words": results.sounds.get(feature),
        },
        "excerpts": [_excerpt(found, feature, piece, column) for piece in found.pieces[feature]]
        if feature in found.pieces
        else None,
        "together": found.together[feature],
        "near": found.near[feature],
    }


def _where(counted: FeatureFigures, feature: int, rows: int, most: int = 5) -> list[dict[str, Any]]:
    """The labels that say most about where it fires, of those in which it does so more often than usual."""
    usual, found = counted.frames[feature] / rows, list[dict[str, Any]]()
    for label in np.argsort(-counted.information[:, feature], kind="stable")[: 2 * most]:
        rate = counted.label_rates[label, feature]
        if rate > usual or len(counted.labels) == 1:
            found.append({"label": counted.labels[label], "rate": rate, "lift": rate / usual})
    return found[:most]


def _excerpt(found: _PageSources, feature: int, piece: Piece, column: csc_matrix) -> dict[str, Any]:
    window, name = piece.window, piece.name(found.store.key)
    activations = column[piece.rows].toarray().ravel()
    return {
        "mel": name,
        "audio": f"{AUDIO}/{name}.ogg" if name in found.sounds else None,
        "curve": curve(activations, float(found.figures.most[feature])),
        "clip": window.clip,
        "label": window.label,
        "domain": window.domain,
        "start": piece.start,
        "text": window.text,
    }


def _index(found: _PageSources, config: BrowserConfig) -> dict[str, Any]:
    """What the list and the first page show."""
    store, counted, results = found.store, found.figures, found.results
    alive = [int(f) for f in counted.alive]
    where = {f: [one["label"] for one in _where(counted, f, store.rows)] for f in alive}
    titles = {f: results.title(f) or " · ".join(where[f][:2]) for f in alive}
    return {
        "model": store.model,
        "tap": found.sae.config.tap or "unknown tap",
        "sae": found.name,
        "d_in": found.sae.config.d_in,
        "d_sae": found.sae.config.d_sae,
        "seconds": store.seconds,
        "recordings": len({(window.clip, window.path) for window in store.windows}),
        "labels": len(counted.labels),
        "domains": [
            {"name": name, "seconds": frames * ENCODER_FRAME_SECONDS}
            for name, frames in zip(counted.domains, counted.domain_frames, strict=True)
        ],
        "alive": len(alive),
        "dead": len(counted.frames) - len(alive),
        "shown": len(found.pieces),
        "excerpts": config.excerpts,
        "excerpt_seconds": config.seconds,
        "rule": _rule(results, len(found.pieces), len(alive)),
        "analyses": results.analyses(),
        "report": results.report is not None,
        "bands": BANDS,
        "chunk": CHUNK,
        "columns": results.columns(),
        "features": {
            "id": alive,
            "title": [titles[f] for f in alive],
            "text": [" ".join([titles[f], *where[f], *results.words(f)]).lower() for f in alive],
            "bits": [round(float(counted.information[:, f].sum()), 5) for f in alive],
            "rate": [round(counted.frames[f] / store.rows, 7) for f in alive],
            "max": [round(float(counted.most[f]), 4) for f in alive],
            "domains": [[round(float(rate), 6) for rate in counted.domain_rates[:, f]] for f in alive],
            **{key: [value(f) for f in alive] for key, value in results.values().items()},
        },
    }


def _rule(results: JoinedResults, shown: int, alive: int) -> str:
    if shown == alive:
        return "All features that fire have excerpts."
    names = ", ".join([*results.ranked(), "information on labels"])
    return f"{shown} of {alive}: in turn those that lead by {names}; and those asked for."


def _write_page(results: JoinedResults, out: Path) -> None:
    """The files that are the same for all, then the report, then the page itself."""
    for file in (LOOK, *sorted(PAGE.iterdir())):
        if file.name != INDEX:
            write_text(out / file.name, file.read_text(encoding="utf-8"))
    if results.report is None:
        (out / REPORT).unlink(missing_ok=True)
    else:
        copy_file(results.report, out / REPORT)
    write_text(out / INDEX, (PAGE / INDEX).read_text(encoding="utf-8"))


def _clean(out: Path, data: set[str], sounds: set[str]) -> None:
    """Remove what an earlier run with other features left."""
    for file in [*(out / DATA).glob("features-*.js"), *(out / AUDIO).glob("*.ogg")]:
        if file.name not in data | sounds:
            file.unlink()


def _js(value: Any) -> str:
    """As an expression of a script: ASCII, so that no text of a recording ends a line or the script."""
    return json.dumps(plain(value), allow_nan=False, separators=(",", ":"))
