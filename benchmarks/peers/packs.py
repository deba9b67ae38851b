"""Packs of the published ways to steer, for `whisper-sae-steer bench peers --packs`.

    python -m benchmarks.peers.packs base MANIFEST --out packs-base

Each adds one static vector to every frame of every window, without a gate, at the encoder's output:
the tap that all back ends share. Fitted on the manifest's `calib` split with the SAE of the model; the
strength α is left to the bench. `bench.peers.catalogue.RECIPES` lists them.
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from whisper_sae_steer.bench.peers.catalogue import RECIPES, UNWANTED, PeerRecipe
from whisper_sae_steer.calibrate.attribution import SilenceObjective
from whisper_sae_steer.calibrate.directions import EditEvidence, build_edit
from whisper_sae_steer.calibrate.selection import FrameSample, sample_frames, take_features
from whisper_sae_steer.calibrate.strength import Judge, plain_model
from whisper_sae_steer.calibrate.windows import CalibrationWindow, encode, plan
from whisper_sae_steer.errors import CalibrationError, SteerError
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.sae.autoencoder import SAE
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.steering.metadata import PackMetadata
from whisper_sae_steer.steering.pack import SteeringPack, save_pack

from ..arguments import script_parser
from ..selection import select_sounds, select_speech


def main() -> int:
    """Build every pack and say where it is."""
    args = _arguments()
    try:
        _build(args)
    except SteerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, "--sae", "--out", split="calib", per_class=24, work=None, threads=0)
    parser.add_argument("model", help="name or path of a Whisper model")
    parser.add_argument("manifest", type=Path, help="tab-separated list of clips")
    return parser.parse_args()


def _build(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    weights = resolve(args.model)
    sae = load_sae(find_sae(args.sae, weights))
    sounds = select_sounds(args.manifest, args.split, args.per_class)
    speech = select_speech(args.manifest, args.split, args.per_class)
    work = args.work or args.out / "work"
    encoder = WindowEncoder(weights, threads=args.threads)
    windows = encode(encoder, plan(sounds, speech, 0, 0), work)
    other = [w for w in windows if not w.is_speech]
    objective = SilenceObjective(load_torch(weights))
    args.out.mkdir(parents=True, exist_ok=True)
    invented = _invented(weights, other, args.out / "decoded.json")
    norm = float(np.mean([w.frames()[: w.content].norm(dim=-1).mean() for w in other]))
    for unwanted in UNWANTED:
        marked = windows if unwanted == "speech" else mark(other, invented)
        evidence = against(sae, objective, marked)
        for recipe in RECIPES:
            name = f"{recipe.name}-{unwanted}"
            pack = build_pack(recipe, weights, evidence, norm)
            save_pack(pack, args.out / f"{name}.safetensors")
            length = float((pack.coefficients[:, None] * pack.directions).sum(0).norm())
            share = length * pack.metadata.alpha_unit / norm
            print(f"{name}: at α = 1 an edit of {100 * share:.1f}% of the frames' mean norm")


def _invented(weights: Weights, windows: Sequence[CalibrationWindow], memory: Path) -> set[str]:
    """Keys of the windows for which the unsteered model writes text that Whisper's own rule keeps."""
    raws = Judge(plain_model(str(weights.ct2_dir)), windows, memory).unsteered
    kept = {key for key, raw in raws.items() if metrics.has_text(raw["text"]) and metrics.kept(raw)}
    if not kept or len(kept) == len(raws):
        raise CalibrationError(f"text is invented for {len(kept)} of {len(raws)} windows: give other sounds")
    print(f"text is invented for {len(kept)} of {len(raws)} windows")
    return kept


def mark(windows: Sequence[CalibrationWindow], unwanted: Collection[str]) -> list[CalibrationWindow]:
    """Windows without speech, those with unwanted keys dressed up as speech from end to end."""
    return [
        replace(w, is_speech=w.key in unwanted, speech=np.arange(len(w.speech)) < w.content) for w in windows
    ]


def against(sae: SAE, objective: SilenceObjective, marked: Sequence[CalibrationWindow]) -> EditEvidence:
    """What edits away from the windows marked as speech are built from.

    `additive` takes away the features of the frames without speech, so the sample's labels change
    places; the contrast already leads away from speech.
    """
    sample = sample_frames(sae, marked)
    return EditEvidence(sae, objective, FrameSample(sample.features, ~sample.is_speech), marked)


def build_pack(recipe: PeerRecipe, weights: Weights, evidence: EditEvidence, norm: float) -> SteeringPack:
    """An ungated pack; α counts in mean norms of frames for the contrast, else as in the papers."""
    if recipe.features:
        edit = build_edit("additive", "logistic", evidence)
    else:
        edit = build_edit("direction", "contrast", evidence)
    directions, coefficients = edit.directions, edit.coefficients
    if recipe.features:
        directions, coefficients = directions[: recipe.features], coefficients[: recipe.features]
        if not recipe.mean:
            coefficients = coefficients.sign()
    metadata = PackMetadata(
        model=weights.name,
        fingerprint=weights.fingerprint,
        d_in=evidence.sae.config.d_in,
        strategy="additive" if recipe.features else "direction",
        selection="logistic" if recipe.features else "contrast",
        gate="none",
        alpha_unit=1.0 if recipe.features else norm,
        created_with=f"whisper-sae-steer {version('whisper-sae-steer')}",
    )
    # a gate that is never asked still has a feature, of no weight
    gate = take_features(evidence.sae, np.zeros(1, dtype=np.intp))
    return SteeringPack(
        metadata, gate, torch.zeros(1), torch.zeros(()), edit.features, directions, coefficients
    )


if __name__ == "__main__":
    sys.exit(main())
