"""``pack="hub:owner/name"`` wherever a pack is named, with real weights and the shipped pack on a hub."""

from pathlib import Path
from typing import Any

import faster_whisper
import pytest
import whisper

import whisper_sae_steer
from tests.support.paths import SAMPLES
from tests.support.real_models import weights
from tests.support.small_hub import Hub, closed_port, use
from tests.support.small_pack import small_pack
from whisper_sae_steer import faster
from whisper_sae_steer.batch.config import BatchConfig, settings
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import HubError, PackError
from whisper_sae_steer.models import registry
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.registry import Entry
from whisper_sae_steer.steering import pack as packs
from whisper_sae_steer.steering.pack import load_pack, save_pack, shipped_packs, stored_digest

REPO = "owner/tiny"
SPEECH, GAP = str(SAMPLES / "speech.ogg"), str(SAMPLES / "gap.ogg")
SHIPPED = shipped_packs()["tiny.en"]


@pytest.fixture
def shared(hub: Hub) -> Hub:
    """The pack for tiny.en that ships with us, pushed."""
    assert main(["push", str(SHIPPED), REPO, "--license", "cc-by-sa-4.0"]) == 0
    return hub


def words(segments: Any) -> list[tuple[float, float, str]]:
    return [(segment.start, segment.end, segment.text) for segment in segments]


def test_transcribes_as_the_shipped_pack(shared: Hub):
    ours = faster.WhisperModel("tiny.en", device="cpu", compute_type="int8", pack=f"hub:{REPO}")
    shipped = faster.WhisperModel("tiny.en", device="cpu", compute_type="int8")
    assert ours.steerer is not None
    assert ours.steerer.pack.path is not None
    assert ours.steerer.pack.path.read_bytes() == SHIPPED.read_bytes()
    text = words(ours.transcribe(GAP)[0])
    assert text == words(shipped.transcribe(GAP)[0]) != []


def test_both_libraries_and_live_models(shared: Hub):
    address = f"hub:{REPO}"
    model = whisper_sae_steer.load_model("tiny.en", device="cpu", pack=address)
    shipped = whisper_sae_steer.load_model("tiny.en", device="cpu")
    assert model.transcribe(SPEECH)["segments"] == shipped.transcribe(SPEECH)["segments"]
    plain: whisper.Whisper = load_torch(weights("tiny.en"))
    live = faster_whisper.WhisperModel(str(weights("tiny.en").ct2_dir), device="cpu", compute_type="int8")
    for other in (plain, live):
        with whisper_sae_steer.attach(other, address) as handle:
            assert handle.steerer.pack.metadata.fingerprint == weights("tiny.en").fingerprint
    assert shared.given == ["pack.safetensors"]


def test_without_a_hub_the_cached_copy_is_used(shared: Hub, monkeypatch: pytest.MonkeyPatch):
    online = load_pack(f"hub:{REPO}", weights("tiny.en"))
    use(closed_port(), monkeypatch)
    with pytest.warns(RuntimeWarning, match="owner/tiny is used as cached in"):
        assert load_pack(f"hub:{REPO}", weights("tiny.en")).path == online.path
    assert load_pack(f"hub:{REPO}@{shared.commit(REPO)}", weights("tiny.en")).path == online.path
    with pytest.raises(HubError, match="owner/other is not in the cache"):
        load_pack("hub:owner/other", weights("tiny.en"))


def test_commands(shared: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    address = f"hub:{REPO}"
    argv = ["--model", "tiny.en", "--backend", "faster", "--compute_type", "int8", "-f", "txt"]
    assert main(["transcribe", SPEECH, *argv, "--pack", address, "-o", str(tmp_path / "a")]) == 0
    assert main(["transcribe", SPEECH, *argv, "-o", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/speech.txt").read_text() == (tmp_path / "b/speech.txt").read_text() != ""
    capsys.readouterr()
    assert main(["info", "--model", "tiny.en", "--pack", address]) == 0
    assert "models--owner--tiny" in capsys.readouterr().out
    assert settings(BatchConfig(model="tiny.en", pack=address))["pack_sha256"] == stored_digest(SHIPPED)
    assert main(["info", "--model", "tiny.en", "--pack", "hub:owner/none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_pack_for_other_weights_is_told_by_its_address(shared: Hub):
    with pytest.raises(PackError, match=r"^hub:owner/tiny was calibrated for other weights \(tiny\.en"):
        load_pack(f"hub:{REPO}", weights("base"))
    with pytest.raises(PackError, match=r"^hub:owner/tiny was calibrated for other weights"):
        whisper_sae_steer.attach(load_torch(weights("base")), f"hub:{REPO}")


def test_packs_on_the_hub_are_named_where_none_is_shipped(monkeypatch: pytest.MonkeyPatch):
    mark = weights("tiny.en").fingerprint
    known = [
        Entry("owner/one", "pack", "openai/whisper-tiny.en", "encoder_output", mark),
        Entry("owner/sae", "sae", "openai/whisper-tiny.en", "every block"),
        Entry("owner/two", "pack", "openai/whisper-tiny.en", "encoder_output"),
    ]
    monkeypatch.setattr(packs, "shipped_packs", dict[str, Path])
    monkeypatch.setattr(registry, "entries", lambda: known)
    with pytest.raises(
        PackError, match="packs on the hub for these weights: hub:owner/one, hub:owner/two; or "
    ):
        load_pack("auto", weights("tiny.en"))
    monkeypatch.setattr(registry, "entries", lambda: ())
    with pytest.raises(
        PackError, match=r"^no pack for tiny\.en is shipped or installed; run `whisper-sae-steer make-pack"
    ):
        load_pack("auto", weights("tiny.en"))


@pytest.fixture
def broken(hub: Hub, tmp_path: Path) -> Hub:
    """A hub on which someone put a pack that is cut off."""
    save_pack(small_pack(), tmp_path / "small.safetensors")
    hub.folder(REPO).mkdir(parents=True)
    whole = (tmp_path / "small.safetensors").read_bytes()
    (hub.folder(REPO) / "pack.safetensors").write_bytes(whole[:-9])
    return hub


def test_a_pack_that_is_damaged_on_the_hub(broken: Hub):
    for _ in range(2):
        with pytest.raises(HubError, match=r"pack\.safetensors of owner/tiny can't be used .*truncated"):
            load_pack(f"hub:{REPO}", weights("tiny.en"))
    assert broken.given == ["pack.safetensors"] * 2
