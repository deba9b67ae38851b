"""Domain specialisation: rates by hand, balance, intervals, maps and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from tests.support.analysis_parts import make_sae, make_store, sparse_features
from whisper_sae_steer.analysis.likeness.domains import domains
from whisper_sae_steer.analysis.likeness.embedding import embed
from whisper_sae_steer.analysis.likeness.specialisation import DomainOptions, Specialisation, specialise
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AnalysisError

PLACES = ["speech", "speech", "music", "sound"]
LENGTHS = [100, 100, 400, 100]


def features(*of: dict[int, int]) -> csr_matrix:
    """Features by {window: frames from its start that it fires on}."""
    dense = np.zeros((sum(LENGTHS), len(of)), np.float32)
    first = np.cumsum([0, *LENGTHS])
    for feature, windows in enumerate(of):
        for window, frames in windows.items():
            dense[first[window] : first[window] + frames, feature] = 1 + feature
    return csr_matrix(dense)


def found(folder: Path, *of: dict[int, int], **options: float) -> Specialisation:
    store = make_store(folder / "store", features(*of), domains=PLACES, lengths=LENGTHS)
    return specialise(store.features(), store.windows, DomainOptions(**options))


def test_rates_by_hand(tmp_path: Path):
    result = found(
        tmp_path,
        {0: 100},  # half of speech
        {0: 10, 1: 10, 2: 40},  # a tenth of speech and of music: as many a frame, though music has more
        {3: 100, 0: 10},  # all of sound, a twentieth of speech: 0.952 of the rates
        {2: 360, 3: 10},  # nine tenths of music, a tenth of sound: 0.9 is not more than 0.9
        {},
    )
    assert result.rates["speech"] == (0.5, 0.1, 0.05, 0, 0)
    assert result.rates["music"] == (0, 0.1, 0, 0.9, 0)
    assert result.rates["sound"] == (0, 0, 1, 0.1, 0)
    assert result.frames.domain == ("speech", "shared", "sound", "shared", None)
    assert result.frames.alive == 4
    assert [share.share for share in result.frames.specialised.values()] == [0.25, 0, 0.25]
    assert result.frames.venn == {
        "speech": 1, "music": 0, "sound": 0, "speech+music": 1, "speech+sound": 1, "music+sound": 1,
        "speech+music+sound": 0, "none": 1,
    }  # fmt: skip
    # by windows the third fires in half of speech and all of sound
    assert result.windows.domain == ("speech", "shared", "shared", "shared", None)
    assert [(size.domain, size.windows, size.groups, size.frames) for size in result.sizes] == [
        ("speech", 2, 2, 200), ("music", 1, 1, 400), ("sound", 1, 1, 100),
    ]  # fmt: skip


def test_options(tmp_path: Path):
    result = found(tmp_path, {0: 10, 3: 100}, {2: 4}, part=0.96, frame_rate=0.02, window_rate=0.6)
    assert result.frames.domain == ("shared", "music")
    assert result.frames.venn["speech+sound"] == 1
    assert result.frames.venn["none"] == 1  # 4 of 400 frames of music are too few
    assert result.windows.venn["sound"] == 1  # half of the windows of speech are too few
    assert result.windows.venn["music"] == 1


def test_intervals_are_of_recordings(tmp_path: Path):
    rng = np.random.default_rng(0)
    many = ["speech"] * 12 + ["music"] * 12 + ["sound"] * 12
    fires = (rng.random((36, 200)) < 0.2).repeat(10, 0) * (rng.random((360, 200)) < 0.5)
    fires[120:, :80] = 0  # 80 features of speech alone, whichever recordings are drawn
    store = make_store(tmp_path / "store", fires, domains=many, lengths=10)
    speech = specialise(store.features(), store.windows).frames.specialised["speech"]
    assert speech.low is not None
    assert speech.high is not None
    assert 0.3 < speech.low < speech.share < speech.high < 0.6
    assert speech.features >= fires[:120, :80].any(0).sum()
    assert speech.chance is not None
    assert speech.chance < speech.share / 4
    # the same frames as one recording a domain say nothing about others
    one = make_store(tmp_path / "one", fires, domains=many, groups=many, lengths=10)
    assert specialise(one.features(), one.windows).frames.specialised["speech"].low is None


def test_two_domains_are_enough_and_one_is_not(tmp_path: Path):
    two = make_store(tmp_path / "two", domains=["speech", "sound"])
    assert list(specialise(two.features(), two.windows).frames.venn) == [
        "speech", "sound", "speech+sound", "none",
    ]  # fmt: skip
    one = make_store(tmp_path / "one", domains=["music", "music"])
    with pytest.raises(AnalysisError, match="recordings are all music; encode others beside them"):
        specialise(one.features(), one.windows)
    dead = make_store(tmp_path / "dead", np.zeros((100, 5)), domains=["speech", "sound"])
    with pytest.raises(AnalysisError, match="no feature fires"):
        specialise(dead.features(), dead.windows)


def test_a_map_repeats_and_leaves_dead_features_out():
    sae, alive = make_sae(d_sae=60), np.arange(60) != 7
    places = embed(sae, alive)
    assert places.shape == (60, 2)
    assert np.isnan(places[7]).all()
    assert np.isfinite(places[alive]).all()
    np.testing.assert_array_equal(embed(sae, alive), places)
    with pytest.raises(AnalysisError, match="too few for a map"):
        embed(sae, np.arange(60) < 30)


def test_layers_come_in_order(tmp_path: Path):
    sources = []
    for tap in ("encoder_output", "block.10", "block.2"):
        store = make_store(tmp_path / tap, taps={tap: np.random.default_rng(0).normal(size=(300, 12))})
        sources.append((store, "sae"))
    assert [one.tap for one in domains(sources).saes] == ["block.2", "block.10", "encoder_output"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saes = {"one": sparse_features(300, 40, 4), "two": sparse_features(300, 50, 4, seed=1)}
    make_store(tmp_path / "store", saes)
    given = [f"{tmp_path / 'store'}:{name}" for name in saes]
    assert main(["analyze", "domains", given[0], "--out", str(tmp_path / "single")]) == 0
    assert main(["analyze", "domains", *given, "--map", "--out", str(tmp_path / "both")]) == 0
    result = json.loads((tmp_path / "both" / "domains.json").read_text())
    assert [one["sae"] for one in result["saes"]] == ["one", "two"]
    assert len(result["saes"][1]["map"]) == 50
    for name in ("single", "both"):
        page = (tmp_path / name / "report.html").read_text()
        assert "live features of" in page
        assert "recordings or speakers" in page
    assert "speech" in capsys.readouterr().out
