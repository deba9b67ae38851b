import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.io.wavfile
import torch
from faster_whisper.audio import decode_audio

from tests.support.real_models import SAMPLES
from whisper_sae_steer.audio.reading import find_audio, load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.errors import AudioError


def wav_bytes(channels: int = 1, rate: int = SAMPLE_RATE, frames: int = SAMPLE_RATE) -> bytes:
    time = np.repeat(np.arange(frames) / rate, channels)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((9000 * np.sin(2 * np.pi * 440 * time)).astype("<i2").tobytes())
    return stream.getvalue()


def write_video_without_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.mark.parametrize("frames", [44_100, 44_100 * 40])
def test_file_equals_faster_whispers_decoding(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(channels=2, rate=44100, frames=frames))
    audio = load_audio(path)
    assert audio.dtype == np.float32
    assert len(audio) == frames * SAMPLE_RATE // 44_100
    np.testing.assert_array_equal(audio, decode_audio(str(path)))


def test_damaged_files_are_read_as_far_as_faster_whisper_does(tmp_path: Path) -> None:
    whole = (SAMPLES / "gap.ogg").read_bytes()
    rng = np.random.default_rng(0)
    for number, start in enumerate(rng.integers(len(whole) // 4, len(whole) - 2000, 5)):
        path = tmp_path / f"{number}.ogg"
        path.write_bytes(whole[:start] + rng.bytes(1500) + whole[start + 1500 :])
        np.testing.assert_array_equal(load_audio(path), decode_audio(str(path)))


def encoded(path: Path, codec: str, rate: int, layout: str, seconds: float) -> bytes:
    """A tone as a stream without a container's header."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        channels = stream.layout.nb_channels
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
        for begin in range(0, len(tone) - 1151, 1152):
            piece = np.tile(tone[begin : begin + 1152], (channels, 1)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, begin
            for part in av.AudioResampler(stream.format, layout, rate).resample(frame):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(("suffix", "codec"), [("aac", "aac"), ("mp2", "mp2"), ("ac3", "ac3")])
def test_channels_and_rates_that_change_on_the_way(tmp_path: Path, suffix: str, codec: str) -> None:
    parts = [(44_100, "stereo", 1.0), (44_100, "mono", 1.5), (32_000, "stereo", 2.0)]
    whole = [encoded(tmp_path / f"{n}.{suffix}", codec, *part) for n, part in enumerate(parts)]
    path = tmp_path / f"whole.{suffix}"
    path.write_bytes(b"".join(whole))
    audio = load_audio(path)
    assert len(audio) / SAMPLE_RATE == pytest.approx(4.5, abs=0.3)
    for second in (0.5, 1.75, 3.5):
        piece = audio[round((second - 0.2) * SAMPLE_RATE) :][: SAMPLE_RATE // 4]
        loudest = np.abs(np.fft.rfft(piece)).argmax() * 4
        assert loudest == pytest.approx(440, abs=5)


def test_open_file_and_stream() -> None:
    assert load_audio(io.BytesIO(wav_bytes())).shape == (SAMPLE_RATE,)


def test_float32_array_is_returned_as_is() -> None:
    audio = np.linspace(-1, 1, 100, dtype=np.float32)
    assert load_audio(audio) is audio


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: type) -> None:
    audio = load_audio(np.full(10, 0.25, dtype))
    assert audio.dtype == np.float32
    assert (audio == 0.25).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors(dtype: torch.dtype) -> None:
    audio = load_audio(torch.full((10,), 0.25, dtype=dtype, requires_grad=True))
    assert audio.dtype == np.float32
    assert (audio == 0.25).all()


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(3, np.int16), r"int16.*astype\(np.float32\) / 32768"),
        (torch.zeros(3, dtype=torch.int32), r"int32.*/ 2147483648"),
        (np.zeros(3, np.uint8), "uint8"),
        (np.zeros(3, bool), "bool"),
        (np.zeros(3, np.complex64), "complex64"),
        (np.zeros((2, 3), np.float32), r"\[2, 3\].*mean"),
        (np.array(0.5, np.float32), "shape"),
        (np.zeros(0, np.float32), "no samples"),
        (np.array([0, np.nan], np.float32), "NaN"),
        (torch.tensor([0, float("inf")]), "infinite"),
        (np.array([1e300]), "infinite"),
        (io.BytesIO(), "can't be decoded"),
        (io.BytesIO(b"not audio at all"), "can't be decoded"),
        ([0.0, 0.1], "list"),
        (None, "NoneType"),
    ],
)
def test_refused(audio: object, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(audio)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


def test_files_refused(tmp_path: Path) -> None:
    nan = np.zeros(1000, np.float32)
    nan[500] = np.nan
    scipy.io.wavfile.write(tmp_path / "nan.wav", SAMPLE_RATE, nan)
    write_video_without_sound(tmp_path / "silent.mp4")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio\n" * 100)
    (tmp_path / "none.wav").write_bytes(wav_bytes(frames=0))
    (tmp_path / "header.wav").write_bytes(wav_bytes()[:30])
    (tmp_path / "folder.wav").mkdir()
    messages = {
        "missing.wav": "no such file",
        "empty.wav": "empty",
        "text.wav": "can't be decoded",
        "none.wav": "no samples",
        "header.wav": "can't be decoded",
        "folder.wav": "folder",
        "silent.mp4": "no audio stream",
        "nan.wav": "NaN",
    }
    for name, message in messages.items():
        with pytest.raises(AudioError, match=message) as caught:
            load_audio(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="no such file"):
        load_audio("missing.wav")


def test_find_audio(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.opus", "sub/c.mp3", "sub/notes.txt", ".hidden/d.wav", "x.dat"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    names = [p.relative_to(tmp_path).as_posix() for p in find_audio([tmp_path])]
    assert names == ["a.opus", "b.WAV", "sub/c.mp3"]
    given = find_audio([tmp_path / "x.dat", tmp_path / "sub", tmp_path])
    assert [p.name for p in given] == ["x.dat", "c.mp3", "a.opus", "b.WAV"]


def test_find_audio_refuses(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no audio files in"):
        find_audio([tmp_path])
    with pytest.raises(AudioError, match="no audio files in an empty list"):
        find_audio([])
    with pytest.raises(AudioError, match="no such file or folder"):
        find_audio([tmp_path / "nowhere"])
