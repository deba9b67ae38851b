"""Steering packs on disk: exact round trips, and nothing damaged or foreign is ever applied."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.support.real_models import weights as real_weights
from tests.support.small_pack import WIDTH, small_pack
from whisper_sae_steer.errors import PackError
from whisper_sae_steer.models.weights import Weights
from whisper_sae_steer.steering import pack as packs
from whisper_sae_steer.steering.metadata import GateLevels, Strategy
from whisper_sae_steer.steering.pack import (
    Features,
    SteeringPack,
    load_pack,
    read_pack,
    save_pack,
)


def weights(fingerprint: str = "0123456789abcdef" * 2) -> Weights:
    return Weights("tiny.en", Path("unused"), "0" * 64, fingerprint, "a test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A pack on disk."""
    save_pack(small_pack(), tmp_path / "deep" / "small.safetensors")
    return tmp_path / "deep" / "small.safetensors"


def assert_same(one: SteeringPack, other: SteeringPack) -> None:
    assert one.metadata == other.metadata
    for name in ("gate_weight", "gate_bias", "directions", "coefficients"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for side in ("gate", "steer"):
        for ours, theirs in zip(getattr(one, side), getattr(other, side), strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_round_trip_is_exact(tmp_path: Path, strategy: str):
    pack = small_pack(strategy)
    save_pack(pack, tmp_path / "a.safetensors")
    loaded = read_pack(tmp_path / "a.safetensors")
    assert_same(loaded, pack)
    assert loaded.path == tmp_path / "a.safetensors"
    assert hash(loaded.metadata.speech_calibration)
    assert load_pack(str(loaded.path), weights()).metadata == pack.metadata


def test_strided_shared_and_half_precision_tensors(tmp_path: Path):
    pack, shared = small_pack(), torch.rand(4, WIDTH)
    odd = pack._replace(
        directions=torch.rand(WIDTH, 4).T,
        coefficients=shared[:, 0],
        gate=pack.gate._replace(rows=pack.gate.rows.bfloat16()),
        steer=Features(torch.arange(4), shared, shared[:, 1], shared[:, 1]),
    )
    save_pack(odd, tmp_path / "odd.safetensors")
    assert_same(read_pack(tmp_path / "odd.safetensors"), odd)


def test_writing_the_same_pack_gives_the_same_bytes(path: Path, tmp_path: Path):
    again = tmp_path / "again.safetensors"
    for _ in range(20):  # the library has six orders for three entries
        save_pack(small_pack(), again)
        assert again.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_missing_pack(tmp_path: Path):
    with pytest.raises(PackError, match="no steering pack at"):
        load_pack(tmp_path / "absent.safetensors", weights())
    with pytest.raises(PackError, match="no steering pack at"):
        load_pack(tmp_path, weights())


@pytest.mark.parametrize("length", [0, 1, 8, 200, -1])
def test_truncated_pack(path: Path, length: int):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PackError, match="truncated or not a safetensors file"):
        read_pack(path)


def test_flipped_bits_are_noticed(path: Path):
    """One bit of every third byte, the header's included."""
    original = path.read_bytes()
    for i in range(0, len(original), 3):
        damaged = bytearray(original)
        damaged[i] ^= 1 << i % 8
        path.write_bytes(damaged)
        with pytest.raises(PackError) as caught:
            read_pack(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(original)
    assert_same(read_pack(path), small_pack())


def test_appended_bytes_are_noticed(path: Path):
    path.write_bytes(path.read_bytes() + b"\0" * 16)
    with pytest.raises(PackError):
        read_pack(path)


def rewrite(path: Path, **header: str) -> None:
    """Change entries of the header and keep everything else, the stored hash too."""
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        merged = {**(file.metadata() or {}), **header}
    save_file(tensors, path, metadata=merged)


def test_edited_metadata_is_noticed(path: Path):
    with safe_open(str(path), "pt") as file:
        metadata = json.loads(file.metadata()["metadata"])
    rewrite(path, metadata=json.dumps({**metadata, "alpha_unit": 9.0}, sort_keys=True))
    with pytest.raises(PackError, match="was altered since it was written"):
        read_pack(path)


def test_pack_of_another_format(path: Path):
    rewrite(path, format="3")
    with pytest.raises(PackError, match="not a steering pack of format 1 or 2"):
        read_pack(path)


def test_format_1_had_only_the_threshold_and_ramp_of_its_gate(path: Path):
    pack = read_pack(path)
    metadata = asdict(pack.metadata)
    del metadata["levels"], metadata["no_speech_works"]
    metadata |= {"gate_threshold": 5.189041376113892, "gate_ramp": 1.4652575254440308, "gap_threshold": -2.5}
    write_format_1(path, metadata)
    assert read_pack(path).metadata == replace(
        pack.metadata,
        levels=GateLevels(2.25852632522583, 3.723783850669861, 5.189041376113892, 8.119556427001953, -2.5),
    )


def write_format_1(path: Path, metadata: dict[str, Any]) -> None:
    """Write a small pack as the first versions did."""
    tensors, text = packs._flatten(small_pack()), json.dumps(metadata, sort_keys=True)
    header = {"format": "1", "metadata": text, "sha256": packs._digest(tensors, text)}
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize("name", sorted(packs.shipped_packs()))
def test_shipped_gates_have_room_between_noise_and_speech(name: str):
    levels = read_pack(packs.shipped_packs()[name]).metadata.levels
    assert levels.gap_below is not None
    assert levels.gap_below < levels.noise_ceiling < levels.full_edit_below < levels.threshold
    assert levels.speech_floor - levels.noise_ceiling >= 4


@pytest.mark.parametrize("name", sorted(packs.shipped_packs()))
def test_shipped_packs_promise_that_at_most_a_hundredth_of_speech_is_touched(name: str):
    promise = read_pack(packs.shipped_packs()[name]).metadata.guarantee
    assert promise["touched"] < promise["touched_at_most"] <= 0.01
    assert promise["recordings"] > 100


def test_the_digest_that_batches_and_cards_name_is_that_of_the_file():
    """Results name shipped packs by it, so it must not follow the reader's format."""
    digests = {name: packs.stored_digest(path)[:12] for name, path in packs.shipped_packs().items()}
    assert digests == {"base": "fb4c186951d9", "tiny.en": "c1adc214926d"}


def test_other_safetensors_file(tmp_path: Path):
    save_file({"weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(PackError, match="not a steering pack"):
        read_pack(tmp_path / "model.safetensors")


def test_pack_for_other_weights(path: Path):
    with pytest.raises(PackError, match=r"calibrated for other weights .*make-pack --model tiny\.en`$"):
        load_pack(path, weights("f" * 32))
    elsewhere = weights("f" * 32)._replace(given="my models/fine tuned")
    with pytest.raises(PackError, match=r"make-pack --model 'my models/fine tuned'`$"):
        load_pack(path, elsewhere)


def marked(encoder: str | None, decoder: str | None) -> Weights:
    return weights()._replace(encoder_mark=encoder, decoder_mark=decoder)


@pytest.mark.parametrize("one", [None, "e" * 32])
@pytest.mark.parametrize("other", [None, "e" * 32])
def test_marks_that_agree_or_are_unknown_fit(tmp_path: Path, one: str | None, other: str | None):
    save_pack(small_pack(encoder_mark=one, decoder_mark=one), tmp_path / "a.safetensors")
    assert load_pack(tmp_path / "a.safetensors", marked(other, other)).metadata.encoder_mark == one


def test_pack_for_the_same_vectors_but_other_matrices(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_pack(small_pack(encoder_mark="e" * 32, decoder_mark="d" * 32), path)
    with pytest.raises(PackError, match=r"fine-tune or merge.*direction and SAE.*make-pack") as caught:
        load_pack(path, marked("0" * 32, "0" * 32))
    assert "\n" not in str(caught.value)
    with pytest.raises(PackError, match=r"another decoder; the encoder is the same.*gate can be reused"):
        load_pack(path, marked("e" * 32, "0" * 32))


def test_another_decoder_is_seen_by_its_vectors_where_there_are_no_marks(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_pack(small_pack(decoder_mark="d" * 32, decoder_fingerprint="f" * 32), path)
    same = marked(None, None)._replace(decoder_fingerprint="f" * 32)
    assert load_pack(path, same).path == path
    with pytest.raises(PackError, match="another decoder"):
        load_pack(path, same._replace(decoder_fingerprint="0" * 32))


def test_older_packs_have_no_marks(path: Path):
    metadata = asdict(read_pack(path).metadata)
    del metadata["encoder_mark"], metadata["decoder_mark"]
    write_format_1(path, metadata)
    read = load_pack(path, marked("e" * 32, "d" * 32)).metadata
    assert (read.encoder_mark, read.decoder_mark) == (None, None)


def test_shipped_pack_is_found_by_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shipped: dict[str, Path] = {}
    for name, fingerprint in (("base", "a" * 32), ("tiny.en", "b" * 32)):
        pack, shipped[name] = small_pack(), tmp_path / f"{name}.safetensors"
        metadata = replace(pack.metadata, model=name, fingerprint=fingerprint)
        save_pack(pack._replace(metadata=metadata), shipped[name])
    monkeypatch.setattr(packs, "shipped_packs", lambda: shipped)
    assert load_pack("auto", weights("a" * 32)).path == shipped["base"]
    assert load_pack("auto", weights("b" * 32)).path == shipped["tiny.en"]
    with pytest.raises(PackError, match=r"no pack for tiny\.en is shipped.*make-pack --model.*pack=None"):
        load_pack("auto", weights("c" * 32))
    assert packs.fitting_pack(weights("c" * 32)) is None


def test_of_two_shipped_packs_for_one_encoder_that_of_the_decoder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shipped = {name: tmp_path / f"{name}.safetensors" for name in ("large", "distil")}
    for name, path in shipped.items():
        save_pack(small_pack(model=name, encoder_mark="e" * 32, decoder_mark=name), path)
    monkeypatch.setattr(packs, "shipped_packs", lambda: shipped)
    for name, path in shipped.items():
        assert (
            load_pack("auto", marked("e" * 32, name)).path == packs.fitting_pack(marked(None, name)) == path
        )
    assert packs.fitting_pack(marked("e" * 32, "other")) is None
    with pytest.raises(PackError, match=r"calibrated for large, but tiny\.en has another decoder"):
        load_pack("auto", marked("e" * 32, "other"))


def test_an_installed_pack_comes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # of the fixture that hides installed packs from tests
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path))
    shipped = {"large": tmp_path / "large.safetensors"}
    installed = [
        packs.installed_packs_folder() / f"{name}.safetensors" for name in ("older", "newer", "other")
    ]
    for age, path in enumerate([*shipped.values(), *installed]):
        save_pack(small_pack(encoder_mark="e" * 32, decoder_mark=path.stem[0]), path)
        os.utime(path, (age, age))
    monkeypatch.setattr(packs, "shipped_packs", lambda: shipped)
    for mark, path in (("l", shipped["large"]), ("n", installed[1])):
        assert load_pack("auto", marked("e" * 32, mark)).path == path
    inside = packs.installed_packs_folder() / "inside.safetensors"
    save_pack(small_pack(encoder_mark="e" * 32, decoder_mark="n", tap="block.1"), inside)
    assert load_pack("auto", marked("e" * 32, "n")).path == installed[1]  # every back end takes that one
    installed[2].write_bytes(b"cut off")
    with pytest.raises(PackError, match=r"other\.safetensors is damaged; delete it"):
        load_pack("auto", marked("e" * 32, "l"))


@pytest.mark.parametrize("name", sorted(packs.shipped_packs()))
def test_shipped_packs_are_whole(name: str):
    pack = read_pack(packs.shipped_packs()[name])
    assert pack.metadata.model == name
    real = real_weights(name)
    assert load_pack("auto", real).path == pack.path
    assert (pack.metadata.encoder_mark, pack.metadata.decoder_mark) == (real.encoder_mark, real.decoder_mark)
    assert pack.directions.shape[1] == pack.gate.rows.shape[1] == pack.metadata.d_in
    norms = pack.directions.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-3, atol=1e-3)
    assert (pack.gate.threshold >= 0).all()
    assert (pack.steer.threshold >= 0).all()


def random_frames(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1))


def test_activations_are_jumprelu():
    features, h = small_pack().gate, random_frames(2, 7)
    pre = torch.einsum("btd,fd->btf", h.double(), features.rows.double()) + features.bias
    expected = torch.where(pre > features.threshold, pre, 0.0)
    torch.testing.assert_close(features.activations(h).double(), expected, rtol=1e-5, atol=1e-5)
    assert 0 < (expected > 0).float().mean() < 1


def test_a_feature_at_its_threshold_is_silent():
    features = small_pack().gate
    h = random_frames(1)
    value = torch.nn.functional.linear(h, features.rows, features.bias)[0]
    exactly = features._replace(threshold=value.clamp_min(0))
    assert not exactly.activations(h).any()
