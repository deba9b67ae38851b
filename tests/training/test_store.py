"""The activation store: shards, masking, holding back, resuming, and memory that doesn't grow."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.real_models import weights
from tests.support.training_parts import Meaner, clip, enlarge_activations, write_wav
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.errors import CalibrationError
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.training import FrameRecipe, FrameStore, LiveFrames, WhisperFrames, build_store, store
from whisper_sae_steer.training.source import FrameSource
from whisper_sae_steer.training.stream import Position, StreamConfig, WindowStream, hold_back


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    return [clip(write_wav(tmp_path / f"{i}.wav", 4 + 3 * i, i)) for i in range(6)]


def frames_of(clips: list[Clip]) -> torch.Tensor:
    """Content frames of all windows, in order."""
    windows = WindowStream(clips, StreamConfig()).epoch(Position())
    return torch.cat([f.taps["block.0"][: f.content] for w in windows for f in Meaner()([w.audio])])


def stored(built: FrameStore, shards: tuple[store.Shard, ...]) -> torch.Tensor:
    return torch.cat([built._read(shard, ["block.0"])["block.0"] for shard in shards])


def test_store_keeps_content_frames_and_holds_recordings_back(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "WINDOWS_A_SHARD", 2)
    built = build_store(Meaner(), clips, tmp_path / "store")
    assert FrameStore.open(tmp_path / "store") == built
    assert built.taps == {"block.0": 8, "encoder_output": 8}
    train, held = hold_back(clips)
    assert torch.equal(stored(built, built.train), frames_of(train).half())
    assert torch.equal(stored(built, built.held_back), frames_of(held).half())
    assert torch.equal(torch.cat(list(built.held_back_frames("block.0"))), frames_of(held).half())
    assert len(built.train) > 1
    assert [shard.frames for shard in built.train] == [len(stored(built, (shard,))) for shard in built.train]


def test_a_share_of_the_padding_can_be_kept(clips: list[Clip], tmp_path: Path):
    recipe = FrameRecipe(dtype="bfloat16", padding_share=0.25)
    built = build_store(Meaner(), clips[:1], tmp_path / "store", recipe=recipe)
    (frames,) = [built._read(shard, ["block.0"])["block.0"] for shard in built.train]
    assert frames.dtype == torch.bfloat16
    padding = (frames == 1).all(1)
    assert int((~padding).sum()) == 4 * 50
    assert int(padding.sum()) == pytest.approx(0.25 * (1500 - 200), rel=0.2)


def test_interrupted_store_is_continued_to_the_bit(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "WINDOWS_A_SHARD", 1)
    stream, whole_encoder = StreamConfig(noise_share=0, seed=4), Meaner()
    whole = build_store(whole_encoder, clips, tmp_path / "whole", stream)
    encoder, real = Meaner(), Meaner.__call__

    def interrupt(self: Meaner, windows: list[np.ndarray]):
        if self.windows == 2:
            raise KeyboardInterrupt
        return real(self, windows)

    monkeypatch.setattr(Meaner, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_store(encoder, clips, tmp_path / "parts", stream)
    with pytest.raises(CalibrationError, match="no finished activation store"):
        FrameStore.open(tmp_path / "parts")
    monkeypatch.setattr(Meaner, "__call__", real)
    parts = build_store(encoder, clips, tmp_path / "parts", stream)
    assert encoder.windows == whole_encoder.windows
    assert (parts.train, parts.held_back, parts.key) == (whole.train, whole.held_back, whole.key)
    for shard in (*whole.train, *whole.held_back):
        one, other = ((tmp_path / name / shard.name).read_bytes() for name in ("whole", "parts"))
        assert one == other
    build_store(encoder, clips, tmp_path / "parts", stream)
    assert encoder.windows == whole_encoder.windows  # a finished one is not encoded again


@pytest.mark.parametrize("change", ["clips", "stream", "recipe", "model"])
def test_store_of_something_else_is_not_taken(clips: list[Clip], tmp_path: Path, change: str):
    build_store(Meaner(), clips, tmp_path / "store")
    encoder = Meaner()
    if change == "model":
        encoder.fingerprint = "e" * 32
    build_store(
        encoder,
        clips[1:] if change == "clips" else clips,
        tmp_path / "store",
        StreamConfig(seed=1) if change == "stream" else None,
        FrameRecipe(padding_share=0.1) if change == "recipe" else None,
    )
    assert encoder.windows > 0


def test_activations_too_large_for_float16(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enlarge_activations(monkeypatch, 1e5)
    with pytest.raises(CalibrationError, match=r"block\.0 don't fit float16; use bfloat16"):
        build_store(Meaner(), clips, tmp_path / "store")
    assert not list((tmp_path / "store").glob("*.safetensors"))
    build_store(Meaner(), clips, tmp_path / "store", recipe=FrameRecipe(dtype="bfloat16"))


def test_no_readable_audio(tmp_path: Path):
    (tmp_path / "a.wav").write_text("not audio")
    with pytest.raises(CalibrationError, match="none of the audio files could be read"):
        build_store(Meaner(), [clip(tmp_path / "a.wav")], tmp_path / "store")


def test_damaged_index_is_made_again(clips: list[Clip], tmp_path: Path):
    built = build_store(Meaner(), clips, tmp_path / "store")
    for content in ("", "{}", '{"train": [], "held_back": []}', "[1]"):
        (built.path / "index.json").write_text(content, encoding="utf-8")
        encoder = Meaner()
        assert build_store(encoder, clips, tmp_path / "store") == built
        assert encoder.windows == 0


def test_a_store_with_a_shard_missing_is_completed(clips: list[Clip], tmp_path: Path):
    """As a folder that was being removed when the process died."""
    built = build_store(Meaner(), clips, tmp_path / "store")
    lost = tmp_path / "store" / built.held_back[0].name
    content = lost.read_bytes()
    lost.unlink()
    assert build_store(Meaner(), clips, tmp_path / "store") == built
    assert lost.read_bytes() == content


def test_damaged_shard(clips: list[Clip], tmp_path: Path):
    built = build_store(Meaner(), clips, tmp_path / "store")
    file = built.path / built.train[0].name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CalibrationError, match=r"missing or damaged; delete index\.json"):
        next(built.pools(None, ["block.0"], 100, 0, 0, 1))


@pytest.fixture(params=["store", "live"])
def source(
    request: pytest.FixtureRequest, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FrameSource:
    monkeypatch.setattr(store, "WINDOWS_A_SHARD", 1)
    if request.param == "live":
        return LiveFrames(Meaner(), clips)
    return build_store(Meaner(), clips, tmp_path / "store")


def sorted_rows(frames: torch.Tensor) -> torch.Tensor:
    return frames[np.lexsort(frames.numpy().T)]


def test_pools_can_be_made_again_and_are_shuffled(source: FrameSource):
    pools = list(islice(source.pools(None, ["block.0", "encoder_output"], 1500, 0, 0, 1), 8))
    assert len({tuple(pool.state) for pool in pools}) == 8
    for pool in pools:
        again = next(source.pools(pool.state, ["block.0"], 1500, 0, 0, 1))
        assert torch.equal(again.frames["block.0"], pool.frames["block.0"])
        assert torch.equal(pool.frames["encoder_output"], -2 * pool.frames["block.0"])
    first = pools[0].frames["block.0"]
    assert not torch.equal(first, sorted_rows(first))


def test_processes_share_the_pools(source: FrameSource):
    size = 3000
    (whole,) = islice(source.pools(None, ["block.0"], size, 0, 0, 1), 1)
    parts = [next(source.pools(None, ["block.0"], size, 0, rank, 2)) for rank in range(2)]
    both = torch.cat([part.frames["block.0"] for part in parts])
    assert torch.equal(sorted_rows(both), sorted_rows(whole.frames["block.0"]))


def test_live_frames_hold_the_same_recordings_back(clips: list[Clip], tmp_path: Path):
    built = build_store(Meaner(), clips, tmp_path / "store")
    live = LiveFrames(Meaner(), clips)
    assert live.taps == built.taps
    held = torch.cat(list(live.held_back_frames("block.0")))
    assert torch.equal(held, torch.cat(list(built.held_back_frames("block.0"))))
    assert not list(tmp_path.glob("live*"))


def test_stored_frames_are_whispers(tmp_path: Path):
    one = clip(write_wav(tmp_path / "a.wav", 3, 0))
    encoder = WhisperFrames(weights("tiny.en"), ["block.1", "encoder_output"])
    built = build_store(encoder, [one], tmp_path / "store")
    assert (built.model, built.taps) == ("tiny.en", {"block.1": 384, "encoder_output": 384})
    (window,) = WindowStream([one], StreamConfig()).epoch(Position())
    for tap in built.taps:
        frames = built._read(built.train[0], [tap])[tap]
        expected = WindowEncoder(weights("tiny.en"), tap)([window.audio])[0, :150]
        torch.testing.assert_close(frames.float(), expected, rtol=2e-3, atol=5e-3)


def peak_megabytes(folder: Path, recordings: int) -> float:
    """Peak memory of a process that makes and reads a store of so many recordings of 25 s."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from itertools import islice
from pathlib import Path
from tests.support.training_parts import Meaner, clip, write_wav
from whisper_sae_steer.training import build_store, store
store.WINDOWS_A_SHARD = 4
folder = Path({str(folder)!r})
clips = [clip(write_wav(folder / f"{{i}}.wav", 25, i)) for i in range({recordings})]
built = build_store(Meaner(), clips, folder / "store")
frames = sum(shard.frames for shard in built.train)
for pool in islice(built.pools(None, ["block.0"], 5000, 0, 0, 1), 4 + frames // 5000):
    pass
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(line.split()[1]) / 1024)  # getrusage would count the parent's memory, too
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path):
    """Ten times the audio, decoded another 144 MB."""
    once, tenfold = peak_megabytes(tmp_path / "1", 10), peak_megabytes(tmp_path / "10", 100)
    assert tenfold < once + 30


@pytest.mark.parametrize(
    ("frames", "groups"),
    [
        ([50, 50, 50, 50], [[50, 50], [50, 50]]),
        ([100, 30], [[100, 30]]),  # too few to be shuffled alone
        ([100, 100, 30], [[100], [100, 30]]),
        ([100, 100, 60], [[100], [100], [60]]),
        ([30], [[30]]),
    ],
)
def test_every_shard_is_in_one_group(frames: list[int], groups: list[list[int]]):
    shards = [store.Shard(str(number), count) for number, count in enumerate(frames)]
    found = store._groups(shards, 100)
    assert [[shard.frames for shard in group] for group in found] == groups
    assert [shard for group in found for shard in group] == shards
