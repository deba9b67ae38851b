"""What is said of recordings before any of them is encoded."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.calibration_parts import clip, names, spoken_pieces, write_noise
from tests.support.hard_files import write_unreadable
from whisper_sae_steer.audio.clips import Clip, read_folder
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.calibrate.config import CalibrationConfig
from whisper_sae_steer.calibrate.recordings import check_recordings, listen
from whisper_sae_steer.errors import CalibrationError


@pytest.fixture
def sounds(tmp_path: Path) -> list[Clip]:
    return read_folder(write_noise(tmp_path / "noise", 2, 1, seconds=1.0), "nonspeech")


@pytest.fixture
def voices(tmp_path: Path) -> list[Clip]:
    return write_clips(tmp_path / "voices", spoken_pieces()[:3], "speech")


def write_clips(folder: Path, audios: list[np.ndarray], kind: str) -> list[Clip]:
    folder.mkdir()
    for number, audio in enumerate(audios):
        write_wav(folder / f"{number}.wav", audio)
    return read_folder(folder, kind)


def test_good_recordings_pass_without_a_word(sounds: list[Clip], voices: list[Clip]):
    assert listen(sounds, voices) == (sounds, voices, ())


def test_unreadable_ones_are_named_and_left_out(
    sounds: list[Clip], voices: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bad = write_unreadable(tmp_path / "bad")
    heard = listen([*read_folder(tmp_path / "bad", "nonspeech"), *sounds], voices)
    assert heard == (sounds, voices, ())
    said = capsys.readouterr().out
    assert said.count("skipped: ") == len(bad)
    assert all(str(path) in said for path in bad)
    with pytest.raises(CalibrationError, match="none of 4 recordings without speech can be read"):
        listen(read_folder(tmp_path / "bad", "nonspeech"), voices)


def test_speech_among_the_sounds_is_named_worst_first(sounds: list[Clip], voices: list[Clip], tmp_path: Path):
    talk = write_clips(tmp_path / "talk", spoken_pieces()[:6], "nonspeech")
    (warning,) = listen([*sounds, *talk], voices).warnings
    assert "in a good part of 6 of 9 recordings without speech" in warning
    assert warning.endswith(" and 1 more.")
    shares = [int(part.split("%")[0]) for part in warning.split("(")[1:]]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert "noise/" not in warning


def test_sounds_among_the_speech_are_named(sounds: list[Clip], voices: list[Clip], tmp_path: Path):
    mute = write_clips(tmp_path / "mute", [np.zeros(16_000, dtype=np.float32)], "speech")
    heard = listen(sounds, [*voices, *mute])
    assert heard.speech == [*voices, *mute]
    assert heard.warnings == (
        "No voice is heard in 1 of 4 recordings with speech, which teach nothing: mute/0.wav.",
    )
    with pytest.raises(CalibrationError, match=r"no voice is heard in any of 1 .*mute/0\.wav"):
        listen(sounds, mute)


def test_silence_alone_is_no_sound(sounds: list[Clip], voices: list[Clip], tmp_path: Path):
    silence = write_clips(tmp_path / "silence", [np.zeros(16_000, dtype=np.float32)] * 2, "nonspeech")
    assert not listen([*silence, *sounds], voices).warnings
    with pytest.raises(CalibrationError, match=r"nothing but digital silence, every sample 0, in .*\(2\)"):
        listen(silence, voices)


def some(kind: str, fitted: int, held: int) -> list[Clip]:
    return [clip(name, kind) for name in [*names(kind, False, fitted), *names(kind, True, held)]]


@pytest.mark.parametrize(
    ("sounds", "voices", "synthetic", "has_base", "refused"),
    [
        ((1, 1), (1, 1), 60, False, None),
        ((1, 0), (1, 1), 60, False, None),  # synthetic sounds are held back too
        ((1, 0), (1, 1), 0, False, r"without speech \(1\).* none is held back"),
        ((0, 1), (1, 1), 0, False, r"without speech \(1\).* none is left to fit on"),
        ((1, 1), (9, 0), 60, False, r"with speech \(9\).* none is held back"),
        ((1, 1), (0, 1), 60, False, r"with speech \(1\).* none is left to fit on"),
        ((1, 1), (0, 1), 60, True, None),
        ((1, 1), (0, 0), 60, True, None),
        ((1, 1), (0, 0), 60, False, "needs --speech"),
        ((0, 0), (1, 1), 0, False, "no audio without speech"),
    ],
)
def test_there_must_be_some_to_fit_on_and_some_to_measure_on(
    sounds: tuple[int, int], voices: tuple[int, int], synthetic: int, has_base: bool, refused: str | None
):
    given = some("nonspeech", *sounds), some("speech", *voices), CalibrationConfig(synthetic=synthetic)
    if refused is None:
        check_recordings(*given, has_base)
        return
    with pytest.raises(CalibrationError, match=refused):
        check_recordings(*given, has_base)
