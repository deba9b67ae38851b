"""What a sweep says it will take, against what it then does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.training_parts import Meaner, clip, write_wav
from whisper_sae_steer.sweep import SweepConfig, forecast
from whisper_sae_steer.sweep.audio import domain_frames
from whisper_sae_steer.sweep.gate import clips_of_gates
from whisper_sae_steer.training import FrameRecipe, StreamConfig, TrainConfig, build_store


def announced_seconds(
    monkeypatch: pytest.MonkeyPatch, encoding: float, rest: float, steps: int, streams: list[StreamConfig],
    folder: Path, encoder: Meaner,
) -> float:  # fmt: skip
    """What is announced if all that is timed takes ``rest`` seconds, but encoding ``encoding``."""
    told: list[float] = []

    def seconds_of(work: Callable[[], object]) -> float:
        before = encoder.windows
        work()
        return encoding if encoder.windows > before else rest

    def said(seconds: float, _: Path) -> str:
        told.append(seconds)
        return ""

    monkeypatch.setattr(forecast, "seconds_of", seconds_of)
    monkeypatch.setattr(forecast, "forecast", said)
    config = SweepConfig((TrainConfig(k=2, d_sae=8, steps=steps, batch_size=64),), seeds=(0, 1, 2))
    text = forecast.announced(config, encoder, recordings(folder), streams, folder, "cpu")
    many = f"{len(streams)} audios, " if len(streams) > 1 else ""
    assert f"{6 * len(streams)} SAEs (1 setting, {many}3 seeds, 2 taps)" in text
    return told[0]


def recordings(folder: Path):
    found = [
        clip(write_wav(folder / f"{kind}{i}.wav", 3 + 7 * i, i), kind)
        for kind in ("speech", "nonspeech", "music")
        for i in range(4)
    ]
    return [*found, clip(write_wav(folder / "long.wav", 70, 9), "speech")]


def test_it_counts_every_window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    streams = [StreamConfig(speech=2, noise_share=0.5), StreamConfig(music=0, audio_share=0.5)]
    told = announced_seconds(monkeypatch, 1, 0, 5, streams, tmp_path, Meaner())
    encoder, clips = Meaner(), recordings(tmp_path)
    for i, stream in enumerate(streams):
        build_store(encoder, clips, tmp_path / str(i), stream)
    domain_frames(encoder, clips, FrameRecipe())
    gates = 2 * sum(len(part) for part in clips_of_gates(clips))
    assert told == pytest.approx(encoder.windows + gates, abs=2)  # domains pack their windows apart


def test_it_counts_every_step_of_every_sae(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    one, two = [StreamConfig()], [StreamConfig(), StreamConfig(speech=2)]
    few, many, more = (
        announced_seconds(monkeypatch, 0, forecast.TIMED_STEPS, steps, streams, tmp_path, Meaner())
        for steps, streams in ((10, one), (110, one), (110, two))
    )
    assert many - few == pytest.approx(6 * 100)
    assert more == pytest.approx(2 * many)
