"""Whisper as transformers saves it: read without transformers, and the same model."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from whisper.model import Whisper

from tests.support.hub_whisper import hub_whisper
from tests.support.real_models import sample
from tests.support.real_models import weights as real_weights
from tests.support.small_whisper import small_whisper
from whisper_sae_steer import faster, load_model
from whisper_sae_steer.errors import WeightsError
from whisper_sae_steer.export.writers import to_transformers
from whisper_sae_steer.models import convert
from whisper_sae_steer.models.from_transformers import read_transformers, weight_files
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.steering.pack import load_pack, shipped_packs

NAME = "tiny.en"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """tiny.en as transformers writes it: in one file, in shards, in half the bits, pickled."""
    root = tmp_path_factory.mktemp("real")
    model = hub_whisper(NAME)
    model.save_pretrained(root / "single")
    model.save_pretrained(root / "sharded", max_shard_size="20MB")
    model.half().save_pretrained(root / "half", max_shard_size="20MB")
    pickled(root / "single", root / "pickled")
    hub_whisper(NAME).bfloat16().save_pretrained(root / "bfloat16")
    return {path.name: path for path in root.iterdir()}


def pickled(source: Path, target: Path) -> None:
    """As before safetensors; the output projection is saved, too."""
    target.mkdir()
    for name in ("config.json", "generation_config.json"):
        (target / name).write_bytes((source / name).read_bytes())
    state = load_file(source / "model.safetensors")
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    torch.save(state, target / "pytorch_model.bin")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "small"
    to_transformers(small_whisper()).half().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """A small folder to damage."""
    for file in small.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        resolve(folder)
    assert "\n" not in str(caught.value)


# --- real weights


@pytest.mark.parametrize("form", ["single", "sharded", "half", "pickled"])
def test_the_same_model_in_every_file(real: dict[str, Path], form: str) -> None:
    if form in ("sharded", "half"):
        assert len(weight_files(real[form])) > 2
    found, original = resolve(real[form]), real_weights(NAME)
    for fact in ("fingerprint", "encoder_mark", "decoder_mark"):
        assert getattr(found, fact) == getattr(original, fact), fact
    assert found.source == f"transformers folder {real[form]}"
    ours, theirs = convert.load_torch(found), convert.load_torch(original)
    assert ours.dims == theirs.dims
    state = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    heads = [model.get_buffer("alignment_heads").to_dense() for model in (ours, theirs)]
    assert torch.equal(*heads)
    assert load_pack("auto", found).path == shipped_packs()[NAME]


def torch_text(model: str, pack: str | None = "auto") -> str:
    return load_model(model, device="cpu", pack=pack).transcribe(sample("speech"), language="en")["text"]


def faster_segments(model: str) -> list[tuple[str, float, float]]:
    loaded = faster.WhisperModel(model, device="cpu", compute_type="float32", cpu_threads=1)
    segments = loaded.transcribe(sample("speech"), language="en")[0]
    return [(segment.text, segment.start, segment.end) for segment in segments]


def test_it_is_transcribed_as_the_original_is(real: dict[str, Path]) -> None:
    folder = str(real["sharded"])
    assert faster_segments(folder) == faster_segments(NAME) != []
    assert torch_text(folder) == torch_text(NAME) != ""


def test_bfloat16(real: dict[str, Path]) -> None:
    """Its values, to the last bit; its own model, since its biases are rounded."""
    found, original = resolve(real["bfloat16"]), real_weights(NAME)
    assert found.fingerprint != original.fingerprint
    assert None not in (found.encoder_mark, found.decoder_mark)
    state = convert.load_torch(found).state_dict()
    for name, tensor in convert.load_torch(original).state_dict().items():
        assert torch.equal(state[name], tensor.bfloat16().float()), name
    plain = faster.WhisperModel(str(real["bfloat16"]), device="cpu", cpu_threads=1, pack=None)
    texts = [segment.text for segment in plain.transcribe(sample("speech"), language="en")[0]]
    assert texts == [text for text, *_ in faster_segments(NAME)]
    assert torch_text(str(real["bfloat16"]), pack=None) == "".join(texts)


def test_transformers_is_not_needed(small: Path) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from whisper_sae_steer.models.from_transformers import read_transformers\n"
        f"from pathlib import Path; print(read_transformers(Path({str(small)!r})).dims.n_mels)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["80"]


# --- other sizes


@pytest.mark.parametrize(("n_vocab", "n_mels"), [(51864, 80), (51865, 80), (51866, 128)])
def test_languages_and_mels(tmp_path: Path, n_vocab: int, n_mels: int) -> None:
    to_transformers(small_whisper(n_vocab, n_mels)).half().save_pretrained(tmp_path / "m")
    model = faster.WhisperModel(str(tmp_path / "m"), compute_type="float32", cpu_threads=1, pack=None)
    assert model.feature_extractor.mel_filters.shape[0] == n_mels
    assert model.model.is_multilingual == (n_vocab > 51864)
    assert model.hf_tokenizer.token_to_id("<|yue|>") == (50358 if n_vocab == 51866 else None)
    assert model.hf_tokenizer.token_to_id("<|30.00|>") == n_vocab - 1


def test_distilled_decoder_with_its_teachers_alignment_heads(tmp_path: Path) -> None:
    dims = small_whisper().dims
    dims.n_text_layer, dims.n_audio_layer = 2, 5
    model = Whisper(dims).half()
    to_transformers(model).half().save_pretrained(tmp_path / "m")
    edited(tmp_path / "m/generation_config.json", alignment_heads=[[1, 0], [7, 0], [10, 17]])
    found = resolve(tmp_path / "m")
    made = convert.load_torch(found)
    assert (made.dims.n_audio_layer, made.dims.n_text_layer) == (5, 2)
    assert made.get_buffer("alignment_heads").to_dense().tolist() == [[False, False], [True, False]]
    assert json.loads((found.ct2_dir / "config.json").read_text())["alignment_heads"] == [[1, 0]]


def test_own_tokenizer_is_kept(copy: Path) -> None:
    (copy / "tokenizer.json").write_text('{"mine": 1}')
    assert (resolve(copy).ct2_dir / "tokenizer.json").read_text() == '{"mine": 1}'


def test_without_generation_settings_or_the_outer_name(copy: Path) -> None:
    """As `WhisperModel` is saved, and by older versions."""
    before = resolve(copy)
    (copy / "generation_config.json").unlink()
    state = load_file(copy / "model.safetensors")
    save_file({k.removeprefix("model."): v for k, v in state.items()}, copy / "model.safetensors")
    after = resolve(copy)
    assert (after.encoder_mark, after.decoder_mark) == (before.encoder_mark, before.decoder_mark)
    assert after.ct2_dir != before.ct2_dir


def test_converted_once(copy: Path) -> None:
    found = resolve(copy)
    written = (found.ct2_dir / "model.bin").stat().st_mtime_ns
    assert resolve(copy) == found
    assert (found.ct2_dir / "model.bin").stat().st_mtime_ns == written


# --- what can't be used


def test_missing_and_damaged_files(copy: Path) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:-100])
    refused(copy, r"model\.safetensors is truncated.*get it again")
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(copy, "a Git LFS pointer")
    (copy / "model.safetensors").unlink()
    refused(copy, r"holds no weights \(found config\.json, generation_config\.json\).*give a folder with")
    (copy / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    )
    refused(copy, r"lacks model-00001-of-00002\.safetensors")
    (copy / "model.safetensors.index.json").write_text("[]")
    refused(copy, "is no configuration")
    (copy / "model.safetensors").write_bytes(whole)
    (copy / "config.json").write_text("{")
    refused(copy, r"config\.json can't be read")
    (copy / "config.json").unlink()
    refused(copy, r"lacks config\.json")


def test_pickled_code_is_not_run(copy: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (copy / "exploded",))

    (copy / "model.safetensors").unlink()
    torch.save({"a": Bomb()}, copy / "pytorch_model.bin")
    refused(copy, r"pytorch_model\.bin is truncated")
    assert not (copy / "exploded").exists()


def test_other_models(copy: Path) -> None:
    config = (copy / "config.json").read_text()
    edited(copy / "config.json", model_type="bert")
    refused(copy, r"holds bert, not Whisper \(config\.json\)")
    (copy / "config.json").write_text("{}")
    refused(copy, "holds an unnamed architecture, not Whisper")
    for change, message in (
        ({"decoder_layers": 3}, r"lacks model\.decoder\.layers\.2\.self_attn"),
        ({"d_model": 32}, "weights and config.json don't fit: .*size mismatch"),
        ({"d_model": "wide"}, "weights and config.json don't fit"),
    ):
        (copy / "config.json").write_text(config)
        edited(copy / "config.json", **change)
        refused(copy, message)
    (copy / "config.json").write_text("{" + config.strip()[1:].replace('"d_model"', '"d_mädel"'))
    refused(copy, "lacks d_model")


def test_weights_that_openai_whisper_cannot_hold(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    save_file(
        state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"] + 1},
        copy / "model.safetensors",
    )
    refused(copy, "output projection is not its token embedding")
    name = "model.encoder.layers.0.fc1.weight"
    save_file(state | {name: state[name].to(torch.int8)}, copy / "model.safetensors")
    refused(copy, "holds int8 weights; save the model as float16 or float32")
    del state[name]
    save_file(state, copy / "model.safetensors")
    refused(copy, r"lacks model\.encoder\.layers\.0\.fc1\.weight")


def test_more_tokens_than_whisper(tmp_path: Path) -> None:
    model = to_transformers(small_whisper()).half()
    model.resize_token_embeddings(51870)
    model.save_pretrained(tmp_path / "m")
    refused(tmp_path / "m", "no Whisper tokenizer has 51870 tokens")


def test_nothing_else_is_read(small: Path) -> None:
    """Weights of other programs and precisions may lie beside."""
    (small / "model.fp32-00001-of-00002.safetensors").touch()
    (small / "flax_model.msgpack").touch()
    assert read_transformers(small).dims == small_whisper().dims
