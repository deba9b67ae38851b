from pathlib import Path

import numpy as np
import pytest

from tests.support.hard_cases import RATE, made
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.audio.clips import read_manifest
from whisper_sae_steer.bench.hard.conditions import jobs
from whisper_sae_steer.bench.hard.material import material
from whisper_sae_steer.errors import ManifestError


def test_short_ones_are_the_shortest(manifest: Path) -> None:
    texts = [recording.speech[0].text for recording in made(manifest, "short", count=9)]
    assert [len(text.split()) for text in texts] == [2, 4]


def test_short_utterances_are_said_again_after_a_pause(manifest: Path) -> None:
    (once, *_) = made(manifest, "short", count=1)
    for condition, times in {"twice": 2, "thrice": 3}.items():
        (again, *rest) = made(manifest, condition, count=9)
        assert not rest, "others have more words"
        assert [clip.text for clip in again.speech] == [once.speech[0].text] * times
        size = len(once.audio)
        pause = (len(again.audio) - times * size) / (times - 1)
        assert 0.05 * RATE - 1 <= pause <= 0.3 * RATE + 1
        for start in np.arange(times) * round(size + pause):
            np.testing.assert_array_equal(again.audio[start : start + size], once.audio)
        assert not again.audio[size : size + round(pause)].any()


def test_no_more_long_recordings_than_two(manifest: Path) -> None:
    given = material(read_manifest(manifest))
    assert [len(jobs(name, given, 50)) for name in ("long", "gaps", "clean", "dc")] == [2, 20, 10, 50]
    assert [len(jobs(name, given, 50)) for name in ("music-gaps", "paragraphs", "joined")] == [20, 20, 20]


def test_sounds_are_not_those_of_calibration(manifest: Path) -> None:
    (silence, *_), (dc, *_), (hum, *_) = (made(manifest, name) for name in ("silence", "dc", "hum"))
    assert not silence.audio.any()
    assert abs(dc.audio.mean()) > 10 * dc.audio.std()
    heard = synthetic.clip("hum", 0, seconds=(1, 60)).audio
    size = min(len(heard), len(hum.audio))
    assert not np.allclose(heard[:size], hum.audio[:size], atol=1e-3)
    assert 1 <= len(hum.audio) / RATE <= 60


def test_what_a_manifest_lacks(manifest: Path) -> None:
    clips = read_manifest(manifest)
    few = [clip for clip in clips if clip.kind != "music" and clip.group not in ("s0", "s1")]
    given = material(few)
    with pytest.raises(ManifestError, match="no music among the recordings; leave it out"):
        jobs("music0", given, 1)[0].make()
    with pytest.raises(ManifestError, match="no 9 speakers"):
        jobs("babble0", given, 1)[0].make()
    with pytest.raises(ManifestError, match="condition short: no fitting speech"):
        jobs("short", given, 1)
    assert material(clips, language="de").speech == []
