"""What names a model, whatever file its weights are in."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from whisper.model import Whisper

from tests.support.real_models import weights as real_weights
from tests.support.small_whisper import save_checkpoint, small_whisper
from whisper_sae_steer.export.writers import to_transformers
from whisper_sae_steer.models import convert, weights
from whisper_sae_steer.models.layout import layout
from whisper_sae_steer.models.marks import Marks, fingerprint, marks
from whisper_sae_steer.models.model_bin import read_stored
from whisper_sae_steer.models.weights import resolve


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))


Made = Callable[[Whisper, str | None], Marks]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Marks of a model converted to CTranslate2."""

    def of(model: Whisper, quantization: str | None = None) -> Marks:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        return marks(read_stored(convert.openai_to_ct2(model, folder, quantization)))

    return of


# --- fingerprints


def test_fingerprint_is_the_models_not_the_formats(own_cache: None, tmp_path: Path) -> None:
    model = small_whisper()
    expected = fingerprint(model.state_dict())
    assert len(expected) == 32
    assert fingerprint(model.float().state_dict()) == expected
    for quantization in ("float32", "float16", "int8", "int8_float16", "int16"):
        folder = convert.openai_to_ct2(model, tmp_path / quantization, quantization)
        assert resolve(folder).fingerprint == expected
        assert fingerprint(convert.load_torch(folder).state_dict()) == expected
    found = [real_weights(name) for name in ("base", "tiny.en")]
    for each in found:
        assert fingerprint(convert.load_torch(each).state_dict()) == each.fingerprint
    assert len({expected, *(each.fingerprint for each in found)}) == 3


@pytest.mark.parametrize("name", ["blocks.1.attn.query.bias", "ln_post.weight", "conv1.bias"])
def test_fingerprint_covers(name: str) -> None:
    state = small_whisper().state_dict()
    before = fingerprint(state)
    changed = {**state, f"encoder.{name}": state[f"encoder.{name}"] * 1.01}
    assert fingerprint(changed) != before
    decoder = {k: torch.zeros_like(v) if k.startswith("decoder") else v for k, v in state.items()}
    assert fingerprint(decoder) == before


def test_fingerprint_of_the_decoder_is_known_of_quantised_files_too(own_cache: None, tmp_path: Path) -> None:
    model = small_whisper()
    expected = fingerprint(model.state_dict(), "decoder")
    for quantization in ("float32", "int8"):
        folder = convert.openai_to_ct2(model, tmp_path / quantization, quantization)
        assert resolve(folder).decoder_fingerprint == expected
    state = model.state_dict()
    encoder = {k: torch.zeros_like(v) if k.startswith("encoder") else v for k, v in state.items()}
    assert fingerprint(encoder, "decoder") == expected
    changed = {**state, "decoder.ln.weight": state["decoder.ln.weight"] * 1.01}
    assert fingerprint(changed, "decoder") != expected


# --- marks


def expected(model: Whisper) -> list[str]:
    """Marks from a state dict: float16 bytes in network order, zeros for the keys' biases."""
    state = model.state_dict()
    digests = {"encoder": hashlib.sha256(), "decoder": hashlib.sha256()}
    for entry in layout(model.dims.n_audio_layer, model.dims.n_text_layer):
        for name in entry.openai:
            if name == "encoder.positional_embedding":
                data = str(tuple(state[name].shape)).encode()
            elif name.endswith(".key.bias"):
                data = bytes(2 * model.dims.n_audio_state)
            else:
                data = state[name].half().numpy().tobytes()
            digests[name[:7]].update(data)
    return [digest.hexdigest()[:32] for digest in digests.values()]


@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_marks_of_real_weights(name: str) -> None:
    found = real_weights(name)
    assert [found.encoder_mark, found.decoder_mark] == expected(convert.load_torch(found))


def test_marks_are_the_models_not_the_formats(own_cache: None, tmp_path: Path) -> None:
    model = small_whisper().float()
    to_transformers(model).save_pretrained(tmp_path / "transformers32")
    to_transformers(model).half().save_pretrained(tmp_path / "transformers16")
    forms = [
        tmp_path / "transformers32",
        tmp_path / "transformers16",
        save_checkpoint(model, tmp_path / "single.pt"),
        save_checkpoint(small_whisper(), tmp_path / "half.pt"),
        convert.openai_to_ct2(model, tmp_path / "ct32", "float32"),
        convert.openai_to_ct2(model, tmp_path / "ct16", "float16"),
    ]
    found = [resolve(form) for form in forms]
    assert {(each.encoder_mark, each.decoder_mark) for each in found} == {tuple(expected(model))}
    assert [each.given for each in found] == list(map(str, forms))


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("encoder.blocks.1.mlp.0.weight", 0),
        ("encoder.conv2.weight", 0),
        ("encoder.blocks.0.attn.key.weight", 0),
        ("encoder.ln_post.bias", 0),
        ("decoder.token_embedding.weight", 1),
        ("decoder.positional_embedding", 1),
        ("decoder.blocks.1.cross_attn.value.weight", 1),
        ("decoder.ln.weight", 1),
        ("encoder.positional_embedding", None),
    ],
)
def test_marks_cover_each_half(made: Made, name: str, half: int | None) -> None:
    model = small_whisper()
    before = made(model, None)
    tensor = model.state_dict()[name]
    tensor.view(-1)[-1] += 0.01
    after = made(model, None)
    changed = [i for i in (0, 1) if before[i] != after[i]]
    assert changed == ([] if half is None else [half])


@pytest.mark.parametrize("quantization", ["int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16"])
def test_integers_have_no_marks(made: Made, quantization: str) -> None:
    assert made(small_whisper(), quantization) == (None, None)


def test_bfloat16_agrees_with_its_own_copies_only(made: Made) -> None:
    original = small_whisper().float()
    rounded = small_whisper().bfloat16()
    found = made(rounded, "bfloat16")
    assert None not in found
    assert made(rounded, "float32") == made(rounded, "float16") == found
    assert made(original, "bfloat16") == found
    assert not set(made(original, "float32")) & set(found)


def test_bfloat16_for_some_has_no_marks(made: Made) -> None:
    model = small_whisper().float()
    model.decoder.bfloat16()
    assert made(model, None) == (None, None)


def test_an_output_projection_of_its_own_counts(tmp_path: Path) -> None:
    stored = read_stored(convert.openai_to_ct2(small_whisper(), tmp_path / "m"))
    tied = marks(stored)
    name = "decoder/projection/weight"
    copy = stored[name].numpy().copy()
    assert marks(stored | {name: stored[name]._replace(raw=memoryview(copy.tobytes()))}) == tied
    copy[3, 5] += np.float16(1)
    untied = marks(stored | {name: stored[name]._replace(raw=memoryview(copy.tobytes()))})
    assert (untied.encoder == tied.encoder, untied.decoder == tied.decoder) == (True, False)


def test_marks_are_remembered(own_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers' too, which are none."""
    folders = [convert.openai_to_ct2(small_whisper(), tmp_path / kind, kind) for kind in ("float16", "int8")]
    before = [resolve(folder) for folder in folders]

    def refuse(*_: object) -> Marks:
        raise AssertionError("read again")

    monkeypatch.setattr(weights, "marks", refuse)
    assert [resolve(folder) for folder in folders] == before
