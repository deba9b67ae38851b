"""The bundle of open recordings, and who gets which part of it."""

from pathlib import Path

import pytest

from calibration.bundle import is_open
from tests.support.real_models import weights
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.errors import ManifestError
from whisper_sae_steer.making import audio
from whisper_sae_steer.making.audio import bundled, for_judging, for_training


def test_the_bundle_may_be_passed_on_and_is_small():
    recordings = bundled()
    assert all(is_open(clip.licence) for clip in recordings.all)
    attribution = (Path("calibration") / "audio" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(clip.origin in attribution for clip in recordings.all)
    assert sum(clip.path.stat().st_size for clip in recordings.all) <= 16e6
    assert len({clip.group for clip in recordings.speech}) > 100
    assert {clip.language for clip in recordings.speech} >= {"en", "de", "es", "fr", "it", "ru"}
    assert recordings.minutes > 60


@pytest.mark.parametrize(
    "licence", ["GPL-2+", "CC BY-NC 4.0", "CC0/Pixabay", "freesound-derived, per-sound CC", ""]
)
def test_other_licences_stay_out(licence: str):
    assert not is_open(licence)


def test_clips_of_the_bundle_are_as_long_as_it_says():
    for clip in bundled().all[::100]:
        assert len(load_audio(clip.path)) / 16000 == pytest.approx(clip.seconds, abs=0.05)


def test_nothing_is_fitted_on_what_is_judged(tmp_path: Path):
    recordings = bundled()
    judged = for_judging(recordings, weights("base"))
    trained = for_training(recordings, tmp_path)
    assert not {clip.group for clip in trained} & {clip.group for clip in judged.all}
    assert {clip.source for clip in trained} >= {"synthetic", "berklee"}
    assert len(judged.nonspeech) > 80
    assert len({clip.group for clip in judged.speech}) > 20


def test_a_model_that_knows_english_only_is_judged_on_that():
    recordings = bundled()
    assert {clip.language for clip in for_judging(recordings, weights("tiny.en")).speech} == {"en"}
    assert {clip.language for clip in for_judging(recordings, weights("base")).speech} > {"en", "de"}


def test_without_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        audio, "__file__", str(tmp_path / "site-packages" / "whisper_sae_steer" / "making" / "a.py")
    )
    with pytest.raises(ManifestError, match=r"checkout.*--nonspeech and --speech.*--no_bundle"):
        bundled()
