from pathlib import Path

import numpy as np

from tests.support.hard_cases import RATE, decibels, made, voice
from whisper_sae_steer.audio.reading import load_audio


def test_gaps_lie_where_they_are_said_to(manifest: Path) -> None:
    noisy, silent = made(manifest, "gaps")[0], made(manifest, "silent-gaps")[0]
    assert (noisy.gaps, noisy.speech) == (silent.gaps, silent.speech)
    assert len(noisy.gaps) == len(noisy.speech) + 1
    assert noisy.gaps[0][0] == 0
    assert noisy.gaps[-1][1] == len(noisy.audio) / RATE >= 120
    assert all(1 <= end - start <= 60 for start, end in noisy.gaps)
    edges = [(round(start * RATE), round(end * RATE)) for start, end in noisy.gaps]
    level = np.mean(voice(0)[8000:-4800] ** 2)
    for (start, end), (later, _), clip in zip(edges, edges[1:], noisy.speech, strict=False):
        spoken = load_audio(clip.path)[8000:-4800]  # without the silence at its ends
        np.testing.assert_array_equal(noisy.audio[end:later], spoken)
        assert -30.5 < decibels(np.mean(noisy.audio[start:end] ** 2) / level) < -4.5
        assert not silent.audio[start:end].any()
    assert {clip.kind for clip in noisy.background} == {"nonspeech", "music"}
    assert not silent.background
