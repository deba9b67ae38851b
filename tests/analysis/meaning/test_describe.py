"""Descriptions of features: what they say, and how well they predict recordings that were not described."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from tests.support.analysis_parts import make_store, sparse_features
from whisper_sae_steer.analysis.meaning import describe as module
from whisper_sae_steer.analysis.meaning.describe import describe
from whisper_sae_steer.analysis.meaning.describers import CommandDescriber, Evidence, LabelDescriber, Span
from whisper_sae_steer.analysis.meaning.scoring import DescribeConfig, summarise
from whisper_sae_steer.analysis.meaning.sound import SoundSummary
from whisper_sae_steer.analysis.meaning.spans import cut, evidence_of, held_back_windows
from whisper_sae_steer.analysis.results import Analysis, write_result
from whisper_sae_steer.analysis.store.activations import ActivationStore, Window
from whisper_sae_steer.errors import AnalysisError

LABELS = ("dog", "rain", "talk", "song, slow")
DOMAIN = {"dog": "sound", "rain": "sound", "talk": "speech", "song, slow": "music"}


def labelled(folder: Path, seed: int = 0) -> tuple[ActivationStore, NDArray[np.float32]]:
    """Six recordings of each label, 2.5 s each. Feature i fires in label i; 4 anywhere, 5 never.

    Feature 1 fires where it is loud, in the second half of each second.
    """
    rng = np.random.default_rng(seed)
    labels = [label for label in LABELS for _ in range(6)]
    of_row = np.repeat(labels, 125)
    dense = np.zeros((len(of_row), 6), np.float32)
    for i, label in enumerate(LABELS):
        dense[:, i] = (of_row == label) * (rng.random(len(of_row)) < 0.3) * rng.random(len(of_row))
    late = np.arange(len(of_row)) % 125 >= 50
    dense[:, 1] *= late
    dense[:, 4] = (rng.random(len(of_row)) < 0.02) * 2
    mel = rng.normal(0, 0.05, (len(of_row), 80)) + 0.5 * late[:, None]
    store = make_store(
        folder, dense, domains=[DOMAIN[label] for label in labels], lengths=125, labels=labels, mel=mel
    )
    return store, dense


def test_a_third_is_held_back_by_group_and_label():
    labels = np.repeat(LABELS, 6)

    def held(groups: Sequence[str]) -> NDArray[np.bool_]:
        return held_back_windows([_window(label, group) for label, group in zip(labels, groups, strict=True)])

    alone = held([str(i) for i in range(24)])
    assert {label: int(alone[labels == label].sum()) for label in LABELS} == dict.fromkeys(LABELS, 2)
    pairs = [str(i // 2) for i in range(24)]
    together = held(pairs)
    assert (together[::2] == together[1::2]).all()
    with pytest.raises(AnalysisError, match="3 recordings or speakers"):
        held(["a", "b"] * 12)


def _window(label: str, group: str) -> Window:
    return Window("c", "/c", 0.0, DOMAIN[label], label, "s", group, "", "", 0, 50)


def test_spans_and_evidence(tmp_path: Path):
    store, dense = labelled(tmp_path / "store")
    every = np.ones(24, dtype=bool)
    spans = cut(store, store.features(), every)
    assert [span.start for span in spans.spans[:3]] == [0.0, 1.0, 2.0]
    assert [span.seconds for span in spans.spans[:3]] == [1.0, 1.0, 0.5]
    for f in range(6):
        where, values = spans.fires(f)
        expected = np.array([
            dense[125 * i + first : 125 * i + min(first + 50, 125), f].max()
            for i in range(24)
            for first in (0, 50, 100)
        ])  # fmt: skip
        np.testing.assert_array_equal(where, np.flatnonzero(expected))
        np.testing.assert_allclose(values, expected[where])
    evidence = evidence_of(store, store.features(), every, spans)
    rain = evidence(1)
    assert rain.labels == {"rain": 0.6667}  # never in the first of three spans
    assert rain.domains == {"music": 0, "sound": 0.3333, "speech": 0}
    assert [e.label for e in rain.excerpts] == ["rain"] * 5
    levels = np.array([[span.low_db, span.middle_db, span.high_db] for span in spans.spans[:3]])
    assert levels == pytest.approx(np.array([[-12.0], [8], [8]]) + np.zeros(3), abs=1)


def span(label: str = "dog", **levels: float) -> Span:
    base = Span("c", "/c", 0.0, 1.0, label, DOMAIN.get(label, "sound"), 0.0, 0.0, 0.0, 0.0)
    return base._replace(**levels)


def evidence(words: str = "broad sustained", **labels: float) -> Evidence:
    sound = SoundSummary(100.0, 80.0, 120.0, 100.0, 0.0, 0.0, 0.0, words)
    return Evidence(7, labels, {"sound": 0.2, "speech": 0.001}, sound, [])


def test_labels_say_and_predict():
    describer = LabelDescriber(labels=2)
    said = describer.describe(evidence("loud low onset", dog=0.82, rain=0.41, talk=0.1))
    assert said == "dog (0.82), rain (0.41); sound (0.20), speech (0.00); loud low onset"
    flat = said.replace("loud low onset", "broad sustained")
    spans = [span("dog"), span("rain"), span("unknown"), span("talk")]
    assert describer.predict(flat, spans) == pytest.approx([0.82, 0.41, 0.20, 0.0])
    loud, quiet = (describer.predict(said, [span(low_db=x, middle_db=x, high_db=x)])[0] for x in (9.0, -9.0))
    low, high = (describer.predict(said, [one])[0] for one in (span(low_db=9.0), span(high_db=9.0)))
    rising, falling = (describer.predict(said, [span(rise_db=x)])[0] for x in (9.0, -9.0))
    assert loud > quiet
    assert low > high
    assert rising > falling


def test_labels_without_a_label_or_with_a_comma():
    describer = LabelDescriber()
    assert describer.predict(describer.describe(evidence()), [span("dog")]) == [0.2]
    song = describer.describe(evidence()._replace(labels={"song, slow": 0.5, "x (y)": 0.25}))
    assert describer.predict(song, [span("song, slow"), span("x (y)")]) == [0.5, 0.25]


class Knowing:
    """Describes by number; predicts what it is told beforehand."""

    def __init__(self, truth: dict[tuple[str, str, float], float]):
        self.truth, self.asked = truth, list[tuple[str, Sequence[Span]]]()

    def describe(self, evidence: Evidence) -> str:
        return f"feature {evidence.feature}"

    def predict(self, description: str, spans: Sequence[Span]) -> list[float]:
        self.asked.append((description, spans))
        return [self.truth.get((description, span.clip, span.start), 0.0) for span in spans]


def test_scores_are_of_recordings_held_back(tmp_path: Path):
    store, dense = labelled(tmp_path / "store")
    spans = cut(store, store.features(), np.ones(24, dtype=bool))
    rng, noisy = np.random.default_rng(1), dict[tuple[str, str, float], float]()
    for f in range(6):
        where, values = spans.fires(f)
        highest = dict(zip(where.tolist(), values.tolist(), strict=True))
        for i, one in enumerate(spans.spans):
            noisy[f"feature {f}", one.clip, one.start] = highest.get(i, 0.0) + float(rng.normal(0, 0.5))
    knowing = Knowing(noisy)
    result = describe(store, "sae", knowing)
    held = held_back_windows(store.windows)
    assert (result.windows, result.held_back) == (16, 8)
    held_clips = {w.clip for w, h in zip(store.windows, held, strict=True) if h}
    assert {one.clip for _, spans in knowing.asked for one in spans} <= held_clips
    assert [d.feature for d in result.features] == [0, 1, 2, 3, 4]  # 5 never fires
    scored = [d for d in result.features if d.score is not None]
    assert len(scored) == 4  # 4 fires in too many spans
    assert len(knowing.asked) == 2 * len(scored)  # with its own description, then with another's
    for d, (said, own), (wrong, others) in zip(scored, knowing.asked[::2], knowing.asked[1::2], strict=True):
        assert said == d.description != wrong
        tried = own[: d.active + d.inactive]
        assert list(others) == list(tried)
        highest = [
            dense[first : first + round(50 * s.seconds), d.feature].max()
            for s in tried
            for first in [125 * int(s.clip.removesuffix(".wav")) + round(50 * s.start)]
        ]
        fires = np.array(highest) > 0
        assert fires.tolist() == [True] * d.active + [False] * d.inactive
        predicted = [noisy[said, s.clip, s.start] for s in tried]
        assert d.score == pytest.approx(roc_auc_score(fires, predicted))
        assert d.spearman == pytest.approx(spearmanr(predicted, highest)[0])
        near = own[d.active + d.inactive :]
        assert {s.clip for s in near} <= {s.clip for s in tried[: d.active]}
    assert result.detection == summarise([d.score for d in result.features])


def test_labels_predict_labels_and_others_do_not(tmp_path: Path):
    store, _ = labelled(tmp_path / "store")
    result = describe(store, "sae", LabelDescriber(), "labels", DescribeConfig(least=4))
    found = {d.feature: d for d in result.features}
    for f in (0, 2, 3):
        assert found[f].score == 1.0
        assert found[f].fuzzing is None  # fires in all spans of its label
        assert found[f].description.startswith(f"{LABELS[f]} (1.00)")
    assert found[1].score == 1.0
    assert found[4].score is not None
    assert abs(found[4].score - 0.5) < 0.35
    again = describe(store, "sae", LabelDescriber(), "labels", DescribeConfig(least=4))
    assert again == result
    everything = found[0].shuffled, found[2].shuffled, found[3].shuffled
    assert all(value is not None and value < 0.9 for value in everything)


def test_too_few_spans_give_no_score(tmp_path: Path):
    store, _ = labelled(tmp_path / "store")
    result = describe(store, "sae", LabelDescriber(), config=DescribeConfig((2,), least=7))
    (one,) = result.features
    assert (one.score, one.spearman, one.fuzzing, one.shuffled) == (None,) * 4
    assert one.active == 6
    assert result.detection == summarise([]) == result.shuffled
    write_result(cast(Analysis, module), "describe", result, tmp_path / "out")
    assert "0 of 1 features could be checked" in module.text(result)[0]
    with pytest.raises(AnalysisError, match="no feature 6: the SAE has 0 to 5"):
        describe(store, "sae", LabelDescriber(), config=DescribeConfig((6,)))


PROGRAM = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps(asked)[:100], file=open(sys.argv[1], "a"))
    if asked["ask"] == "describe":
        evidence = asked["evidence"]
        best = max(evidence["labels"], key=evidence["labels"].get, default="")
        answer = {"description": best + " " + evidence["sound"]["words"].split()[0]}
    else:
        answer = {"scores": [float(s["label"] in asked["description"]) for s in asked["spans"]]}
    print(json.dumps(answer), flush=True)
"""


def test_a_command_describes_and_goes_on_where_it_stopped(tmp_path: Path):
    store, _ = labelled(tmp_path / "store")
    (tmp_path / "program.py").write_text(PROGRAM)
    log, out = tmp_path / "log", tmp_path / "out"

    def run(*features: int, examples: int = 20):
        return module.run(
            argparse.Namespace(
                store=store.path, sae=None, examples=examples, features=list(features), out=out,
                describer=f"{sys.executable} {tmp_path / 'program.py'} {log}",
            )
        )  # fmt: skip

    result = run(2, 3)
    write_result(cast(Analysis, module), "describe", result, out)
    saved = json.loads((out / "describe.json").read_text())
    assert [(d["feature"], d["score"]) for d in saved["features"]] == [(2, 1.0), (3, 1.0)]
    assert saved["features"][0]["description"].startswith("talk ")
    asked = len(log.read_text().splitlines())
    assert asked == 6  # two descriptions, their predictions and those with the other's
    assert run(2, 3) == result
    assert len(log.read_text().splitlines()) == asked
    with pytest.raises(AnalysisError, match="is of another store, SAE or settings"):
        run(2, examples=10)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('[]')", "must answer with one JSON object a line"),
        ("print('no')", "must answer with one JSON object a line, not 'no"),
        ("pass", "ended before it answered"),
        ("""print('{"description": " "}')""", "gave no description of feature 7"),
    ],
)
def test_commands_that_answer_wrongly(tmp_path: Path, code: str, message: str):
    program = tmp_path / "program.py"
    program.write_text(code)
    with (
        CommandDescriber(f"{sys.executable} {program}") as describer,
        pytest.raises(AnalysisError, match=message),
    ):
        describer.describe(evidence())


@pytest.mark.parametrize("scores", ["[1]", '["a", 1]', "[NaN, 1]", "3", "[true, 1]"])
def test_commands_must_score_every_span(tmp_path: Path, scores: str):
    program = tmp_path / "program.py"
    program.write_text(f"print('{{\"scores\": {scores}}}')")
    with (
        CommandDescriber(f"{sys.executable} {program}") as describer,
        pytest.raises(AnalysisError, match="must give 2 numbers as scores"),
    ):
        describer.predict("x", [span(), span()])


def test_a_command_that_does_not_answer_is_given_up(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text("import time; time.sleep(60)")
    with (
        CommandDescriber(f"{sys.executable} {program}", timeout=0.5) as describer,
        pytest.raises(AnalysisError, match=r"gave no answer within 0\.5 s"),
    ):
        describer.describe(evidence())


def test_a_command_that_is_not_there():
    with pytest.raises(AnalysisError, match="can't be started"):
        CommandDescriber("no-such-program-anywhere --x")


def test_random_features_score_as_chance(tmp_path: Path):
    store = make_store(
        tmp_path / "store", sparse_features(3000, 200, 1), domains=["sound"] * 20, lengths=150,
        labels=["a", "b"] * 10,
    )  # fmt: skip
    result = describe(store, "sae", LabelDescriber())
    assert result.detection.features > 100
    assert result.detection.median == pytest.approx(0.5, abs=0.1)
    assert result.shuffled.median == pytest.approx(0.5, abs=0.1)
