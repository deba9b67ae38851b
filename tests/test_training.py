"""Training: sparse gradients, exact top-k, learning, continuing, and the activation store."""

import signal
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from whisper_sae_steer.errors import CalibrationError
from whisper_sae_steer.sae import SAE
from whisper_sae_steer.taps import WINDOW_SAMPLES, WindowEncoder, content_frames
from whisper_sae_steer.training import FrameStore, TrainConfig, build_store, store, train, trainer
from whisper_sae_steer.training.sparse import Selection, SparseAutoencode, batch_topk
from whisper_sae_steer.weights import Weights, resolve

FRAMES, FEATURES, WIDTH = 30, 44, 10


@pytest.fixture
def parameters() -> list[Tensor]:
    """w_enc, b_enc, w_dec, b_dec in float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(FEATURES, WIDTH), (FEATURES,), (FEATURES, WIDTH), (WIDTH,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("k", [1, 5, FEATURES])
def test_sparse_gradients_equal_dense_autograd(parameters: list[Tensor], k: int):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(FRAMES, WIDTH, generator=generator, dtype=torch.float64)
    upstream = torch.randn(FRAMES, WIDTH, generator=generator, dtype=torch.float64)
    w_enc, b_enc, w_dec, b_dec = parameters
    pre = (x - b_dec) @ w_enc.T + b_enc
    chosen = batch_topk(pre.detach(), k, 0.0)
    mask = torch.zeros_like(pre).index_put((chosen.rows, chosen.cols), torch.ones(()).double())
    dense = (pre * mask) @ w_dec + b_dec
    sparse: Tensor = SparseAutoencode.apply(x, *parameters, chosen)
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad((dense * upstream).sum(), parameters)
    found = torch.autograd.grad((sparse * upstream).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_nothing_selected_gives_the_bias(parameters: list[Tensor]):
    x = torch.zeros(FRAMES, WIDTH, dtype=torch.float64)
    none = batch_topk(-torch.ones(FRAMES, FEATURES, dtype=torch.float64), 3, 0.0)
    output: Tensor = SparseAutoencode.apply(x, *parameters, none)
    assert torch.equal(output, parameters[3].expand(FRAMES, -1))
    gradients = torch.autograd.grad(output.sum(), parameters)
    assert all(not gradient.any() for gradient in gradients[:3])


def dense(selection: Selection, shape: torch.Size) -> Tensor:
    return torch.zeros(shape).index_put((selection.rows, selection.cols), selection.values)


@pytest.mark.parametrize("guess", [0.0, -1.0, 1.5, 1e9])
def test_batch_topk_is_exact_whatever_the_guess(guess: float):
    pre = torch.randn(50, 64, generator=torch.Generator().manual_seed(2))
    selection = batch_topk(pre, 4, guess)
    values, indices = pre.relu().flatten().topk(200)
    expected = torch.zeros(50 * 64).scatter(0, indices, values).view(50, 64)
    assert torch.equal(dense(selection, pre.shape), expected)
    assert (selection.rows.diff() >= 0).all()


def test_batch_topk_with_ties_keeps_exactly_k():
    pre = torch.ones(6, 10)
    pre[2, 3] = 2.0
    selection = batch_topk(pre, 2, 0.5)
    assert len(selection.values) == 12
    assert selection.values.sum() == 13
    assert len({*zip(selection.rows.tolist(), selection.cols.tolist(), strict=True)}) == 12


@pytest.mark.parametrize("guess", [0.0, 0.5])
def test_batch_topk_with_too_few_positives_takes_them_all(guess: float):
    pre = -torch.ones(6, 10)
    pre[1, 2], pre[5, 0], pre[0, 0] = 0.25, 3.0, 0.0
    selection = batch_topk(pre, 2, guess)
    assert selection.rows.tolist() == [1, 5]
    assert selection.cols.tolist() == [2, 0]
    assert selection.values.tolist() == [0.25, 3.0]


def write_store(path: Path, shards: list[Tensor], source: str = "a") -> FrameStore:
    path.mkdir()
    names = tuple(f"{i}.safetensors" for i in range(len(shards)))
    for name, frames in zip(names, shards, strict=True):
        save_file({"frames": frames.half()}, path / name)
    return FrameStore(path, "synthetic", "f" * 32, "encoder_output", shards[0].shape[1], source, names)


@pytest.fixture
def sparse_store(tmp_path: Path) -> FrameStore:
    """Frames that are sums of three of 96 directions of a space of 64, off centre and not unit size."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(96, 64, generator=generator), dim=-1)
    centre = torch.randn(64, generator=generator)

    def shard(count: int) -> Tensor:
        weights = torch.zeros(count, 96)
        active = torch.rand(count, 96, generator=generator).topk(3).indices
        weights.scatter_(1, active, 1 + torch.rand(count, 3, generator=generator))
        return 7 * (weights @ directions + centre)

    return write_store(tmp_path / "frames", [shard(6000), shard(2000), shard(2000)])


CONFIG = TrainConfig(d_sae=128, k=3, steps=600, batch_size=512, lr=5e-3, checkpoint_every=100)


def same(one: SAE, other: SAE) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_training_explains_sparse_data(sparse_store: FrameStore, tmp_path: Path):
    sae, report = train(sparse_store, CONFIG, tmp_path / "work")
    assert report.explained_variance > 0.95
    assert report.l0 == pytest.approx(3, abs=0.4)
    assert report.dead_share < 0.3
    assert report.frames == 2000
    norms = sae.W_dec.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert (sae.config.architecture, sae.config.k, sae.config.tap) == ("jumprelu", 3, "encoder_output")
    assert sae.config.model == "synthetic"
    held_back = sparse_store.load(held_back=True).float()
    residual = (held_back - sae(held_back).reconstruction.detach()).square().sum()
    total = (held_back - held_back.mean(0)).square().sum()
    assert 1 - float(residual / total) == pytest.approx(report.explained_variance, abs=1e-4)


def test_dead_features_learn_from_the_residual(sparse_store: FrameStore):
    config = replace(CONFIG, dead_after=1000)
    frames = sparse_store.load(held_back=False)[:200]
    state = trainer._State(frames, config)
    x = frames.float() * state.scale
    error = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert not trainer._aux_loss(state, x, error, config)
    dead = torch.tensor([2, 5, 77])
    state.since_fired[dead] = 1001
    loss = trainer._aux_loss(state, x, error, config)
    acts = ((x - state.b_dec) @ state.w_enc[dead].T + state.b_enc[dead]).relu()
    expected = (error - acts @ state.w_dec[dead]).square().sum() / error.square().sum()
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, [state.w_enc, state.b_enc, state.w_dec])
    for gradient in gradients:
        reached = gradient.flatten(1).any(1) if gradient.dim() > 1 else gradient != 0
        assert reached.nonzero()[:, 0].tolist() == dead.tolist()


def test_interrupted_and_continued_equals_uninterrupted(
    sparse_store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(CONFIG, steps=60, checkpoint_every=25, dead_after=2000)
    whole, _ = train(sparse_store, config, tmp_path / "whole")

    real_step, work = trainer._step, tmp_path / "parts"
    steps: list[int] = []

    def interrupted_step(state: trainer._State, x: Tensor, options: TrainConfig) -> float:
        steps.append(state.step)
        if len(steps) in (8, 40):
            signal.raise_signal(signal.SIGINT)
        return real_step(state, x, options)

    monkeypatch.setattr(trainer, "_step", interrupted_step)
    handler = signal.getsignal(signal.SIGINT)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(sparse_store, config, work)
    continued, _ = train(sparse_store, config, work)
    assert steps == list(range(60))
    assert same(whole, continued)
    assert signal.getsignal(signal.SIGINT) is handler


def test_killed_training_goes_on_from_its_last_checkpoint(
    sparse_store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(CONFIG, steps=30, checkpoint_every=10)
    whole, _ = train(sparse_store, config, tmp_path / "whole")
    real_step, steps = trainer._step, list[int]()

    def dying_step(state: trainer._State, x: Tensor, options: TrainConfig) -> float:
        steps.append(state.step)
        if len(steps) == 15:
            raise MemoryError
        return real_step(state, x, options)

    monkeypatch.setattr(trainer, "_step", dying_step)
    with pytest.raises(MemoryError):
        train(sparse_store, config, tmp_path / "parts")
    continued, _ = train(sparse_store, config, tmp_path / "parts")
    assert steps[15:] == list(range(10, 30))
    assert same(whole, continued)


@pytest.mark.parametrize("change", ["config", "source", "tap"])
def test_checkpoint_of_another_run_is_ignored(sparse_store: FrameStore, tmp_path: Path, change: str):
    config = replace(CONFIG, steps=20, checkpoint_every=10)
    other_config = replace(config, seed=1) if change == "config" else config
    other = replace(sparse_store, **({} if change == "config" else {change: "block.1"}))
    fresh, _ = train(sparse_store, config, tmp_path / "fresh")
    train(other, other_config, tmp_path / "shared")
    after, _ = train(sparse_store, config, tmp_path / "shared")
    assert same(fresh, after)


def test_too_few_frames(tmp_path: Path):
    small = write_store(tmp_path / "few", [torch.randn(100, 8), torch.randn(50, 8)])
    with pytest.raises(CalibrationError, match="fewer than one batch of 512"):
        train(small, CONFIG, tmp_path / "work")
    single = write_store(tmp_path / "single", [torch.randn(1000, 8)], "b")
    with pytest.raises(CalibrationError, match="hold some back"):
        train(single, CONFIG, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_opening_an_unfinished_store(tmp_path: Path):
    with pytest.raises(CalibrationError, match="no finished activation store"):
        FrameStore.open(tmp_path)


@pytest.fixture(scope="module")
def tiny_en() -> Weights:
    return resolve("tiny.en")


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    """Noise of 3, 12 and 33 s, and a file that is no audio."""
    folder = tmp_path / "audio"
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    for seconds in (3, 12, 33):
        paths.append(folder / f"{seconds}.wav")
        with wave.open(str(paths[-1]), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(rng.integers(-3000, 3000, seconds * 16_000, dtype=np.int16).tobytes())
    broken = folder / "broken.wav"
    broken.write_text("not audio")
    return [*paths, broken]


def test_store_shards_resumes_and_holds_back(
    tiny_en: Weights, recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "WINDOWS_A_SHARD", 1)
    windows = list(store._pack_windows(recordings, seed=0))
    assert sum(len(audio) for audio, _ in windows) == 48 * 16_000
    assert max(len(audio) for audio, _ in windows) <= WINDOW_SAMPLES
    assert sum(count for _, count in windows) <= 4

    built = build_store(tiny_en, recordings, tmp_path / "store")
    assert (built.model, built.d_in, built.tap) == ("tiny.en", 384, "encoder_output")
    assert FrameStore.open(tmp_path / "store") == built
    assert len(built.shards) >= 2
    training, held_back = built.load(held_back=False), built.load(held_back=True)
    sizes = [len(load_file(built.path / name)["frames"]) for name in built.shards]
    assert len(held_back) == sizes[1]
    assert len(training) == sum(sizes) - sizes[1]
    assert training.dtype == torch.float16
    content = 48 * 50
    assert content <= sum(sizes) < content + len(sizes) * 1500 * 2 * store.PADDING_SHARE

    lost = built.path / built.shards[0]
    kept = built.path / built.shards[1]
    before, written = load_file(lost)["frames"].clone(), kept.stat().st_mtime_ns
    lost.unlink()
    (built.path / "index.json").unlink()
    assert build_store(tiny_en, recordings, tmp_path / "store") == built
    assert torch.equal(load_file(lost)["frames"], before)
    assert kept.stat().st_mtime_ns == written


def test_finished_store_is_not_encoded_again(
    tiny_en: Weights, recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    built = build_store(tiny_en, recordings[:1], tmp_path / "store")
    assert len(built.load(held_back=True)) == 0

    def fail(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(store, "WindowEncoder", fail)
    assert build_store(tiny_en, recordings[:1], tmp_path / "store") == built
    with pytest.raises(AssertionError, match="encoded again"):
        build_store(tiny_en, recordings[:2], tmp_path / "store")


def test_store_of_another_tap_shares_no_shard(tiny_en: Weights, recordings: list[Path], tmp_path: Path):
    output = build_store(tiny_en, recordings[:1], tmp_path / "store")
    block = build_store(tiny_en, recordings[:1], tmp_path / "store", tap="block.1")
    assert not set(output.shards) & set(block.shards)
    assert not torch.equal(output.load(held_back=False), block.load(held_back=False))


def test_stored_frames_are_the_encoders(tiny_en: Weights, recordings: list[Path], tmp_path: Path):
    built = build_store(tiny_en, recordings[:1], tmp_path / "store")
    ((audio, _),) = store._pack_windows(recordings[:1], seed=0)
    count = content_frames(len(audio))
    assert count == 150
    expected = WindowEncoder(tiny_en)([audio])[0]
    frames = built.load(held_back=False)
    torch.testing.assert_close(frames[:count], expected[:count].half(), rtol=2e-3, atol=2e-3)


def test_store_without_readable_audio(tiny_en: Weights, recordings: list[Path], tmp_path: Path):
    with pytest.raises(CalibrationError, match="none of the audio files"):
        build_store(tiny_en, recordings[3:], tmp_path / "store")
