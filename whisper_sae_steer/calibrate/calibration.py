"""A calibration, stage by stage. Windows and decoded texts are kept in a work folder, so that it can go on.

windows → gate and its levels → promise → gate of exports → edit → strength → measured pack

Frames are read and edited at the SAE's tap, and what the encoder still does after it is run on them before
they are decoded. Only edits of ``encoder_output`` can be exported: other packs have no gate for that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from whisper import Whisper

from ..audio.clips import Clip
from ..errors import CalibrationError
from ..files import write_text
from ..models.convert import load_torch
from ..models.marks import differ
from ..models.memory import large_blocks_returned
from ..models.taps import WindowEncoder, rest_of_encoder
from ..models.weights import Weights
from ..sae.autoencoder import SAE
from ..steering.metadata import PackMetadata
from ..steering.pack import ExportGate, SteeringPack
from .attribution import SilenceObjective
from .config import CalibrationConfig
from .directions import Edit, EditEvidence, build_edit, joined
from .export_gate import fit_export_gate
from .gate import (
    FeatureGate,
    GateReport,
    fit_gate,
    place_levels,
    report_gate,
    window_scores,
    with_gate,
)
from .guarantee import keep_promise
from .measure import CalibrationReport, feature_rows, judged_windows, measure
from .recordings import check_recordings
from .risk import Calibrations, fit_calibrations
from .selection import FrameSample, joined_samples, sample_frames, with_threshold
from .strength import AlphaPoint, Judge, plain_model, with_unit
from .windows import FOLDS, HELD_BACK, CalibrationWindow, encode, plan, words_in_noise


class CalibrationResult(NamedTuple):
    """A pack and its report."""

    pack: SteeringPack
    report: CalibrationReport


class EncodedRecordings(NamedTuple):
    """First stage: all windows, encoded."""

    windows: Sequence[CalibrationWindow]
    words_in_noise: Sequence[CalibrationWindow]
    """for the gate of exports only; none at other taps than ``encoder_output``"""
    probe: torch.Tensor
    """[d], see :meth:`WindowEncoder.probe`"""

    def fold(self, number: int) -> list[CalibrationWindow]:
        return [w for w in self.windows if w.fold == number]

    def without(self, fold: int) -> list[CalibrationWindow]:
        return [w for w in self.windows if w.fold != fold]

    @property
    def fitted(self) -> list[CalibrationWindow]:
        return self.without(HELD_BACK)

    @property
    def held_back(self) -> list[CalibrationWindow]:
        return self.fold(HELD_BACK)

    @property
    def has_speech(self) -> bool:
        return any(w.is_speech for w in self.windows)


class CalibratedGate(NamedTuple):
    """Second stage: a gate that keeps its promise on recordings that it was not fitted on."""

    gate: FeatureGate
    probabilities: Calibrations
    guarantee: Mapping[str, Any]
    report: GateReport | None
    """None without speech: the gate is the base's"""


class ChosenEdit(NamedTuple):
    """Third stage: what is added to frames, before α and its unit."""

    edit: Edit
    least_unit: float
    """the base's: what it needs for the sounds that it has heard"""


class FoundStrength(NamedTuple):
    """Fourth stage: the pack at the strength that α = 1 stands for."""

    pack: SteeringPack
    search: Sequence[tuple[float, AlphaPoint]]
    """every unit tried"""


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
    recordings = encode_recordings(weights, sae, nonspeech, speech, config, work)
    model = load_torch(weights)
    tap = sae.config.tap
    at_output = tap == "encoder_output"
    with large_blocks_returned():
        sae = with_threshold(sae, recordings.fitted, config.seed)
        samples = sample_folds(sae, recordings, config.seed)
        gate = calibrate_gate(sae, samples, recordings, config.seed, base)
        export_gate = calibrate_export_gate(model, recordings, config.seed, base) if at_output else None
    judged = judged_windows(recordings.held_back)
    # weights with the same encoder may share the folder, but not the texts
    decoded = work / f"decoded-{weights.sha256[:12]}.json"
    judge = Judge(plain_model(str(weights.ct2_dir)), judged, decoded, rest_of_encoder(model.encoder, tap))
    metadata = replace(_metadata(weights, sae, config), no_speech_works=judge.no_speech_works())
    objective = SilenceObjective(model, tap, metadata.no_speech_works)
    evidence = EditEvidence(sae, objective, _without(samples, HELD_BACK), recordings.fitted)
    with large_blocks_returned():
        chosen = choose_edit(evidence, config, base)
    pack = _assembled(metadata, gate, chosen.edit, recordings.probe, export_gate)
    strength = find_strength(judge, pack, chosen.least_unit)
    measured = measure(judge, strength.pack, recordings.windows, gate.report, base)
    report = CalibrationReport(
        measured.pack.metadata, measured.curve, tuple(strength.search), gate.report,
        feature_rows(sae, measured.pack, chosen.edit, recordings.fitted),
        measured.no_speech_before, measured.no_speech_after, measured.failures,
    )  # fmt: skip
    return CalibrationResult(measured.pack, report)


def encode_recordings(
    weights: Weights,
    sae: SAE,
    nonspeech: Sequence[Clip],
    speech: Sequence[Clip],
    config: CalibrationConfig,
    work: Path,
) -> EncodedRecordings:
    """Encode what ``work`` doesn't hold yet, at the SAE's tap. The encoder is gone again afterwards."""
    tap = sae.config.tap
    encoder = WindowEncoder(weights, tap, parallel=True)
    probe = encoder.probe()
    sae.preactivations(probe)  # refuses another width before anything is encoded
    _claim(work, weights, tap)
    words = words_in_noise(nonspeech, speech, config.seed) if tap == "encoder_output" else []
    return EncodedRecordings(
        encode(encoder, plan(nonspeech, speech, config.synthetic, config.seed), work),
        encode(encoder, words, work),
        probe,
    )


def sample_folds(sae: SAE, recordings: EncodedRecordings, seed: int) -> dict[int, FrameSample]:
    """Labelled SAE features of the windows of each fold that has any."""
    folds = {number: recordings.fold(number) for number in range(FOLDS)}
    return {
        number: sample_frames(sae, windows, seed)
        for number, windows in tqdm(folds.items(), desc="sample", unit="fold")
        if any(w.speech.any() or not w.is_speech for w in windows)
    }


def calibrate_gate(
    sae: SAE,
    samples: Mapping[int, FrameSample],
    recordings: EncodedRecordings,
    seed: int,
    base: SteeringPack | None,
) -> CalibratedGate:
    """A gate fitted on the recordings, or the base's where there is no speech to fit on.

    Its levels and its promise come from scores of every recording by a gate that was not fitted on it.
    """
    sample = _without(samples, HELD_BACK)
    levels = base.metadata.levels if base else None
    if base is None or sample.is_speech.any():
        gate = fit_gate(sae, sample, recordings.fitted, base)
        unseen = _unseen_scores(sae, samples, recordings, base)
        unseen |= window_scores(gate, [w for w in recordings.windows if w.key not in unseen])
        gate = place_levels(gate, recordings.windows, unseen, levels)
    else:
        old = base.metadata
        gate = FeatureGate(base.gate, base.gate_weight, base.gate_bias, old.gate_smoothing, old.levels)
        if not recordings.has_speech:
            probabilities = Calibrations(old.speech_calibration, old.risk_calibration)
            return CalibratedGate(gate, probabilities, old.guarantee, None)
        unseen = window_scores(gate, recordings.windows)
    held = recordings.held_back
    probabilities = fit_calibrations(held, unseen, seed)
    gate, guarantee = keep_promise(gate, recordings.windows, unseen)
    return CalibratedGate(gate, probabilities, guarantee._asdict(), report_gate(gate, held, unseen))


def _unseen_scores(
    sae: SAE, samples: Mapping[int, FrameSample], recordings: EncodedRecordings, base: SteeringPack | None
) -> dict[str, NDArray[np.float32]]:
    """Scores of the folds that are not held back, each by a gate that was fitted on all others."""
    scores: dict[str, NDArray[np.float32]] = {}
    for number in tqdm([n for n in samples if n != HELD_BACK], desc="folds", unit="fold"):
        sample = _without(samples, number)
        if 0 < sample.is_speech.sum() < len(sample.is_speech):
            gate = fit_gate(sae, sample, recordings.without(number), base)
            scores |= window_scores(gate, recordings.fold(number))
    return scores


def _without(samples: Mapping[int, FrameSample], fold: int) -> FrameSample:
    return joined_samples([sample for number, sample in samples.items() if number != fold])


def calibrate_export_gate(
    model: Whisper, recordings: EncodedRecordings, seed: int, base: SteeringPack | None
) -> ExportGate | None:
    """The gate that exported weights can hold; without speech the base's, if there is one."""
    known = base.pooled if base else None
    if not recordings.has_speech:
        return known
    return fit_export_gate(model, [*recordings.windows, *recordings.words_in_noise], seed, known)


def choose_edit(evidence: EditEvidence, config: CalibrationConfig, base: SteeringPack | None) -> ChosenEdit:
    """The edit of the chosen features, half-way to the base's if both are constant vectors."""
    edit = build_edit(config.strategy, config.selection, evidence)
    if base is not None and base.metadata.strategy == config.strategy == "direction":
        return ChosenEdit(joined(edit, base), base.metadata.alpha_unit)
    return ChosenEdit(edit, 0.0)


def find_strength(judge: Judge, pack: SteeringPack, least_unit: float) -> FoundStrength:
    """Search the unit of α on held-back windows; it is ``least_unit`` or more."""
    norm = float(np.mean([w.frames().norm(dim=-1).mean() for w in judge.other]))
    best, search = judge.best_unit(pack, norm)
    return FoundStrength(with_unit(pack, max(best, least_unit)), search)


def _metadata(weights: Weights, sae: SAE, config: CalibrationConfig) -> PackMetadata:
    """What is known of the pack before anything is fitted."""
    return PackMetadata(
        model=weights.name,
        fingerprint=weights.fingerprint,
        encoder_mark=weights.encoder_mark,
        decoder_mark=weights.decoder_mark,
        decoder_fingerprint=weights.decoder_fingerprint,
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


def _assembled(
    metadata: PackMetadata,
    calibrated: CalibratedGate,
    edit: Edit,
    probe: torch.Tensor,
    export_gate: ExportGate | None,
) -> SteeringPack:
    """The pack, but for its strength and figures."""
    gate = calibrated.gate
    metadata = replace(
        with_gate(metadata, gate),
        speech_calibration=calibrated.probabilities.speech,
        risk_calibration=calibrated.probabilities.risk,
        guarantee=calibrated.guarantee,
    )
    return SteeringPack(
        metadata, gate.features, gate.weight, gate.bias, edit.features, edit.directions,
        edit.coefficients, probe, export_gate,
    )  # fmt: skip


def _check(
    weights: Weights,
    sae: SAE,
    nonspeech: Sequence[Clip],
    speech: Sequence[Clip],
    config: CalibrationConfig,
    base: SteeringPack | None,
) -> None:
    trained_on = sae.config.metadata
    if differ(trained_on.get("fingerprint"), weights.fingerprint) or differ(
        trained_on.get("encoder_mark"), weights.encoder_mark
    ):
        raise CalibrationError(
            f"the SAE was trained on other weights ({sae.config.model}) than {weights.name};"
            " train one with `whisper-sae-steer train`"
        )
    if not sae.config.tap:
        raise CalibrationError(
            "the SAE doesn't say what it reads; load it with load_sae(PATH, tap='block.N') and save it with"
            " save_sae"
        )
    if base is not None and base.metadata.tap != sae.config.tap:
        raise CalibrationError(
            f"the pack to build on edits {base.metadata.tap}, the SAE reads {sae.config.tap};"
            " give one that reads the same as --sae, or --base none"
        )
    check_recordings(nonspeech, speech, config, base is not None)


def _claim(work: Path, weights: Weights, tap: str) -> None:
    """Mark the work folder as that of these weights and this tap, or refuse it if it is another's."""
    work.mkdir(parents=True, exist_ok=True)
    mark = work / "fingerprint.txt"
    owner = f"{weights.encoder_mark or weights.fingerprint} {tap}"
    if not mark.exists():
        write_text(mark, owner)
    elif mark.read_text() != owner:
        raise CalibrationError(
            f"{work} holds windows of other weights or of another tap; give another --work, or delete it"
        )
