"""What other analyses found about single features, joined for the feature browser.

Each is read from ``DIR/NAME.json`` where it was run; one that was made of another SAE counts as not run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cli import ANALYSES
from ...errors import AnalysisError
from ..results import REPORT, read_result

Record = dict[str, Any]
Names = tuple[str, str]
"""what results may call an SAE"""
SKIPPED = ("encode", "report")
LABELS = 8
"""best labels a feature"""


@dataclass(frozen=True)
class JoinedResults:
    """Records by feature; a feature that an analysis did not measure is absent."""

    ran: frozenset[str] = frozenset()
    """analyses with results"""
    report: Path | None = None
    """page of all sections"""
    labels: dict[int, list[Record]] = field(default_factory=dict)
    """label, f1, ap, threshold; best first"""
    sounds: dict[int, str] = field(default_factory=dict)
    """what the mean log-mel is like, in words"""
    descriptions: dict[int, Record] = field(default_factory=dict)
    """text, score, note, title (whether it is one)"""
    stability: dict[int, Record] = field(default_factory=dict)
    """iou, note"""
    steering: dict[int, Record] = field(default_factory=dict)
    """effect, head, rows, note"""
    specialised: dict[int, Record] = field(default_factory=dict)
    """the domain by frames and by windows"""

    def title(self, feature: int) -> str:
        """What a feature is called; empty if no analysis says."""
        if self.descriptions.get(feature, {}).get("title"):
            return str(self.descriptions[feature]["text"])
        return str(self.labels[feature][0]["label"]) if self.labels.get(feature) else ""

    def words(self, feature: int) -> list[str]:
        """What a search finds besides the title."""
        return [
            *(str(one["label"]) for one in self.labels.get(feature, ())),
            str(self.descriptions.get(feature, {}).get("text", "")),
            self.sounds.get(feature, ""),
            *set(self.specialised.get(feature, {}).values()),
        ]

    def values(self) -> dict[str, Callable[[int], float | None]]:
        """Columns that analyses give: key of :data:`COLUMNS`, the value of a feature."""
        return {
            "f1": lambda f: self.labels[f][0]["f1"] if self.labels.get(f) else None,
            "score": lambda f: self.descriptions.get(f, {}).get("score"),
            "effect": lambda f: self.steering.get(f, {}).get("effect"),
            "iou": lambda f: self.stability.get(f, {}).get("iou"),
        }

    def columns(self) -> list[Record]:
        """What the list can be sorted by."""
        return [
            {
                "key": key,
                "title": title,
                "format": how,
                "absolute": how == "signed",
                "missing": name if name and name not in self.ran else None,
            }
            for key, title, how, name in COLUMNS
        ]

    def rankings(self, width: int) -> list[NDArray[np.float64]]:
        """Values [F] of every measured column of :meth:`ranked`, NaN where a feature has none."""
        found: list[NDArray[np.float64]] = []
        for key, value in self.values().items():
            if key in self._ranked_keys():
                numbers = [value(f) for f in range(width)]
                found.append(np.abs(np.array([np.nan if x is None else x for x in numbers], np.float64)))
        return found

    def ranked(self) -> list[str]:
        """Titles of the columns that decide, where measured, which features have excerpts."""
        return [title for key, title, *_ in COLUMNS if key in self._ranked_keys()]

    def _ranked_keys(self) -> list[str]:
        return [key for key, _, _, name in COLUMNS if name in self.ran and key != "iou"]

    def analyses(self) -> list[Record]:
        """All analyses there are, and whether they were run."""
        return [
            {"name": name, "summary": command.summary, "ran": name in self.ran}
            for name, command in ANALYSES.items()
            if name not in SKIPPED
        ]


COLUMNS = (
    ("bits", "information on labels", "fine", None),
    ("rate", "activation rate", "percent", None),
    ("max", "highest activation", "number", None),
    ("f1", "best label's F1", "number", "search"),
    ("score", "description score", "number", "describe"),
    ("effect", "effect on no-speech probability", "signed", "hallucination"),
    ("iou", "stability (IoU)", "number", "stability"),
    ("id", "id", "id", None),
)
"""key, title, how its values are written, the analysis that measures it"""


def read_results(folder: Path | None, store: str, sae: str) -> JoinedResults:
    """Join what lies in a folder of results about an SAE, and the folder's name of its store.

    AnalysisError if there is no such folder, or if a file there is damaged.
    """
    if folder is None:
        return JoinedResults()
    if not folder.is_dir():
        raise AnalysisError(f"{folder} is no folder of results; give the --out of other analyses")
    found: dict[str, Any] = {}
    for name in ANALYSES:
        if name not in SKIPPED and (result := read_result(folder, name)) is not None:
            found[name] = result
    report, names = folder / REPORT, (sae, f"{store}:{sae}")  # the latter where several stores were compared
    try:
        return JoinedResults(
            ran=frozenset(found),
            report=report if report.exists() else None,
            **{field: join(found[name], names) for name, (field, join) in JOINS.items() if name in found},
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise AnalysisError(
            f"{folder} holds results of another version ({error!r}); make them again"
        ) from None


def _labels(result: Any, names: Names) -> dict[int, list[Record]]:
    """Of ``analyze search``."""
    found: dict[int, list[Record]] = {}
    if result["sae"] not in names:
        return {}
    for label in result["search"]["labels"]:
        for one in label["features"]:
            record = {
                "label": label["label"],
                "f1": one["f1"],
                "ap": one["average_precision"],
                "threshold": one["threshold"],
            }
            found.setdefault(int(one["feature"]), []).append(record)
    return {f: sorted(some, key=lambda one: -one["f1"])[:LABELS] for f, some in found.items()}


def _sounds(result: Any, names: Names) -> dict[int, str]:
    """Of ``analyze mel``."""
    if result["sae"] not in names:
        return {}
    return {int(one["feature"]): str(one["sound"]["words"]) for one in result["features"] if one["sound"]}


def _stability(result: Any, names: Names) -> dict[int, Record]:
    """Of ``analyze stability``: the mean over SAEs of the same activations, or of all if there are none."""
    sides = list(_sides(result["pairs"], names))
    sides = [side for side in sides if side[0] == "same activations"] or sides
    if not sides:
        return {}
    with_ = sides[0][1] if len(sides) == 1 else f"{len(sides)} other autoencoders, on average"
    found: dict[int, Record] = {}
    for feature in range(max(len(best) for _, _, best in sides)):
        bests = [best[feature] for _, _, best in sides if feature < len(best)]
        values = [value for value in bests if value is not None]
        if values:
            found[feature] = {"iou": float(np.mean(values)), "note": f"best IoU with {with_}"}
    return found


def _sides(pairs: Sequence[Any], names: Names) -> Iterator[tuple[str, str, list[float | None]]]:
    """(kind, the other SAE, best IoU of each feature) of each pair that the SAE is in."""
    for pair in pairs:
        for me, other, side in (("a", "b", "a_in_b"), ("b", "a", "b_in_a")):
            if pair[me] in names:
                yield pair["kind"], pair[other], pair[side]["best"]


def _descriptions(result: Any, names: Names) -> dict[int, Record]:
    """Of ``analyze describe``. Lists of labels with shares are no titles."""
    if result["sae"] not in names:
        return {}
    return {
        int(one["feature"]): {
            "text": one["description"],
            "score": one["score"],
            "note": "AUC of predicting where it fires in other recordings"
            if one["score"] is not None
            else "too few activations in other recordings to score it",
            "title": result["describer"] != "labels",
        }
        for one in result["features"]
    }


def _specialised(result: Any, names: Names) -> dict[int, Record]:
    """Of ``analyze domains``."""
    for one in result["saes"]:
        if one["sae"] in names:
            frames, windows = (one["found"][level]["domain"] for level in ("frames", "windows"))
            both = enumerate(zip(frames, windows, strict=True))
            return {f: {"frames": a, "windows": b} for f, (a, b) in both if a and b}
    return {}


def _steering(result: Any, names: Names) -> dict[int, Record]:
    """Of ``analyze hallucination``."""
    if result["sae"] not in names:
        return {}
    note = (
        f"Means over {result['windows']} windows without speech, {result['with_text']} of which get text"
        f" unedited; P(no speech) is {result['no_speech']:.3f} and P(end of text) {result['end_of_text']:.3f}"
        " then. Removed: taken out of every frame; added: so much of it put into every frame."
    )
    return {int(one["feature"]): _effect(one, note) for one in result["features"]}


def _effect(one: Record, note: str) -> Record:
    rows = [_effect_row("removed", one["removed"]), _effect_row(f"added, {one['amount']:.2f}", one["added"])]
    speech = one["speech"]
    if speech:
        note += (
            f" Removed in {speech['windows']} windows with speech, it changes {speech['words_changed']}"
            f" of {speech['words']} words."
        )
    head = ["P(no speech)", "P(end of text)", "texts"]
    return {"effect": one["added"]["d_no_speech"], "head": head, "rows": rows, "note": note}


def _effect_row(what: str, effect: Record) -> Record:
    texts = f"{effect['changed']} of {effect['windows']} changed"
    kinds = [f"{effect[kind]} {kind}" for kind in ("emptied", "filled") if effect[kind]]
    return {
        "what": what,
        "values": [effect["d_no_speech"], effect["d_end_of_text"]],
        "text": f"{texts} ({', '.join(kinds)})" if kinds else texts,
    }


JOINS: dict[str, tuple[str, Callable[[Any, Names], Any]]] = {
    "search": ("labels", _labels),
    "mel": ("sounds", _sounds),
    "describe": ("descriptions", _descriptions),
    "domains": ("specialised", _specialised),
    "hallucination": ("steering", _steering),
    "stability": ("stability", _stability),
}
