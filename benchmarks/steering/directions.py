"""Where to edit, how, and with how many vectors: every tap, ways to add, a direction for each kind of sound.

    python calibration/layers.py MANIFEST --model tiny.en --out layers            # SAEs of the blocks
    python -m benchmarks.steering.directions MANIFEST --saes layers/block.*/seed0 --out directions

Directions come from attribution, as in the shipped packs, fitted on `calib`. Each is added to all frames
of `dev` windows, without a gate, in shares of the frames' mean norm at that tap: what is written where
nobody speaks, and which words change in speech. Of each tap's gate, too, how well it tells the two apart.
What OUT/directions.json holds is not measured again.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from whisper_sae_steer.analysis.hallucination.effects import (
    Reading,
    TapDecoder,
    language_of,
    speech_effect,
)
from whisper_sae_steer.calibrate.attribution import SilenceObjective
from whisper_sae_steer.calibrate.directions import EditEvidence, build_edit, spread
from whisper_sae_steer.calibrate.gate import fit_gate, window_scores
from whisper_sae_steer.calibrate.selection import sample_frames
from whisper_sae_steer.calibrate.windows import CalibrationWindow, encode, plan
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.sae.autoencoder import SAE
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.sae.formats import load_sae

from ..arguments import script_parser
from ..results import as_json, read_results, write_results
from ..selection import select_sounds, select_speech

SHARES = (0.03, 0.06, 0.13, 0.25, 0.5)
"""of the frames' mean norm"""
KINDS = {
    "animals": ("animals", "dog-bark", "rooster"),
    "voices": ("human-nonverbal",),
    "music": ("music", "music-on-hold", "instrument", "drum-montage", "sample-montage", "tones"),
}
"""classes of each kind of sound; all else is noise"""


class Split(NamedTuple):
    """Windows of one split at one tap."""

    other: list[CalibrationWindow]
    speech: list[CalibrationWindow]


class At(NamedTuple):
    """One tap: where it is read, and what it is measured with."""

    decoder: TapDecoder
    dev: Split
    norm: float
    """mean length of frames without speech"""


def main() -> None:
    """Measure every tap, then the kinds of sound at the encoder's output."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    weights = resolve(args.model)
    path = args.out / "directions.json"
    found = read_results(path)
    for file in (*args.saes, find_sae("auto", weights)):
        sae = load_sae(file)
        tap = sae.config.tap or "encoder_output"
        if tap != "encoder_output" and tap in found:
            continue
        calib, test = (_split(args, weights, tap, split) for split in ("calib", "dev"))
        evidence = _evidence(sae, weights, tap, calib)
        norm = float(np.mean([w.frames()[: w.content].norm(dim=-1).mean() for w in calib.other]))
        dev = Split(spread(test.other, args.windows), spread(test.speech, args.windows))
        at = At(TapDecoder(weights, tap, args.threads), dev, norm)
        direction = _direction(evidence)
        parts: dict[str, Callable[[], Any]] = {tap: partial(_tap, at, evidence, direction)}
        if tap == "encoder_output":
            parts |= {way.__name__: partial(sweep, at, direction, way) for way in WAYS}
            parts["kinds"] = partial(_kinds, at, evidence, test.other)
        for name, measure in parts.items():
            if name not in found:
                found[name] = measure()
                write_results(path, found)
    print(as_json(found))


def _arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, "manifest", "--out", model="tiny.en", per_class=4, threads=2)
    parser.add_argument(
        "--saes", nargs="*", type=Path, default=[], help="SAEs of other taps than the shipped"
    )
    parser.add_argument("--windows", type=int, default=48, help="windows of each kind that are measured")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def _split(args: argparse.Namespace, weights: Weights, tap: str, split: str) -> Split:
    sounds = select_sounds(args.manifest, split, args.per_class)
    recipes = plan(sounds, select_speech(args.manifest, split, args.per_class, model=args.model), 0, 0)
    windows = encode(WindowEncoder(weights, tap, threads=args.threads), recipes, args.out / f"work-{tap}")
    return Split([w for w in windows if not w.is_speech], [w for w in windows if w.is_speech])


def _evidence(sae: SAE, weights: Weights, tap: str, calib: Split) -> EditEvidence:
    windows = [*calib.other, *calib.speech]
    return EditEvidence(sae, SilenceObjective(load_torch(weights), tap), sample_frames(sae, windows), windows)


def _tap(at: At, evidence: EditEvidence, direction: Tensor) -> dict[str, Any]:
    """How well the highest score of a window, fitted on `calib`, tells `dev` apart, and the edit."""
    dev = at.dev
    gate = fit_gate(evidence.sae, evidence.sample, evidence.windows)
    scores = window_scores(gate, [*dev.other, *dev.speech])
    other, speech = ([float(scores[w.key].max()) for w in some] for some in dev)
    labels = [0] * len(other) + [1] * len(speech)
    return {
        "gate_auc": float(roc_auc_score(labels, [*other, *speech])),
        "other_above_lowest_speech": sum(score >= min(speech) for score in other),
        "speech_below_highest_other": sum(score <= max(other) for score in speech),
        "added": sweep(at, direction, added),
    }


def _direction(evidence: EditEvidence) -> Tensor:
    """[d], of length 1."""
    edit = build_edit("direction", "attribution", evidence)
    return (edit.coefficients[:, None] * edit.directions).sum(0)


def added(frames: Tensor, _content: int, edit: Tensor) -> Tensor:
    """To all frames [1500, d], padding too."""
    return frames + edit


def not_to_padding(frames: Tensor, content: int, edit: Tensor) -> Tensor:
    """Only to the frames that cover audio."""
    return torch.cat([frames[:content] + edit, frames[content:]])


def turned(frames: Tensor, _content: int, edit: Tensor) -> Tensor:
    """To all frames, whose length stays."""
    moved = frames + edit
    return moved * (frames.norm(dim=-1) / moved.norm(dim=-1))[:, None]


def raised(frames: Tensor, _content: int, edit: Tensor) -> Tensor:
    """Along the edit every frame is brought to the edit's length, if it isn't there already."""
    unit = edit / edit.norm().clamp_min(1e-9)
    return frames + (edit.norm() - frames @ unit).clamp_min(0)[:, None] * unit


Way = Callable[[Tensor, int, Tensor], Tensor]
WAYS: tuple[Way, ...] = (not_to_padding, turned, raised)


def sweep(at: At, direction: Tensor, way: Way) -> list[dict[str, Any]]:
    """What a direction does in growing shares of the frames' norm."""
    speech_before = _read(at, at.dev.speech)
    languages = [language_of(w) for w in at.dev.speech]
    rows: list[dict[str, Any]] = []
    for share in tqdm((0.0, *SHARES) if way is added else SHARES, way.__name__, unit="share"):
        edit = share * at.norm * direction
        other = _read(at, at.dev.other, edit, way)
        effect = speech_effect(speech_before, _read(at, at.dev.speech, edit, way), languages)
        assert effect is not None
        rows.append({"share": share, **_silence(other), "words_changed": effect.words_changed / effect.words})
    return rows


def _kinds(at: At, evidence: EditEvidence, windows: Sequence[CalibrationWindow]) -> dict[str, Any]:
    """A direction fitted on each kind of sound and one on all, on windows of that kind, and their cosines."""
    fitted = {"all": evidence.windows}
    for kind in (*KINDS, "noise"):
        fitted[kind] = [w for w in evidence.windows if w.is_speech or kind_of(w) == kind]
    directions = {kind: _direction(evidence._replace(windows=some)) for kind, some in fitted.items()}
    rows: list[dict[str, Any]] = []
    for kind in (*KINDS, "noise"):
        chosen = spread([w for w in windows if kind_of(w) == kind], len(at.dev.other))
        for of in dict.fromkeys(("all", kind)):
            for share in SHARES:
                readings = _read(at, chosen, share * at.norm * directions[of])
                rows.append({"kind": kind, "fitted_on": of, "share": share, **_silence(readings)})
    cosines = {f"{a}, {b}": float(directions[a] @ directions[b]) for a, b in combinations(directions, 2)}
    return {"added": rows, "cosines": cosines}


def kind_of(window: CalibrationWindow) -> str:
    """The kind of sound of a window without speech."""
    class_ = window.clip.class_ if window.clip else ""
    return next((kind for kind, classes in KINDS.items() if class_ in classes), "noise")


def _read(
    at: At, windows: Sequence[CalibrationWindow], edit: Tensor | None = None, way: Way = added
) -> list[Reading]:
    frames = [w.frames() if edit is None else way(w.frames(), w.content, edit) for w in windows]
    return at.decoder(torch.stack(frames), [language_of(w) for w in windows])


def _silence(readings: Sequence[Reading]) -> Mapping[str, float]:
    return {
        "windows": len(readings),
        "texts": sum(metrics.has_text(r.text) for r in readings),
        "no_speech": float(np.mean([r.no_speech for r in readings])),
        "end_of_text": float(np.mean([r.end_of_text for r in readings])),
    }


if __name__ == "__main__":
    main()
