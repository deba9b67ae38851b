"""Measuring packs on real windows, the search for their strength, and the report."""

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch
import whisper
from matplotlib.figure import Figure

from tests.support.calibration_parts import clip, window, write_noise
from tests.support.pages import faults, in_browser, looked_at
from tests.support.real_models import OPEN, SHUT, sample, truth, vector_pack, weights
from tests.support.serving_parts import until
from tests.support.small_pack import WIDTH, small_pack
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.calibrate.gate import GateReport
from whisper_sae_steer.calibrate.measure import CalibrationReport, FeatureRow
from whisper_sae_steer.calibrate.report import text_report, verdict, write_html
from whisper_sae_steer.calibrate.strength import (
    GRIDS,
    MAX_COST,
    NEW_TOKENS,
    SAFETY_FACTOR,
    AlphaPoint,
    Judge,
    plain_model,
    with_unit,
)
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.errors import CalibrationError
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.greedy import RawWindow, decode_windows
from whisper_sae_steer.models.taps import WindowEncoder, rest_of_encoder
from whisper_sae_steer.openai import SteeredWhisper
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.reports.failures import Failure
from whisper_sae_steer.reports.plots import FEW, distribution
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import SteeringPack


@pytest.fixture(scope="module")
def model() -> Any:
    return plain_model(str(weights("tiny.en").ct2_dir))


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> list[CalibrationWindow]:
    """Two synthetic sounds and the sample's sentence, through tiny.en."""
    folder = tmp_path_factory.mktemp("windows")
    audio = [one.audio for one in synthetic.generate(2, seed=3, seconds=(2, 3))]
    frames = WindowEncoder(weights("tiny.en"), threads=1)([*audio, sample("speech")])
    said = truth("speech")["speech"][0]["text"]
    voice = window(folder, "voice", frames[2], speech=slice(50, 370))
    voice = replace(voice, clip=clip("voice", "speech"), reference=said)
    return [window(folder, f"noise{i}", frames[i]) for i in range(2)] + [voice]


def test_unsteered_point_is_that_of_plain_decoding(
    model: Any, windows: list[CalibrationWindow], tmp_path: Path
):
    judge = Judge(model, windows, tmp_path / "decoded.json")
    point = judge.point(vector_pack("tiny.en"), 0.0)
    view = ctranslate2.StorageView.from_array(torch.stack([w.frames() for w in windows]).numpy())
    raws = decode_windows(model, view, [None] * 3)
    texts = [metrics.has_text(raw["text"]) for raw in raws[:2]]
    assert point.alpha == 0
    assert point.fpr_raw == np.mean(texts)
    assert point.fpr_kept == np.mean([t and metrics.kept(r) for t, r in zip(texts, raws, strict=False)])
    expected = np.mean([raw["no_speech_prob"] for raw in raws[:2]])
    assert point.no_speech_prob == pytest.approx(expected, abs=1e-4)
    errors = metrics.word_errors(windows[2].reference, raws[2]["text"])
    assert errors is not None
    assert (point.wer, point.wer_change) == (errors.rate, 0.0)


def test_a_shut_gate_changes_nothing(model: Any, windows: list[CalibrationWindow], tmp_path: Path):
    judge = Judge(model, windows, tmp_path / "decoded.json")
    before = judge.point(vector_pack("tiny.en"), 0.0)
    judge.model = None  # nothing is decoded either
    shut = vector_pack("tiny.en", bias=SHUT, gate="window")
    assert judge.point(shut, 1.0) == before._replace(alpha=1.0)


def test_an_open_gate_is_measured_and_remembered(
    model: Any, windows: list[CalibrationWindow], tmp_path: Path
):
    judge = Judge(model, windows, tmp_path / "decoded.json")
    pack = vector_pack("tiny.en", bias=OPEN, gate="window")
    before, after = judge.point(pack, 0.0), judge.point(pack, 1.0)
    assert after.no_speech_prob != before.no_speech_prob
    steered = judge.steered(pack)
    found = [raw["no_speech_prob"] for window, raw in steered if not window.is_speech]
    assert np.mean(found) == pytest.approx(after.no_speech_prob, abs=1e-4)
    assert [window for window, _ in steered if window.is_speech] == judge.speech  # an open gate edits them

    second = Judge(None, windows, tmp_path / "decoded.json")
    assert (second.point(pack, 0.0), second.point(pack, 1.0)) == (before, after)
    assert second.unsteered == judge.unsteered
    with pytest.raises(AttributeError):  # another strength has to be decoded
        second.point(with_unit(pack, 3.0), 1.0)
    with pytest.raises(AttributeError):  # so have other windows
        Judge(None, windows[:1], tmp_path / "decoded.json")


@pytest.mark.parametrize(
    ("silent", "spoken", "works"),
    [
        ((0.7, 0.9), 0.2, True),  # as base
        ((0.0, 0.3), 0.0, True),
        ((1e-10, 1e-10), 1e-10, False),  # as large-v3-turbo
        ((0.1, 0.05), 0.0, False),
        ((0.7, 0.7), 0.8, False),
    ],
)
def test_a_no_speech_token_works_if_it_tells_noise_from_speech(
    windows: list[CalibrationWindow], tmp_path: Path, silent: tuple[float, float], spoken: float, works: bool
):
    judge = Judge.__new__(Judge)
    judge.other, judge.speech = windows[:2], windows[2:]
    judge.unsteered = {
        w.key: RawWindow(text="", no_speech_prob=p, avg_logprob=-1.0)
        for w, p in zip(windows, (*silent, spoken), strict=True)
    }
    assert judge.no_speech_works() is works
    judge.speech = []
    assert judge.no_speech_works() is (sum(silent) >= 0.2)


def test_a_real_no_speech_token_works(model: Any, windows: list[CalibrationWindow], tmp_path: Path):
    assert Judge(model, windows, tmp_path / "decoded.json").no_speech_works()


def test_inside_the_encoder_the_judge_hears_what_torch_makes_of_the_edit(model: Any, tmp_path: Path):
    """Steered by a hook and decoded by openai's library: the same texts and probabilities."""
    torch_model = load_torch(weights("tiny.en"))
    encoder = WindowEncoder(weights("tiny.en"), "block.1")
    audio = [next(synthetic.generate(1, seed=3, seconds=(2, 3))).audio, sample("speech")]
    windows = [window(tmp_path, f"{i}", frames) for i, frames in enumerate(encoder(audio))]
    judge = Judge(model, windows, tmp_path / "decoded.json", rest_of_encoder(torch_model.encoder, "block.1"))
    pack = vector_pack("tiny.en", tap="block.1")
    steered = SteeredWhisper.wrap(torch_model, pack)
    options = whisper.DecodingOptions(language="en", fp16=False, sample_len=NEW_TOKENS)
    changed: list[bool] = []
    for alpha in (0.0, 1.0):
        mels = torch.stack([torch.from_numpy(encoder.mel(one)) for one in audio])
        expected: Any = steered.decode(mels, options, steer_alpha=alpha)
        for (one, raw), plain in zip(judge._decode(windows, pack, alpha), expected, strict=True):
            assert raw["text"] == plain.text
            assert raw["no_speech_prob"] == pytest.approx(plain.no_speech_prob, abs=1e-3)
            assert raw["avg_logprob"] == pytest.approx(plain.avg_logprob, abs=1e-2)
            changed.append(raw != judge.unsteered[one.key])
    assert changed == [False, False, True, True]


def test_without_speech_no_word_error_is_claimed(
    model: Any, windows: list[CalibrationWindow], tmp_path: Path
):
    wordless = replace(windows[2], reference="(laughs)")
    for number, speech in enumerate(([], [wordless])):
        judge = Judge(model, [*windows[:1], *speech], tmp_path / f"decoded{number}.json")
        assert judge.point(vector_pack("tiny.en"), 0.0)[4:] == (None, None)


def test_a_judge_needs_recordings_without_speech(windows: list[CalibrationWindow], tmp_path: Path):
    with pytest.raises(CalibrationError, match="no non-speech recording is left to hold back"):
        Judge(None, windows[2:], tmp_path / "decoded.json")


@pytest.mark.parametrize("gate", ["window", "frame", "none"])
def test_only_windows_that_the_operator_would_edit_are_decoded(tmp_path: Path, gate: str):
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(1500, WIDTH, generator=generator) for _ in range(3)]
    judge = object.__new__(Judge)
    seen: set[bool] = set()
    for threshold in (-30.0, -3.0, -1.0, 0.0, 1.0, 2.0, 30.0):
        pack = small_pack(gate=gate, threshold=threshold)
        for i, before in enumerate(frames):
            after = before[None].clone()
            Operator(pack).apply_(after, 1.0)
            edited = not torch.equal(after[0], before)
            assert judge._touched(pack, window(tmp_path, f"{i}", before)) == edited
            seen.add(edited)
    assert seen == ({True} if gate == "none" else {True, False})


class TableJudge(Judge):
    """A judge with made-up figures: text falls and word errors rise with the unit."""

    def __init__(self, text: dict[float, float], cost_from: float, speech: bool = True):
        self.text, self.cost_from, self.mute = text, cost_from, not speech

    def point(self, pack: SteeringPack, alpha: float) -> AlphaPoint:
        unit = pack.metadata.alpha_unit
        text = min(share for at, share in self.text.items() if at <= unit)
        cost = 0.0 if unit < self.cost_from else 2 * MAX_COST
        if self.mute:
            return AlphaPoint(alpha, text, text, 0.5, None, None)
        return AlphaPoint(alpha, text, text, 0.5, 0.05 + cost, cost)


NORM = 20.0
UNITS = [NORM * share for share in GRIDS["direction"]]
FALLING = {0.0: 1.0, UNITS[1]: 0.5, UNITS[3]: 0.004, UNITS[5]: 0.0}


@pytest.mark.parametrize(
    ("cost_from", "expected"),
    [
        (1e9, SAFETY_FACTOR * UNITS[3]),  # the smallest within tolerance of the best, and the margin
        (SAFETY_FACTOR * UNITS[3], UNITS[3]),  # the margin would cost
        (UNITS[3], SAFETY_FACTOR * UNITS[1]),  # the best of what is cheap
        (0.0, UNITS[0]),  # all cost: the weakest
    ],
)
def test_best_unit_obeys_the_cost(cost_from: float, expected: float):
    judge = TableJudge(FALLING, cost_from)
    unit, tried = judge.best_unit(small_pack("direction"), NORM)
    assert unit == pytest.approx(expected)
    assert [one for one, _ in tried[:-1]] == pytest.approx(UNITS)
    chosen = judge.point(with_unit(small_pack(), unit), 1.0)
    assert cost_from == 0 or (chosen.wer_change or 0) <= MAX_COST


def test_best_unit_without_speech_and_for_other_strategies():
    unit, _ = TableJudge(FALLING, 0.0, speech=False).best_unit(small_pack("direction"), NORM)
    assert unit == pytest.approx(SAFETY_FACTOR * UNITS[3])
    unit, tried = TableJudge({0.0: 1.0, 2.0: 0.0}, 1e9).best_unit(small_pack("suppress"), NORM)
    assert unit == SAFETY_FACTOR * 2.0
    assert tuple(one for one, _ in tried[:-1]) == GRIDS["suppress"]


@pytest.fixture
def report() -> CalibrationReport:
    metadata = small_pack(
        model="<tiny> & mine",
        data={"clips": 412, "synthetic": 60},
        metrics={"definition": "held-back windows"},
        created_with="whisper-sae-steer 1.2.3",
    ).metadata
    curve = (
        AlphaPoint(0.0, 0.775, 0.25, 0.758, 0.0853, 0.0),
        AlphaPoint(1.0, 0.125, 0.0312, 0.93, 0.0871, 0.0018),
    )
    rows = (
        FeatureRow(2718, "gate", 1.234, 0.666, 0.0123, "ra<in"),
        FeatureRow(31, "edit", -0.5, 0.1, 0.2, "x"),
    )
    gate = GateReport(0.9987, 72, 248, 0.0139, 0.004)
    return CalibrationReport(metadata, curve, ((4.91, curve[1]),), gate, rows, (0.7, 0.8), (0.9, 0.95))


def test_text_report_says_what_was_gained_and_what_it_cost(report: CalibrationReport):
    text = text_report(report)
    expected = """412 recordings and 60 synthetic; on 12.5% of held-back; unsteered 77.5%; 3.1% and 25.0%;
        WER 8.7% (+0.18 pp; AUC 0.9987; touched 1.4% of 72 speech; not fully open on 0.4% of 248"""
    assert all(part.strip() in text for part in expected.split(";"))
    assert "2718 gate +1.234 66.6% 1.2% ra<in" in " ".join(text.split())
    assert text.splitlines()[-1].split() == ["31", "edit", "-0.500", "10.0%", "20.0%", "x"]
    curve = tuple(point._replace(wer=None, wer_change=None) for point in report.curve)
    without = report._replace(gate=None, curve=curve)
    assert "Cost: not measured, because no speech was given" in text_report(without)
    assert "no-speech token" not in text
    dead = report._replace(metadata=replace(report.metadata, no_speech_works=False))
    assert "The model's no-speech token doesn't work (mean probability" in text_report(dead)
    assert "AUC" not in text_report(without)


def test_the_verdict_says_what_is_gained_or_not(report: CalibrationReport):
    unsteered, steered = report.curve
    assert verdict(report) == (
        "This pack keeps text away from silence: text for 12.5% of held-back windows without speech"
        " (unsteered 77.5%); WER of speech 8.7% (unsteered 8.5%)."
    )
    for after, said in (
        (steered._replace(fpr_raw=0.775), "This pack gains nothing: text for 77.5%"),
        (steered._replace(wer=0.1, wer_change=0.0147), "silence, but costs words: text for 12.5%"),
        (steered._replace(wer=None, wer_change=None), "not known, because no speech was given."),
    ):
        assert said in verdict(report._replace(curve=(unsteered, after)))


@in_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_leads_with_the_verdict_and_lets_the_failed_be_heard(
    report: CalibrationReport, tmp_path: Path, width: int
):
    noise = write_noise(tmp_path / "noise", fitted=1, held=0)
    failed = clip("a-folder-of-mine/sounds/noise-with-a-long-name.wav", path=next(noise.iterdir()))
    failures = (Failure(failed, "text where nobody speaks", "Thank you.", "Thank you."),)
    write_html(report._replace(failures=failures), tmp_path / "report.html")
    with looked_at(tmp_path / "report.html", width) as page:
        assert faults(page) == {}
        assert page.locator("h1 + p").inner_text() == verdict(report)
        assert failed.key in page.locator("h3").all_inner_texts()
        assert page.locator("audio").get_attribute("aria-label") == failed.key
        until(lambda: page.locator("audio").evaluate("(one) => one.duration") > 2.9)


def test_few_values_are_points_and_many_are_bars():
    for count, bars in ((4, 0), (FEW, 0), (FEW + 1, 40)):
        axes: Any = Figure().subplots()
        distribution(axes, {"unsteered": [0.5] * count, "ours": [0.1]}, 0.0, 1.0)
        assert len(axes.patches) == bars
        assert sum(len(line.get_xdata()) for line in axes.lines) == (0 if bars else count + 1)


def test_html_report_is_one_file_with_everything_in_it(report: CalibrationReport, tmp_path: Path):
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert "<script" not in page
    links = re.findall(r"(?:src|href)=[\"']?([^\"'> ]+)", page)
    assert len(links) == 2
    for link in links:
        kind, data = link.split(",")
        assert kind == "data:image/svg+xml;base64"
        picture = base64.b64decode(data).decode()
        assert "</svg>" in picture
        assert not re.findall(r"(?:src|href)=\"(?!#)", picture)
    for part in ("12.5%", "77.5%", "0.758", "+0.18 pp", "4.91", "1.2.3"):
        assert part in page
    assert "<td>2718</td><td>gate</td><td>+1.234</td>" in page
    assert "<td>ra&lt;in</td></tr>" in page
    assert "<h1>Steering pack for &lt;tiny&gt; &amp; mine</h1>" in page
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
