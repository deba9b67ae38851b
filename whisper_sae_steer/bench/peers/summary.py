"""The comparison: every peer against its unsteered library, and the best setting of each method."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ...audio.clips import NONSPEECH_KINDS
from ..report import summarise
from ..runner import Row
from .catalogue import Peer

Entry: TypeAlias = dict[str, Any]
"""One peer in `summary.json`."""

MAX_COST = 0.005
RULE = (
    "Of each method the setting stands with the lowest FPR_text among those whose WER is at most 0.5 pp"
    " above that of the unsteered library (lower WER first where equal), else the one with the lowest"
    " WER. It was chosen on the very clips of this table, which flatters methods with many settings"
)


def compare(peers: Sequence[Peer], rows: Mapping[str, Sequence[Row]]) -> list[Entry]:
    """An entry for each peer that has rows, in their order; `chosen` marks each method's best setting."""
    entries = [
        _entry(peer, rows[peer.name], rows.get(peer.baseline, [])) for peer in peers if peer.name in rows
    ]
    methods: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        methods[entry["method"]].append(entry)
    for settings in methods.values():
        best(settings)["chosen"] = True
    return entries


def best(settings: Sequence[Entry]) -> Entry:
    """The setting that RULE takes. Without speech, or without non-speech, the other figure decides."""
    cheap = [entry for entry in settings if _cost(entry) <= MAX_COST]
    if cheap:
        return min(cheap, key=lambda entry: (_fpr(entry), _cost(entry)))
    return min(settings, key=_cost)


def _fpr(entry: Entry) -> float:
    return entry["nonspeech"]["FPR_text"]["rate"] if entry["nonspeech"] else 0.0


def _cost(entry: Entry) -> float:
    change = (entry["speech"] or {}).get("WER_change")
    return change["value"] if change else 0.0


def _entry(peer: Peer, rows: Sequence[Row], baseline: Sequence[Row]) -> Entry:
    """Figures of one peer at "α = 1", those of its unsteered library standing at α = 0."""
    own = peer.name == peer.baseline
    after: list[Row] = [{**row, "backend": peer.name, "alpha": 1.0} for row in rows]
    before: list[Row] = [{**row, "backend": peer.name, "alpha": 0.0, "pack": None} for row in baseline]
    measured = {row["path"] for row in rows}
    paired = [row for row in before if row["path"] in measured]
    summary = summarise(before if own else paired + after)
    return {
        "name": peer.name,
        "method": peer.method,
        "setting": peer.setting,
        "library": peer.library,
        "alpha": peer.alpha,
        "pack": next((row["pack"] for row in rows), None),
        "compute_type": rows[0]["compute_type"],
        "options": dict(peer.options),
        "chosen": False,
        "nonspeech": _section(summary["nonspeech"], "0" if own else "1"),
        "speech": _section(summary["speech"], "0" if own else "1"),
        "RTFx": {"speech": _speed(rows, ("speech",)), "nonspeech": _speed(rows, NONSPEECH_KINDS)},
        "failed": sum(row["error"] is not None for row in rows),
    }


def _section(section: dict[str, Any] | None, alpha: str) -> dict[str, Any] | None:
    """The cells of one α."""
    if section is None:
        return None
    groups = {name: cells for name, cells in section.items() if name.startswith("by_")}
    return section["total"][alpha] | {
        name: {group: cells[alpha] for group, cells in groups[name].items()} for name in groups
    }


def _speed(rows: Sequence[Row], kinds: Sequence[str]) -> float | None:
    """Seconds of audio a second of transcribe()."""
    timed = [row for row in rows if row["kind"] in kinds and row["wall"]]
    wall = sum(row["wall"] or 0 for row in timed)
    return sum(row["seconds"] or 0 for row in timed) / wall if wall else None
