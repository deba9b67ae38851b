"""The CTranslate2 back end on real weights: the plain library at α = 0, every encode steered once."""

import copy
import inspect
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import pytest
import torch
from ctranslate2 import DataType, StorageView
from faster_whisper import transcribe as fw
from faster_whisper.audio import pad_or_trim
from faster_whisper.vad import VadOptions, collect_chunks, get_speech_timestamps
from numpy.typing import NDArray

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
from whisper_sae_steer import faster
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.errors import AlphaError, AttachError, AudioError, PackError, RiskError
from whisper_sae_steer.faster import BatchedInferencePipeline, Segment, TranscriptionInfo, WhisperModel, Word
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.calls import Call, CallOptions, active, current
from whisper_sae_steer.steering.ctranslate import Decoded, SteeredEncoder, steer_storage
from whisper_sae_steer.steering.labels import label_segment
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import SteeringPack
from whisper_sae_steer.steering.risk import written_segment
from whisper_sae_steer.steering.steerer import Steerer

SPEECH = sample("speech")
QUICK: dict[str, Any] = {"beam_size": 1, "temperature": 0.0, "max_new_tokens": 12}
"""a few tokens are enough where the text doesn't matter"""
CLIPS = [{"start": 0.0, "end": 5.0}, {"start": 5.0, "end": 8.0}]
"""for the batched pipeline"""


@cache
def plain(name: str) -> faster_whisper.WhisperModel:
    return faster_whisper.WhisperModel(
        str(weights(name).ct2_dir), device="cpu", compute_type="float32", cpu_threads=1
    )


def steered(name: str, pack: SteeringPack | None = None) -> WhisperModel:
    """A steered model over the plain one's CTranslate2 object, to load the weights once."""
    model = copy.copy(plain(name))
    model.__class__ = WhisperModel
    assert isinstance(model, WhisperModel)
    model.steerer = Steerer(pack or vector_pack(name))
    model.model = SteeredEncoder(model.model, model.steerer, model.hf_tokenizer)  # pyright: ignore
    return model


class Watch:
    """A CTranslate2 model that notes with how much α in all the frames it is handed were steered.

    ``raw`` counts mel handed to what would encode it again, out of sight.
    """

    def __init__(self, model: WhisperModel):
        encoder: Any = model.model
        assert model.steerer is not None
        self.pack, self.inner = model.steerer.pack, encoder._inner
        self.encodes = self.raw = 0
        self.strengths: list[float] = []
        self.before = np.zeros(0, np.float32)
        encoder._inner = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(self, features: StorageView, to_cpu: bool = False) -> StorageView:
        output = self.inner.encode(features, to_cpu=to_cpu)
        self.encodes += 1
        self.before = np.array(output)
        return output

    def generate(self, features: StorageView, *args: Any, **kwargs: Any) -> Any:
        self._note(features)
        return self.inner.generate(features, *args, **kwargs)

    def align(self, features: StorageView, *args: Any, **kwargs: Any) -> Any:
        self._note(features)
        return self.inner.align(features, *args, **kwargs)

    def detect_language(self, features: StorageView) -> Any:
        self._note(features)
        return self.inner.detect_language(features)

    def _note(self, features: StorageView) -> None:
        if features.shape[1] == self.inner.n_mels:
            self.raw += 1
        else:
            self.strengths.append(strength(self.before, np.array(features), self.pack))


def mel(audio: NDArray[np.float32] = SPEECH, start: int = 0, end: int = 3000) -> StorageView:
    """[1, 80, 3000] of mel frames ``start``…``end``, padded as transcribe() pads."""
    features = plain("tiny.en").feature_extractor(audio)[:, :-1][:, start:end]
    return StorageView.from_array(np.ascontiguousarray(pad_or_trim(features)[None]))


def ignoring_time(segments: Iterable[fw.Segment]) -> list[dict[str, Any]]:
    return [{**asdict(s), "start": 0, "end": 0, "words": None} for s in segments]


# --- α = 0 and a shut gate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiny.en", {}),
        ("tiny.en", {"word_timestamps": True, "vad_filter": True, "beam_size": 1}),
        ("tiny.en", {"clip_timestamps": "0,4,4,8", "temperature": 0.0, "beam_size": 1}),
        ("base", {"multilingual": True, "beam_size": 1}),
    ],
)
def test_alpha_zero_is_the_plain_library(name: str, options: dict[str, Any]):
    expected, expected_info = plain(name).transcribe(SPEECH, **options)
    segments, info = steered(name).transcribe(SPEECH, steer_alpha=0, **options)
    assert inspect.isgenerator(segments)
    found = list(segments)
    assert found == list(expected)
    assert found
    assert {type(segment) for segment in found} == {fw.Segment}
    assert info == expected_info


@pytest.mark.parametrize("options", [{}, {"clip_timestamps": CLIPS, "word_timestamps": True}])
def test_alpha_zero_is_the_plain_batched_pipeline(options: dict[str, Any]):
    pipeline = faster_whisper.BatchedInferencePipeline(plain("tiny.en"))
    expected, expected_info = pipeline.transcribe(SPEECH, beam_size=1, **copy.deepcopy(options))
    ours = BatchedInferencePipeline(steered("tiny.en"))
    segments, info = ours.transcribe(SPEECH, beam_size=1, steer_alpha=0.0, **copy.deepcopy(options))
    found = list(segments)
    assert found == list(expected)
    assert {type(segment) for segment in found} == {fw.Segment}
    assert info == expected_info


def test_a_shut_gate_changes_no_figure_and_adds_two_fields():
    model = steered("tiny.en", vector_pack("tiny.en", SHUT, gate="window"))
    segments, info = model.transcribe(SPEECH)
    expected, expected_info = plain("tiny.en").transcribe(SPEECH)
    found = [asdict(segment) for segment in segments]
    labels = [(segment.pop("speech_prob"), segment.pop("hallucination_risk")) for segment in found]
    assert found == [asdict(segment) for segment in expected]
    assert info == expected_info
    assert all(speech > 0.99 and risk < 0.01 for speech, risk in labels)


def test_steered_segments_are_faster_whispers_with_labels():
    segments, _ = steered("tiny.en").transcribe(SPEECH, "en", "transcribe", **QUICK)
    (segment,) = segments
    assert isinstance(segment, Segment)
    assert isinstance(segment, fw.Segment)
    assert 0 < segment.speech_prob < 1
    assert 0 < segment.hallucination_risk < 1
    assert "speech_prob" in asdict(segment)


# --- exactly once --------------------------------------------------------------------------------


FALLBACK: dict[str, Any] = {"temperature": [0.0, 0.4, 0.8], "log_prob_threshold": 10.0, "best_of": 1}


@pytest.mark.parametrize(
    ("name", "options", "encodes", "strengths"),
    [
        ("tiny.en", {}, 1, [0.5]),
        ("tiny.en", FALLBACK, 1, [0.5] * 3),
        ("tiny.en", {"vad_filter": True}, 1, [0.5]),
        ("tiny.en", {"clip_timestamps": "0,4,4,8"}, 2, [0.5] * 2),
        ("base", {}, 1, [0.0, 0.5]),  # what the language was read from is not encoded again
        ("base", {"steer_language_detection": True}, 2, [0.5] * 2),
        ("base", {"multilingual": True, "language": "en"}, 1, [0.5] * 2),
    ],
)
def test_every_encode_of_transcribe_is_steered_once(
    name: str, options: dict[str, Any], encodes: int, strengths: list[float]
):
    model = steered(name)
    watch = Watch(model)
    segments, _ = model.transcribe(SPEECH, steer_alpha=0.5, **{**QUICK, **options})
    assert list(segments)
    assert (watch.encodes, watch.strengths, watch.raw) == (encodes, strengths, 0)


def test_words_are_aligned_to_the_frames_that_were_decoded():
    model = steered("tiny.en")
    watch = Watch(model)
    options: dict[str, Any] = {**QUICK, "no_speech_threshold": None}
    (first, *_), _ = model.transcribe(SPEECH, steer_alpha=0.5, word_timestamps=True, **options)
    assert first.words
    assert watch.strengths == [0.5] * 2 * watch.encodes
    assert watch.raw == 0


@pytest.mark.parametrize(
    ("name", "options", "encodes", "strengths"),
    [
        ("tiny.en", {}, 1, [0.5]),
        ("tiny.en", {"clip_timestamps": CLIPS, "word_timestamps": True}, 1, [0.5] * 2),
        ("tiny.en", {"clip_timestamps": CLIPS, "batch_size": 1}, 2, [0.5] * 2),
        ("base", {"clip_timestamps": CLIPS, "multilingual": True}, 2, [0.0, 0.5, 0.5]),
        ("base", {"clip_timestamps": CLIPS, "steer_language_detection": True}, 2, [0.5] * 2),
    ],
)
def test_every_encode_of_the_batched_pipeline_is_steered_once(
    name: str, options: dict[str, Any], encodes: int, strengths: list[float]
):
    model = steered(name)
    watch, pipeline = Watch(model), BatchedInferencePipeline(model)
    segments, _ = pipeline.transcribe(SPEECH, steer_alpha=0.5, **{**QUICK, **copy.deepcopy(options)})
    assert list(segments)
    assert (watch.encodes, watch.strengths, watch.raw) == (encodes, strengths, 0)


def test_mel_handed_to_the_model_itself_is_steered_once():
    model = steered("base")
    watch, window = Watch(model), mel()
    prompt = [50258, 50259, 50359, 50363]
    with model.steering(0.5):
        model.model.generate(window, [prompt], beam_size=1, max_length=8)
        model.model.detect_language(window)
        model.model.align(window, prompt[:3], [[440, 3847]], 1000)
    assert (watch.encodes, watch.strengths, watch.raw) == (3, [0.5] * 3, 0)


def test_features_handed_back_in_are_not_steered_again():
    model = steered("base")
    watch = Watch(model)
    with model.steering(0.5):
        encoded = model.model.encode(mel())
        model.model.detect_language(encoded)
        model.model.generate(encoded, [[50258, 50259, 50359, 50363]], beam_size=1, max_length=8)
        model.encode(np.array(mel()))
    assert (watch.encodes, watch.strengths, watch.raw) == (2, [0.5] * 2, 0)


def test_outside_calls_nothing_is_steered():
    model = steered("base")
    expected = np.array(plain("base").model.encode(mel()))
    assert np.array_equal(np.array(model.model.encode(mel())), expected)
    assert model.detect_language(SPEECH) == plain("base").detect_language(SPEECH)
    watch = Watch(model)
    with steered("tiny.en").steering(1.0):
        model.model.detect_language(mel())
    with model.steering(0.0):
        model.model.detect_language(mel())
    assert (watch.encodes, watch.raw) == (0, 2), "CTranslate2 encodes this mel itself, as ever"


# --- lazy segments -------------------------------------------------------------------------------


WINDOWS: dict[str, Any] = {
    **QUICK,
    "max_new_tokens": 6,
    "clip_timestamps": "0,3,3,6,6,9",
    "no_speech_threshold": None,
}


def in_turn(transcripts: list[Iterable[fw.Segment]]) -> list[list[fw.Segment]]:
    """Draw one segment of each, then the next of each."""
    rounds = zip_longest(*transcripts)
    return [[s for s in segments if s is not None] for segments in zip(*rounds, strict=True)]


def test_interleaved_transcripts_are_those_of_each_alone():
    model, alphas = steered("tiny.en"), (1.0, 0.0, 0.5)

    def start(alpha: float) -> Iterable[fw.Segment]:
        return model.transcribe(SPEECH, steer_alpha=alpha, **WINDOWS)[0]

    alone = [list(start(alpha)) for alpha in alphas]
    assert all(len(segments) > 1 for segments in alone)
    assert len({segments[0].avg_logprob for segments in alone}) == 3
    with model.steering(5.0):
        assert in_turn([start(alpha) for alpha in alphas]) == alone


def test_interleaved_batches_are_those_of_each_alone():
    pipeline, alphas = BatchedInferencePipeline(steered("tiny.en")), (1.0, 0.0, 0.5)

    def start(alpha: float) -> Iterable[fw.Segment]:
        options: dict[str, Any] = {**QUICK, "clip_timestamps": CLIPS, "batch_size": 1, "steer_alpha": alpha}
        return pipeline.transcribe(SPEECH, **options)[0]

    alone = [list(start(alpha)) for alpha in alphas]
    assert len({segments[0].avg_logprob for segments in alone}) == 3
    with pipeline.model.steering(5.0):
        assert in_turn([start(alpha) for alpha in alphas]) == alone


def test_a_transcript_closed_early_or_failing_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    model = steered("tiny.en")
    segments, _ = model.transcribe(SPEECH, **WINDOWS)
    next(iter(segments))
    assert inspect.isgenerator(segments)
    segments.close()
    assert current(model.steerer) is None

    segments, _ = model.transcribe(SPEECH, **WINDOWS)
    next(iter(segments))
    watch = Watch(model)
    monkeypatch.setattr(watch, "generate", lambda *_args, **_options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(segments))
    assert watch.encodes == 1
    assert current(model.steerer) is None
    with pytest.raises(TypeError, match="no_such_option"):
        model.transcribe(SPEECH, no_such_option=1)
    assert current(model.steerer) is None


def test_threads_steer_with_their_own_alpha():
    model, alphas = steered("tiny.en"), [0.0, 1.0, 0.5]
    options: dict[str, Any] = {**WINDOWS, "clip_timestamps": "0,3,3,6"}

    def work(alpha: float) -> list[fw.Segment]:
        return list(model.transcribe(SPEECH, steer_alpha=alpha, **options)[0])

    with ThreadPoolExecutor(len(alphas)) as pool:
        together = list(pool.map(work, alphas))
    assert together == [work(alpha) for alpha in alphas]


# --- labels --------------------------------------------------------------------------------------


LABELLED = vector_pack("tiny.en", speech_calibration=(0.5, 0.1), risk_calibration=(-0.3, -0.2, 0.4))


def check_labels(
    segments: Iterable[fw.Segment], audio: NDArray[np.float32], ends: dict[int, int]
) -> set[int]:
    """Label segments again from a plain encode of the window they came from (start: end)."""
    steering, seen = Operator(LABELLED), set[int]()
    for segment in segments:
        assert isinstance(segment, Segment)
        seen.add(segment.seek)
        window = mel(audio, segment.seek, ends[segment.seek])
        frames = torch.from_numpy(np.array(plain("tiny.en").model.encode(window)))
        offset = segment.seek / 100
        scores = steering.scores(frames)[0]
        words = segment.words or []
        expected = label_segment(written_segment(asdict(segment), offset), scores, LABELLED.metadata)
        assert segment.speech_prob == pytest.approx(expected.segment.speech_prob, abs=1e-3)
        assert segment.hallucination_risk == pytest.approx(expected.segment.hallucination_risk, abs=1e-3)
        risks = [word.hallucination_risk for word in words if isinstance(word, Word)]
        assert risks == pytest.approx(expected.word_risks, abs=1e-3)
        assert len(risks) == len(words)
    return seen


@pytest.mark.parametrize("words", [False, True])
def test_labels_are_those_of_the_segments_own_window(words: bool):
    segments, _ = steered("tiny.en", LABELLED).transcribe(
        SPEECH, steer_alpha=0.5, word_timestamps=words, **WINDOWS
    )
    assert len(check_labels(segments, SPEECH, {0: 300, 300: 600, 600: 900})) >= 2


def test_labels_with_vad_belong_to_the_audio_that_was_kept():
    """The same labels as for the kept audio alone; only the times are those of the recording."""
    model = steered("tiny.en", LABELLED)
    chunks = get_speech_timestamps(SPEECH, VadOptions())
    kept = np.concatenate(collect_chunks(SPEECH, chunks)[0])
    assert chunks[0]["start"] > 8000
    found = list(model.transcribe(SPEECH, vad_filter=True, beam_size=1)[0])
    alone = list(model.transcribe(kept, beam_size=1)[0])
    assert check_labels(alone, kept, {0: len(kept) // 160})
    assert ignoring_time(found) == ignoring_time(alone)
    assert found[0].start == pytest.approx(alone[0].start + chunks[0]["start"] / 16000, abs=0.02)


@pytest.mark.parametrize("words", [False, True])
def test_labels_of_a_batch_belong_to_their_row(words: bool):
    pipeline = BatchedInferencePipeline(steered("tiny.en", LABELLED))
    segments = list(
        pipeline.transcribe(
            SPEECH, steer_alpha=0.5, clip_timestamps=copy.deepcopy(CLIPS), word_timestamps=words,
            **QUICK,
        )[0]
    )  # fmt: skip
    for clip in CLIPS:
        start, end = (int(100 * clip[edge]) for edge in ("start", "end"))
        audio = np.concatenate([np.zeros(160 * start, np.float32), SPEECH[160 * start : 160 * end]])
        assert check_labels((s for s in segments if s.seek == start), audio, {start: end})


# --- arguments and errors ------------------------------------------------------------------------

ADDED = {"steer_alpha": 1.0, "steer_language_detection": False, "filter_risk": None}


@pytest.mark.parametrize(
    ("ours", "theirs", "added"),
    [
        (WhisperModel, faster_whisper.WhisperModel, {**ADDED, "skip_gaps": True}),
        (BatchedInferencePipeline, faster_whisper.BatchedInferencePipeline, ADDED),
    ],
)
def test_the_signature_shows_every_argument(ours: Any, theirs: Any, added: dict[str, Any]):
    shown = list(inspect.signature(ours.transcribe).parameters.values())
    expected = list(inspect.signature(theirs.transcribe).parameters.values())
    assert shown[: len(expected)] == expected
    own = shown[len(expected) :]
    assert {p.name: p.default for p in own} == added
    assert all(p.kind is p.KEYWORD_ONLY for p in own)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -1.0, 1e38, "strong", None])
def test_an_alpha_that_is_no_strength_is_refused_at_once(alpha: Any):
    model = steered("tiny.en")
    watch = Watch(model)
    for transcribe in (model.transcribe, BatchedInferencePipeline(model).transcribe):
        with pytest.raises(AlphaError, match="steer_alpha must be a number from 0 to 100"):
            transcribe(SPEECH, steer_alpha=alpha)
    with pytest.raises(AlphaError), model.steering(alpha):
        pass
    assert watch.encodes == watch.raw == 0


@pytest.mark.parametrize(
    "audio",
    ["missing.wav", np.full(16000, np.nan, np.float32), np.zeros((2, 16000), np.float32), np.zeros(0)],
)
def test_bad_audio_is_refused_at_once_and_before_any_encode(audio: Any):
    model = steered("base")
    watch = Watch(model)
    for transcribe in (model.transcribe, BatchedInferencePipeline(model).transcribe):
        with pytest.raises(AudioError):
            transcribe(audio)
    assert watch.encodes == watch.raw == 0


def test_audio_may_be_a_path_a_file_or_an_array():
    model, path = steered("tiny.en"), SAMPLES / "speech.ogg"
    with path.open("rb") as file:
        sources: list[Any] = [str(path), path, file, SPEECH.astype(np.float64)]
        texts = [[s.text for s in model.transcribe(a, **QUICK)[0]] for a in sources]
    assert texts == [texts[0]] * 4


def load(pack: Path | None, compute_type: str = "float32") -> WhisperModel:
    return WhisperModel("tiny.en", "cpu", compute_type=compute_type, cpu_threads=1, pack=pack)


def test_it_takes_an_encoder_output_pack_for_these_weights_only(tmp_path: Path):
    own = saved(vector_pack("tiny.en"), tmp_path)
    model = load(own)
    assert model.steerer is not None
    assert model.steerer.pack.path == own
    with pytest.raises(PackError, match="other weights"):
        load(saved(vector_pack("base"), tmp_path))
    with pytest.raises(PackError, match="no steering pack at"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(PackError) as refused:
        load(saved(vector_pack("tiny.en", tap="block.2"), tmp_path))
    for part in ("block.2", "whisper_sae_steer.load_model", "encoder_output pack"):
        assert part in str(refused.value)


def test_default_compute_type_is_no_warning_and_other_words_are_left(capfd: pytest.CaptureFixture[str]):
    level = ctranslate2.get_log_level()
    model = load(None, "default")
    assert "float16" not in capfd.readouterr().err
    assert ctranslate2.get_log_level() == level
    assert model.model.compute_type == load(None).model.compute_type == "float32"


def test_without_a_pack_it_is_the_plain_model():
    model = load(None)
    assert model.steerer is None
    assert isinstance(model.model, ctranslate2.models.Whisper)
    expected = list(plain("tiny.en").transcribe(SPEECH, **QUICK)[0])
    assert list(model.transcribe(SPEECH, **QUICK)[0]) == expected
    with model.steering(1.0):
        assert list(model.transcribe(SPEECH, **QUICK)[0]) == expected
    pipeline = BatchedInferencePipeline(model)
    assert {type(s) for s in pipeline.transcribe(SPEECH, **QUICK)[0]} == {fw.Segment}


# --- the CTranslate2 object ----------------------------------------------------------------------


def test_the_encoder_stands_in_for_the_models_other_attributes():
    model = steered("base")
    encoder, inner = model.model, plain("base").model
    for name in ("is_multilingual", "n_mels", "device", "device_index", "compute_type", "num_workers"):
        assert getattr(encoder, name) == getattr(inner, name)
    assert model.supported_languages == plain("base").supported_languages
    with pytest.raises(AttributeError):
        _ = encoder.no_such_attribute  # pyright: ignore
    assert copy.copy(encoder).n_mels == 80


@pytest.mark.parametrize("name", sorted(ctranslate2.get_supported_compute_types("cpu")))
def test_every_compute_type_is_steered_once(name: str, tmp_path: Path):
    model = load(saved(vector_pack("tiny.en"), tmp_path), name)
    before = _float32(model.model.encode(mel()))
    with model.steering(0.5):
        after = _float32(model.model.encode(mel()))
        assert list(model.transcribe(SPEECH, **QUICK)[0])
    wanted = before + 0.5 * edit(vector_pack("tiny.en"))
    np.testing.assert_allclose(after, wanted, atol=0.2 if "bfloat16" in name else 1e-3)


def test_bfloat16_frames_are_steered_though_they_have_no_array_interface():
    pack = vector_pack("tiny.en")
    frames = StorageView.from_array(np.random.default_rng(0).normal(size=(2, 9, 384)).astype("f4"))
    narrow = frames.to(DataType.bfloat16)
    steer = Steerer(pack)
    with active(steer, Call(CallOptions(0.5))):
        output: Any = steer_storage(narrow, steer)
        in_place: Any = steer_storage(frames, steer)
        assert in_place.batch.frames is frames
    assert output.dtype == DataType.bfloat16
    np.testing.assert_allclose(_float32(output), np.array(frames), atol=0.03)


def _float32(frames: StorageView) -> NDArray[np.float32]:
    return np.array(frames.to(DataType.float32))


# --- the shipped pack ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["int8", pytest.param("float32", marks=pytest.mark.slow)])
def shipped(request: pytest.FixtureRequest) -> WhisperModel:
    return WhisperModel("base", "cpu", compute_type=request.param, cpu_threads=1)


def test_the_shipped_pack_empties_the_gap_and_keeps_the_speech(shipped: WhisperModel):
    def transcript(alpha: float) -> Any:
        ctranslate2.set_random_seed(0)
        segments, _ = shipped.transcribe(sample("gap"), steer_alpha=alpha)
        return by_gap(vars(segment) for segment in segments)

    steered, unsteered = transcript(1.0), transcript(0.0)
    assert steered.invented == []
    assert steered.spoken == by_gap(truth("gap")["speech"]).spoken
    assert unsteered.invented
    assert unsteered.spoken == steered.spoken


def test_the_shipped_pack_leaves_speech_alone(shipped: WhisperModel):
    segments = list(shipped.transcribe(SPEECH)[0])
    unsteered = list(shipped.transcribe(SPEECH, steer_alpha=0)[0])
    assert [segment.text for segment in segments] == [segment.text for segment in unsteered]
    assert all(isinstance(s, Segment) and s.speech_prob > 0.5 for s in segments)


@pytest.mark.parametrize(
    "options", [{}, {"word_timestamps": True}, {"without_timestamps": True}, {"multilingual": True}]
)
def test_a_gap_inside_a_window_is_skipped(shipped: WhisperModel, options: dict[str, Any]):
    both = one_window()
    segments = list(shipped.transcribe(both.audio, **options)[0])
    assert metrics.normalise(" ".join(s.text for s in segments), "en").split() == both.spoken
    found = [edge for segment in segments for edge in (segment.start, segment.end)]
    np.testing.assert_allclose(found, both.edges, atol=0.7)
    assert all(isinstance(s, Segment) and s.speech_prob > 0.5 for s in segments)


@pytest.mark.parametrize(("options", "windows"), [({}, 1), ({"without_timestamps": True}, 2)])
def test_sentences_far_apart_share_a_window_where_their_times_are_known(
    options: dict[str, Any], windows: int, shipped: WhisperModel, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[int] = []
    encode = shipped.encode
    monkeypatch.setattr(shipped, "encode", lambda mel: (encoded.append(1), encode(mel))[1])
    segments = list(shipped.transcribe(sample("gap"), language="en", **options)[0])
    assert len(encoded) == windows
    assert by_gap(vars(segment) for segment in segments).spoken == by_gap(truth("gap")["speech"]).spoken
    found = [edge for segment in segments for edge in (segment.start, segment.end)]
    true = [span[edge] for span in truth("gap")["speech"] for edge in ("start", "end")]
    np.testing.assert_allclose(found, true, atol=0.7)


def test_the_last_word_is_read_with_its_sentence():
    """tiny.en ends its text before "evening", which by itself both libraries take for noise."""
    model = WhisperModel("tiny.en", compute_type="float32", cpu_threads=1)
    segments = list(model.transcribe(sample("gap"), temperature=0.0)[0])
    assert segments[-1].text.endswith("to the harbor this evening.")
    first, second = truth("gap")["speech"]
    assert [s.end < first["end"] + 1 or s.start > second["start"] - 1 for s in segments] == [True] * len(
        segments
    )


@pytest.mark.parametrize("name", ["base", "tiny.en"])
@pytest.mark.parametrize("pause", [2.5, 4.0, 8.0])
def test_words_by_themselves_before_and_after_a_sentence_are_read(name: str, pause: float):
    """Unsteered, base leaves some of them out or says the sentence twice."""
    model = WhisperModel(name, compute_type="int8", cpu_threads=1)
    segments, _ = model.transcribe(word_around_sentence(pause), language="en")
    heard = " ".join(metrics.normalise("".join(segment.text for segment in segments), "en").split())
    assert heard.startswith("to the station")
    assert "leaves at noon so please bring the 2 blue boxes" in heard
    assert heard.endswith("to the station")
    assert heard.count("station") == 3


def test_a_window_with_speech_that_has_no_text_is_read_part_by_part(monkeypatch: pytest.MonkeyPatch):
    model = WhisperModel("tiny.en", compute_type="int8", cpu_threads=1)
    decode: Any = fw.WhisperModel.generate_with_fallback
    seen: list[float] = []

    def sounds_silent_at_first(*args: Any) -> Any:
        result, logprob, *rest = decode(*args)
        seen.append(logprob)
        if len(seen) == 1:
            return Decoded([[]], 1.0), -2.0, *rest
        return result, logprob, *rest

    monkeypatch.setattr(fw.WhisperModel, "generate_with_fallback", sounds_silent_at_first)
    segments, _ = model.transcribe(word_around_sentence(4.0), language="en")
    heard = " ".join(metrics.normalise("".join(segment.text for segment in segments), "en").split())
    assert len(seen) > 2
    assert heard.startswith("to the station")
    assert heard.endswith("to the station")
    assert heard.count("station") == 3


def test_the_gate_listens_to_a_moment_by_itself(shipped: WhisperModel):
    noise = 0.05 * np.random.default_rng(0).standard_normal(25 * 16_000).astype(np.float32)
    word = sample("speech")[16_000:24_000]
    assert shipped.hears_nobody(noise)
    assert shipped.hears_nobody(noise[:8000])
    for start in (0, 4 * 16_000, len(noise) - len(word)):  # in each of the windows that it listens to
        behind = noise.copy()
        behind[start : start + len(word)] += word
        assert not shipped.hears_nobody(behind)


def test_without_a_gate_nobody_is_passed_over():
    assert not steered("tiny.en").hears_nobody(np.zeros(16_000, np.float32))


def test_gaps_are_left_to_whisper_on_request(shipped: WhisperModel):
    assert shipped.steerer is not None
    audio = one_window().audio

    def times(**options: Any) -> list[tuple[float, float]]:
        return [(s.start, s.end) for s in shipped.transcribe(audio, **options)[0]]

    assert times(skip_gaps=False) == times(steer_alpha=0)
    assert times(skip_gaps=False) != times()


def test_speech_after_a_gap_is_read_where_the_library_skips_silence():
    """The segment that holds the seek is no hallucination, after which all would be left out."""
    sentence = SPEECH[16_000 : round(7.45 * 16_000)]
    end = sentence[-round(1.9 * 16_000) :]
    audio = np.zeros(round(28.8 * 16_000) + len(end), np.float32)
    audio[: len(sentence)], audio[-len(end) :] = sentence, end
    model = WhisperModel("tiny.en", compute_type="int8", cpu_threads=1)
    options: dict[str, Any] = {"word_timestamps": True, "hallucination_silence_threshold": 3}
    segments, _ = model.transcribe(audio, temperature=0.0, **options)
    heard = metrics.normalise(" ".join(segment.text for segment in segments), "en").split()
    assert [heard.count(word) for word in ("train", "boxes", "doors")] == [1, 1, 2]


def test_silence_does_not_choose_the_language():
    """Steered silence looks like some language, and speech after it was then read as that."""
    model = WhisperModel("base", compute_type="int8", cpu_threads=1)
    silence = np.zeros(5 * 16_000, np.float32)
    window = model.feature_extractor(silence)[:, :-1]  # transcribe leaves the last frame out
    assert model.transcribe(silence)[1].all_language_probs == model.detect_language(features=window)[2]


@pytest.mark.parametrize("segments", [1, 2])
def test_the_language_is_that_of_the_first_speech(segments: int):
    model = WhisperModel("base", compute_type="int8", cpu_threads=1)
    faint = 1e-3 * np.random.default_rng(0).standard_normal(40 * 16_000).astype(np.float32)
    late = np.concatenate([faint, SPEECH])
    _, steered = model.transcribe(late, language_detection_segments=segments)
    assert (steered.language, steered.language_probability > 0.9) == ("en", True)
    _, unsteered = model.transcribe(late, steer_alpha=0)
    assert unsteered.language_probability < 0.5
    # nobody speaks: as in the plain library
    window = faint[: 30 * 16_000]
    (_, unsteered), (_, steered) = (model.transcribe(window, steer_alpha=alpha) for alpha in (0.0, 1.0))
    assert steered.all_language_probs == unsteered.all_language_probs


def test_the_batched_pipeline_yields_nothing_for_silent_chunks():
    """They were empty subtitles; of the second chunk everything stays, numbered from 1."""
    pipeline = BatchedInferencePipeline(WhisperModel("tiny.en", compute_type="int8", cpu_threads=1))
    silence = np.zeros(8 * 16_000, np.float32)
    audio, seconds = np.concatenate([silence, SPEECH]), len(SPEECH) / 16_000
    clips = [{"start": 0, "end": 8.0}, {"start": 8.0, "end": 8.0 + seconds}]
    segments = list(pipeline.transcribe(audio, clip_timestamps=clips)[0])
    assert [segment.id for segment in segments] == [1]
    assert metrics.normalise(segments[0].text, "en") == metrics.normalise(
        truth("speech")["speech"][0]["text"], "en"
    )
    assert not list(pipeline.transcribe(silence, clip_timestamps=clips[:1])[0])


def test_a_pipeline_needs_a_model_that_steers():
    plain = faster_whisper.WhisperModel(str(weights("tiny.en").ct2_dir), compute_type="int8", cpu_threads=1)
    with pytest.raises(AttachError, match="attach"):
        BatchedInferencePipeline(plain).transcribe(SPEECH)


@pytest.mark.parametrize("name", ["speech", "gap"])
def test_the_recording_is_let_go_before_it_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch):
    """An hour of it is 230 MB; its log mel is all that segments are made from."""
    held: list[weakref.ref[NDArray[np.float32]]] = []

    def load(source: Any) -> NDArray[np.float32]:
        samples = load_audio(source)
        held.append(weakref.ref(samples))
        return samples

    monkeypatch.setattr(faster, "load_audio", load)
    segments, _ = steered("tiny.en").transcribe(str(SAMPLES / f"{name}.ogg"), language="en")
    assert held[0]() is None
    assert next(iter(segments)).text


@pytest.mark.parametrize("words", [False, True])
def test_what_filter_risk_leaves_out_is_in_the_info(words: bool):
    model = steered("tiny.en")
    options: dict[str, Any] = {"language": "en", "word_timestamps": words}
    everything = list(model.transcribe(SPEECH, **options)[0])
    risks = [s.hallucination_risk for s in everything if isinstance(s, Segment)]
    if words:
        risks = [w.hallucination_risk for s in everything for w in s.words or () if isinstance(w, Word)]
    segments, info = model.transcribe(SPEECH, filter_risk=max(risks), **options)
    kept = list(segments)
    assert isinstance(info, TranscriptionInfo)
    assert info.filtered
    if words:
        texts = ["".join(w.word for s in some for w in s.words or ()) for some in (kept, info.filtered)]
        assert sorted("".join(texts).split()) == sorted("".join(s.text for s in everything).split())
    segments, info = model.transcribe(SPEECH, filter_risk=1.0, **options)
    assert list(segments) == everything
    assert isinstance(info, TranscriptionInfo)
    assert not info.filtered
    batched, info = BatchedInferencePipeline(model).transcribe(SPEECH, filter_risk=1e-9, language="en")
    assert not list(batched)
    assert isinstance(info, TranscriptionInfo)
    assert info.filtered


def test_filter_risk_needs_steering():
    with pytest.raises(RiskError, match="filter_risk"):
        steered("tiny.en").transcribe(SPEECH, filter_risk=0.9, steer_alpha=0)
