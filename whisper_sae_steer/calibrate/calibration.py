"""The whole calibration, step by step; every finished step is kept in a work folder."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ..audio.clips import Clip
from ..errors import CalibrationError
from ..files import write_text
from ..models.convert import load_torch
from ..models.taps import WindowEncoder
from ..models.weights import Weights
from ..sae.autoencoder import SAE
from ..steering.doubt import stock_texts
from ..steering.pack import Features, GateKind, PackMetadata, SteeringPack, Strategy
from .attribution import SilenceObjective
from .directions import Edit, EditEvidence, Selection, build_edit, check_choice, joined, spread
from .export_gate import fit_export_gate
from .gate import FeatureGate, GateReport, fit_gate, report_gate, window_scores, with_gate
from .guarantee import keep_promise
from .risk import fit_calibrations
from .selection import FrameSample, sample_frames, strongest, take_features
from .strength import AlphaPoint, Judge, plain_model, with_unit
from .windows import CalibrationWindow, encode, plan, words_in_noise

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
SHOWN = 12
"""features of the gate, and of the edit, in the report"""
JUDGED = 120
"""held-back windows decoded without speech, and as many with"""


@dataclass(frozen=True)
class CalibrationConfig:
    """Options of :func:`calibrate`."""

    strategy: Strategy = "direction"
    """what the edit adds to a frame: one direction, or less (suppress) or more (additive) of some features"""
    selection: Selection = "attribution"
    """how features are chosen; gradient and contrast are dense baselines"""
    gate: GateKind = "window"
    """what speech is looked for in: the window, each frame, or nowhere"""
    synthetic: int = 60
    """synthetic sounds added to the recordings without speech"""
    seed: int = 0
    """of every random choice"""


class FeatureRow(NamedTuple):
    """One chosen feature and when it fires."""

    feature: int
    role: str
    """gate or edit"""
    weight: float
    on_speech: float | None
    """share of speech frames it fires on; None without speech"""
    on_other: float
    """share of content frames without speech"""
    top_source: str
    """source without speech on which it fires most"""


class CalibrationReport(NamedTuple):
    """What calibration gained and what it cost, on recordings it held back."""

    metadata: PackMetadata
    curve: tuple[AlphaPoint, ...]
    search: tuple[tuple[float, AlphaPoint], ...]
    gate: GateReport | None
    features: tuple[FeatureRow, ...]
    no_speech_before: tuple[float, ...]
    no_speech_after: tuple[float, ...]


class CalibrationResult(NamedTuple):
    """A pack and its report."""

    pack: SteeringPack
    report: CalibrationReport


def calibrate(
    weights: Weights,
    sae: SAE,
    nonspeech: Sequence[Clip],
    speech: Sequence[Clip],
    config: CalibrationConfig,
    work: Path,
    base: SteeringPack | None = None,
) -> CalibrationResult:
    """Fit a steering pack for ``weights`` on clips, keeping encoded windows in ``work``.

    A quarter of the recordings is held back; the gate and the directions are fitted on the rest, the α
    unit is searched on the held-back part. What ``base`` learnt of other recordings is kept, and corrected
    by these: few recordings alone do less than many others. Without speech its gate stays as it is, and
    nothing can be said about word errors. Raises CalibrationError before work starts where it can.
    """
    _check(weights, sae, nonspeech, speech, config, base)
    _claim(work, weights)
    encoder = WindowEncoder(weights, sae.config.tap)
    windows = encode(encoder, plan(nonspeech, speech, config.synthetic, config.seed), work)
    buried = encode(encoder, words_in_noise(nonspeech, speech, config.seed), work)
    probe = encoder.probe()
    del encoder
    fitted = [w for w in windows if not w.held_back]
    held = [w for w in windows if w.held_back]
    has_speech = any(w.is_speech for w in windows)
    sample = sample_frames(sae, fitted, config.seed)
    gate, metadata = _gate(weights, sae, sample, fitted, config, base)
    scores = window_scores(gate, held)
    if has_speech:
        calibrations = fit_calibrations(held, scores, config.seed)
        gate, guarantee = keep_promise(gate, metadata, held, scores)
        metadata = replace(
            with_gate(metadata, gate),
            speech_calibration=calibrations.speech,
            risk_calibration=calibrations.risk,
            guarantee=guarantee._asdict(),
        )
    model = load_torch(weights)
    pooled = base.pooled if base else None
    if has_speech:
        pooled = fit_export_gate(model, windows + buried, config.seed, pooled)
    objective = SilenceObjective(model)
    tqdm.write("selecting features")
    edit = build_edit(config.strategy, config.selection, EditEvidence(sae, objective, sample, fitted))
    unit = 0.0
    if base is not None and base.metadata.strategy == config.strategy == "direction":
        edit, unit = joined(edit, base), base.metadata.alpha_unit
    pack = SteeringPack(
        metadata, gate.features, gate.weight, gate.bias, edit.features, edit.directions,
        edit.coefficients, probe, pooled,
    )  # fmt: skip
    judge = Judge(plain_model(str(weights.ct2_dir)), _judged(held), work / "decoded.json")
    tqdm.write("searching the strength")
    norm = float(np.mean([w.frames().norm(dim=-1).mean() for w in judge.other]))
    best, search = judge.best_unit(pack, norm)
    pack = with_unit(pack, max(best, unit))
    curve = tuple(judge.point(pack, alpha) for alpha in tqdm(ALPHAS, desc="measure"))
    gate_report = report_gate(gate, held, scores) if has_speech else None
    invented = stock_texts(judge.unsteered[w.key]["text"] for w in judge.other)
    known = base.metadata.stock_texts if base else ()
    metadata = replace(pack.metadata, stock_texts=tuple(dict.fromkeys([*known, *invented])))
    pack = pack._replace(metadata=_documented(metadata, windows, curve, gate_report, base))
    report = CalibrationReport(
        pack.metadata, curve, tuple(search), gate_report, _feature_rows(sae, pack, edit, fitted),
        *judge.no_speech(pack),
    )  # fmt: skip
    return CalibrationResult(pack, report)


def _check(
    weights: Weights,
    sae: SAE,
    nonspeech: Sequence[Clip],
    speech: Sequence[Clip],
    config: CalibrationConfig,
    base: SteeringPack | None,
) -> None:
    trained_on = sae.config.metadata.get("fingerprint")
    if trained_on is not None and trained_on != weights.fingerprint:
        raise CalibrationError(
            f"the SAE was trained on other weights ({sae.config.model}) than {weights.name};"
            " train one with `whisper-sae-steer train`"
        )
    if sae.config.tap != "encoder_output":
        raise CalibrationError(
            f"the SAE reads {sae.config.tap or 'an unknown tap'}, but what is edited and decoded here is the"
            " encoder_output; train one with `whisper-sae-steer train`"
        )
    if not nonspeech and not config.synthetic:
        raise CalibrationError("no audio without speech: give --nonspeech, or --synthetic > 0")
    names = Counter(clip.key for clip in [*nonspeech, *speech])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise CalibrationError(f"two recordings are called {twice[0]}: rename one of their folders")
    check_choice(config.strategy, config.selection, bool(speech))
    if not speech and base is None:
        raise CalibrationError("a gate needs --speech recordings, or a pack to build on (--base)")


def _claim(work: Path, weights: Weights) -> None:
    """Mark the work folder as that of these weights, or refuse it if it is another's."""
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "fingerprint.txt"
    if not mark.exists():
        write_text(mark, weights.fingerprint)
    elif mark.read_text() != weights.fingerprint:
        raise CalibrationError(f"{work} holds windows of other weights; give another --work, or delete it")


def _gate(
    weights: Weights,
    sae: SAE,
    sample: FrameSample,
    fitted: Sequence[CalibrationWindow],
    config: CalibrationConfig,
    base: SteeringPack | None,
) -> tuple[FeatureGate, PackMetadata]:
    """A gate fitted on the recordings, or the base's where there is no speech to fit on."""
    metadata = PackMetadata(
        model=weights.name,
        fingerprint=weights.fingerprint,
        d_in=sae.config.d_in,
        strategy=config.strategy,
        selection=config.selection,
        gate=config.gate,
        alpha_unit=1.0,
        tap=sae.config.tap,
        sae={
            "d_sae": sae.config.d_sae,
            "k": sae.config.k,
            "held_back": sae.config.metadata.get("held_back"),
        },
        created_with=f"whisper-sae-steer {version('whisper-sae-steer')}",
    )
    if base is None or sample.is_speech.any():
        gate = fit_gate(sae, sample, fitted, base)
        return gate, with_gate(metadata, gate)
    old = base.metadata
    gate = FeatureGate(base.gate, base.gate_weight, base.gate_bias, old.gate_smoothing, old.levels)
    metadata = replace(
        with_gate(metadata, gate),
        speech_calibration=old.speech_calibration,
        risk_calibration=old.risk_calibration,
        guarantee=old.guarantee,
    )
    return gate, metadata


def _judged(held: Sequence[CalibrationWindow]) -> list[CalibrationWindow]:
    """Held-back windows to decode, an equal share of each source."""
    other = spread([w for w in held if not w.is_speech], JUDGED)
    return other + spread([w for w in held if w.is_speech], JUDGED)


def _documented(
    metadata: PackMetadata,
    windows: Sequence[CalibrationWindow],
    curve: Sequence[AlphaPoint],
    gate: GateReport | None,
    base: SteeringPack | None,
) -> PackMetadata:
    """Metadata with the data it was made from and its held-back figures."""
    clips = {w.clip.key: w.clip for w in windows if w.clip is not None}
    keys = "\n".join(sorted(clips))
    data = {
        "clips": len(clips),
        "sources": dict(sorted(Counter(f"{c.kind}/{c.source}" for c in clips.values()).items())),
        "licences": sorted({f"{c.origin or c.source}: {c.licence}" for c in clips.values() if c.licence}),
        "synthetic": sum(w.clip is None for w in windows),
        "sha256": hashlib.sha256(keys.encode()).hexdigest(),
        "built_on": base.metadata.data if base else None,
    }
    by_alpha = {point.alpha: point._asdict() for point in curve}
    metrics = {
        "definition": "held-back windows, greedy first 30 s; fpr_kept after Whisper's own rule",
        "unsteered": by_alpha[0.0],
        "steered": by_alpha[1.0],
        "gate": gate._asdict() if gate else None,
    }
    return replace(metadata, data=data, metrics=metrics, compute_types=("float32",))


def _feature_rows(
    sae: SAE, pack: SteeringPack, edit: Edit, windows: Sequence[CalibrationWindow]
) -> tuple[FeatureRow, ...]:
    """The strongest features of the gate and of the edit, and when they fire."""
    weights = {
        "gate": (pack.gate.ids.numpy(), pack.gate_weight.numpy()),
        "edit": (edit.ids, edit.coefficients.numpy()[: len(edit.ids)]),
    }
    chosen = {role: strongest(weight, SHOWN) for role, (_, weight) in weights.items()}
    ids = np.concatenate([weights[role][0][index] for role, index in chosen.items()])
    # a shipped gate may stem from another SAE than the edit
    gate = Features(*(part[torch.from_numpy(chosen["gate"])] for part in pack.gate))
    written = take_features(sae, edit.ids[chosen["edit"]])
    features = Features(*(torch.cat(parts) for parts in zip(gate, written, strict=True)))
    speech, other, sources = _firing(features, windows)
    roles = [(role, weights[role][1][i]) for role, index in chosen.items() for i in index]
    return tuple(
        FeatureRow(
            int(ids[i]), role, float(weight), None if speech is None else float(speech[i]),
            float(other[:, i].mean()),
            sources[int(other[:, i].argmax())],
        )
        for i, (role, weight) in enumerate(roles)
    )  # fmt: skip


@torch.no_grad()
def _firing(
    features: Features, windows: Sequence[CalibrationWindow]
) -> tuple[torch.Tensor | None, torch.Tensor, list[str]]:
    """Share of frames on which features fire: on speech, if any, [F]; on each other source [S, F]; names."""
    fired: dict[str, list[torch.Tensor]] = {}
    for window in windows:
        active = features.activations(window.frames()) > 0
        if window.is_speech:
            fired.setdefault("speech", []).append(active[torch.from_numpy(window.speech)])
        else:
            fired.setdefault(window.source, []).append(active[: window.content])
    rates = {source: torch.cat(parts).float().mean(0) for source, parts in fired.items()}
    speech = rates.pop("speech", None)
    return speech, torch.stack(list(rates.values())), list(rates)
