"""Temporal response functions: equal to mne's and scikit-learn's, and recovered from EEG with known ones."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.analysis import eeg_simulated as simulated
from tests.support.analysis_parts import make_store
from whisper_sae_steer.analysis.eeg import permutations, trf
from whisper_sae_steer.analysis.eeg.recordings import band_pass, cut, envelope, read_eeg
from whisper_sae_steer.analysis.eeg.responses import EegConfig, eeg, most_frequent
from whisper_sae_steer.analysis.eeg.trf import Lags, Trial
from whisper_sae_steer.analysis.store.activations import ActivationStore
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AnalysisError

mne = pytest.importorskip("mne")
LAGS = Lags(0, 8)
CLIPS, FRAMES, FEATURES = 12, 700, 6


def random_trials(lengths: Sequence[int] = (90, 120, 75, 101), predictors: int = 2) -> list[Trial]:
    rng = np.random.default_rng(0)
    trials: list[Trial] = []
    for fold, length in enumerate(lengths):
        x = rng.gamma(1, 1, (length, predictors))
        y = rng.normal(size=(length, 3)) + 2
        y[2:, 0] += x[:-2, 0] - x[1:-1, -1]
        trials.append(Trial(x, y, fold))
    return trials


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """Twelve recordings, two of them of two windows, with features that fire in independent bursts."""
    rng = np.random.default_rng(1)
    clips = [f"audio/{i}.wav" for i in range(CLIPS)]
    windows = [(clip, 0.0, FRAMES) for clip in clips] + [(clip, FRAMES / 50, 200) for clip in clips[:2]]
    rows = sum(frames for *_, frames in windows)
    bursts = np.repeat(rng.random((-(-rows // 5), FEATURES)) < 0.15, 5, 0)[:rows]
    features = bursts * rng.gamma(4, 0.25, (rows, FEATURES))
    features[:, 5] = 0  # dead
    names, starts, frames = zip(*windows, strict=True)
    return make_store(tmp_path_factory.mktemp("eeg") / "store", features, domains=["speech"] * len(windows),
                      lengths=frames, clips=names, starts=starts)  # fmt: skip


@pytest.fixture(scope="module")
def known(store: ActivationStore) -> Any:
    """Eight channels, of which four respond: two to feature 0, two to feature 1."""
    return simulated.simulate(store, [0, 1], 8, snr=-6)


@pytest.fixture(scope="module")
def files(store: ActivationStore, known: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    mne.export.export_raw(folder / "brain.vhdr", known.raw, verbose="ERROR")
    mne.export.export_raw(folder / "brain.edf", known.raw, verbose="ERROR")
    simulated.write_events(folder / "events.tsv", known.events)
    return {
        "vhdr": folder / "brain.vhdr",
        "edf": folder / "brain.edf",
        "bids": simulated.write_bids(known, folder / "bids"),
        "events": folder / "events.tsv",
    }


def test_weights_are_those_of_ridge_on_the_lagged_matrix():
    trials = random_trials()
    whole = trf.total(trf.moments(trials, LAGS))
    x = np.concatenate([trf.lagged(trial.x, LAGS) for trial in trials])
    y = np.concatenate([trial.y for trial in trials])
    spread = np.repeat(x.var(0).reshape(2, -1).mean(1) ** 0.5, LAGS.number)
    for alpha in (0.01, 10.0):
        ridge = Ridge(alpha * len(x)).fit(x / spread, y)
        np.testing.assert_allclose(
            trf.weights(whole, alpha, LAGS)[:, 0], (ridge.coef_ / spread).T, rtol=1e-6, atol=1e-9
        )


def test_held_out_scores_are_those_of_ridge_and_numpy():
    trials = random_trials()
    folds = trf.moments(trials, LAGS)
    alphas = trf.nested_alphas(folds, LAGS)
    assert alphas.shape == (4, 1)
    expected: list[list[float]] = []
    for i, test in enumerate(trials):
        chosen = max(trf.ALPHAS, key=lambda a: ridge_scores(trials[:i] + trials[i + 1 :], a).mean())
        assert alphas[i, 0] == chosen
        expected.append(ridge_score(trials[:i] + trials[i + 1 :], test, chosen))
    np.testing.assert_allclose(trf.held_out(folds, alphas, LAGS)[0], np.mean(expected, 0), rtol=1e-6)


def ridge_scores(trials: list[Trial], alpha: float) -> Any:
    return np.array([ridge_score(trials[:i] + trials[i + 1 :], t, alpha) for i, t in enumerate(trials)])


def ridge_score(train: list[Trial], test: Trial, alpha: float) -> list[float]:
    x = np.concatenate([trf.lagged(trial.x, LAGS) for trial in train])
    spread = np.repeat(x.var(0).reshape(2, -1).mean(1) ** 0.5, LAGS.number)
    ridge = Ridge(alpha * len(x)).fit(x / spread, np.concatenate([trial.y for trial in train]))
    predicted = ridge.predict(trf.lagged(test.x, LAGS) / spread)
    return [float(np.corrcoef(predicted[:, c], test.y[:, c])[0, 1]) for c in range(3)]


def test_weights_are_those_of_mnes_receptive_field():
    """On one long trial, where nothing is cut."""
    (trial,) = random_trials([6000])
    (fold,) = trf.moments([trial], LAGS)
    ours = trf.weights(fold, 0.1, LAGS)[:, 0].reshape(2, LAGS.number, 3) * trial.x.std(0)[:, None, None]
    theirs = trf.kernels([trial], LAGS, 0.1)
    np.testing.assert_allclose(theirs, ours.transpose(2, 0, 1), atol=0.02 * abs(ours).max())


@pytest.mark.parametrize("lags", [Lags(0, 8), Lags(3, 7), Lags(0, 0)])
def test_cross_moments_at_shifts_are_those_of_a_shifted_eeg(lags: Lags):
    (trial,) = random_trials([50], predictors=1)
    shifts = np.array([0, 1, 7, 30, 49])
    spectrum = np.fft.rfft(trial.y, axis=0)
    found = permutations._cross_moments(trial.x[:, 0], trial.y, spectrum, shifts, lags)
    for i, shift in enumerate(shifts):
        expected = trf.lagged(trial.x, lags).T @ np.roll(trial.y, -shift, 0)
        np.testing.assert_allclose(found[:, i], expected, atol=1e-9)


def test_versions_are_moments_of_shifted_residuals():
    trials = random_trials()
    null = permutations.Null.draw(trials, LAGS, 3, 0, lambda _: None)
    assert [shifts[0] for shifts in null.shifts] == [0] * 4
    fits = [0.5 * trial.y + trial.x[:, :1] for trial in trials]
    (found,) = permutations._versions(null, trf.columns_of([0, 1], LAGS), fits)
    for version in range(4):
        shifted = [
            trial._replace(y=fit + np.roll(trial.y - fit, -shifts[version], 0))
            for trial, fit, shifts in zip(trials, fits, null.shifts, strict=True)
        ]
        for ours, theirs in zip(found, trf.moments(shifted, LAGS), strict=True):
            np.testing.assert_allclose(ours.xy[:, version], theirs.xy[:, 0], rtol=1e-9)
            np.testing.assert_allclose(ours.y[version], theirs.y[0], rtol=1e-9)
            np.testing.assert_allclose(ours.yy[version], theirs.yy[0], rtol=1e-9)


def test_p_values_are_uniform_without_a_response():
    """Of pink noise and of bursts, the second predictor correlated with the first: about α are below α."""
    rng, lags = np.random.default_rng(3), Lags(0, 12)
    p: list[tuple[Any, Any]] = []
    for seed in range(40):
        trials: list[Trial] = []
        for i in range(8):
            first, second = np.repeat(rng.random((60, 2)) < 0.2, 5, 0).T.astype(float)
            x = np.column_stack([first, np.where(rng.random(300) < 0.6, first, second)])
            trials.append(Trial(x, simulated.pink(rng, 300, 8), i % 4))
        null = permutations.Null.draw(trials, lags, 59, seed, lambda _: None)
        p.append((permutations.alone(null, 0).p, permutations.gained(null, [0], [[1]])[0].p))
    for found in np.array(p).transpose(1, 0, 2).reshape(2, -1):
        assert found.min() >= 1 / 60
        assert 0.15 < (found <= 0.2).mean() < 0.25
        assert 0.02 < (found <= 0.05).mean() < 0.08


def test_command_recovers_a_known_response(
    files: dict[str, Path], known: Any, store: ActivationStore, tmp_path: Path
):
    features = [str(i) for i in range(FEATURES)]
    assert main(["analyze", "eeg", str(store.path), str(files["bids"]), "--features", *features,
                 "--n_permutations", "199", "--out", str(tmp_path)]) == 0  # fmt: skip
    result = json.loads((tmp_path / "eeg.json").read_text())
    assert (result["trials"], result["recordings"], len(result["channels"])) == (CLIPS, CLIPS, 8)
    assert result["alone"] == [0, 1]
    assert result["beyond"] == [0, 1]
    assert len(result["positions"]) == 8
    for of in ("alone", "gain"):
        judged = simulated.judge(result, known.responses, of)
        assert judged["found"] == judged["true"] == 4
        assert judged["found wrongly"] <= 1  # of 36
        assert judged["kernel r, lowest"] > 0.9
    dead = result["responses"][6]
    assert (dead["name"], dead["rate"], dead["alone"], dead["kernel"]) == ("feature 5", 0, None, None)
    page = (tmp_path / "report.html").read_text()
    assert "2 of 6 features predict the EEG" in page
    assert "<svg" in (tmp_path / "eeg.svg").read_text()


def test_formats_agree(files: dict[str, Path], store: ActivationStore):
    """Onsets from annotations of BrainVision and EDF, from a table, and from BIDS."""
    read = {
        "vhdr": read_eeg(files["vhdr"], store),
        "edf": read_eeg(files["edf"], store),
        "bids": read_eeg(files["bids"], store),
        "table": read_eeg(files["vhdr"], store, files["events"]),
    }
    first = read["bids"]
    assert len(first.events) == CLIPS
    for found in read.values():
        assert found.channels == first.channels
        length = min(len(found.data), len(first.data)) - 50  # EDF is padded to whole seconds
        assert np.corrcoef(found.data[50:length, 0], first.data[50:length, 0])[0, 1] > 0.999
        for one, other in zip(found.events, first.events, strict=True):
            assert one.clip == other.clip
            assert one.onset == pytest.approx(other.onset, abs=0.01)


def test_trials_hold_what_was_played_then(files: dict[str, Path], store: ActivationStore, known: Any):
    found = read_eeg(files["bids"], store, channels=["Fp1", "F7"])
    assert found.channels == ("Fp1", "F7")
    values = store.features().toarray()[:, :2]
    trials = cut([found], store, values, Lags(0, 25), (1, 15), 5)
    assert [len(trial.y) for trial in trials] == [round(50 * length) + 25 for _, length, _ in known.events]
    assert sorted({trial.fold for trial in trials}) == [0, 1, 2, 3, 4]
    onset, _, clip = known.events[2]
    window = next(w for w in store.windows if w.clip == clip)
    timeline = np.zeros((len(found.data), 2))
    start = round(onset * 50)
    timeline[start : start + window.frames] = values[window.first : window.first + window.frames]
    filtered = band_pass(timeline, 1, 15)[start + 100 : start + 500]  # away from its neighbours
    np.testing.assert_allclose(trials[2].x[100:500], filtered, atol=1e-6)


def test_repeated_recordings_share_a_fold_and_their_features(
    store: ActivationStore, known: Any, tmp_path: Path
):
    events = [(1.5, 5.0, "0.wav"), (20.0, 5.0, "1.wav"), (40.0, 5.0, "audio/0.wav"), (60.0, 0.0, "n/a")]
    mne.export.export_raw(tmp_path / "a.vhdr", known.raw, verbose="ERROR")
    simulated.write_events(tmp_path / "a.tsv", events)
    found = read_eeg(tmp_path / "a.vhdr", store, tmp_path / "a.tsv")
    trials = cut([found], store, store.features().toarray(), Lags(0, 25), (1, 15), 5)
    assert [trial.fold for trial in trials] == [0, 1, 0]
    assert [len(trial.y) for trial in trials] == [275] * 3
    with pytest.raises(AnalysisError, match="needs 3 different recordings, not 2"):
        eeg(store, [found], [0, 1], config=EegConfig(n_permutations=1))


def test_envelope_is_the_amplitude_to_the_power_of_six_tenths():
    mel = np.full((2, 80), 1.0, np.float16)  # log10 power 0
    mel[1] = 0.5  # 20 dB less
    np.testing.assert_allclose(envelope(mel), [1, 10 ** (-1 * 0.6)], rtol=1e-3)


def test_most_frequent_features(store: ActivationStore, files: dict[str, Path]):
    chosen = most_frequent(store, [read_eeg(files["bids"], store)], 10)
    rates = (store.features().toarray() > 0).mean(0)
    assert chosen == [int(i) for i in (-rates).argsort(kind="stable")[:5]]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (["--events", "stranger.tsv"], "who.wav is not in .*; encode it there first"),
        (["--events", "none.tsv"], "header must name tab-separated columns onset"),
        (["--events", "late.tsv"], "only 0.00 s of EEG for audio/3.wav, played at 9999 s; remove its event"),
        (["--events", "word.tsv"], "word.tsv, line 2: onset and duration must be seconds"),
        (["--events", "gone.tsv"], "gone.tsv can't be read"),
        (["--channels", "Fp1", "Oz"], "no channel Oz; it has Fp1"),
        (["--features", "6"], "different numbers from 0 to 5"),
        (["--features", "5"], "none of the features fires"),
        (["--lags", "0", "5000"], "lags must go"),
        (["--band", "1", "30"], "must lie between 0 and 25 Hz"),
        (["--folds", "2"], "at least 3 folds"),
    ],
)
def test_errors(
    files: dict[str, Path], store: ActivationStore, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, change: list[str], match: str,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    head = "onset\tduration\tstim_file\n"
    for name, text in {
        "stranger": head + "1\tn/a\twho.wav\n", "none": "time\n1\n", "late": head + "9999\tn/a\t3.wav\n",
        "word": head + "one\tn/a\t3.wav\n",
    }.items():  # fmt: skip
        Path(f"{name}.tsv").write_text(text)
    assert main(["analyze", "eeg", str(store.path), str(files["vhdr"]), "--out", "out",
                 "--n_permutations", "1", *change]) == 2  # fmt: skip
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(match, error), error
    assert not Path("out", "eeg.json").exists()


@pytest.mark.parametrize(
    ("rate", "spoil", "match"),
    [
        (40, False, "sampled at 40 Hz; features are at 50 Hz"),
        (100, True, "channel C1 has NaN; interpolate it"),
        (100, False, "doesn't tell when recordings began; give a table"),
    ],
)
def test_eeg_that_cannot_be_used(store: ActivationStore, tmp_path: Path, rate: int, spoil: bool, match: str):
    data = np.random.default_rng(0).normal(size=(2, 20 * rate)) * 1e-6
    if spoil:
        data[1, 7] = np.nan
    raw = mne.io.RawArray(data, mne.create_info(["C0", "C1"], rate, "eeg"), verbose="ERROR")
    if spoil:
        raw.set_annotations(mne.Annotations([1], [5], ["3.wav"]))
    raw.save(tmp_path / "x_raw.fif", verbose="ERROR")
    with pytest.raises(AnalysisError, match=match):
        read_eeg(tmp_path / "x_raw.fif", store)
    (tmp_path / "broken.vhdr").write_text("nothing")
    with pytest.raises(AnalysisError, match="can't be read as EEG"):
        read_eeg(tmp_path / "broken.vhdr", store)
