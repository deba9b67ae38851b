from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.hard_cases import RATE, Audio, decibels, made, voice
from whisper_sae_steer.audio.clips import Clip, read_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.bench.hard.conditions import jobs
from whisper_sae_steer.bench.hard.material import material


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


def test_several_sentences_follow_one_another_before_a_gap(manifest: Path) -> None:
    musical = made(manifest, "music-gaps", count=4)
    for recording in musical:
        assert {clip.kind for clip in recording.background} == {"music"}
        assert (recording.parts[0], recording.parts[-1]) == ((), ())
        assert len(recording.parts) == len(recording.gaps) + 1
        assert min(len(clip.text.split()) for clip in recording.speech) == 4
        edges = [round(edge * RATE) for gap in recording.gaps for edge in gap]
        for start, end, part in zip(edges[1::2], edges[2::2], recording.parts[1:], strict=False):
            assert_in_a_row(recording.audio[start:end], part)
    rows = {len(part) for recording in musical for part in recording.parts[1:-1]}
    assert rows == {1, 2, 3, 4}


def test_paragraphs_differ_from_music_gaps_only_in_their_gaps(manifest: Path) -> None:
    levels: list[float] = []
    kinds: set[str] = set()
    for mixed, musical in zip(made(manifest, "paragraphs"), made(manifest, "music-gaps"), strict=True):
        assert (mixed.parts, mixed.gaps) == (musical.parts, musical.gaps)
        kinds |= {clip.kind for clip in mixed.background}
        for start, end in mixed.gaps:
            levels.append(float(np.mean(mixed.audio[round(start * RATE) : round(end * RATE)] ** 2)))
    assert kinds == {"nonspeech", "music"}
    assert 0 < levels.count(0) < len(levels) / 2


def test_remarks_are_single_words_and_sentences_each_between_pauses(manifest: Path, talk: Path) -> None:
    given = material([*read_manifest(manifest), *read_manifest(talk)])
    recordings = [job.make() for job in jobs("remarks", given, 8)]
    fillings: set[str] = set()
    for recording in recordings:
        assert 60 <= len(recording.audio) / RATE <= 160
        assert all(1.5 <= end - start <= 35 for start, end in recording.gaps)
        assert all(len(part) == 1 for part in recording.parts[1:-1])
        fillings |= {clip.kind for clip in recording.background}
    lengths = [len(clip.text.split()) for recording in recordings for clip in recording.speech]
    assert not {2, 3} & set(lengths)
    assert 0.2 < lengths.count(1) / len(lengths) < 0.6
    assert fillings == {"nonspeech", "music"}


def test_joined_sentences_have_no_gaps(manifest: Path) -> None:
    for recording in made(manifest, "joined", count=2):
        assert 120 <= len(recording.audio) / RATE <= 600
        assert (recording.gaps, recording.background) == ((), ())
        (part,) = recording.parts
        assert_in_a_row(recording.audio, part)


def assert_in_a_row(audio: Audio, part: Sequence[Clip]) -> None:
    """Nothing but these utterances, without the silence at their ends, and 0.2 to 0.6 s between them."""
    at = 0
    for clip in part:
        spoken = load_audio(clip.path)[8000:-4800]
        if at:
            pause = int(np.argmax(audio[at : at + RATE] != 0)) - int(np.argmax(spoken != 0))
            assert 0.2 * RATE <= pause <= 0.6 * RATE
            at += pause
        np.testing.assert_array_equal(audio[at : at + len(spoken)], spoken)
        at += len(spoken)
    assert at == len(audio)
