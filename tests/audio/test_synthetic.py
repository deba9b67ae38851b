import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.paths import SAMPLES
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.audio.clips import read_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.sounds import RECIPES
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.errors import ManifestError


def dbfs(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-20))


def test_clip_depends_only_on_kind_index_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = {clip.name: clip.audio for clip in synthetic.generate(2 * len(RECIPES), seconds=(1, 2))}
    again = synthetic.clip("wind", 1, seconds=(1, 2))
    np.testing.assert_array_equal(by_name[again.name], again.audio)
    monkeypatch.setattr(synthetic, "RECIPES", {"wind": RECIPES["wind"]})
    second = list(synthetic.generate(2, seconds=(1, 2)))[1]
    np.testing.assert_array_equal(second.audio, again.audio)
    other = synthetic.clip("wind", 1, seed=1, seconds=(1, 2))
    assert other.name != again.name
    assert not np.array_equal(other.audio[:1000], again.audio[:1000])


@pytest.mark.parametrize("kind", RECIPES)
def test_every_kind_is_valid_audio_at_every_length(kind: str) -> None:
    for seconds in (0.001, 0.1, 3.00005):
        for index in range(3):
            audio = synthetic.clip(kind, index, seconds=(seconds, seconds)).audio
            assert audio.dtype == np.float32
            assert audio.shape == (max(1, round(seconds * SAMPLE_RATE)),)
            assert np.isfinite(audio).all()
            assert np.abs(audio).max() <= 1
            if seconds > 1:
                assert (dbfs(audio) < -150) == (kind == "silence")


def test_noise_covers_the_levels_and_has_its_colour() -> None:
    clips = {kind: [synthetic.clip(kind, i, seconds=(2, 2)).audio for i in range(40)]
             for kind in ("white", "pink", "brown", "blue")}  # fmt: skip
    levels = [dbfs(audio) for audio in clips["white"]]
    assert -70.1 < min(levels) < -60
    assert -16 < max(levels) < -5.9

    def slope(audio: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(audio)) ** 2
        hertz = np.arange(len(power)) / 2
        low, high = power[(hertz > 100) & (hertz < 200)], power[(hertz > 3200) & (hertz < 6400)]
        return float(np.log2(high.mean() / low.mean()) / 5)

    for kind, expected in {"white": 0, "pink": -1, "brown": -2, "blue": 1}.items():
        assert slope(clips[kind][0]) == pytest.approx(expected, abs=0.25)


def test_mains_hum_lies_at_50_or_60_hertz() -> None:
    audio = synthetic.clip("hum", 3, seconds=(4, 4)).audio
    power = np.abs(np.fft.rfft(audio))
    strongest = int(np.argmax(power)) / 4
    assert min(strongest % 50, -strongest % 50, strongest % 60, -strongest % 60) < 2


def test_folder_is_a_manifest_of_clips_and_resumes(tmp_path: Path) -> None:
    count = len(RECIPES) + 1
    manifest = synthetic.write_folder(tmp_path, count, seed=3, seconds=(0.2, 1), split="dev")
    clips = read_manifest(manifest, split="dev", kind="nonspeech")
    assert len(clips) == count
    assert {clip.source for clip in clips} == {"synthetic"}
    assert {clip.class_ for clip in clips} == set(RECIPES)
    assert len({clip.group for clip in clips}) == count
    made = synthetic.clip("pink", 0, 3, (0.2, 1)).audio
    [pink] = [clip for clip in clips if clip.class_ == "pink"]
    np.testing.assert_allclose(load_audio(pink.path), made, atol=1 / 32768)

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    broken, missing = sorted(before)[:2]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    missing.unlink()
    synthetic.write_folder(tmp_path, count, seed=3, seconds=(0.2, 1), split="dev")
    assert broken.read_bytes() == whole
    kept = {path for path, time in before.items() if path.stat().st_mtime_ns == time}
    assert kept == set(before) - {broken, missing}
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".wav", ".tsv"}


def test_refuses_bad_lengths_and_an_unwritable_folder(tmp_path: Path) -> None:
    for n, seconds in ((-1, (1, 2)), (1, (2, 1)), (1, (0, 1)), (1, (1, float("nan")))):
        with pytest.raises(ValueError, match="need n"):
            list(synthetic.generate(n, seconds=seconds))
    occupied = tmp_path / "file"
    occupied.touch()
    with pytest.raises(ManifestError, match="can't write"):
        synthetic.write_folder(occupied, 1)


def test_sample_recording_is_what_its_truth_says() -> None:
    truth = json.loads((SAMPLES / "gap.json").read_text())
    path = SAMPLES / truth["audio"]
    audio = load_audio(path)
    assert os.path.getsize(path) < 400_000
    assert len(audio) / SAMPLE_RATE == pytest.approx(truth["seconds"], abs=0.05)
    [gap] = truth["gaps"]
    assert gap["end"] - gap["start"] >= 60  # a whole window wherever windows begin
    first, second = truth["speech"]
    assert (first["end"], second["start"]) == (gap["start"], gap["end"])

    def level(start: float, end: float) -> float:
        return dbfs(audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)])

    noise = truth["noise"]
    assert level(gap["start"] + 0.1, noise["start"] - 0.1) < -80
    assert level(noise["start"], noise["end"]) == pytest.approx(noise["dbfs"], abs=1)
    for part in truth["speech"]:
        assert level(part["start"], part["end"]) > -26
