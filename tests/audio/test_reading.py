import io
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
import scipy.io.wavfile
import torch
from faster_whisper.audio import decode_audio

from tests.support.encoded_audio import CHANGING, changing, encoded, tone, without_content, write_tracks
from tests.support.real_models import SAMPLES
from whisper_sae_steer.audio.reading import audio_seconds, check_file, find_audio, load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.errors import AudioError, AudioWarning


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


@pytest.mark.filterwarnings("ignore::whisper_sae_steer.errors.AudioWarning")
def test_damaged_ogg_is_what_faster_whisper_reads(tmp_path: Path) -> None:
    whole = (SAMPLES / "gap.ogg").read_bytes()
    rng = np.random.default_rng(0)
    for number, start in enumerate(rng.integers(len(whole) // 4, len(whole) - 2000, 5)):
        path = tmp_path / f"{number}.ogg"
        path.write_bytes(whole[:start] + rng.bytes(1500) + whole[start + 1500 :])
        np.testing.assert_array_equal(load_audio(path), decode_audio(str(path)))


DAMAGED = [
    *(("mp3", "libmp3lame", 44_100), ("aac", "aac", 44_100)),
    *(("ac3", "ac3", 44_100), ("m4a", "aac", 44_100), ("ts", "aac", 44_100), ("flac", "flac", 16_000)),
    *(("ogg", "libopus", 48_000), ("webm", "libopus", 48_000)),
]


@pytest.mark.parametrize(("suffix", "codec", "rate"), DAMAGED)
def test_damage_is_read_past_with_one_warning(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = encoded(path, codec, rate, "mono", seconds=20)
    seconds = len(load_audio(path)) / SAMPLE_RATE
    middle, length = len(whole) // 2, len(whole) // 10
    path.write_bytes(whole[:middle] + bytes(length) + whole[middle + length :])
    with pytest.warns(AudioWarning) as caught:
        audio = load_audio(path)
    left = len(audio) / SAMPLE_RATE
    assert seconds * 0.75 < left < seconds * 0.95
    assert np.abs(audio[-2 * SAMPLE_RATE : -SAMPLE_RATE]).max() > 0.1
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(f"{path} is damaged: about ")
    lost = float(message.partition("about ")[2].partition(" s")[0])
    assert lost == pytest.approx(seconds - left, rel=0.5)


def test_a_warning_is_one_line_and_comes_once(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    whole = encoded(path, "libmp3lame", 16_000, "mono", seconds=3)
    path.write_bytes(whole[:5000] + bytes(1000) + whole[6000:])
    code = f"from whisper_sae_steer.audio.reading import load_audio; load_audio({str(path)!r})\n" * 2
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    assert said.count("\n") == 1
    assert f"AudioWarning: {path} is damaged" in said


@pytest.mark.filterwarnings("error::whisper_sae_steer.errors.AudioWarning")
@pytest.mark.parametrize(("suffix", "codec", "rate"), DAMAGED)
def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(
    tmp_path: Path, suffix: str, codec: str, rate: int
) -> None:
    if suffix == "m4a":
        pytest.skip("its index is at its end")
    path = tmp_path / f"a.{suffix}"
    whole = encoded(path, codec, rate, "mono", seconds=10)
    path.write_bytes(whole[: len(whole) // 2])
    assert len(load_audio(path)) / SAMPLE_RATE == pytest.approx(5, abs=1)


@pytest.mark.filterwarnings("error::whisper_sae_steer.errors.AudioWarning")
@pytest.mark.parametrize("junk", [b"TAG" + bytes(125), bytes(5000), b"LYRICSBEGIN" + b"la " * 500])
def test_what_follows_the_audio_is_no_damage(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "a.mp3"
    whole = encoded(path, "libmp3lame", 16_000, "mono", seconds=3)
    path.write_bytes(whole + junk)
    assert len(load_audio(path)) / SAMPLE_RATE == pytest.approx(3, abs=0.1)


@pytest.mark.filterwarnings("error::whisper_sae_steer.errors.AudioWarning")
def test_a_file_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(without_content(encoded(path, "aac", 44_100, "mono", seconds=3)))
    with pytest.raises(AudioError, match="no samples"):
        load_audio(path)


@pytest.mark.filterwarnings("ignore::whisper_sae_steer.errors.AudioWarning")
def test_joined_files_are_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded(path, "libmp3lame", 16_000, "mono", seconds=3) * 2)
    assert len(load_audio(path)) / SAMPLE_RATE == pytest.approx(6, abs=0.2)


def test_a_track_that_the_header_does_not_announce(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "a.flv", "aac", 44_100, "mono", seconds=3)
    picture = b"\x09\0\0\x05" + bytes(7) + b"\x12" + bytes(4) + b"\0\0\0\x10"
    assert len(load_audio(io.BytesIO(whole + picture))) / SAMPLE_RATE == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_track_is_read(tmp_path: Path, default: int) -> None:
    path = tmp_path / "a.mkv"
    write_tracks(path, [np.zeros(SAMPLE_RATE, np.float32), tone(SAMPLE_RATE, 1.0)], default)
    loud = float(np.abs(load_audio(path)).max()) > 0.1
    assert loud == (default == 1)


@pytest.mark.parametrize(("suffix", "codec"), CHANGING)
def test_channels_and_rates_that_change_on_the_way(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"whole.{suffix}"
    path.write_bytes(changing(tmp_path, suffix, codec))
    audio = load_audio(path)
    assert len(audio) / SAMPLE_RATE == pytest.approx(4.5, abs=0.3)
    for second in (0.5, 1.75, 3.5):
        piece = audio[round((second - 0.2) * SAMPLE_RATE) :][: SAMPLE_RATE // 4]
        loudest = np.abs(np.fft.rfft(piece)).argmax() * 4
        assert loudest == pytest.approx(440, abs=5)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5.0,\na.wav\n",  # no end: live
        "ffconcat version 1.0\nfile a.wav\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["m3u8", "ffconcat", "sdp"],
)
def test_playlists_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes())
    path = tmp_path / "list.m3u8"
    path.write_text(text)
    with pytest.raises(AudioError, match="playlists are not read"):
        load_audio(path)
    with pytest.raises(AudioError, match="can't be decoded"):
        load_audio(io.BytesIO(text.encode()))
    assert audio_seconds(path) == 0


def test_a_file_is_checked_as_it_would_be_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    good.write_bytes(wav_bytes())
    check_file(good)
    scipy.io.wavfile.write(bad, SAMPLE_RATE, np.full(1000, np.nan, np.float32))
    for path, message in ((bad, "NaN"), (tmp_path / "none.wav", "no such file")):
        with pytest.raises(AudioError, match=message):
            check_file(path)


@pytest.mark.parametrize("peak", [5000.0, 32768.0, 1e19, 3e38])
def test_samples_that_are_not_scaled_are_refused(tmp_path: Path, peak: float) -> None:
    loud = np.array([0, 0.5, -1], np.float32) * np.float32(peak)
    path = tmp_path / "loud.wav"
    scipy.io.wavfile.write(path, SAMPLE_RATE, np.tile(loud, 1000))
    sources: list[Any] = [loud, torch.from_numpy(loud), path, io.BytesIO(path.read_bytes())]
    for source in sources:
        with pytest.raises(AudioError, match=r"within ±1; divide those of 16-bit integers by 32768"):
            load_audio(source)


def test_clipping_is_fine() -> None:
    audio = np.array([0.5, -7.0, 3.0], np.float32)
    assert load_audio(audio) is audio


def test_strides_of_any_kind_become_plain_ones() -> None:
    audio = np.linspace(-1, 1, 100, dtype=np.float32)
    for view in (audio[::-1], audio[::2], np.broadcast_to(np.float32(0.5), 10), audio.astype(">f4")):
        read = load_audio(view)
        np.testing.assert_array_equal(read, view)
        torch.from_numpy(read)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch: nested and quantised tensors are to go
@pytest.mark.parametrize("kind", ["meta", "sparse", "quantised", "nested"])
def test_tensors_without_plain_samples_are_refused(kind: str) -> None:
    made = {
        "meta": lambda: torch.zeros(10, device="meta"),
        "sparse": lambda: torch.zeros(10).to_sparse(),
        "quantised": lambda: torch.quantize_per_tensor(torch.zeros(10), 0.1, 0, torch.qint8),
        "nested": lambda: torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)]),
    }[kind]()
    with pytest.raises(AudioError, match="plain tensor") as caught:
        load_audio(made)
    assert "\n" not in str(caught.value)


def test_files_opened_as_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes())
    with path.open() as text, pytest.raises(AudioError, match="binary mode"):
        load_audio(cast(Any, text))
    with pytest.raises(AudioError, match="binary mode"):
        load_audio(cast(Any, io.StringIO("hello")))


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
    (tmp_path / "codec.wav").write_bytes(wav_bytes()[:20] + b"\x34\x12" + wav_bytes()[22:])
    (tmp_path / "rate.wav").write_bytes(wav_bytes()[:24] + b"\x07\0\0\0" + wav_bytes()[28:])
    messages = {
        "missing.wav": "no such file",
        "empty.wav": "empty",
        "text.wav": "can't be decoded",
        "none.wav": "no samples",
        "header.wav": "can't be decoded",
        "folder.wav": "folder",
        "silent.mp4": "no audio stream",
        "rate.wav": "says that it has 7 samples a second",
        "codec.wav": "a codec that can't be decoded",
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
