"""Attribution through the decoder, and the edits that are built from it."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.calibration_parts import random_sae, window
from tests.support.real_models import weights
from tests.support.small_whisper import small_whisper
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.calibrate import directions
from whisper_sae_steer.calibrate.attribution import SilenceObjective, path_gradient
from whisper_sae_steer.calibrate.directions import EditEvidence, Selection, build_edit, spread
from whisper_sae_steer.calibrate.selection import (
    attribution_importance,
    fisher_importance,
    logistic_importance,
    mean_activation,
    sample_frames,
    strongest,
)
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.errors import CalibrationError
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.steering.metadata import Strategy

WIDTH = 16


@pytest.fixture(scope="module")
def objective() -> SilenceObjective:
    return SilenceObjective(small_whisper().float())


def random_frames(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_objective_is_made_of_the_models_probabilities():
    model = small_whisper(51865).float()
    objective = SilenceObjective(model)
    frames = random_frames(2, 1500, WIDTH)
    values = objective(frames, ["en", "de"])
    ends_alone = SilenceObjective(model, no_speech_works=False)(frames, ["en", "de"])
    for i, language in enumerate(("<|en|>", "<|de|>")):
        tokenizer = objective.tokenizer(language[2:-2])
        assert tokenizer.no_speech is not None
        start = f"<|startoftranscript|>{language}<|transcribe|>"
        timed, untimed = (
            model.decoder(
                torch.tensor([tokenizer.encode(start + last, allowed_special="all")]), frames[i : i + 1]
            )[0].log_softmax(-1)
            for last in ("<|0.00|>", "<|notimestamps|>")
        )
        ends = timed[-1, tokenizer.eot] + untimed[-1, tokenizer.eot]
        expected = timed[0, tokenizer.no_speech] + ends
        torch.testing.assert_close(values[i], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ends_alone[i], ends, rtol=1e-4, atol=1e-4)
    assert objective.languages(14) == [*objective.languages(12), *objective.languages(2)]


def test_english_models_are_asked_in_english(objective: SilenceObjective):
    assert objective.languages(3) == ["en"] * 3
    assert (
        objective.tokenizer("en").decode([*objective.tokenizer("en").sot_sequence]) == "<|startoftranscript|>"
    )


def test_gradient_agrees_with_finite_differences(objective: SilenceObjective):
    frames = random_frames(2, 1500, WIDTH)
    gradient = objective.gradient(frames, ["en", "en"])
    assert gradient.shape == frames.shape
    for seed in range(3):
        # along the gradient there is something to see above float32's rounding
        way = gradient / gradient.norm() + 0.003 * random_frames(2, 1500, WIDTH, seed=seed)
        way /= way.norm()
        step = 0.05
        with torch.no_grad():
            rise = objective(frames + step * way, ["en"] * 2) - objective(frames - step * way, ["en"] * 2)
        assert float(rise.sum()) / (2 * step) == pytest.approx(float((gradient * way).sum()), rel=0.02)


def test_gradient_at_a_block_passes_through_the_blocks_behind_it():
    model = small_whisper().float()
    objective, at_output = SilenceObjective(model, "block.0"), SilenceObjective(model)
    frames = random_frames(1, 1500, WIDTH).requires_grad_()
    output = model.encoder.ln_post(list(model.encoder.blocks)[1](frames))
    torch.testing.assert_close(objective(frames, ["en"]), at_output(output, ["en"]))
    through = torch.autograd.grad(output, frames, at_output.gradient(output, ["en"]))[0]
    torch.testing.assert_close(objective.gradient(frames, ["en"]), through, rtol=1e-4, atol=1e-7)


def test_gradients_of_a_batch_are_those_of_its_windows(objective: SilenceObjective):
    frames = random_frames(2, 1500, WIDTH)
    together = objective.gradient(frames, ["en", "en"])
    alone = torch.cat([objective.gradient(frame[None], ["en"]) for frame in frames])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)
    assert not frames.requires_grad


def test_path_gradient_raises_the_objective_of_tiny_en():
    objective = SilenceObjective(load_torch(weights("tiny.en")).float())
    made = synthetic.generate(3, seed=1, seconds=(2, 3))
    windows = list(WindowEncoder(weights("tiny.en"), threads=1)([one.audio for one in made]))
    size = float(torch.stack(windows).norm(dim=-1).mean())
    vector = path_gradient(objective, windows[:2], 0.3 * size, steps=2, batch_size=2)
    assert vector.shape == (384,)
    assert float(vector.norm()) == pytest.approx(1, abs=1e-5)
    unseen = windows[2][None]
    with torch.no_grad():
        before, after, against = (
            float(objective(unseen + edit, ["en"]))
            for edit in (0.0, 0.2 * size * vector, -0.2 * size * vector)
        )
    assert after > before + 1
    assert after > against


@pytest.fixture
def evidence(tmp_path: Path, objective: SilenceObjective) -> EditEvidence:
    """Four windows without speech from two sources and two with, on random weights."""
    windows: list[CalibrationWindow] = []
    for i in range(6):
        frames = random_frames(1500, WIDTH, seed=i)
        speech = slice(200, 700) if i > 3 else None
        if speech:
            frames[speech, 0] += 2
        source = "speech" if speech else f"noise{i % 2}"
        windows.append(window(tmp_path, f"w{i}", frames, speech=speech, source=source, content=900))
    sae = random_sae(WIDTH)
    return EditEvidence(sae, objective, sample_frames(sae, windows), windows)


@pytest.mark.parametrize("selection", get_args(Selection))
def test_a_direction_has_length_one(evidence: EditEvidence, selection: Selection):
    edit = build_edit("direction", selection, evidence)
    vector = (edit.coefficients[:, None] * edit.directions).sum(0)
    assert float(vector.norm()) == pytest.approx(1, abs=1e-5)
    assert len(edit.features.ids) == 0
    rows = evidence.sae.W_dec.detach()[torch.from_numpy(edit.ids)]
    assert torch.equal(rows, edit.directions[: len(edit.ids)])
    assert (len(edit.ids) == 0) == (selection in ("gradient", "contrast"))
    norms = edit.directions.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_attributed_direction_raises_the_objective(evidence: EditEvidence):
    edit = build_edit("direction", "attribution", evidence)
    vector = (edit.coefficients[:, None] * edit.directions).sum(0)
    frames = torch.stack([w.frames() for w in evidence.without_speech(4)])
    with torch.no_grad():
        rise = evidence.objective(frames + 0.3 * vector, ["en"] * 4) - evidence.objective(frames, ["en"] * 4)
    assert float(rise.mean()) > 0


def test_contrast_is_the_difference_of_means(evidence: EditEvidence):
    edit = build_edit("direction", "contrast", evidence)
    other = torch.stack([w.frames()[:900].mean(0) for w in evidence.windows[:4]]).mean(0)
    speech = torch.stack([w.frames()[200:700].mean(0) for w in evidence.windows[4:]]).mean(0)
    difference = other - speech
    torch.testing.assert_close(edit.directions[0], difference / difference.norm())


@pytest.mark.parametrize("selection", ["attribution", "logistic", "fisher"])
def test_suppress_only_takes_away_what_stands_for_non_speech(evidence: EditEvidence, selection: Selection):
    importance = importance_of(selection, evidence)
    edit = build_edit("suppress", selection, evidence)
    positive = importance[edit.features.ids.numpy()] > 0
    assert positive.any()
    torch.testing.assert_close(edit.coefficients, -torch.from_numpy(positive).float())
    assert set(edit.features.ids.numpy()[positive]) == set(np.flatnonzero(importance > 0))
    torch.testing.assert_close(edit.directions, evidence.sae.W_dec.detach()[edit.features.ids])


def test_suppressing_by_attribution_raises_the_objective(evidence: EditEvidence):
    edit = build_edit("suppress", "attribution", evidence)
    frames = torch.stack([w.frames() for w in evidence.without_speech(4)])
    delta = (edit.features.activations(frames) * edit.coefficients) @ edit.directions
    with torch.no_grad():
        rise = evidence.objective(frames + 0.05 * delta, ["en"] * 4) - evidence.objective(frames, ["en"] * 4)
    assert float(rise.mean()) > 0


@pytest.mark.parametrize("selection", ["attribution", "logistic", "fisher"])
def test_additive_moves_against_each_features_sign(evidence: EditEvidence, selection: Selection):
    importance = importance_of(selection, evidence)
    ids = strongest(importance, directions.STEER_FEATURES)
    edit = build_edit("additive", selection, evidence)
    assert len(edit.features.ids) == 0
    expected = -np.sign(importance[ids]) * mean_activation(evidence.sample)[ids]
    torch.testing.assert_close(edit.coefficients, torch.from_numpy(expected).float())
    torch.testing.assert_close(edit.directions, evidence.sae.W_dec.detach()[torch.from_numpy(ids)])


def importance_of(selection: Selection, evidence: EditEvidence) -> np.ndarray:
    if selection == "attribution":
        windows = evidence.without_speech(directions.GRADIENT_WINDOWS)
        return attribution_importance(evidence.sae, evidence.objective, windows)
    return {"logistic": logistic_importance, "fisher": fisher_importance}[selection](evidence.sample)


@pytest.mark.parametrize("strategy", ["suppress", "additive"])
@pytest.mark.parametrize("selection", ["gradient", "contrast"])
def test_dense_selections_are_for_directions(
    evidence: EditEvidence, strategy: Strategy, selection: Selection
):
    with pytest.raises(CalibrationError, match="one dense vector: use it with direction"):
        build_edit(strategy, selection, evidence)


@pytest.mark.parametrize("selection", ["logistic", "fisher", "contrast"])
def test_comparing_selections_need_speech(evidence: EditEvidence, selection: Selection):
    windows = evidence.windows[:4]
    mute = evidence._replace(windows=windows, sample=sample_frames(evidence.sae, windows))
    with pytest.raises(CalibrationError, match="compares with speech"):
        build_edit("direction", selection, mute)
    assert float(build_edit("direction", "attribution", mute).coefficients.abs().sum()) > 0


def test_spread_gives_each_source_an_equal_share(tmp_path: Path):
    sources = ["many"] * 7 + ["one"] + ["two"] * 2
    windows = [window(tmp_path, f"{i}", torch.zeros(1, 1), source=s) for i, s in enumerate(sources)]
    chosen = spread(windows, 6)
    assert sorted(w.source for w in chosen) == ["many", "many", "many", "one", "two", "two"]
    assert [w.key for w in spread(windows[::-1], 6)] == [w.key for w in chosen]
    assert {w.source for w in chosen[:3]} == {"many", "one", "two"}
    assert len({w.key for w in spread(windows, 99)}) == 10
