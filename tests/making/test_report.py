"""The page of a made pack, in headless Chromium."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.making.test_verdict import outcome
from tests.support.calibration_parts import clip, write_noise
from tests.support.pages import faults, in_browser, looked_at
from tests.support.small_pack import small_pack
from whisper_sae_steer.bench.peers.catalogue import OURS
from whisper_sae_steer.calibrate.measure import CalibrationReport
from whisper_sae_steer.calibrate.strength import AlphaPoint
from whisper_sae_steer.making.judge import UNSTEERED, VAD, Judgement
from whisper_sae_steer.making.report import MadePack, write_html
from whisper_sae_steer.making.verdict import verdict
from whisper_sae_steer.reports.failures import Failure

GOOD = AlphaPoint(1.0, 0.0, 0.0, 0.9, 0.05, 0.0)


@in_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_verdict_then_gains_beside_silero_then_what_failed(tmp_path: Path, width: int):
    """Ten sounds, one of them failed."""
    metadata = replace(
        small_pack().metadata,
        data={"clips": 40, "synthetic": 60},
        metrics={"definition": "held-back windows", "gate": {"auc": 1.0}},
    )
    curve = (GOOD._replace(alpha=0.0, fpr_raw=0.8, fpr_kept=0.3, no_speech_prob=0.5), GOOD)
    calibration = CalibrationReport(metadata, curve, (), None, (), (0.4, 0.5, 0.5), (0.9, 0.9, 0.95))
    outcomes = {UNSTEERED: outcome(6, sounds=10), VAD: outcome(2, 1, sounds=10), OURS: outcome(1, sounds=10)}
    failed = clip("mine/door-bell.wav", path=next(write_noise(tmp_path / "noise", 1, 0).iterdir()))
    failures = (Failure(failed, "text where nobody speaks", "Thank you.", "Thank you."),)
    judgement = Judgement(outcomes, 10, 80, failures)
    made = MadePack(verdict(judgement, metadata), judgement, calibration, "4096 features")
    write_html(made, tmp_path / "pack.html")
    with looked_at(tmp_path / "pack.html", width) as page:
        assert faults(page) == {}
        assert page.locator("h1 + p").inner_text() == made.verdict.sentence
        parts = page.locator("h2").all_inner_texts()
        assert parts[:3] == [
            "Gains and costs, on recordings held back",
            "Recordings that failed",
            "How it was made",
        ]
        rows = page.locator("table").first.locator("tr").all_inner_texts()
        assert [row.split("\t")[:2] for row in rows[1:]] == [
            ["unsteered", "6 of 10"], ["Silero VAD in front", "2 of 10"], ["this pack, α = 1", "1 of 10"],
        ]  # fmt: skip
        assert page.locator("h3").all_inner_texts() == ["mine/door-bell.wav"]
        assert page.locator("audio").count() == 1
