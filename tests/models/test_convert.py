import json
import struct
from pathlib import Path

import ctranslate2
import faster_whisper
import numpy as np
import pytest
import tokenizers
import torch
import whisper
from whisper.model import Whisper

from tests.support.small_whisper import save_checkpoint, small_whisper, voice_like
from whisper_sae_steer.errors import WeightsError
from whisper_sae_steer.models import convert, vocabulary
from whisper_sae_steer.models.layout import layout
from whisper_sae_steer.models.marks import fingerprint
from whisper_sae_steer.models.model_bin import read_stored
from whisper_sae_steer.models.weights import Weights, resolve

NAMES = ["base", "tiny.en"]
SAMPLES = [
    "Thank you for watching!",
    " It's 3.14 o'clock,   isn't it?\n\tWe'll see (maybe) -- [Music] ♪♪",
    "Größenwahn, naïve façade, ¿qué tal? œuvre",
    "Съешь ещё этих мягких французских булок",
    "我能吞下玻璃而不傷身體。",
    "素早い茶色の狐が。 สวัสดีครับ مرحبا नमस्ते שלום",
    "emoji 👩‍👩‍👧 ​zero width, \u00a0nbsp",
]


@pytest.fixture(scope="module", params=NAMES)
def weights(request: pytest.FixtureRequest) -> Weights:
    return resolve(request.param)


@pytest.fixture(scope="module")
def model(weights: Weights) -> Whisper:
    return convert.load_torch(weights)


def ct2(folder: Path, compute_type: str = "float32") -> ctranslate2.models.Whisper:
    return ctranslate2.models.Whisper(str(folder), compute_type=compute_type, intra_threads=1)


def ct2_encode(folder: Path, mel: torch.Tensor) -> np.ndarray:
    view = ctranslate2.StorageView.from_array(mel[None].numpy())
    return np.asarray(ct2(folder).encode(view))[0]


def mel_of(audio: np.ndarray, n_mels: int = 80) -> torch.Tensor:
    return whisper.log_mel_spectrogram(whisper.pad_or_trim(audio), n_mels)


# --- CTranslate2 → openai


def test_load_torch(weights: Weights, model: Whisper) -> None:
    multilingual = weights.name == "base"
    assert model.is_multilingual == multilingual
    assert model.num_languages == 99
    assert model.dims.n_audio_state == (512 if multilingual else 384)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    fresh = Whisper(model.dims)
    fresh.set_alignment_heads(whisper._ALIGNMENT_HEADS[weights.name])
    assert torch.equal(
        model.get_buffer("alignment_heads").to_dense(),
        fresh.get_buffer("alignment_heads").to_dense(),
    )
    mask = model.decoder.get_buffer("mask")
    assert torch.equal(mask, fresh.decoder.get_buffer("mask"))
    fresh.load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize("signal", ["voice", "noise", "silence"])
def test_encoders_agree(weights: Weights, model: Whisper, signal: str) -> None:
    """float32 on both sides: at most 2e-3 apart, 1e-5 on average, at a frame norm of 20 to 35.

    Measured on base and tiny.en: maximum 1.2e-3, mean 2.3e-6.
    """
    noise = np.random.default_rng(1).standard_normal(480000).astype(np.float32)
    audio = {"voice": voice_like(), "noise": 0.1 * noise, "silence": 0 * noise}[signal]
    mel = mel_of(audio)
    with torch.no_grad():
        ours = model.encoder(mel[None])[0].numpy()
    error = np.abs(ours - ct2_encode(weights.ct2_dir, mel))
    assert error.max() < 2e-3
    assert error.mean() < 1e-5


def test_decoders_agree() -> None:
    base = resolve("base")
    mel = mel_of(voice_like())
    _, ours = convert.load_torch(base).detect_language(mel)
    view = ctranslate2.StorageView.from_array(mel[None].numpy())
    theirs = ct2(base.ct2_dir).detect_language(view)[0]
    for token, probability in theirs:
        assert ours[token.strip("<|>")] == pytest.approx(probability, abs=1e-4)


def test_arrays_are_views_of_the_file(weights: Weights) -> None:
    arrays = convert.read_ct2(weights.ct2_dir, keep=lambda name: name.endswith("weight"))
    assert arrays["decoder/projection/weight"] is arrays["decoder/embeddings/weight"]
    assert not arrays["decoder/embeddings/weight"].flags.owndata
    assert all(name.endswith("weight") for name in arrays)


@pytest.mark.parametrize("quantization", ["int8", "int16", "int8_float32"])
def test_integer_weights_mean_what_ctranslate2_makes_of_them(tmp_path: Path, quantization: str) -> None:
    """CTranslate2 dequantises to float32 on load: the same numbers, so the same encoder output."""
    original = small_whisper()
    folder = convert.openai_to_ct2(original, tmp_path / "q", quantization)
    model = convert.load_torch(folder)
    name = "encoder.blocks.0.mlp.0.weight"
    error = (model.get_parameter(name) - original.get_parameter(name)).abs().max()
    assert 0 < error < 0.01
    mel = mel_of(voice_like())
    with torch.no_grad():
        ours = model.encoder(mel[None])[0].numpy()
    np.testing.assert_allclose(ours, ct2_encode(folder, mel), atol=1e-4)


def test_bfloat16(tmp_path: Path) -> None:
    original = small_whisper()
    folder = convert.openai_to_ct2(original, tmp_path / "b", "bfloat16")
    state = convert.load_torch(folder).state_dict()
    for name, tensor in original.state_dict().items():
        assert torch.equal(state[name], tensor.bfloat16().float()), name


QUANTIZATIONS = (
    *("float32", "float16", "bfloat16", "int16"),
    *("int8", "int8_float32", "int8_float16", "int8_bfloat16"),
)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_real_weights_of_every_quantisation(tmp_path: Path, quantization: str) -> None:
    """A number is off by half a step of its row's or matrix's integers at most, or in its last bit."""
    original = convert.load_torch(resolve("tiny.en"))
    folder = convert.openai_to_ct2(original, tmp_path / "q", quantization)
    after = convert.load_torch(folder).state_dict()
    before = convert.load_torch(resolve("tiny.en")).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())
    matrices, _, others = quantization.partition("_")
    for entry in layout(original.dims.n_audio_layer, original.dims.n_text_layer):
        names = [name for name in entry.openai if not name.endswith(".key.bias")]
        was, now = (torch.cat([state[name] for name in names]) for state in (before, after))
        if was.dim() == 3:  # a convolution's scale is of all that makes one number
            was, now = was.flatten(1), now.flatten(1)
        kind = matrices if entry.ct2.endswith("weight") else others or matrices
        step = {
            "int8": was.abs().amax(-1, keepdim=True) / 254,
            "int16": was.abs().max() / 2**11,
            "bfloat16": was.abs() / 2**8,
        }
        assert ((now - was).abs() <= step.get(kind, torch.tensor(0.0)) * 1.01).all(), names


def test_an_alias_goes_by_its_scale(tmp_path: Path) -> None:
    """CTranslate2 stores equal tensors once: here two layers' matrices, and a vector of both halves."""
    model = small_whisper()
    state = model.state_dict()
    state["encoder.blocks.1.mlp.0.weight"].copy_(state["encoder.blocks.0.mlp.0.weight"])
    state["encoder.ln_post.bias"].copy_(state["decoder.ln.bias"])
    folder = convert.openai_to_ct2(model, tmp_path / "m", "int8")
    stored = read_stored(folder)
    for one, other in (
        ("encoder/layer_0/ffn/linear_0/weight", "encoder/layer_1/ffn/linear_0/weight"),
        ("decoder/layer_norm/beta", "encoder/layer_norm/beta"),
    ):
        assert stored[one] is stored[other]
    found = convert.load_torch(folder)
    matrices = [found.get_parameter(f"encoder.blocks.{i}.mlp.0.weight") for i in (0, 1)]
    assert torch.equal(*matrices)
    assert torch.equal(found.get_parameter("encoder.ln_post.bias"), state["encoder.ln_post.bias"].float())
    assert resolve(folder).fingerprint == fingerprint(state)  # reads the encoder alone
    mel = mel_of(voice_like())
    with torch.no_grad():
        ours = found.encoder(mel[None])[0].numpy()
    np.testing.assert_allclose(ours, ct2_encode(folder, mel), atol=1e-4)


def test_alignment_heads_of_another_decoder(tmp_path: Path) -> None:
    """Distilled models may name their teacher's."""
    folder = convert.openai_to_ct2(small_whisper(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"alignment_heads": [[0, 1], [7, 0], [1, 9]]}))
    heads = convert.load_torch(folder).get_buffer("alignment_heads").to_dense()
    assert heads.tolist() == [[False, True], [False, False]]


def test_models_openai_cannot_run_are_refused(tmp_path: Path) -> None:
    folder = convert.openai_to_ct2(small_whisper(), tmp_path / "m")
    data = bytearray((folder / "model.bin").read_bytes())

    def refused(changed: bytes | bytearray, message: str) -> None:
        (folder / "model.bin").write_bytes(changed)
        with pytest.raises(WeightsError, match=message) as caught:
            convert.load_torch(folder)
        assert "\n" not in str(caught.value)

    name = b"encoder/layer_0/self_attention/linear_0/bias\0"
    bias = data.index(name) + len(name) + 1 + 4 + 1 + 4  # rank, one dimension, type, size
    with_key_bias = data.copy()
    with_key_bias[bias + 2 * 16 : bias + 2 * 17] = struct.pack("<e", 0.5)
    refused(with_key_bias, "key.bias is not zero")
    refused(data[:-1], "truncated or not a CTranslate2 model")
    refused(data[:-100], "truncated or not a CTranslate2 model")
    refused(data[:5000], "truncated or not a CTranslate2 model")
    refused(b"", "truncated or not a CTranslate2 model")
    refused(b"\x05" + data[1:], "binary version 5")
    refused(data.replace(b"WhisperSpec\0", b"WhispXrSpec\0"), "WhispXrSpec")
    refused(data.replace(b"encoder/layer_norm/beta", b"encoder/layer_norm/bXta"), "lacks encoder")
    refused(data.replace(b"encoder/layer_1/", b"encoder/layer_3/"), "lacks encoder/layer_1")
    (folder / "model.bin").unlink()
    with pytest.raises(WeightsError, match=r"no model\.bin"):
        convert.load_torch(folder)


def test_untied_projection_is_refused(tmp_path: Path) -> None:
    folder = convert.openai_to_ct2(small_whisper(), tmp_path / "m")
    data = (folder / "model.bin").read_bytes()
    count_at = 4 + 2 + len("WhisperSpec\0") + 4
    (count,) = struct.unpack_from("<I", data, count_at)
    alias = data.rindex(struct.pack("<I", 1), 0, data.rindex(b"decoder/projection/weight"))
    name = b"decoder/projection/weight\0"
    shape = struct.pack("<BII", 2, 51864, 16)
    array = struct.pack("<BI", 4, 51864 * 16 * 2) + bytes(51864 * 16 * 2)
    untied = data[:count_at] + struct.pack("<I", count + 1) + data[count_at + 4 : alias]
    untied += struct.pack("<H", len(name)) + name + shape + array + struct.pack("<I", 0)
    (folder / "model.bin").write_bytes(untied)
    with pytest.raises(WeightsError, match="projection is not its token embedding"):
        convert.load_torch(folder)


# --- openai → CTranslate2


def test_round_trip_is_exact(weights: Weights, model: Whisper, tmp_path: Path) -> None:
    dims, state, heads = convert.ct2_to_openai(weights.ct2_dir)
    folder = convert.openai_to_ct2(convert.build(dims, state, heads), tmp_path / "m")
    before, after = convert.read_ct2(weights.ct2_dir), convert.read_ct2(folder)
    for name, array in before.items():
        assert array.dtype == after[name].dtype, name
        np.testing.assert_array_equal(array, after[name], err_msg=name)
    if weights.name == "base":  # written by the same version of the format
        assert resolve(folder).sha256 == weights.sha256
    assert resolve(folder).fingerprint == weights.fingerprint
    state = convert.load_torch(folder).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    audio = voice_like(8)
    results = []
    for path in (weights.ct2_dir, folder):
        plain = faster_whisper.WhisperModel(str(path), compute_type="float32", cpu_threads=1)
        segments, info = plain.transcribe(
            audio,
            beam_size=1,
            temperature=0,
            max_new_tokens=32,
            word_timestamps=True,
            no_speech_threshold=None,
            log_prob_threshold=None,
        )
        results.append((list(segments), info.language, info.language_probability))
    assert results[0] == results[1]
    assert results[0][0], "a signal that leaves no text compares nothing"


def test_checkpoint_file_loads_as_openai_does(tmp_path: Path) -> None:
    path = save_checkpoint(small_whisper(), tmp_path / "small.pt")
    theirs = whisper.load_model(str(path), device="cpu")
    folder = convert.openai_to_ct2(path, tmp_path / "m")
    ours = convert.load_torch(folder)
    assert ours.dims == theirs.dims
    state = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert torch.equal(
        ours.get_buffer("alignment_heads").to_dense(),
        theirs.get_buffer("alignment_heads").to_dense(),
    )


def test_large_v3_layout(tmp_path: Path) -> None:
    folder = convert.openai_to_ct2(small_whisper(51866, n_mels=128), tmp_path / "m", "float32")
    model = faster_whisper.WhisperModel(str(folder), compute_type="float32", cpu_threads=1)
    assert model.feature_extractor.mel_filters.shape[0] == 128
    assert "yue" in model.supported_languages
    assert model.hf_tokenizer.token_to_id("<|yue|>") == 50358
    assert model.hf_tokenizer.token_to_id("<|30.00|>") == 51865
    assert model.detect_language(voice_like())[0] in model.supported_languages


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(WeightsError, match="already exists"):
        convert.openai_to_ct2(small_whisper(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_wrong_options_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="int3"):
        convert.openai_to_ct2(small_whisper(), tmp_path / "m", "int3")
    with pytest.raises(WeightsError, match="no Whisper tokenizer has 40000 tokens"):
        convert.openai_to_ct2(small_whisper(40000), tmp_path / "m")
    assert not (tmp_path / "m").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_bad_checkpoints(tmp_path: Path) -> None:
    model = small_whisper()
    good = {"dims": model.dims.__dict__, "model_state_dict": model.state_dict()}
    missing = {k: v for k, v in model.state_dict().items() if k != "encoder.ln_post.bias"}
    wide = {**good["dims"], "n_audio_state": 32}
    bad = {
        "bomb": {**good, "extra": Bomb(tmp_path / "exploded")},
        "list": [1, 2, 3],
        "empty": {},
        "dims": {**good, "dims": {"n_mels": 80}},
        "huge": {**good, "dims": {**good["dims"], "n_vocab": 10**15}},
        "missing": {**good, "model_state_dict": missing},
        "shape": {**good, "dims": wide},
    }
    for name, content in bad.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "nothing").touch()
    torch.save(good, tmp_path / "good")
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:100000])
    for name in [*bad, "text", "nothing", "cut", "absent"]:
        with pytest.raises(WeightsError, match="not an openai-whisper checkpoint") as caught:
            convert.read_openai(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()
    convert.read_openai(tmp_path / "good")


# --- the tokenizer


def test_tokenizer_equals_the_packaged_one(weights: Weights, tmp_path: Path) -> None:
    packaged = tokenizers.Tokenizer.from_file(str(weights.ct2_dir / "tokenizer.json"))
    original = vocabulary.get_tokenizer(convert.ct2_to_openai(weights.ct2_dir)[0].n_vocab)
    vocabulary.to_tokenizers(original).save(str(tmp_path / "tokenizer.json"))
    ours = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in SAMPLES:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == packaged.encode(text, add_special_tokens=False).ids == original.encode(text)
        assert ours.decode(ids) == packaged.decode(ids) == original.decode(ids) == text
    for name, id in original.special_tokens.items():
        assert ours.token_to_id(name) == id
    for id in range(0, 51864, 7):
        known = packaged.id_to_token(id) is not None  # tiny.en's package leaves timestamps out
        if known:
            assert ours.decode([id]) == packaged.decode([id])
    marked = "<|startoftranscript|><|notimestamps|> Hello<|endoftext|>"
    ids = ours.encode(marked, add_special_tokens=False).ids
    assert ids == packaged.encode(marked, add_special_tokens=False).ids
    assert ids == original.encode(marked, allowed_special="all")


def test_config_equals_the_packaged_one(tmp_path: Path) -> None:
    base = resolve("base")
    dims, state, heads = convert.ct2_to_openai(base.ct2_dir)
    folder = convert.openai_to_ct2(convert.build(dims, state, heads), tmp_path / "m")
    for name in ("config.json", "vocabulary.json"):
        assert (folder / name).read_text() == (base.ct2_dir / name).read_text()
