"""Last stage of a calibration: the pack's figures on held-back windows, for the pack and for the report."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ..models.greedy import RawWindow
from ..reports import metrics
from ..reports.failures import Failure
from ..sae.autoencoder import SAE
from ..steering.doubt import stock_texts
from ..steering.metadata import PackMetadata
from ..steering.pack import Features, SteeringPack
from .directions import Edit, spread
from .gate import GateReport
from .selection import strongest, take_features
from .strength import AlphaPoint, Judge
from .windows import CalibrationWindow

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
SHOWN_FEATURES = 12
"""of the gate, and of the edit, in the report"""
JUDGED_WINDOWS = 120
"""held-back windows decoded without speech, and as many with"""


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
    failures: tuple[Failure, ...] = ()


class MeasuredPack(NamedTuple):
    """The finished pack and its figures."""

    pack: SteeringPack
    curve: tuple[AlphaPoint, ...]
    no_speech_before: tuple[float, ...]
    no_speech_after: tuple[float, ...]
    failures: tuple[Failure, ...]
    """recordings of which windows without speech keep text at α = 1, or those with speech lose all of it"""


def judged_windows(held_back: Sequence[CalibrationWindow]) -> list[CalibrationWindow]:
    """Held-back windows to decode, an equal share of each source."""
    other = spread([w for w in held_back if not w.is_speech], JUDGED_WINDOWS)
    return other + spread([w for w in held_back if w.is_speech], JUDGED_WINDOWS)


def measure(
    judge: Judge,
    pack: SteeringPack,
    windows: Sequence[CalibrationWindow],
    gate: GateReport | None,
    base: SteeringPack | None,
) -> MeasuredPack:
    """Figures at every α, and the pack with them and with the texts that the model invents."""
    curve = tuple(judge.point(pack, alpha) for alpha in tqdm(ALPHAS, desc="measure"))
    invented = stock_texts(judge.unsteered[w.key]["text"] for w in judge.other)
    known = base.metadata.stock_texts if base else ()
    metadata = replace(pack.metadata, stock_texts=tuple(dict.fromkeys([*known, *invented])))
    pack = pack._replace(metadata=_documented(metadata, windows, curve, gate, base))
    pairs = [(window, judge.unsteered[window.key], raw) for window, raw in judge.steered(pack)]
    return MeasuredPack(
        pack,
        curve,
        tuple(before["no_speech_prob"] for window, before, _ in pairs if not window.is_speech),
        tuple(after["no_speech_prob"] for window, _, after in pairs if not window.is_speech),
        tuple(failure for pair in pairs if (failure := _failure(*pair))),
    )


def _failure(window: CalibrationWindow, before: RawWindow, after: RawWindow) -> Failure | None:
    """What went wrong with a recording's window, if anything; synthetic sounds are nobody's recordings."""
    wrote, writes = (metrics.has_text(raw["text"]) for raw in (before, after))
    failed = wrote and not writes if window.is_speech else writes
    if window.clip is None or not failed:
        return None
    what = "an utterance is lost" if window.is_speech else "text where nobody speaks"
    return Failure(window.clip, what, before["text"].strip(), after["text"].strip())


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


def feature_rows(
    sae: SAE, pack: SteeringPack, edit: Edit, windows: Sequence[CalibrationWindow]
) -> tuple[FeatureRow, ...]:
    """The strongest features of the gate and of the edit, and when they fire."""
    weights = {
        "gate": (pack.gate.ids.numpy(), pack.gate_weight.numpy()),
        "edit": (edit.ids, edit.coefficients.numpy()[: len(edit.ids)]),
    }
    chosen = {role: strongest(weight, SHOWN_FEATURES) for role, (_, weight) in weights.items()}
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
