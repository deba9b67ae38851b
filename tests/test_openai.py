"""The torch back end on real weights: the plain library at α = 0, and every encode steered once."""

import copy
import gc
import inspect
import os
import pickle
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
import whisper.timing
from numpy.typing import NDArray
from torch import Tensor
from whisper.decoding import DecodingResult

from tests.support.encoded_audio import encoded
from tests.support.real_models import (
    SAMPLES,
    SHUT,
    by_gap,
    edit,
    one_window,
    sample,
    saved,
    strength,
    truth,
    vector_pack,
    weights,
    word_around_sentence,
)
from tests.support.small_whisper import small_whisper
from whisper_sae_steer.audio.writing import write_flac
from whisper_sae_steer.errors import AlphaError, AudioError, AudioWarning, PackError, RiskError
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.openai import SteeredWhisper, load_model
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.calls import current
from whisper_sae_steer.steering.labels import label_segment
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import SteeringPack
from whisper_sae_steer.steering.risk import written_segment

pytestmark = pytest.mark.filterwarnings("ignore:FP16 is not supported on CPU")
SPEECH = sample("speech")
QUICK: dict[str, Any] = {"temperature": 0.0, "sample_len": 12}
"""a few tokens are enough where the text doesn't matter"""


@cache
def plain(name: str) -> Any:
    return load_torch(weights(name))


def steered(name: str, pack: SteeringPack | None = None) -> SteeredWhisper:
    return SteeredWhisper.wrap(copy.deepcopy(plain(name)), pack or vector_pack(name))


def mel(audio: NDArray[np.float32] = SPEECH, start: int = 0, end: int = 3000) -> Tensor:
    """[80, 3000] of mel frames ``start``…``end``, padded as transcribe() pads."""
    spectrogram: Any = whisper.log_mel_spectrogram(audio, padding=480_000)
    content = spectrogram[:, : spectrogram.shape[1] - 3000]
    return torch.as_tensor(whisper.pad_or_trim(content[:, start:end], 3000))


class Watch:
    """Notes with how much α in all each encode was steered."""

    def __init__(self, model: SteeredWhisper):
        assert model.steerer is not None
        self.pack = model.steerer.pack
        self.strengths: list[float] = []
        self.before = np.zeros(0, np.float32)
        model.encoder.register_forward_hook(self._first, prepend=True)
        model.encoder.register_forward_hook(self._last)

    def _first(self, _module: Any, _inputs: Any, output: Tensor) -> None:
        self.before = output.detach().clone().numpy()

    def _last(self, _module: Any, _inputs: Any, output: Tensor) -> None:
        self.strengths.append(strength(self.before, output.detach().numpy(), self.pack))


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Word timings without numba's compiler, which takes longer than all of them."""
    for name in ("dtw_cpu", "backtrace"):
        function: Any = getattr(whisper.timing, name)
        monkeypatch.setattr(whisper.timing, name, getattr(function, "py_func", function))


# --- α = 0 and a shut gate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.0}, {"temperature": (0.0, 0.6), "logprob_threshold": 10.0, "sample_len": 12}],
)
def test_alpha_zero_is_the_plain_library(options: dict[str, Any]):
    torch.manual_seed(0)  # the last one samples
    expected = plain("tiny.en").transcribe(SPEECH, **options)
    torch.manual_seed(0)
    result = steered("tiny.en").transcribe(SPEECH, steer_alpha=0, **options)
    assert result == expected
    assert type(result) is dict
    assert list(result["segments"][0]) == list(expected["segments"][0])


def test_alpha_zero_is_the_plain_library_with_languages_and_words():
    expected = plain("base").transcribe(SPEECH, word_timestamps=True)
    assert expected["language"] == "en"
    assert steered("base").transcribe(SPEECH, word_timestamps=True, steer_alpha=0.0) == expected


def test_a_shut_gate_changes_no_figure_and_adds_two_keys():
    model = steered("tiny.en", vector_pack("tiny.en", SHUT, gate="window"))
    result = model.transcribe(SPEECH, temperature=0.0)
    labels = [
        (segment.pop("speech_prob"), segment.pop("hallucination_risk")) for segment in result["segments"]
    ]
    assert result == plain("tiny.en").transcribe(SPEECH, temperature=0.0)
    assert all(speech > 0.99 and risk < 0.01 for speech, risk in labels)


# --- exactly once --------------------------------------------------------------------------------


FALLBACK: dict[str, Any] = {"temperature": (0.0, 0.4, 0.8), "logprob_threshold": 10.0}


@pytest.mark.parametrize(
    ("name", "options", "strengths"),
    [
        ("tiny.en", QUICK, [0.5]),
        ("tiny.en", {**QUICK, **FALLBACK}, [0.5]),  # encoded once for all temperatures
        ("tiny.en", {**QUICK, "clip_timestamps": "0,4,4,8"}, [0.5] * 2),
        ("tiny.en", {**QUICK, "beam_size": 2}, [0.5]),
        ("base", QUICK, [0.0, 0.5]),
        ("base", {**QUICK, "steer_language_detection": True}, [0.5] * 2),
        ("base", {**QUICK, "language": "en", "task": "translate"}, [0.5]),
    ],
)
def test_every_encode_of_transcribe_is_steered_once(
    name: str, options: dict[str, Any], strengths: list[float]
):
    model = steered(name)
    watch = Watch(model)
    result = model.transcribe(SPEECH, steer_alpha=0.5, **options)
    assert watch.strengths == strengths
    assert result["segments"]
    assert current(model.steerer) is None


def test_words_are_aligned_to_frames_that_are_steered_too():
    model = steered("tiny.en")
    watch = Watch(model)
    result = model.transcribe(
        SPEECH, steer_alpha=0.5, word_timestamps=True, no_speech_threshold=None, **QUICK
    )
    assert result["segments"][0]["words"]
    assert watch.strengths == [0.5] * len(watch.strengths)
    assert len(watch.strengths) >= 2


def test_decode_steers_what_it_encodes():
    model, window = steered("base"), mel()
    watch = Watch(model)
    once = model.decode(window, sample_len=8, fp16=False)
    assert isinstance(once, DecodingResult)
    batch = model.decode(torch.stack([window, window]), sample_len=8, fp16=False, steer_alpha=0.25)
    assert isinstance(batch, list)
    model.decode(window, whisper.DecodingOptions(task="lang_id", fp16=False), steer_alpha=2)
    with model.steering(0.5):
        model.decode(window, sample_len=8, fp16=False)
    assert watch.strengths == [1, 0.25, 2, 0.5]
    again = model.decode(once.audio_features, sample_len=8, fp16=False)
    assert len(watch.strengths) == 4, "features were encoded again"
    assert vars(again).keys() == vars(once).keys()
    assert (again.tokens, again.avg_logprob) == (once.tokens, once.avg_logprob)  # pyright: ignore
    plainly = plain("base").decode(window, sample_len=8, fp16=False)
    zero = model.decode(window, sample_len=8, fp16=False, steer_alpha=0)
    assert isinstance(zero, DecodingResult)
    assert (zero.tokens, zero.no_speech_prob) == (plainly.tokens, plainly.no_speech_prob)


def test_the_steering_block_reaches_every_way_in():
    model, window = steered("base"), mel()
    watch = Watch(model)
    with model.steering(0.5):
        features = model.embed_audio(window[None])
        _, steered_language = model.detect_language(window)
        _, same = model.detect_language(features)
        model(window[None], torch.tensor([[50258]]))
    assert watch.strengths == [0.5] * 3
    torch.testing.assert_close(torch.tensor(same[0]["en"]), torch.tensor(steered_language["en"]))


def test_outside_calls_nothing_is_steered():
    model, window = steered("base"), mel()
    assert torch.equal(model.embed_audio(window[None]), plain("base").embed_audio(window[None]))
    assert model.detect_language(window)[1] == plain("base").detect_language(window)[1]
    watch = Watch(model)
    whisper.decode(model, window, whisper.DecodingOptions(sample_len=4, fp16=False))
    with steered("tiny.en").steering(1.0):
        model.embed_audio(window[None])
    assert watch.strengths == [0, 0]


def test_a_model_wrapped_twice_is_steered_by_the_one_that_is_called():
    one = steered("tiny.en")
    assert one.steerer is not None
    watch = Watch(SteeredWhisper.wrap(one, one.steerer.pack))
    one.transcribe(SPEECH, **QUICK)
    assert watch.strengths == [1]


def test_threads_steer_with_their_own_alpha():
    model, window = steered("tiny.en"), mel()[None]

    @torch.no_grad()
    def work(alpha: float) -> Tensor:
        with model.steering(alpha):
            return torch.stack([model.embed_audio(window) for _ in range(2)])

    alphas = [0.0, 1.0, 2.0, 0.5]
    with ThreadPoolExecutor(len(alphas)) as pool:
        outputs = [output.numpy() for output in pool.map(work, alphas)]
    assert [strength(outputs[0], output, vector_pack("tiny.en")) for output in outputs] == alphas


def test_an_error_in_a_call_leaves_nothing_behind():
    model = steered("tiny.en")
    watch = Watch(model)
    with pytest.raises(TypeError, match="no_such_option"):
        model.transcribe(SPEECH, no_such_option=1)
    assert current(model.steerer) is None
    model.embed_audio(mel()[None])
    assert watch.strengths == [0]


def test_windows_are_forgotten_with_their_transcript():
    """Frames that carry a gradient's graph would hold on to the mel they were made from, which keeps them."""
    model, seen = steered("tiny.en"), list[Any]()
    model.encoder.register_forward_hook(lambda _module, _inputs, output: seen.append(weakref.ref(output)))
    model.transcribe(SPEECH, **QUICK)
    gc.collect()
    assert seen
    assert all(frames() is None for frames in seen)


def test_a_block_pack_edits_that_block_exactly():
    pack = vector_pack("tiny.en", tap="block.1")
    model, reference = steered("tiny.en", pack), copy.deepcopy(plain("tiny.en"))
    reference.encoder.blocks[1].register_forward_hook(
        lambda _module, _inputs, output: output + 0.5 * torch.from_numpy(edit(pack))
    )
    with torch.no_grad(), model.steering(0.5):
        found = model.embed_audio(mel()[None])
        torch.testing.assert_close(found, reference.embed_audio(mel()[None]), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, plain("tiny.en").embed_audio(mel()[None]), atol=1e-2)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_the_model_steer_once(duplicate: Any):
    model = SteeredWhisper.wrap(small_whisper().float(), vector_pack("small", width=16))
    twin = duplicate(model)
    assert twin.dims == model.dims
    assert torch.equal(twin.alignment_heads.to_dense(), model.get_buffer("alignment_heads").to_dense())
    watch = Watch(twin)
    with torch.no_grad():
        with twin.steering(0.5):
            twin.embed_audio(mel()[None])
        with model.steering(0.5):
            twin.embed_audio(mel()[None])
    assert watch.strengths == [0.5, 0]


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [False, True])
def test_labels_are_those_of_the_segments_own_window(words: bool):
    """Three windows of the recording, labelled again from a plain encode of each."""
    pack = vector_pack("tiny.en", speech_calibration=(0.5, 0.1), risk_calibration=(-0.3, -0.2, 0.4))
    result = steered("tiny.en", pack).transcribe(
        SPEECH, steer_alpha=0.5, clip_timestamps="0,3.5,3.5,7,7,10", word_timestamps=words, **QUICK,
        no_speech_threshold=None, condition_on_previous_text=False, skip_gaps=False,
    )  # fmt: skip
    assert {0, 350, 700} <= {segment["seek"] for segment in result["segments"]}
    assert len({segment["speech_prob"] for segment in result["segments"]}) >= 3
    for segment in result["segments"]:
        start = segment["seek"]
        with torch.no_grad():
            end = next(end for end in (350, 700, 1000) if start < end)
            frames = plain("tiny.en").embed_audio(mel(SPEECH, start, end)[None])
        expected = label_segment(
            written_segment(segment, start / 100), Operator(pack).scores(frames)[0], pack.metadata
        )
        assert segment["speech_prob"] == pytest.approx(expected.segment.speech_prob, abs=1e-3)
        assert segment["hallucination_risk"] == pytest.approx(expected.segment.hallucination_risk, abs=1e-3)
        assert 0 < segment["speech_prob"] < 1
        assert 0 < segment["hallucination_risk"] < 1
        found = [word["hallucination_risk"] for word in segment.get("words", ())]
        assert found == pytest.approx(expected.word_risks, abs=1e-3)
        assert words or "words" not in segment


def test_what_filter_risk_leaves_out_is_in_the_result():
    model = steered("tiny.en")
    everything = model.transcribe(SPEECH, word_timestamps=True, **QUICK)
    risks = [word["hallucination_risk"] for segment in everything["segments"] for word in segment["words"]]
    result = model.transcribe(SPEECH, word_timestamps=True, filter_risk=max(risks), **QUICK)
    assert result["filtered"]
    assert result["text"] == "".join(segment["text"] for segment in result["segments"])
    parts = [word for key in ("segments", "filtered") for s in result[key] for word in s["words"]]
    assert len(parts) == len(risks)
    assert model.transcribe(SPEECH, filter_risk=1.0, **QUICK)["filtered"] == []
    with pytest.raises(RiskError, match="filter_risk"):
        model.transcribe(SPEECH, steer_alpha=0, filter_risk=0.9)


# --- arguments and errors ------------------------------------------------------------------------


def test_the_signature_shows_every_argument():
    shown = list(inspect.signature(SteeredWhisper.transcribe).parameters.values())
    theirs = list(inspect.signature(whisper.transcribe).parameters.values())
    assert shown[0].name == "self"
    assert [*shown[1:-5], shown[-1]] == theirs[1:]
    assert [(p.name, p.default) for p in shown[-5:-1]] == [
        ("steer_alpha", 1.0),
        ("steer_language_detection", False),
        ("skip_gaps", True),
        ("filter_risk", None),
    ]


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -1.0, 1e38, "strong", None])
def test_an_alpha_that_is_no_strength_is_refused(alpha: Any):
    model = steered("tiny.en")
    watch = Watch(model)
    with pytest.raises(AlphaError, match="steer_alpha must be a number from 0 to 100"):
        model.transcribe(SPEECH, steer_alpha=alpha)
    with pytest.raises(AlphaError):
        model.decode(mel(), steer_alpha=alpha)
    with pytest.raises(AlphaError), model.steering(alpha):
        pass
    assert watch.strengths == []


@pytest.mark.parametrize(
    "audio",
    ["missing.wav", np.full(16000, np.nan, np.float32), np.zeros((2, 16000), np.float32), np.zeros(0)],
)
def test_bad_audio_is_refused_before_any_encode(audio: Any):
    model = steered("tiny.en")
    watch = Watch(model)
    with pytest.raises(AudioError):
        model.transcribe(audio)
    assert watch.strengths == []


def place_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let the ffmpeg program that is found be a shell script."""
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_files_are_read_by_the_ffmpeg_program_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = steered("tiny.en")
    spoken = np.round(SPEECH * 32768).astype("<i2")
    (tmp_path / "spoken").write_bytes(spoken.tobytes())
    place_ffmpeg(tmp_path, monkeypatch, f"cat {tmp_path}/spoken")
    write_flac(tmp_path / "silence.flac", np.zeros(16_000, np.float32))
    read = model.transcribe(tmp_path / "silence.flac", **QUICK)
    assert read["text"] == model.transcribe(spoken / np.float32(32768), **QUICK)["text"] != ""


def test_what_the_ffmpeg_program_cannot_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = SteeredWhisper.wrap(small_whisper().float(), None)
    place_ffmpeg(tmp_path, monkeypatch, "echo version 7 >&2; echo out of luck >&2; exit 1")
    with pytest.raises(AudioError, match=r"speech.ogg can't be decoded as audio: out of luck$"):
        model.transcribe(SAMPLES / "speech.ogg")
    (tmp_path / "live.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.0,\na.wav\n")
    with pytest.raises(AudioError, match="playlists are not read"):
        model.transcribe(tmp_path / "live.m3u8")


def test_what_the_ffmpeg_program_leaves_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = SteeredWhisper.wrap(small_whisper().float(), None)
    whole = encoded(tmp_path / "a.mp3", "libmp3lame", 16_000, "mono", seconds=3)
    (tmp_path / "a.mp3").write_bytes(whole[:5000] + bytes(1000) + whole[6000:])
    place_ffmpeg(tmp_path, monkeypatch, "head -c 32000 /dev/zero")
    with pytest.warns(AudioWarning, match=r"a\.mp3 is damaged"):
        model.transcribe(tmp_path / "a.mp3", **QUICK)


def test_audio_may_be_a_path_a_file_an_array_or_a_tensor():
    path = SAMPLES / "speech.ogg"
    model = steered("tiny.en")
    with path.open("rb") as file:
        texts = [
            model.transcribe(audio, **QUICK)["text"]
            for audio in (path, str(path), file, SPEECH.astype(np.float64), torch.from_numpy(SPEECH))
        ]
    assert len(set(texts)) == 1


def test_load_model_takes_a_pack_for_these_weights_only(tmp_path: Path):
    own = saved(vector_pack("tiny.en"), tmp_path)
    model = load_model("tiny.en", device="cpu", pack=own)
    assert model.steerer is not None
    assert model.steerer.pack.path == own
    assert not model.training
    other = saved(vector_pack("base"), tmp_path)
    with pytest.raises(PackError, match="other weights"):
        load_model("tiny.en", pack=other)
    with pytest.raises(PackError, match="no steering pack at"):
        load_model("tiny.en", pack=tmp_path / "none.safetensors")


def test_without_a_pack_it_is_the_plain_model():
    model = load_model("tiny.en", device="cpu", pack=None)
    assert model.steerer is None
    expected = plain("tiny.en").transcribe(SPEECH, **QUICK)
    assert model.transcribe(SPEECH, **QUICK) == expected
    with model.steering(1.0):
        assert torch.equal(model.embed_audio(mel()[None]), plain("tiny.en").embed_audio(mel()[None]))


def test_other_widths_are_refused():
    model = steered("tiny.en", vector_pack("base"))
    with pytest.raises(PackError, match="width 512, not 384"):
        model.transcribe(SPEECH, **QUICK)


# --- the shipped pack ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> SteeredWhisper:
    return load_model("base", device="cpu")


@pytest.mark.slow
def test_the_shipped_pack_empties_the_gap_and_keeps_the_speech(shipped: SteeredWhisper):
    torch.manual_seed(0)
    segments = shipped.transcribe(sample("gap"), language="en")["segments"]
    assert all(segment["text"] for segment in segments)
    steered = by_gap(segments)
    assert steered.invented == []
    assert steered.spoken == by_gap(truth("gap")["speech"]).spoken
    unsteered = by_gap(shipped.transcribe(sample("gap"), language="en", steer_alpha=0)["segments"])
    assert unsteered.invented
    assert unsteered.spoken == steered.spoken


def test_the_shipped_pack_leaves_speech_alone(shipped: SteeredWhisper):
    result = shipped.transcribe(SPEECH)
    assert result["text"] == shipped.transcribe(SPEECH, steer_alpha=0)["text"]
    assert all(segment["speech_prob"] > 0.5 for segment in result["segments"])


@pytest.mark.parametrize("words", [False, True])
def test_a_gap_inside_a_window_is_skipped(shipped: SteeredWhisper, words: bool):
    both = one_window()
    segments = shipped.transcribe(both.audio, language="en", word_timestamps=words)["segments"]
    assert metrics.normalise(" ".join(s["text"] for s in segments), "en").split() == both.spoken
    assert [s["id"] for s in segments] == [0, 1]
    found = [edge for segment in segments for edge in (segment["start"], segment["end"])]
    np.testing.assert_allclose(found, both.edges, atol=0.7)


def test_the_language_is_that_of_the_first_speech(shipped: SteeredWhisper):
    faint = 1e-3 * np.random.default_rng(0).standard_normal(40 * 16_000).astype(np.float32)
    late = np.concatenate([faint, SPEECH])
    assert shipped.transcribe(late, **QUICK)["language"] == "en"
    unsteered = shipped.transcribe(late, steer_alpha=0, **QUICK)["language"]
    assert unsteered != "en"
    assert shipped.transcribe(faint, **QUICK)["language"] == unsteered, "nobody speaks"


@pytest.mark.parametrize("seconds", [35, 6])
def test_a_full_first_window_is_encoded_once_for_its_language_and_its_text(
    shipped: SteeredWhisper, seconds: int
):
    """One of 6 s is not: whisper pads it in two ways."""
    encodes: list[int] = []
    hook = shipped.encoder.register_forward_hook(lambda *_: encodes.append(1))
    audio = np.tile(SPEECH, 6)[: seconds * 16_000]
    found, with_language = shipped.transcribe(audio, **QUICK), len(encodes)
    given = shipped.transcribe(audio, language="en", **QUICK)
    hook.remove()
    assert found == given
    assert 2 * with_language - len(encodes) == (0 if seconds > 30 else 1)


@pytest.mark.parametrize("options", [{}, {"beam_size": 2}])
def test_silence_without_timestamps_is_empty(options: dict[str, Any]):
    """Whisper divides by the length of a transcript, and this one ends at once."""
    silence = np.zeros(5 * 16_000, np.float32)
    result = load_model("tiny.en").transcribe(silence, without_timestamps=True, **options)
    assert not result["text"].strip()


def test_only_text_is_printed(capsys: pytest.CaptureFixture[str]):
    load_model("tiny.en").transcribe(sample("gap"), verbose=True, temperature=0.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert all(line.split("]")[1].strip() for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="another warning where a GPU is left unused")
def test_whispers_default_of_fp16_is_no_warning_on_a_cpu():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model("tiny.en", "cpu").transcribe(SPEECH, **QUICK)


def test_words_by_themselves_before_and_after_a_sentence_are_read(shipped: SteeredWhisper):
    result = shipped.transcribe(word_around_sentence(4.0), language="en")
    heard = " ".join(metrics.normalise(result["text"], "en").split())
    assert heard.startswith("to the station")
    assert heard.endswith("to the station")
    assert heard.count("station") == 3


def test_a_window_with_speech_that_has_no_text_is_read_part_by_part(
    shipped: SteeredWhisper, monkeypatch: pytest.MonkeyPatch
):
    decode: Any = whisper.decode
    seen: list[Any] = []

    def sounds_silent_at_first(*args: Any, **kwargs: Any) -> Any:
        result = decode(*args, **kwargs)
        seen.append(result)
        silent = replace(result, tokens=[], text="", no_speech_prob=1.0, avg_logprob=-2.0)
        return silent if len(seen) == 1 else result

    monkeypatch.setattr(whisper, "decode", sounds_silent_at_first)
    heard = metrics.normalise(shipped.transcribe(word_around_sentence(4.0), language="en")["text"], "en")
    assert len(seen) > 2
    assert heard.startswith("to the station")
    assert heard.endswith("to the station")
    assert heard.count("station") == 3


def test_speech_after_a_gap_is_read_where_whisper_skips_silence():
    """With so short a rest of the window whisper goes on behind it, not where it was told to seek."""
    sentence = SPEECH[16_000 : round(7.45 * 16_000)]
    audio = np.zeros(round(28.8 * 16_000) + len(sentence), np.float32)
    audio[: len(sentence)] = audio[-len(sentence) :] = sentence
    options: dict[str, Any] = {"word_timestamps": True, "hallucination_silence_threshold": 3.0}
    text = load_model("tiny.en").transcribe(audio, temperature=0.0, **options)["text"]
    heard = metrics.normalise(text, "en").split()
    assert [heard.count(word) for word in ("train", "boxes", "doors")] == [2, 2, 2]
