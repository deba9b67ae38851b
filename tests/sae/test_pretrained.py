"""from_pretrained on folders and on a hub of our own: same files, same protocol, no network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest
import torch

from tests.support.small_hub import COMMIT, Hub, closed_port, small_hub, use
from tests.support.small_saes import audiosae, make_frames, make_sae
from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.sae.formats import load_sae, save_sae
from whisper_sae_steer.sae.pretrained import from_pretrained

REPO = "Egorgij21/Audio-SAE-Whisper-small"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with AudioSAE's repository for whisper-small, and an empty cache."""
    with small_hub(tmp_path, monkeypatch) as server:
        for layer in (1, 2, 10):
            audiosae(server.folder(REPO) / f"layer_{layer}", b_dec=torch.full((12,), float(layer)))
        (server.folder(REPO) / "README.md").write_text("Audio-SAE")
        yield server


def refused(match: str, *args: object, **kwargs: object) -> None:
    with pytest.raises(SAEFormatError, match=match) as caught:
        from_pretrained(*args, **kwargs)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


def test_one_layer_of_a_repository(hub: Hub, tmp_path: Path):
    sae = from_pretrained(REPO, 2, cache_dir=tmp_path / "own")
    assert sorted(hub.given) == ["layer_2/ae.pt", "layer_2/config.json"]
    expected = load_sae(hub.folder(REPO) / "layer_2")
    assert (sae.config.tap, sae.config.model, sae.config.k) == ("block.1", "small", 5)
    assert sae.config.architecture == "batchtopk"
    x = make_frames(30)
    assert torch.equal(sae.encode(x, use_threshold=False), expected.encode(x, use_threshold=False))
    calibrated = from_pretrained(REPO, "layer_2", cache_dir=tmp_path / "own", revision=COMMIT, calibrate_on=x)
    assert calibrated.config.architecture == "jumprelu"
    assert from_pretrained(REPO, 2, cache_dir=tmp_path / "own", tap="block.7").config.tap == "block.7"
    assert len(hub.given) == 2  # each file once


def test_from_the_cache_without_a_network(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = tmp_path / "own"
    online = from_pretrained(REPO, 10, cache_dir=cache)
    use(closed_port(), monkeypatch)
    for local, revision in ((True, None), (False, None), (False, COMMIT)):
        offline = from_pretrained(REPO, 10, cache_dir=cache, revision=revision, local_files_only=local)
        assert offline.config == online.config
        assert torch.equal(offline.W_enc, online.W_enc)
    reason = "local_files_only is set"
    refused(f"as cached .{reason}. has no layer 2; it has layer_10", REPO, 2, cache_dir=cache,
            local_files_only=True)  # fmt: skip
    refused("not in the cache, and the hub can't be asked: ", REPO, 2, cache_dir=cache, revision="v2")
    refused("not in the cache", "Egorgij21/Audio-SAE-HuBERT-base", 2, cache_dir=cache)


def test_default_cache(hub: Hub, tmp_path: Path):
    from_pretrained(REPO, 1)
    assert from_pretrained(REPO, 1, local_files_only=True).config.tap == "block.0"
    assert len(list((tmp_path / "cache").glob("models--Egorgij21--Audio-SAE-Whisper-small"))) == 1


def test_no_network_and_no_cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use(closed_port(), monkeypatch)
    refused("can't be asked: .*refused", REPO, 1, cache_dir=tmp_path / "none")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    refused("not in the cache, and the hub can't be asked", REPO, 1)


def test_a_download_that_fails(hub: Hub):
    hub.withheld = "layer_1/ae.pt"
    refused(f"can't download layer_1/ae.pt of {REPO}: 403", REPO, 1)


def test_not_there(hub: Hub):
    refused(f"{REPO} has no layer 6; it has layer_1, layer_2, layer_10$", REPO, 6)
    refused("has no layer 'layer_6'; it has", REPO, "layer_6")
    refused("has several SAEs; pass one as layer: layer_1, layer_2, layer_10$", REPO)
    refused("no repository Egorgij21/Audio-SAE that you may read", "Egorgij21/Audio-SAE", 1)
    refused("has no revision 'v9'", REPO, 1, revision="v9")
    hub.folder("owner/empty").mkdir(parents=True)
    refused("owner/empty holds no SAE: none of its files is called sae_weights", "owner/empty")
    for name in ("no/such/folder", "nonsense", ""):
        refused("is no folder and no repository", name)
    assert hub.given == []


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Audio-SAE-Whisper-large-v3", "large-v3"),
        ("Audio-SAE-Whisper-large-v3-turbo", "large-v3-turbo"),
        ("Audio-SAE-HuBERT-base", "facebook/hubert-base-ls960"),
        ("Audio-SAE-HuBERT-large", "facebook/hubert-large-ll60k"),
    ],
)
def test_the_other_models(hub: Hub, name: str, model: str):
    audiosae(hub.folder(f"Egorgij21/{name}") / "layer_24")
    config = from_pretrained(f"Egorgij21/{name}", 24).config
    assert (config.model, config.tap) == (model, "block.23")


def test_folder(hub: Hub):
    clone = hub.folder(REPO)
    assert from_pretrained(clone, 10).config.tap == "block.9"
    assert from_pretrained(clone / "layer_2").config.tap == "block.1"
    assert from_pretrained(str(clone), "layer_10/ae.pt").config.model == "small"
    refused("has several SAEs", clone)
    refused("has no layer 0; it has layer_1, layer_2", clone, 0)


def test_other_layouts(hub: Hub):
    """SAELens' by hook; two formats in one folder; a .pt file of any name."""
    repo = hub.folder("owner/saes")
    for hook in ("blocks.6.hook_resid_post", "blocks.16.hook_resid_post", "trainer_6/blocks.7.hook_mlp_out"):
        save_sae(make_sae(), repo / hook)
    assert from_pretrained("owner/saes", 6).config == make_sae().config
    assert sorted(hub.given) == [
        f"blocks.6.hook_resid_post/{name}" for name in ("cfg.json", "sae_weights.safetensors")
    ]
    save_sae(make_sae(), repo / "blocks.6.hook_mlp_out")
    refused(
        "several SAEs; pass one as layer: blocks.6.hook_mlp_out, blocks.6.hook_resid_post$", "owner/saes", 6
    )
    assert from_pretrained("owner/saes", "blocks.6.hook_mlp_out/").config.tap == "block.3"
    audiosae(repo / "blocks.6.hook_mlp_out")
    refused("layer: blocks.6.hook_mlp_out/ae.pt, .*sae_weights", "owner/saes", "blocks.6.hook_mlp_out")
    assert from_pretrained("owner/saes", "blocks.6.hook_mlp_out/ae.pt").config.tap == ""
    shutil.copy(repo / "blocks.6.hook_mlp_out/ae.pt", repo / "6.pt")
    refused("config.json is missing", "owner/saes", "6.pt")


def test_long_lists_are_cut(tmp_path: Path):
    audiosae(tmp_path / "layer_1")
    for layer in range(2, 60):
        shutil.copytree(tmp_path / "layer_1", tmp_path / f"layer_{layer}")
    refused("layer_40 and 19 more$", tmp_path)
