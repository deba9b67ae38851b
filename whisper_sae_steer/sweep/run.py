"""A sweep: SAEs trained in groups, measured on frames held back, compared; it goes on where it stopped."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import CalibrationError
from ..sae.autoencoder import SAE
from ..sae.formats import WEIGHT_FILES, load_sae
from ..training.config import TrainConfig
from ..training.downstream import Downstream
from ..training.saving import save_trained
from ..training.source import FrameSource
from ..training.trainee import Member
from ..training.trainer import CHECKPOINT, SHARED, check_team, taps_of, train_team
from .config import SweepConfig, labels, setting_name
from .features import SharedFeatures, first_frames, shared_features, sparse_features
from .gate import GateFrames, gate_auc
from .groups import Team, groups
from .ledger import Ledger, digest
from .results import Sweep, SweptSAE, SweptSetting, write_json

WORK, LEDGER, RESULT = "work", "ledger.json", "sweep.json"
MEASURED = ("fvu", "l0", "features", "dead", "dense", "twins", "frames")
"""fields of a Quality that are kept"""


def sweep(
    source: FrameSource,
    config: SweepConfig,
    out: Path,
    gates: Mapping[str, GateFrames] | None = None,
    downstream: Callable[[SAE], Downstream] | None = None,
    device: str | torch.device = "cpu",
) -> Sweep:
    """Train every setting at every tap from every seed, measure and compare; write ``out/sweep.json``.

    SAEs are written to ``out/SETTING/TAP/seedN``, in SAELens v6 layout; each is the one that
    :func:`~whisper_sae_steer.training.train` makes of its options. ``gates``, by tap, have a gate's AUC
    measured, ``downstream`` WER and FPR of the reconstruction. Stopped, the same call goes on to the bit: a
    group that was finished isn't trained again, nor is an SAE that another sweep into ``out`` has trained.
    ConfigError for settings that can't be had, CalibrationError if no recording is held back, before any
    work.
    """
    members = config.members(list(source.taps))
    check_team(source, members)
    for tap in taps_of(members):
        if next(source.held_back_frames(tap), None) is None:
            raise CalibrationError(
                "settings are compared on recordings held back, and there are none; give more"
            )
    groups(members, source.taps, config.memory_gb)  # or the last would be refused after hours
    ledger = Ledger(out / WORK / LEDGER)
    marks = {member: _mark(source, member, options) for member, options in members.items()}
    _train(source, config, members, marks, ledger, out, device)
    _compare(source, members, marks, ledger, out)
    for member in members:
        gate = (gates or {}).get(member.tap)
        name = _gate(marks[member], gate)
        if gate is not None and name not in ledger:
            ledger.add({name: gate_auc(load_sae(_folder(out, member)), gate)})
    costs = {member: downstream(load_sae(_folder(out, member))) if downstream else None for member in members}
    result = _collected(source, config, members, marks, ledger, costs, gates or {})
    write_json(result, out / RESULT)
    return result


def _train(
    source: FrameSource, config: SweepConfig, members: Mapping[Member, TrainConfig],
    marks: Mapping[Member, str], ledger: Ledger, out: Path, device: str | torch.device,
) -> None:  # fmt: skip
    """Train and save what isn't there, a group at a time."""
    waiting = {
        member: options
        for member, options in members.items()
        if marks[member] not in ledger or not _is_saved(_folder(out, member))
    }
    teams: list[Team] = groups(waiting, source.taps, config.memory_gb)
    for number, team in enumerate(teams, 1):
        tqdm.write(f"group {number} of {len(teams)}: {len(team)} SAEs")
        figures: dict[str, Any] = {}
        for one in train_team(source, team, out / WORK, device):
            ledger.forget(f"{one.member.name} ")  # another source's, whose folder this one takes
            quality = asdict(save_trained(one, source, _folder(out, one.member)))
            figures[marks[one.member]] = {name: quality[name] for name in MEASURED}
        ledger.add(figures)
        (out / WORK / CHECKPOINT).unlink(missing_ok=True)


def _compare(
    source: FrameSource, members: Mapping[Member, TrainConfig], marks: Mapping[Member, str], ledger: Ledger,
    out: Path,
) -> None:  # fmt: skip
    """Keep how far the features of each setting's seeds are the same."""
    for tap, setting in dict.fromkeys((member.tap, member.setting) for member in members):
        seeds = _seeds(members, tap, setting)
        missing = [pair for pair in combinations(seeds, 2) if _pair(marks, *pair) not in ledger]
        if not missing:
            continue
        frames = first_frames(source.held_back_frames(tap))
        features = {member: sparse_features(load_sae(_folder(out, member)), frames) for member in seeds}
        for a, b in tqdm(missing, f"stability of {setting}", unit="pair"):
            ledger.add({_pair(marks, a, b): list(shared_features(features[a], features[b]))})


def _collected(
    source: FrameSource, config: SweepConfig, members: Mapping[Member, TrainConfig],
    marks: Mapping[Member, str], ledger: Ledger, costs: Mapping[Member, Downstream | None],
    gates: Mapping[str, GateFrames],
) -> Sweep:  # fmt: skip
    """All that was measured, setting by setting."""
    short = {
        setting_name(c): label for c, label in zip(config.settings, labels(config.settings), strict=True)
    }
    settings: list[SweptSetting] = []
    for tap, setting in dict.fromkeys((member.tap, member.setting) for member in members):
        seeds = _seeds(members, tap, setting)
        saes = [
            SweptSAE(
                member.seed,
                _folder(Path(), member).as_posix(),
                **{name: ledger[marks[member]][name] for name in MEASURED if name != "frames"},
                gate_auc=ledger.get(_gate(marks[member], gates.get(tap))),
                downstream=costs[member],
            )
            for member in seeds
        ]
        pairs = [SharedFeatures(*ledger[_pair(marks, a, b)]) for a, b in combinations(seeds, 2)]
        settings.append(
            SweptSetting(setting, short[setting], tap, members[seeds[0]], tuple(saes), tuple(pairs))
        )
    conditions = {
        "model": source.model,
        "fingerprint": source.fingerprint,
        "source": source.key,
        "held_back_frames": {m.tap: ledger[marks[m]]["frames"] for m in members},
        "gate_frames": {tap: _counts(gate) for tap, gate in gates.items()},
        "seeds": config.seeds,
        "shared": {name: getattr(config.settings[0], name) for name in SHARED},
    }
    return Sweep(conditions, tuple(settings))


def _counts(gate: GateFrames) -> dict[str, int]:
    speech = gate.held_back.is_speech
    return {
        "fitted": len(gate.fitted.is_speech), "speech": int(speech.sum()), "rest": int((~speech).sum())
    }  # fmt: skip


def _seeds(members: Mapping[Member, TrainConfig], tap: str, setting: str) -> list[Member]:
    return [member for member in members if (member.tap, member.setting) == (tap, setting)]


def _folder(out: Path, member: Member) -> Path:
    return out / member.setting / member.tap / f"seed{member.seed}"


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHT_FILES)


def _mark(source: FrameSource, member: Member, options: TrainConfig) -> str:
    """Names an SAE in the ledger, by all that it is made of."""
    made_of = [source.key, source.fingerprint, member.tap, member.seed, asdict(options)]
    return f"{member.name} {digest(made_of)}"


def _pair(marks: Mapping[Member, str], a: Member, b: Member) -> str:
    return f"{marks[a]} and {marks[b]}"


def _gate(mark: str, gate: GateFrames | None) -> str:
    return f"gate of {mark} {gate.key}" if gate else ""
