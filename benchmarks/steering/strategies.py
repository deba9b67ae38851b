"""Every strategy, selection and gate side by side: fitted on one split, measured on another.

    python -m benchmarks.steering.strategies MANIFEST --model tiny.en --out strategies-tiny.en

Writes OUT/strategies.json and a table of its rows, OUT/strategies.md. Figures are of greedy first windows
(FPR_raw, FPR_kept) and of speech with and without noise (WER).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from whisper_sae_steer.calibrate.attribution import SilenceObjective
from whisper_sae_steer.calibrate.directions import EditEvidence, Selection, build_edit, spread
from whisper_sae_steer.calibrate.gate import fit_gate, place_levels, window_scores, with_gate
from whisper_sae_steer.calibrate.selection import sample_frames
from whisper_sae_steer.calibrate.strength import Judge, plain_model, with_unit
from whisper_sae_steer.calibrate.windows import CalibrationWindow, encode, plan
from whisper_sae_steer.files import write_text
from whisper_sae_steer.kernels import GateKind
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.steering.metadata import PackMetadata, Strategy
from whisper_sae_steer.steering.pack import Features, SteeringPack

from ..arguments import script_parser
from ..results import write_results
from ..selection import select_sounds, select_speech

SELECTIONS: Mapping[Strategy, Sequence[Selection]] = {
    "direction": ("attribution", "gradient", "contrast"),
    "additive": ("attribution", "logistic", "fisher"),
    "suppress": ("attribution", "logistic", "fisher"),
}
GATES: Sequence[GateKind] = ("none", "frame", "window")
COMBINATIONS: list[tuple[Strategy, Selection, GateKind]] = [
    (strategy, selection, gate)
    for strategy, selections in SELECTIONS.items()
    for selection in selections
    for gate in GATES
]
Row = tuple[str, str, str, float, dict[str, Any]]
MEASURED_PER_CLASS = 4
HEAD = "| strategy | selection | gate | unit | FPR_raw | FPR_kept | WER | change |\n|" + "---|" * 8


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    weights = resolve(args.model)
    sae = load_sae(find_sae(args.sae, weights))
    calib = _windows(weights, args, "calib", args.per_class)
    fitted = [w for w in calib if not w.held_back]
    held = [w for w in calib if w.held_back]
    dev = _windows(weights, args, "dev", MEASURED_PER_CLASS)
    sample = sample_frames(sae, fitted)
    gate = fit_gate(sae, sample, fitted)
    gate = place_levels(gate, held, window_scores(gate, held))
    evidence = EditEvidence(sae, SilenceObjective(load_torch(weights)), sample, fitted)
    model = plain_model(str(weights.ct2_dir))
    args.out.mkdir(parents=True, exist_ok=True)
    search = Judge(model, _some(held, args.windows, args.windows // 2, args.model), args.out / "search.json")
    measure = Judge(model, _some(dev, args.windows, args.windows, args.model), args.out / "measured.json")
    norm = float(np.mean([w.frames().norm(dim=-1).mean() for w in search.other]))
    before = measure.point(_empty(weights, sae.config.d_in), 0.0)
    rows: list[Row] = [("unsteered", "", "", 0.0, before._asdict())]
    for strategy, selection, kind in tqdm(COMBINATIONS):
        edit = build_edit(strategy, selection, evidence)
        metadata = with_gate(_empty(weights, sae.config.d_in).metadata, gate)
        metadata = replace(metadata, strategy=strategy, selection=selection, gate=kind)
        pack = SteeringPack(metadata, gate.features, gate.weight, gate.bias, *edit[:3])
        unit, _ = search.best_unit(pack, norm)
        point = measure.point(with_unit(pack, unit), 1.0)
        rows.append((strategy, selection, kind, unit, point._asdict()))
        _write(args.out, rows, measure)


def _arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__, "manifest", "--sae", "--out", model="tiny.en", per_class=24, work=None, threads=2
    )
    parser.add_argument("--windows", type=int, default=48, help="windows of each kind that are measured")
    return parser.parse_args()


def _windows(
    weights: Weights, args: argparse.Namespace, split: str, per_class: int
) -> list[CalibrationWindow]:
    sounds = select_sounds(args.manifest, split, per_class)
    speech = select_speech(args.manifest, split, per_class)
    work = args.work or args.out / "work"
    encoder = WindowEncoder(weights, threads=args.threads)
    return encode(encoder, plan(sounds, speech, 60 if split == "calib" else 0, 0), work)


def _some(
    windows: Sequence[CalibrationWindow], other: int, speech: int, model: str
) -> list[CalibrationWindow]:
    """Windows of each source in turn; of speech those with a transcript, in a language the model knows."""
    known = [
        w
        for w in windows
        if w.is_speech and w.reference and (w.language == "en" or not model.endswith(".en"))
    ]
    return spread([w for w in windows if not w.is_speech], other) + spread(known, speech)


def _empty(weights: Weights, d_in: int) -> SteeringPack:
    metadata = PackMetadata(weights.name, weights.fingerprint, d_in, "direction", "", "window", 1.0)
    nothing = torch.zeros(0)
    features = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, d_in), nothing, nothing)
    empty = Features(*features)
    return SteeringPack(metadata, empty, nothing, torch.zeros(()), empty, torch.zeros(0, d_in), nothing)


def _write(out: Path, rows: Sequence[Row], measure: Judge) -> None:
    lines = [HEAD]
    for strategy, selection, gate, unit, p in rows:
        lines.append(
            f"| {strategy} | {selection} | {gate} | {unit:.3g} | {100 * p['fpr_raw']:.1f}% |"
            f" {100 * p['fpr_kept']:.1f}% | {100 * p['wer']:.2f}% | {100 * p['wer_change']:+.2f} pp |"
        )
    lines.append(f"\n{len(measure.other)} windows without speech, {len(measure.speech)} with.")
    write_text(out / "strategies.md", "\n".join(lines) + "\n")
    write_results(out / "strategies.json", [list(row) for row in rows])


if __name__ == "__main__":
    main()
