"""A sweep: SAEs trained in groups, measured on frames held back, compared; it goes on where it stopped."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
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
from .audio import AS_GIVEN, DomainFigures, domain_figures
from .config import SweepConfig, labels
from .features import SharedFeatures, first_frames, shared_features, sparse_features
from .gate import GateFrames, gate_auc
from .groups import Team, groups
from .ledger import Ledger, digest
from .results import Sweep, SweptSAE, SweptSetting
from .writing import write_json

WORK, LEDGER, RESULT = "work", "ledger.json", "sweep.json"
MEASURED = ("fvu", "l0", "features", "dead", "dense", "twins", "frames")
"""fields of a Quality that are kept"""


class _Beside(NamedTuple):
    """What is measured of an SAE beside its quality."""

    gate_auc: float | None
    domains: dict[str, DomainFigures]
    downstream: Downstream | None


def sweep(
    source: FrameSource,
    config: SweepConfig,
    out: Path,
    gates: Mapping[str, GateFrames] | None = None,
    downstream: Callable[[SAE], Downstream] | None = None,
    device: str | torch.device = "cpu",
    others: Mapping[str, FrameSource] | None = None,
    domains: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Sweep:
    """Train every setting at every tap from every seed, measure and compare; write ``out/sweep.json``.

    SAEs are written to ``out/SETTING/TAP/seedN``, in SAELens v6 layout; each is the one that
    :func:`~whisper_sae_steer.training.train` makes of its options. ``others``, by name, are frames of other
    audio: every setting is trained on them, too, and measured on what ``source`` holds back, as those must.
    ``gates``, by tap, have a gate's AUC measured, ``domains``, by tap and name, each domain's frames [N, d]
    on their own, ``downstream`` WER and FPR of the reconstruction. Stopped, the same call goes on to the bit:
    a group that was finished isn't trained again, nor is an SAE that another sweep into ``out`` has trained.
    ConfigError for settings that can't be had, CalibrationError if no recording is held back, before any
    work.
    """
    taps = list(source.taps)
    sources = {AS_GIVEN: source, **(others or {})}
    teams = {audio: config.members(taps, audio) for audio in sources}
    for audio, team in teams.items():
        check_team(sources[audio], team)
    for tap in taps_of(teams[AS_GIVEN]):
        if next(source.held_back_frames(tap), None) is None:
            raise CalibrationError(
                "settings are compared on recordings held back, and there are none; give more"
            )
    groups(teams[AS_GIVEN], source.taps, config.memory_gb)  # or the last would be refused after hours
    ledger = Ledger(out / WORK / LEDGER)
    marks = {
        member: _mark(sources[audio], member, options)
        for audio, team in teams.items()
        for member, options in team.items()
    }
    for audio, team in teams.items():
        _train(sources[audio], source, config, team, marks, ledger, out, device)
    _compare(source, marks, ledger, out)
    beside: dict[Member, _Beside] = {}
    for member, mark in marks.items():
        sae = load_sae(_folder(out, member))
        gate, frames = (gates or {}).get(member.tap), (domains or {}).get(member.tap, {})
        beside[member] = _Beside(
            _gate(ledger, mark, sae, gate),
            _domains(ledger, f"{mark} {source.key}", sae, frames),
            downstream(sae) if downstream else None,
        )
    conditions = {
        "model": source.model,
        "fingerprint": source.fingerprint,
        "source": source.key,
        "held_back_frames": {member.tap: ledger[mark]["frames"] for member, mark in marks.items()},
        "gate_frames": {tap: _counts(gate) for tap, gate in (gates or {}).items()},
        "domain_frames": {
            tap: {name: len(frames) for name, frames in of_tap.items()}
            for tap, of_tap in (domains or {}).items()
        },
        "seeds": config.seeds,
        "shared": {name: getattr(config.settings[0], name) for name in SHARED},
    }
    result = Sweep(conditions, _collected(teams, marks, ledger, beside))
    write_json(result, out / RESULT)
    return result


def _train(
    source: FrameSource, judge: FrameSource, config: SweepConfig, members: Mapping[Member, TrainConfig],
    marks: Mapping[Member, str], ledger: Ledger, out: Path, device: str | torch.device,
) -> None:  # fmt: skip
    """Train and save what isn't there, a group at a time; quality is that on what ``judge`` holds back."""
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
            quality = asdict(save_trained(one, judge, _folder(out, one.member)))
            figures[marks[one.member]] = {name: quality[name] for name in MEASURED}
        ledger.add(figures)
        (out / WORK / CHECKPOINT).unlink(missing_ok=True)


def _compare(source: FrameSource, marks: Mapping[Member, str], ledger: Ledger, out: Path) -> None:
    """Keep how far the features of each setting's seeds are the same."""
    for tap, setting in dict.fromkeys((member.tap, member.setting) for member in marks):
        seeds = _seeds(marks, tap, setting)
        missing = [pair for pair in combinations(seeds, 2) if _pair(marks, *pair) not in ledger]
        if not missing:
            continue
        frames = first_frames(source.held_back_frames(tap))
        features = {member: sparse_features(load_sae(_folder(out, member)), frames) for member in seeds}
        for a, b in tqdm(missing, f"stability of {setting}", unit="pair"):
            ledger.add({_pair(marks, a, b): list(shared_features(features[a], features[b]))})


def _collected(
    teams: Mapping[str, Mapping[Member, TrainConfig]], marks: Mapping[Member, str], ledger: Ledger,
    beside: Mapping[Member, _Beside],
) -> tuple[SweptSetting, ...]:  # fmt: skip
    """All that was measured, setting by setting at each tap."""
    made_of = {
        member.setting: (options, audio) for audio, team in teams.items() for member, options in team.items()
    }
    short = dict(zip(made_of, labels(list(made_of.values())), strict=True))
    settings: list[SweptSetting] = []
    for tap, setting in product(taps_of(marks), made_of):
        seeds, (options, audio) = _seeds(marks, tap, setting), made_of[setting]
        saes = [
            SweptSAE(
                member.seed,
                _folder(Path(), member).as_posix(),
                **{name: ledger[marks[member]][name] for name in MEASURED if name != "frames"},
                **beside[member]._asdict(),
            )
            for member in seeds
        ]
        pairs = [SharedFeatures(*ledger[_pair(marks, a, b)]) for a, b in combinations(seeds, 2)]
        settings.append(SweptSetting(setting, short[setting], tap, options, audio, tuple(saes), tuple(pairs)))
    return tuple(settings)


def _counts(gate: GateFrames) -> dict[str, int]:
    speech = gate.held_back.is_speech
    return {
        "fitted": len(gate.fitted.is_speech), "speech": int(speech.sum()), "rest": int((~speech).sum())
    }  # fmt: skip


def _seeds(members: Iterable[Member], tap: str, setting: str) -> list[Member]:
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


def _gate(ledger: Ledger, mark: str, sae: SAE, gate: GateFrames | None) -> float | None:
    if gate is None:
        return None
    name = f"gate of {mark} {gate.key}"
    if name not in ledger:
        ledger.add({name: gate_auc(sae, gate)})
    return ledger[name]


def _domains(ledger: Ledger, name: str, sae: SAE, frames: Mapping[str, Tensor]) -> dict[str, DomainFigures]:
    name = f"domains of {name} {sorted(frames)}"
    if frames and name not in ledger:
        ledger.add({name: {domain: list(found) for domain, found in domain_figures(sae, frames).items()}})
    return {domain: DomainFigures(*ledger[name][domain]) for domain in frames}
