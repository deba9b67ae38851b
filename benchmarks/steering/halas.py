"""How well the risk of a word finds what people marked as hallucinated in HALAS (arXiv 2606.23048).

    python -m benchmarks.steering.halas test.csv --audio e22 --system whisper_large_v2 --model large-v2 \\
        --out halas.json

``test.csv`` is that of https://huggingface.co/datasets/MatBar99/HALAS, ``e22`` the folder that the script in
its card writes; ``whisper-sae-steer make-pack`` makes the model's pack. A line of the table is a recording:
``audio_id``, the name of its file, ``split``, and for each annotated system SYSTEM_prediction, its text, and
SYSTEM_hallucination_json, a list of {"text", "start", "end", "labels"}. The card tells the columns; that a
span is [start, end) among the characters of the prediction is how others read it, and was not checked against
the table. A word is marked if most of its characters are, so that one more or less changes nothing.
Hallucinations and loops count alike.

Words that we write are aligned with those that were annotated; one that both texts have is judged, the others
are only counted. So --model must be the annotated system. Nothing is edited while the gate listens, unless
--steered: that tells what is left to be found. Intervals are 95%, by drawing recordings again.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from tqdm import tqdm

from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.errors import AnalysisError, ManifestError
from whisper_sae_steer.faster import WhisperModel

from ..arguments import script_parser
from ..results import as_json, write_results
from .risk import UNNOTICEABLE
from .word_truth import normalised

RESAMPLES = 1000
FIGURES = ("precision", "recall", "F1", "AUC", "average precision")


class Annotated(NamedTuple):
    """A recording, the words that a system wrote for it, and whether each was marked."""

    audio: Path
    words: list[str]
    marked: list[bool]


class JudgedWord(NamedTuple):
    """A word that was written and annotated."""

    recording: int
    risk: float
    marked: bool


def main() -> None:
    parser = script_parser(__doc__, "--model", "--compute_type", "--threads", "--out", split="test")
    parser.add_argument("annotations", type=Path, help="CSV of HALAS")
    parser.add_argument("--audio", type=Path, required=True, help="folder with the recordings")
    parser.add_argument("--system", default="whisper_large_v2", help="whose text was annotated")
    parser.add_argument("--threshold", type=float, default=0.5, help="risk from which on a word is flagged")
    parser.add_argument("--steered", action="store_true", help="steer, instead of only listening")
    args = parser.parse_args()
    annotated = read_annotations(args.annotations, args.audio, args.system, args.split)
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    steering: dict[str, Any] = {} if args.steered else {"steer_alpha": UNNOTICEABLE, "skip_gaps": False}
    judged: list[JudgedWord] = []
    written = 0
    for number, recording in enumerate(tqdm(annotated, unit="recording")):
        audio = load_audio(recording.audio)
        segments, _ = model.transcribe(audio, language="en", word_timestamps=True, **steering)
        ours: list[Any] = [word for segment in segments for word in segment.words or ()]
        written += len(ours)
        judged += [
            JudgedWord(number, ours[place].hallucination_risk, recording.marked[theirs])
            for place, theirs in dict(same_words(recording.words, [word.word for word in ours])).items()
        ]
    found = {
        "model": args.model,
        "system": args.system,
        "steered": args.steered,
        "recordings": len(annotated),
        "annotated": count([mark for recording in annotated for mark in recording.marked]),
        "written": written,
        "judged": count([word.marked for word in judged]),
        f"flagged from {args.threshold} on": figures(judged, len(annotated), args.threshold),
    }
    write_results(args.out, found)
    print(as_json(found))


def count(marked: Sequence[bool]) -> dict[str, int]:
    """How many words, and how many of them are marked."""
    return {"words": len(marked), "marked": sum(marked)}


def read_annotations(table: Path, audio: Path, system: str, split: str) -> list[Annotated]:
    """The recordings of a split, with what was marked in a system's text. ManifestError."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split") == split]
    if not rows or f"{system}_hallucination_json" not in rows[0]:
        raise ManifestError(f"{table} has no lines of the split {split} with annotations of {system}")
    missing = [row["audio_id"] for row in rows if not (audio / row["audio_id"]).exists()]
    if missing:
        raise ManifestError(f"{len(missing)} of {len(rows)} recordings are not in {audio}: {missing[0]}, …")
    annotated: list[Annotated] = []
    for row in rows:
        text, spans = row[f"{system}_prediction"], json.loads(row[f"{system}_hallucination_json"] or "[]")
        inside = np.zeros(len(text), dtype=bool)
        for span in spans:
            inside[span["start"] : span["end"]] = True
        words = list(re.finditer(r"\S+", text))
        marked = [bool(inside[word.start() : word.end()].mean() > 0.5) for word in words]
        annotated.append(Annotated(audio / row["audio_id"], [word[0] for word in words], marked))
    return annotated


def same_words(theirs: Sequence[str], ours: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of words that both texts have: in ours, and in theirs."""
    (said, said_by), (written, written_by) = normalised(theirs, "en"), normalised(ours, "en")
    if not said or not written:
        return
    (chunks,) = jiwer.process_words(" ".join(said), " ".join(written)).alignments
    for chunk in chunks:
        if chunk.type == "equal":
            places = written_by[chunk.hyp_start_idx : chunk.hyp_end_idx]
            yield from zip(places, said_by[chunk.ref_start_idx : chunk.ref_end_idx], strict=True)


def figures(words: Sequence[JudgedWord], recordings: int, threshold: float) -> dict[str, Any]:
    """FIGURES with their intervals. AnalysisError unless some words are marked, and some are not."""
    recording = np.array([word.recording for word in words], dtype=int)
    risk, marked = np.array([word.risk for word in words]), np.array([word.marked for word in words])
    if len({*marked.tolist()}) < 2:
        raise AnalysisError("of the words that both texts have, some must be marked, and some must not")
    rng = np.random.default_rng(0)
    drawn = np.full((RESAMPLES, len(FIGURES)), np.nan)
    for row in drawn:
        times = np.bincount(rng.integers(recordings, size=recordings), minlength=recordings)[recording]
        if len({*marked[times > 0].tolist()}) == 2:
            row[:] = _figures(marked, risk, threshold, times)
    values = _figures(marked, risk, threshold, np.ones(len(words)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0).round(4)
    return {
        name: {"value": round(value, 4), "interval": [low[i], high[i]]}
        for i, (name, value) in enumerate(zip(FIGURES, values, strict=True))
    }


def _figures(
    marked: NDArray[np.bool_], risk: NDArray[np.float64], threshold: float, times: NDArray[Any]
) -> list[float]:
    """FIGURES of words that count so many times."""
    flags: Any = {"average": "binary", "zero_division": 0.0}
    at_threshold = precision_recall_fscore_support(marked, risk >= threshold, sample_weight=times, **flags)
    ranked = [score(marked, risk, sample_weight=times) for score in (roc_auc_score, average_precision_score)]
    return [float(value) for value in (*at_threshold[:3], *ranked)]


if __name__ == "__main__":
    main()
