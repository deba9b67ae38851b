"""The stream of windows: order, weights, mixing, packing, and going on from any window."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.support.training_parts import RATE, clip, write_wav
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import WINDOW_SAMPLES
from whisper_sae_steer.errors import ConfigError, ManifestError
from whisper_sae_steer.training.stream import Position, StreamConfig, WindowStream, hold_back


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Speech of 3 and 33 s, music of 12 s, sound of 8 s, and a file that is no audio."""
    lengths = {"speech-a": 3, "speech-b": 33, "music-c": 12, "nonspeech-d": 8}
    found = [
        clip(write_wav(tmp_path / f"{name}.wav", seconds, seed), name.partition("-")[0])
        for seed, (name, seconds) in enumerate(lengths.items())
    ]
    broken = tmp_path / "broken.wav"
    broken.write_text("not audio")
    return [*found, clip(broken)]


def test_an_epoch_holds_every_recording_once(clips: list[Clip], capsys: pytest.CaptureFixture[str]):
    windows = list(WindowStream(clips, StreamConfig()).epoch(Position()))
    assert sum(len(w.audio) for w in windows) == 56 * RATE
    assert max(len(w.audio) for w in windows) <= WINDOW_SAMPLES
    assert [w.after.window for w in windows] == list(range(1, len(windows) + 1))
    assert "broken.wav" in capsys.readouterr().out
    everything = np.concatenate([w.audio for w in windows])
    for one in clips[:-1]:
        audio = load_audio(one.path)[:RATE]
        places = [i for i in range(len(everything) - RATE) if everything[i] == audio[0]]
        assert any(np.array_equal(everything[i : i + RATE], audio) for i in places)


def test_stream_goes_on_from_every_window(clips: list[Clip]):
    stream = WindowStream(clips, StreamConfig(speech=2, noise_share=0.5, seed=3))
    whole = list(islice(stream.endless(Position()), 12))
    assert len({w.after.epoch for w in whole}) > 1
    for number in range(11):
        again = next(WindowStream(clips, stream.config).endless(whole[number].after))
        assert again.after == whole[number + 1].after
        assert np.array_equal(again.audio, whole[number + 1].audio)


def test_epochs_and_seeds_differ_in_order(clips: list[Clip]):
    many = [clip(Path(f"{i}.wav")) for i in range(50)]
    stream = WindowStream(many, StreamConfig())
    assert stream.order(0) == stream.order(0) != stream.order(1)
    assert WindowStream(many, StreamConfig(seed=1)).order(0) != stream.order(0)
    assert {one.key for one in stream.order(0)} == {one.key for one in many}


def test_domain_weights(clips: list[Clip]):
    def count(config: StreamConfig) -> dict[str, int]:
        stream = WindowStream(clips, config)
        kinds = [one.kind for epoch in range(200) for one in stream.order(epoch)]
        return {kind: kinds.count(kind) for kind in ("speech", "music", "nonspeech")}

    found = count(StreamConfig(speech=2.5, music=0, sound=1))
    assert found["music"] == 0
    assert found["nonspeech"] == 2 * 200
    assert found["speech"] == pytest.approx(2.5 * 2 * 200, rel=0.05)


def test_noise_is_mixed_into_speech_only_at_the_ratio_asked_for(clips: list[Clip]):
    clips = [one for one in clips if "broken" not in one.key and one.path.stem != "speech-b"]
    config = StreamConfig(noise_share=1, snr_low=5, snr_high=5)
    plain = {w.after: w.audio for w in WindowStream(clips, StreamConfig()).epoch(Position())}
    for after, mixed, _ in ((w.after, w.audio, 0) for w in WindowStream(clips, config).epoch(Position())):
        clean = plain[after]
        changed = mixed != clean
        if not changed.any():
            continue
        start, stop = int(changed.argmax()), len(changed) - int(changed[::-1].argmax())
        assert stop - start == pytest.approx(3 * RATE, abs=100)
        speech = clean[start:stop]
        scale = float(mixed[start:stop] @ speech / (speech @ speech))  # undoes the guard against clipping
        noise = mixed[start:stop] / scale - speech
        assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(5, abs=0.3)
        return
    raise AssertionError("no noise was mixed in")


def test_hold_back_splits_every_domain_by_group():
    speech = [clip(Path(f"s{i}.wav"), "speech", f"speaker{i % 40}") for i in range(120)]
    music = [clip(Path(f"m{i}.wav"), "music", f"album{i // 2}") for i in range(8)]
    sound = [clip(Path("n.wav"))]
    train, held = hold_back([*speech, *music, *sound])
    assert {c.key for c in train} | {c.key for c in held} == {c.key for c in [*speech, *music, *sound]}
    assert not {c.group for c in train} & {c.group for c in held}
    assert sum(c.kind == "speech" for c in held) == 2 * 3
    assert sum(c.kind == "music" for c in held) == 2
    assert sum(c.kind == "nonspeech" for c in held) == 0  # the only recording of its domain is trained on


@pytest.mark.parametrize(
    ("options", "message"),
    [({"speech": -1}, "at least 0"), ({"noise_share": 1.5}, "from 0 to 1"), ({"snr_low": 30}, "above the")],
)
def test_options_that_make_no_sense(options: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        StreamConfig(**options)  # type: ignore[arg-type]


def test_nothing_to_stream(clips: list[Clip]):
    with pytest.raises(ManifestError, match="no audio to stream"):
        WindowStream(clips, StreamConfig(speech=0, music=0, sound=0))
    with pytest.raises(ManifestError, match="no sound or music"):
        WindowStream(clips[:1], StreamConfig(noise_share=0.1))
    with pytest.raises(ManifestError, match="none of the audio"):
        next(WindowStream(clips[-1:], StreamConfig()).endless(Position()))


@pytest.mark.parametrize("config", [StreamConfig(), StreamConfig(speech=2.5, music=0, seed=4)])
def test_windows_are_foreseen(clips: list[Clip], config: StreamConfig):
    stream = WindowStream([one for one in clips if one.path.stem != "broken"], config)
    assert stream.expected_windows() == len(list(stream.epoch(Position())))


def test_a_share_of_each_domains_recordings(clips: list[Clip]):
    many = [
        replace(clip(Path(f"{kind}{i}.wav"), kind), source=f"source{i % 3}")
        for kind, count in (("speech", 20), ("music", 5), ("nonspeech", 1))
        for i in range(count)
    ]
    half, fewer = (WindowStream(many, StreamConfig(audio_share=share)) for share in (0.5, 0.2))
    kinds = [one.kind for one in half.order(0)]
    assert [kinds.count(kind) for kind in ("speech", "music", "nonspeech")] == [10, 3, 1]
    assert {one.key for one in fewer.clips} < {one.key for one in half.clips}
    noises = {one.path for one in half.clips if one.kind != "speech"}
    assert set(half._noises) == noises
    for share in (0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="audio_share"):
            StreamConfig(audio_share=share)
