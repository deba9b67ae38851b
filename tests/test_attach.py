"""Attaching to live models of every library: steered while attached, untouched before and after."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import faster_whisper
import numpy as np
import pytest
import torch
import whisper
from numpy.typing import NDArray
from whisper.tokenizer import get_tokenizer

from tests.support.hub_whisper import hub_whisper
from tests.support.real_models import edit, sample, saved, truth, vector_pack, weights
from whisper_sae_steer import attach, load_model
from whisper_sae_steer.errors import AlphaError, AttachError, PackError
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.pack import read_pack, save_pack, shipped_packs

Audio = NDArray[np.float32]
SPEECH = sample("speech")
TIME = np.arange(8 * 16_000) / 16_000
BEEPS: Audio = (0.3 * np.sin(2 * np.pi * 500 * TIME) * (TIME % 0.25 < 0.12)).astype("f4")
SPOKEN = metrics.normalise(truth("speech")["speech"][0]["text"], "en").strip()
LOOSE: dict[str, Any] = {"temperature": 0.0, "no_speech_threshold": None, "beam_size": 5}
"""options at which the unsteered model writes text for the beeps"""


class Kind(NamedTuple):
    """A library: a model of its own, and how its users get text."""

    make: Callable[[], Any]
    text: Callable[[Any, Audio], str]


def plain_faster() -> faster_whisper.WhisperModel:
    folder = str(weights("tiny.en").ct2_dir)
    return faster_whisper.WhisperModel(folder, compute_type="int8", cpu_threads=1)


def of_segments(found: tuple[Any, Any]) -> str:
    return " ".join(segment.text for segment in found[0])


def batched_text(pipeline: Any, audio: Audio) -> str:
    whole = [{"start": 0, "end": len(audio) / 16_000}]
    return of_segments(pipeline.transcribe(audio, clip_timestamps=whole, beam_size=5, temperature=0.0))


def hub_text(model: Any, audio: Audio, **options: Any) -> str:
    tokenizer = get_tokenizer(False)
    mel = torch.from_numpy(ENCODER.mel(audio))[None]
    ids = model.generate(mel, **{"num_beams": 3, **options})[0].tolist()
    return tokenizer.decode([token for token in ids if token < tokenizer.eot])


def hub_static(model: Any, audio: Audio) -> str:
    return hub_text(model, audio, cache_implementation="static", num_beams=1)


ENCODER = WindowEncoder(weights("tiny.en"), threads=1)
KINDS = {
    "openai": Kind(
        lambda: load_torch(weights("tiny.en")),
        lambda model, audio: model.transcribe(audio, fp16=False, **LOOSE)["text"],
    ),
    "openai's function": Kind(
        lambda: load_torch(weights("tiny.en")),
        lambda model, audio: str(whisper.transcribe(model, audio, fp16=False, **LOOSE)["text"]),
    ),
    "faster": Kind(plain_faster, lambda model, audio: of_segments(model.transcribe(audio, **LOOSE))),
    "batched": Kind(lambda: faster_whisper.BatchedInferencePipeline(plain_faster()), batched_text),
    "transformers": Kind(lambda: hub_whisper("tiny.en"), hub_text),
    "transformers, static cache": Kind(lambda: hub_whisper("tiny.en"), hub_static),
    "transformers, eager": Kind(lambda: hub_whisper("tiny.en", "eager"), hub_text),
}


def words(text: str) -> str:
    return metrics.normalise(text, "en").strip()


@pytest.mark.parametrize("kind", KINDS)
def test_attached_models_write_nothing_for_noise_and_the_same_for_speech(kind: str):
    make, text = KINDS[kind]
    model = make()
    before = text(model, BEEPS)
    assert words(before)
    assert words(text(model, SPEECH)) == SPOKEN
    kept, cls = dict(vars(model)), type(model)
    with attach(model) as handle:
        assert not words(text(model, BEEPS))
        assert words(text(model, SPEECH)) == SPOKEN
        windows, steered = handle.stats()
        assert steered < windows
        assert steered or kind == "faster"  # whose speech map passes over the beeps
        handle.alpha = 0
        assert text(model, BEEPS) == before
        assert handle.stats().windows == windows
    assert text(model, BEEPS) == before
    assert type(model) is cls
    assert vars(model).keys() == kept.keys()
    assert all(vars(model)[name] is value for name, value in kept.items() if "cache" not in name)
    handle.detach()


def test_an_attached_model_does_what_ours_does():
    attached, ours = plain_faster(), WhisperModel("tiny.en", compute_type="int8", cpu_threads=1)
    with attach(attached, alpha=0.7):
        theirs = [vars(segment) for segment in attached.transcribe(sample("gap"))[0]]
    wanted = [vars(segment) for segment in ours.transcribe(sample("gap"), steer_alpha=0.7)[0]]
    assert theirs == wanted
    assert "hallucination_risk" in theirs[0]


def test_a_handle_tells_model_pack_and_alpha():
    handle = attach(plain_faster(), alpha=0.5)
    shown = repr(handle)
    for part in ("faster_whisper.transcribe.WhisperModel", str(shipped_packs()["tiny.en"]), "alpha=0.5"):
        assert part in shown
    handle.detach()
    assert "detached" in repr(handle)


def test_attaching_again_changes_pack_and_alpha_and_steers_once():
    model, twice = plain_faster(), plain_faster()
    first = attach(model, alpha=0.5)
    second = attach(model, shipped_packs()["tiny.en"], alpha=1.0)
    assert second.alpha == 1.0
    first.detach()  # of no effect: the second holds the model
    attach(twice)
    options: Any = {"steer_alpha": 0.5, **LOOSE}
    assert of_segments(model.transcribe(BEEPS, **options)) == of_segments(twice.transcribe(BEEPS, **options))
    second.detach()
    assert type(model) is faster_whisper.WhisperModel


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("kind", ["openai", "transformers"])
def test_copies_and_pickles_stay_attached_and_are_detached_alone(kind: str, copied: Callable[[Any], Any]):
    make, text = KINDS[kind]
    model = make()
    before = text(model, BEEPS)
    handle = attach(model)
    twin = copied(model)
    assert not words(text(twin, BEEPS))
    attach(twin, alpha=0.0)
    assert text(twin, BEEPS) == before
    assert not words(text(model, BEEPS))
    handle.detach()
    assert text(model, BEEPS) == before


def test_threads_share_an_attached_model():
    model = plain_faster()
    alone = {name: of_segments(model.transcribe(audio, **LOOSE)) for name, audio in AUDIO.items()}
    with attach(model), ThreadPoolExecutor(4) as pool:
        texts = list(
            pool.map(lambda audio: of_segments(model.transcribe(audio, **LOOSE)), [*AUDIO.values()] * 3)
        )
    assert words(alone["beeps"])
    assert texts == [alone["speech"], "", alone["speech"], "", alone["speech"], ""]


AUDIO = {"speech": SPEECH, "beeps": BEEPS}


def test_a_pipeline_around_a_model_is_attached_through_it():
    """As whisperX's and transformers' pipelines, which hold a model as ``model``."""
    pipeline = SimpleNamespace(model=plain_faster())
    with attach(pipeline):
        assert not words(of_segments(pipeline.model.transcribe(BEEPS, **LOOSE)))
    assert words(of_segments(pipeline.model.transcribe(BEEPS, **LOOSE)))


def test_a_pipeline_and_its_model_are_detached_together():
    pipeline = faster_whisper.BatchedInferencePipeline(plain_faster())
    outer = attach(pipeline)
    outer.inner.detach()  # pyright: ignore[reportOptionalMemberAccess]
    assert type(pipeline) is faster_whisper.BatchedInferencePipeline
    assert type(pipeline.model) is faster_whisper.WhisperModel
    outer.detach()
    assert words(batched_text(pipeline, BEEPS))


class Subclass(faster_whisper.WhisperModel):
    """A library's own model, as whisperX has."""


def test_a_subclass_keeps_its_class_and_is_steered_where_it_encodes():
    model = Subclass(str(weights("tiny.en").ct2_dir), compute_type="int8", cpu_threads=1)
    with attach(model):
        assert type(model) is Subclass
        assert not words(of_segments(model.transcribe(BEEPS, **LOOSE)))
        assert words(of_segments(model.transcribe(SPEECH, **LOOSE))) == SPOKEN


def test_what_cannot_be_attached_is_refused(tmp_path: Path):
    with pytest.raises(AttachError, match=r"types.SimpleNamespace is no Whisper model"):
        attach(SimpleNamespace())
    for ours in (load_model("tiny.en"), WhisperModel("tiny.en", compute_type="int8")):
        with pytest.raises(AttachError, match="steers already"):
            attach(ours)
    for alpha in (float("nan"), -1.0, 1e38):
        with pytest.raises(AlphaError):
            attach(plain_faster(), alpha=alpha)
    for model in (plain_faster(), load_torch(weights("tiny.en")), hub_whisper("tiny.en")):
        kept = dict(vars(model))
        with pytest.raises(PackError, match=r"other weights \(base\)"):
            attach(model, shipped_packs()["base"])
        assert vars(model).keys() == kept.keys()
    other = load_torch(weights("tiny.en"))
    with torch.no_grad():
        other.encoder.ln_post.bias.add_(1)
    with pytest.raises(
        PackError, match=r"no pack for this model's weights is shipped or installed.*make-pack"
    ):
        attach(other)
    pack = read_pack(shipped_packs()["tiny.en"])
    save_pack(pack._replace(probe=None), tmp_path / "old.safetensors")
    with pytest.raises(PackError):
        attach(plain_faster(), tmp_path / "old.safetensors")


def test_a_pack_that_edits_inside_the_encoder(tmp_path: Path):
    """torch models steer there, each library as the other; CTranslate2's say what to use."""
    pack = vector_pack("tiny.en", tap="block.1")
    path, mel = saved(pack, tmp_path), torch.from_numpy(ENCODER.mel(SPEECH))[None]
    reference = load_torch(weights("tiny.en"))

    def half_of_the_edit(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output + 0.5 * torch.from_numpy(edit(pack))

    with torch.no_grad():
        plain = reference.encoder(mel)
        reference.encoder.get_submodule("blocks.1").register_forward_hook(half_of_the_edit)
        expected = reference.encoder(mel)
        assert not torch.allclose(plain, expected, atol=0.1)
        for model, encode in (
            (load_torch(weights("tiny.en")), lambda m: m.encoder(mel)),
            (hub_whisper("tiny.en"), lambda m: m.get_encoder()(mel).last_hidden_state),
        ):
            with attach(model, path, alpha=0.5):
                torch.testing.assert_close(encode(model), expected, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(encode(model), plain, rtol=1e-3, atol=1e-3)
    with pytest.raises(PackError, match=r"block\.1, which CTranslate2 doesn't give out; use a torch model"):
        attach(plain_faster(), path)


@pytest.mark.parametrize("name", sorted(shipped_packs()))
def test_shipped_packs_hold_the_probe_of_their_weights(name: str):
    probe = read_pack(shipped_packs()[name]).probe
    assert probe is not None
    torch.testing.assert_close(probe, WindowEncoder(weights(name), threads=1).probe(), rtol=1e-4, atol=1e-4)


def test_a_caller_without_a_no_speech_rule_gets_whispers_own():
    """As whisperX: a batch without timestamps, of which only tokens and scores are asked."""
    model = plain_faster()
    features = np.stack([ENCODER.mel(audio) for audio in (SPEECH, BEEPS)])
    prompt = [model.hf_tokenizer.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "notimestamps")]

    def texts() -> list[str]:
        results = model.model.generate(model.encode(features), [prompt] * 2, beam_size=5, return_scores=True)
        assert all(len(result.scores) == 1 for result in results)
        return [model.hf_tokenizer.decode(result.sequences_ids[0]).strip() for result in results]

    unsteered = texts()
    assert unsteered[1]
    with attach(model):
        assert texts() == [unsteered[0], ""]


def test_a_model_detached_in_the_middle_goes_on_unsteered():
    model = plain_faster()
    clips: dict[str, Any] = {"clip_timestamps": "0,4,4,8", "temperature": 0.0}
    handle = attach(model)
    segments = iter(model.transcribe(SPEECH, **clips)[0])
    first = next(segments)
    handle.detach()
    rest = list(segments)
    assert hasattr(first, "speech_prob")
    assert rest
    assert not any(hasattr(segment, "speech_prob") for segment in rest)
    assert [s.text for s in (first, *rest)] == [s.text for s in model.transcribe(SPEECH, **clips)[0]]


def test_decode_takes_an_alpha_of_its_own():
    model = load_torch(weights("tiny.en"))
    mel = torch.from_numpy(ENCODER.mel(BEEPS))
    options = whisper.DecodingOptions(fp16=False, language="en", beam_size=5)
    plain = model.decode(mel, options)
    with attach(model):
        steered = model.decode(mel, options)
        own: Any = model.decode(mel, options, steer_alpha=0)  # pyright: ignore[reportCallIssue]
    assert isinstance(plain, whisper.DecodingResult)
    assert isinstance(steered, whisper.DecodingResult)
    assert own.text == plain.text != steered.text
