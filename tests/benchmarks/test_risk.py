"""The risk bench: what counts as made up, and how labels are judged."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.steering import risk
from tests.support.real_models import SAMPLES, truth
from whisper_sae_steer.audio.clips import read_folder
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.steering.labels import Labels


def marked(positive: bool, speech_prob: float, hallucination_risk: float) -> Any:
    return risk.Marked("x", positive, Labels(speech_prob, hallucination_risk))


def test_labels_are_judged_by_rank_and_by_how_often_they_are_right():
    found = risk.summarise(
        [marked(True, 0.9, 0.005), marked(True, 0.2, 0.6), marked(False, 0.3, 0.7), marked(False, 0.1, 0.995)]
    )
    assert (found["said"], found["unsaid"]) == (2, 2)
    assert found["speech_prob_auc"] == 0.75
    assert found["hallucination_risk_auc"] == 1.0
    assert found["brier"] == pytest.approx((0.005**2 + 0.6**2 + 0.3**2 + 0.005**2) / 4)
    counts = {tuple(row["risk"]): (row["count"], row["unsaid"]) for row in found["reliability"]}
    assert counts == {
        (0, 0.01): (1, 0.0), (0.01, 0.1): (0, None), (0.1, 0.5): (0, None),
        (0.5, 0.9): (2, 0.5), (0.9, 0.99): (0, None), (0.99, 1.0): (1, 1.0),
    }  # fmt: skip


def test_without_one_kind_there_is_no_auc():
    found = risk.summarise([marked(True, 0.9, 0.1)])
    assert found["speech_prob_auc"] is None
    assert found["hallucination_risk_auc"] is None


def test_segments_without_counterpart_in_the_reference_were_made_up():
    """A real transcript, once against what was said and once against something else."""
    model = WhisperModel("tiny.en", compute_type="int8", cpu_threads=1)
    (clip,) = [clip for clip in read_folder(SAMPLES, "speech", "en") if clip.path.name == "speech.ogg"]
    said = list(risk.mark_segments(model, replace(clip, text=truth("speech")["speech"][0]["text"])))
    assert said
    assert all(segment.positive for segment in said)
    assert max(segment.labels.hallucination_risk for segment in said) < 0.5
    assert not any(s.positive for s in risk.mark_segments(model, replace(clip, text="nothing alike")))
    misheard = " ".join(["nothing"] * 24)
    assert all(segment.positive for segment in risk.mark_segments(model, replace(clip, text=misheard)))


def test_clips_are_labelled_by_their_most_speechlike_window():
    clips = [clip for clip in read_folder(SAMPLES, "speech", "en") if clip.path.suffix == ".ogg"]
    labels = {m.name: m.labels for m in risk.mark_clips("tiny.en", clips, 1)}
    assert len(labels) == 2
    assert min(label.speech_prob for label in labels.values()) > 0.9
