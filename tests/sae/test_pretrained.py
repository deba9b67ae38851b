"""from_pretrained on folders and on a hub of our own: same files, same protocol, no network."""

import http.server
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest
import torch

from tests.support.small_saes import audiosae, make_frames, make_sae
from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.sae.formats import load_sae, save_sae
from whisper_sae_steer.sae.pretrained import from_pretrained

REPO, COMMIT = "Egorgij21/Audio-SAE-Whisper-small", "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves ``root/owner/name`` as the hub does, and remembers which files it gave away."""

    def __init__(self, root: Path):
        self.root, self.given = root, list[str]()
        self.withheld = ""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("?")[0].split("/")
        repo = self.server.root.joinpath(*(parts[2:4] if parts[0] == "api" else parts[:2]))
        revision = "".join(parts[5:6] if parts[0] == "api" else parts[3:4]) or "main"
        if not repo.is_dir():
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif parts[0] == "api":
            files = [path.relative_to(repo).as_posix() for path in repo.rglob("*") if path.is_file()]
            listing = {
                "id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": [{"rfilename": f} for f in files],
                "private": False, "tags": [], "downloads": 0, "likes": 0,
            }  # fmt: skip
            self.answer(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})
        elif (file := "/".join(parts[4:])) == self.server.withheld:
            self.answer(403, b"", {})
        else:
            if self.command == "GET":
                self.server.given.append(file)
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{file.replace("/", "-")}"'}
            self.answer(200, (repo / file).read_bytes(), headers)

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with AudioSAE's repository for whisper-small, and an empty cache."""
    for layer in (1, 2, 10):
        audiosae(tmp_path / "hub" / REPO / f"layer_{layer}", b_dec=torch.full((12,), float(layer)))
    (tmp_path / "hub" / REPO / "README.md").write_text("Audio-SAE")
    with Hub(tmp_path / "hub") as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        use(server.url, monkeypatch)
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub take this server for the hub."""
    monkeypatch.setattr(hub_constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def refused(match: str, *args: object, **kwargs: object) -> None:
    with pytest.raises(SAEFormatError, match=match) as caught:
        from_pretrained(*args, **kwargs)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


def test_one_layer_of_a_repository(hub: Hub, tmp_path: Path):
    sae = from_pretrained(REPO, 2, cache_dir=tmp_path / "own")
    assert sorted(hub.given) == ["layer_2/ae.pt", "layer_2/config.json"]
    expected = load_sae(hub.root / REPO / "layer_2")
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
    (hub.root / "owner/empty").mkdir(parents=True)
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
    audiosae(hub.root / "Egorgij21" / name / "layer_24")
    config = from_pretrained(f"Egorgij21/{name}", 24).config
    assert (config.model, config.tap) == (model, "block.23")


def test_folder(hub: Hub):
    clone = hub.root / REPO
    assert from_pretrained(clone, 10).config.tap == "block.9"
    assert from_pretrained(clone / "layer_2").config.tap == "block.1"
    assert from_pretrained(str(clone), "layer_10/ae.pt").config.model == "small"
    refused("has several SAEs", clone)
    refused("has no layer 0; it has layer_1, layer_2", clone, 0)


def test_other_layouts(hub: Hub):
    """SAELens' by hook; two formats in one folder; a .pt file of any name."""
    repo = hub.root / "owner/saes"
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
