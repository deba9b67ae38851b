"""Feature selection, the gate's fit and its threshold, and the fit of probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from tests.support.calibration_parts import random_sae, window
from tests.support.real_models import sample, weights
from tests.support.small_pack import small_pack
from whisper_sae_steer.calibrate import selection
from whisper_sae_steer.calibrate.gate import (
    FeatureGate,
    fit_gate,
    place_levels,
    report_gate,
    window_scores,
    with_gate,
)
from whisper_sae_steer.calibrate.risk import fit_calibrations
from whisper_sae_steer.calibrate.selection import (
    OTHER_FRAMES,
    PADDING_FRAMES,
    SPEECH_FRAMES,
    FrameSample,
    LinearModel,
    fisher_importance,
    fit_logistic,
    logistic_importance,
    mean_activation,
    sample_frames,
    strongest,
    take_features,
    with_threshold,
)
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.errors import CalibrationError
from whisper_sae_steer.kernels import openness
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.sae.autoencoder import SAE, SAEConfig
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.steering.labels import label_stretch
from whisper_sae_steer.steering.metadata import GateLevels
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import Features

Matrix = NDArray[np.float64]


@pytest.fixture
def sparse() -> tuple[Matrix, NDArray[np.bool_], FrameSample]:
    """600 frames of 25 features of very different sizes; a third is speech, told apart by the first six."""
    rng = np.random.default_rng(0)
    is_speech = rng.random(600) < 1 / 3
    rate = np.full((600, 25), 0.2)
    rate[:, :3] += 0.5 * is_speech[:, None]
    rate[:, 3:6] += 0.5 * ~is_speech[:, None]
    dense = (rng.random((600, 25)) < rate) * rng.exponential(size=(600, 25)) * np.geomspace(0.2, 5, 25)
    return dense, is_speech, FrameSample(csr_matrix(dense), is_speech)


def floored(dense: Matrix) -> Matrix:
    deviation = dense.std(0)
    return np.maximum(deviation, 0.1 * deviation.max())


def test_an_sae_without_threshold_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(selection, "THRESHOLD_FRAMES", 300)
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(1500, 16, generator=generator) for _ in range(12)]
    windows = [
        window(tmp_path, f"{i}", f, speech=slice(0, 99) if i % 2 else None) for i, f in enumerate(frames)
    ]
    jumprelu = random_sae()
    assert with_threshold(jumprelu, windows) is jumprelu
    stored = SAE(SAEConfig(16, 48, "batchtopk", k=5))
    stored.load_state_dict({name: v for name, v in jumprelu.state_dict().items() if name != "threshold"})
    found = with_threshold(stored, windows)
    assert (stored.config.architecture, found.config.architecture) == ("batchtopk", "jumprelu")
    fires = (found.encode(torch.cat(frames)) > 0).sum(-1).float().mean()
    assert float(fires) == pytest.approx(5, rel=0.1)
    assert len(found.threshold.unique()) == 1
    with pytest.raises(CalibrationError, match="set the SAE's threshold by"):
        with_threshold(stored, [])


def test_logistic_is_at_the_minimum_of_its_loss(sparse: tuple[Matrix, NDArray[np.bool_], FrameSample]):
    dense, is_speech, frames = sparse
    model = fit_logistic(frames)
    x, w = dense / floored(dense), model.weight * floored(dense)
    balanced = np.where(is_speech, 300 / is_speech.sum(), 300 / (~is_speech).sum())
    probability = 1 / (1 + np.exp(-(dense @ model.weight + model.bias)))
    residual = 0.05 * balanced * (probability - is_speech)
    assert np.abs(w + x.T @ residual).max() < 5e-3
    assert abs(residual.sum()) < 5e-3
    reference = LogisticRegression(C=0.05, max_iter=500, class_weight="balanced").fit(x, is_speech)
    np.testing.assert_allclose(w, reference.coef_[0], atol=5e-3)


def test_logistic_on_some_columns(sparse: tuple[Matrix, NDArray[np.bool_], FrameSample]):
    dense, is_speech, frames = sparse
    columns = np.array([4, 0, 17])
    some, alone = (
        fit_logistic(frames, columns),
        fit_logistic(FrameSample(csr_matrix(dense[:, columns]), is_speech)),
    )
    np.testing.assert_array_equal(some.weight, alone.weight)
    assert some.bias == alone.bias


def test_logistic_from_a_model_of_other_frames(sparse: tuple[Matrix, NDArray[np.bool_], FrameSample]):
    dense, is_speech, frames = sparse
    alone = fit_logistic(frames)
    from_nothing = fit_logistic(frames, start=LinearModel(np.zeros(25), 0.0))
    np.testing.assert_allclose(from_nothing.weight, alone.weight, atol=5e-3)
    start = LinearModel(np.linspace(-1, 1, 25), 0.3)
    model, scale = fit_logistic(frames, start=start), floored(dense)
    probability = 1 / (1 + np.exp(-(dense @ model.weight + model.bias)))
    balanced = np.where(is_speech, 300 / is_speech.sum(), 300 / (~is_speech).sum())
    residual = 0.05 * balanced * (probability - is_speech)
    # the ridge is on the change: at the minimum it balances the frames' pull
    assert np.abs((model.weight - start.weight) * scale + (dense / scale).T @ residual).max() < 5e-3
    few = FrameSample(csr_matrix(dense[:10]), is_speech[:10])
    moved = fit_logistic(few, start=start).weight - start.weight
    assert np.abs(moved).sum() < 0.2 * np.abs(model.weight - start.weight).sum()


def test_importance_agrees_with_dense_numpy(sparse: tuple[Matrix, NDArray[np.bool_], FrameSample]):
    dense, is_speech, frames = sparse
    logistic = logistic_importance(frames)
    np.testing.assert_allclose(logistic, -fit_logistic(frames).weight * dense.std(0), rtol=1e-9)
    speech, other = dense[is_speech], dense[~is_speech]
    difference = other.mean(0) - speech.mean(0)
    expected = np.sign(difference) * difference**2 / (other.var(0) + speech.var(0) + 1e-9)
    np.testing.assert_allclose(fisher_importance(frames), expected, rtol=1e-9)
    np.testing.assert_allclose(mean_activation(frames), other.mean(0))
    for importance in (logistic, fisher_importance(frames)):
        assert (importance[:3] < 0).all()  # fire on speech
        assert (importance[3:6] > 0).all()
        assert set(strongest(importance, 6)) == set(range(6))


def test_a_rare_feature_does_not_decide():
    rng = np.random.default_rng(1)
    is_speech = np.arange(4000) < 2000
    common = (rng.random((4000, 5)) < np.where(is_speech, 0.7, 0.3)[:, None]) * 1.0
    rare = np.zeros((4000, 1))
    rare[:4] = 0.2  # on a frame in a thousand, all of them speech
    dense = np.hstack([common, rare])
    weight = fit_logistic(FrameSample(csr_matrix(dense), is_speech)).weight
    naive = LogisticRegression(C=0.05, class_weight="balanced").fit(dense / dense.std(0), is_speech)
    said, would_say = 0.2 * weight[5], 0.2 * naive.coef_[0, 5] / dense[:, 5].std()
    assert abs(said) < weight[:5].min() / 3 < weight[:5].min() < would_say
    assert strongest(logistic_importance(FrameSample(csr_matrix(dense), is_speech)), 6)[-1] == 5


def test_strongest_orders_by_size_and_breaks_ties_by_number():
    importance = np.array([0.5, -3.0, 0.0, 3.0, -0.5])
    assert strongest(importance, 4).tolist() == [1, 3, 0, 4]
    assert len(strongest(importance, 99)) == 5


def test_taken_features_are_columns_of_the_sae():
    ids = np.array([40, 3, 17, 0])
    x = 3 * torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    sae = random_sae()
    with torch.no_grad():
        expected = sae.encode(x)[:, torch.from_numpy(ids)]
    found = take_features(sae, ids).activations(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(found > 0, expected > 0)
    assert 0 < (found > 0).float().mean() < 1


def test_taken_features_on_frames_of_whisper():
    sae = load_sae(find_sae("auto", weights("tiny.en")))
    frames = WindowEncoder(weights("tiny.en"), threads=1)([sample("speech")])[0, :500]
    with torch.no_grad():
        expected = sae.encode(frames)
    ids = expected.sum(0).argsort(descending=True)[:200].numpy()
    found = take_features(sae, ids).activations(frames)
    wanted = expected[:, torch.from_numpy(ids)]
    far = (found - wanted).abs() > 1e-3 * wanted.abs().max()
    assert float(far.float().mean()) < 1e-4  # rounding may move one across its threshold
    assert float((wanted > 0).float().mean()) > 0.02


def coloured(folder: Path, count: int, sae_width: int = 16) -> list[CalibrationWindow]:
    """Windows of random frames; those of speech are shifted along the first axis while it is heard."""
    generator = torch.Generator().manual_seed(2)
    windows: list[CalibrationWindow] = []
    for i in range(count):
        frames = torch.randn(1500, sae_width, generator=generator)
        frames[:, 0] -= 3
        speech = slice(100, 400) if i % 2 else None
        if speech:
            frames[speech, 0] += 6
        content = 500 if i % 4 == 2 else 1500
        windows.append(window(folder, f"w{i}", frames, speech=speech, content=content))
    return windows


def test_sampled_frames_have_their_labels(tmp_path: Path):
    windows, sae = coloured(tmp_path, 8), random_sae()
    frames = sample_frames(sae, windows)
    sizes = [OTHER_FRAMES, SPEECH_FRAMES, OTHER_FRAMES + PADDING_FRAMES, SPEECH_FRAMES] * 2
    assert frames.is_speech.tolist() == np.repeat([False, True, False, True] * 2, sizes).tolist()
    assert frames.features.shape == (sum(sizes), 48)
    with torch.no_grad():
        heard = sae.encode(windows[1].frames()[100:400]).numpy()
    block = frames.features[sizes[0] : sizes[0] + SPEECH_FRAMES].toarray()
    assert all(np.isclose(row, heard, atol=1e-5).all(1).any() for row in block)
    again = sample_frames(sae, windows)
    np.testing.assert_array_equal(again.features.toarray(), frames.features.toarray())


def test_no_frames_to_sample():
    with pytest.raises(CalibrationError, match="no recording is left to fit on"):
        sample_frames(random_sae(), [])


def test_fitted_gate_tells_speech_apart(tmp_path: Path):
    windows, sae = coloured(tmp_path, 12), random_sae()
    fitted, held = windows[:8], windows[8:]
    gate = fit_gate(sae, sample_frames(sae, fitted), fitted)
    scores = window_scores(gate, held)
    gate = place_levels(gate, held, scores)
    report = report_gate(gate, held, scores)
    assert report == (1.0, 2, 2, 0.0, 0.0)
    pack = small_pack()._replace(gate=gate.features, gate_weight=gate.weight, gate_bias=gate.bias)
    metadata = with_gate(pack.metadata, gate)
    assert metadata.levels == gate.levels
    operator = Operator(pack._replace(metadata=metadata))
    for one in held:  # calibration scores windows as the operator will
        expected = operator.scores(one.frames()[None])[0]
        torch.testing.assert_close(torch.from_numpy(scores[one.key]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["speech", "non-speech"])
def test_a_gate_needs_both_kinds(tmp_path: Path, kind: str):
    windows, sae = coloured(tmp_path, 6), random_sae()
    gate = fit_gate(sae, sample_frames(sae, windows), windows)
    one_kind = [w for w in windows if w.is_speech == (kind == "speech")]
    with pytest.raises(CalibrationError, match="needs both speech and non-speech"):
        fit_gate(sae, sample_frames(sae, one_kind), one_kind)
    with pytest.raises(CalibrationError, match="none of one kind"):
        report_gate(gate, one_kind, window_scores(gate, one_kind))


FIRST_AXIS = FeatureGate(
    Features(torch.zeros(1, dtype=torch.int64), torch.tensor([[1.0, 0.0]]), torch.zeros(1), torch.zeros(1)),
    torch.ones(1),
    torch.tensor(0.0),
    smoothing=1,
    levels=GateLevels(),
)
"""scores a frame by its first number"""


def scored(folder: Path, other: Sequence[float], speech: Sequence[float]) -> list[CalibrationWindow]:
    """Windows whose highest scores are these."""
    windows: list[CalibrationWindow] = []
    for i, score in enumerate([*other, *speech]):
        frames = torch.zeros(1500, 2)
        frames[700, 0] = score
        windows.append(window(folder, f"{i}", frames, speech=None if i < len(other) else slice(600, 800)))
    return windows


def placed(windows: list[CalibrationWindow], base: GateLevels | None = None) -> FeatureGate:
    return place_levels(FIRST_AXIS, windows, window_scores(FIRST_AXIS, windows), base)


def test_threshold_lies_in_the_gap(tmp_path: Path):
    windows = scored(tmp_path, np.linspace(0.5, 2, 12).tolist(), np.linspace(10, 20, 12).tolist())
    gate = placed(windows)
    fully_open = gate.levels.threshold - gate.levels.ramp
    assert 2 < fully_open < gate.levels.threshold < 10
    assert gate.levels.threshold == pytest.approx(6, abs=0.1)  # the middle
    assert fully_open == pytest.approx(4, abs=0.1)  # a quarter
    assert gate.levels.gap_below == 0  # twelve frames of 18,000 without speech are above


@pytest.mark.parametrize(
    ("noise", "voice", "fully_open", "threshold"),
    [((3.0, 9.0), 20.0, 10.5, 12), ((0.0, 1.0), 7.0, 5.08, 6.08), ((0.0, 1.0), 30.0, 7.5, 10)],
)
def test_few_recordings_widen_what_a_base_knew(
    tmp_path: Path, noise: tuple[float, float], voice: float, fully_open: float, threshold: float
):
    """The base knows noise up to 5 and speech from 15 on: only what lies beyond that moves its ends."""
    windows = scored(tmp_path, np.linspace(*noise, 12).tolist(), np.linspace(voice, 40, 12).tolist())
    base = GateLevels.spaced(10.0, 2.5, gap_below=1.0)
    gate = placed(windows, base)
    assert gate.levels.gap_below == 1.0
    assert gate.levels.threshold == pytest.approx(threshold, abs=0.1)
    assert gate.levels.threshold - gate.levels.ramp == pytest.approx(fully_open, abs=0.1)


@pytest.mark.parametrize("speech", [(3.0, 9.0), (1.0, 9.0), (2.1, 9.0)])
def test_without_a_gap_speech_decides(tmp_path: Path, speech: tuple[float, float]):
    voices = np.linspace(*speech, 12)
    windows = scored(tmp_path, np.linspace(0.5, 4, 12).tolist(), voices.tolist())
    gate = placed(windows)
    assert gate.levels.ramp > 0
    assert gate.levels.threshold <= np.quantile(voices, 0.005) + 1e-6
    scores = torch.from_numpy(np.stack([*window_scores(gate, windows[12:]).values()]))
    assert not openness(scores, "window", gate.levels.threshold, gate.levels.ramp).flatten()[1:].any()


def spans(
    folder: Path, shift: float, count: int = 30
) -> tuple[list[CalibrationWindow], dict[str, NDArray[np.float32]]]:
    """Windows and their scores, speech ``shift`` above the rest."""
    rng = np.random.default_rng(0)
    windows: list[CalibrationWindow] = []
    scores: dict[str, NDArray[np.float32]] = {}
    for i in range(count):
        speech = slice(0, 1500) if i % 2 else None
        windows.append(window(folder, f"s{i}", torch.zeros(1500, 2), speech=speech))
        scores[f"s{i}"] = (rng.normal(0, 2, 1500) + shift * (i % 2)).astype(np.float32)
    return windows, scores


def test_probabilities_order_speech_above_noise(tmp_path: Path):
    windows, scores = spans(tmp_path, shift=12.0)
    calibrations = fit_calibrations(windows, scores)
    metadata = small_pack(speech_calibration=calibrations.speech, risk_calibration=calibrations.risk).metadata
    labels = [label_stretch(torch.from_numpy(scores[w.key]), 2.0, 6.0, metadata) for w in windows]
    noise, speech = labels[::2], labels[1::2]
    assert max(x.speech_prob for x in noise) < 0.2 < 0.8 < min(x.speech_prob for x in speech)
    assert max(x.hallucination_risk for x in speech) < 0.2 < 0.8 < min(x.hallucination_risk for x in noise)
    assert fit_calibrations(windows, scores) == calibrations


@pytest.mark.parametrize(("first", "lacking"), [(0, "speech"), (1, "non-speech")])
def test_probabilities_need_both_kinds(tmp_path: Path, first: int, lacking: str):
    windows, scores = spans(tmp_path, 1.0, count=6)
    with pytest.raises(CalibrationError, match=f"no {lacking} recording is left"):
        fit_calibrations(windows[first::2], scores)
