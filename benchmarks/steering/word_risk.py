"""Fits the risk of a word, and measures it on speakers and sounds that it was not fitted on.

    python -m benchmarks.steering.word_risk --fit base-calib.jsonl tiny.en-calib.jsonl \
        --test base-dev.jsonl tiny.en-dev.jsonl base-languages.jsonl --out word-risk.json

The files are those of ``written_words``. A word is right, misheard or made up by the reference
(``word_truth.py``); misheard ones are in no fit and no figure but their own. The weights are those to write
into ``whisper_sae_steer/steering/risk.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from whisper_sae_steer.steering.risk import (
    LOOP_WEIGHT,
    REMEMBERED_WORDS,
    RiskModel,
    WrittenSegment,
    WrittenWord,
    logit,
    segment_features,
    word_features,
)

from ..arguments import script_parser
from ..results import as_json, write_results
from .word_truth import Truth, judge
from .written_words import read

BINS = 10
LOOP = 2
"""where the features have a loop's repeats"""


class JudgedWord(NamedTuple):
    """A word with its features and what it stands for."""

    by_word: list[float]
    by_segment: list[float]
    probability: float
    truth: Truth
    condition: str


def main() -> None:
    parser = script_parser(__doc__, "--out")
    parser.add_argument("--fit", nargs="+", type=Path, required=True)
    parser.add_argument("--test", nargs="+", type=Path, required=True)
    args = parser.parse_args()
    fitted_on = [word for path in args.fit for word in judged_words(path)]
    models = {
        "BY_WORD": fit(fitted_on, lambda word: word.by_word),
        "BY_SEGMENT": fit(fitted_on, lambda word: word.by_segment),
    }
    found: dict[str, Any] = {
        "weights": {name: [list(model.weights), model.constant] for name, model in models.items()}
    }
    for path in args.test:
        words = list(judged_words(path))
        found[path.stem] = {
            "word timestamps": figures(words, [models["BY_WORD"](word.by_word) for word in words]),
            "without": figures(words, [models["BY_SEGMENT"](word.by_segment) for word in words]),
            "probability alone": figures(words, [1 - word.probability for word in words]),
        }
    print(as_json(found))
    write_results(args.out, found)


def judged_words(path: Path) -> Iterator[JudgedWord]:
    """All words of the recordings in a file."""
    for row in read(path):
        texts = [word for segment in row["segments"] for word, _ in segment["words"]]
        truths = iter(judge(texts, row["reference"], row["language"]))
        said: list[str] = []
        for fields in row["segments"]:
            words = [WrittenWord(*word) for word in fields["words"]]
            segment = WrittenSegment(0.0, 0.0, fields["text"], fields["avg_logprob"], words)
            gate, before = logit(fields["gate"]), said[-REMEMBERED_WORDS:]
            whole = segment_features(segment, gate, before)
            for features, word in zip(word_features(segment, gate, before), words, strict=True):
                truth = next(truths)
                if truth is not None:
                    yield JudgedWord(features, whole, word.probability, truth, row["condition"])
            said += fields["text"].split()


def fit(words: Sequence[JudgedWord], features: Callable[[JudgedWord], list[float]]) -> RiskModel:
    """The regression of made up against right, all words alike; loops are too rare to be fitted."""
    known = [word for word in words if word.truth is not Truth.MISHEARD]
    x = np.delete([features(word) for word in known], LOOP, axis=1)
    y = np.array([word.truth is Truth.MADE_UP for word in known])
    spread = x.std(0)
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(x / spread, y)
    weights = np.insert((fitted.coef_[0] / spread).round(3), LOOP, LOOP_WEIGHT)
    return RiskModel(weights.tolist(), round(float(fitted.intercept_[0]), 3))


def figures(words: Sequence[JudgedWord], risks: Sequence[float]) -> dict[str, Any]:
    """Over all words, and over those of recordings with speech."""
    risk = np.array(risks)
    spoken = np.array([word.condition != "no speech" for word in words])
    truths = np.array([word.truth.value for word in words])
    return {
        "all": _figures(truths, risk),
        "speech": _figures(truths[spoken], risk[spoken]),
        "misheard, mean risk": round(float(risk[truths == Truth.MISHEARD.value].mean()), 3),
    }


def _figures(truths: NDArray[Any], risk: NDArray[np.float64]) -> dict[str, Any]:
    known = truths != Truth.MISHEARD.value
    made_up, risk = truths[known] == Truth.MADE_UP.value, risk[known]
    bins = np.minimum((BINS * risk).astype(int), BINS - 1)
    gaps = [
        abs(float(risk[bins == b].mean() - made_up[bins == b].mean())) * float((bins == b).mean())
        for b in range(BINS)
        if (bins == b).any()
    ]
    return {
        "right": int((~made_up).sum()),
        "made up": int(made_up.sum()),
        "AUC": round(float(roc_auc_score(made_up, risk)), 4),
        "average precision": round(float(average_precision_score(made_up, risk)), 4),
        "F1 at 0.5": round(float(f1_score(made_up, risk >= 0.5)), 4),
        "expected calibration error": round(sum(gaps), 4),
    }


if __name__ == "__main__":
    main()
