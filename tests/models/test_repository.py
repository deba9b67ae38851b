"""Files of repositories on the hub: current, cached, damaged, and everything that can be wrong with them."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest

from tests.support.small_hub import COMMIT, Hub, closed_port, small_hub, use
from whisper_sae_steer.errors import HubError, PackError, SAEFormatError
from whisper_sae_steer.models.repository import Repository, fetch, whisper_on_hub

REPO = Repository("owner/things")
CONTENT = b"what the file should be\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository, of one file and a card."""
    with small_hub(tmp_path, monkeypatch) as server:
        server.folder(REPO.name).mkdir(parents=True)
        (server.folder(REPO.name) / "thing.bin").write_bytes(CONTENT)
        (server.folder(REPO.name) / "README.md").write_text("things")
        yield server


def read(path: Path) -> bytes:
    """As a reader of files that can tell whether they are whole."""
    if path.read_bytes() != CONTENT:
        raise PackError(f"{path} was altered")
    return CONTENT


def refused(match: str, repository: Repository = REPO, file: str = "thing.bin", local: bool = False) -> None:
    with pytest.raises(HubError, match=match) as caught:
        fetch(repository, file, read, local)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, PackError)
    assert isinstance(caught.value, SAEFormatError)


def leftovers(folder: Path) -> list[str]:
    """Files in the cache with anything of the file in it, whole or not."""
    return [p.name for p in folder.rglob("*") if p.is_file() and "blobs" in p.parts and p.stat().st_size]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", ("owner/name", None)),
        ("hub:owner/na.me-2", ("owner/na.me-2", None)),
        ("hub:owner/name@v1", ("owner/name", "v1")),
        ("owner/name@refs/pr/3", ("owner/name", "refs/pr/3")),
    ],
)
def test_names(text: str, expected: tuple[str, str | None]):
    repository = Repository.named(text)
    assert (repository.name, repository.revision) == expected
    assert repository.address == "hub:" + text.removeprefix("hub:")


@pytest.mark.parametrize(
    "text", ["", "hub:", "name", "hub:a/b/c", "owner/name@", "owner/name@a b", "owner/na me"]
)
def test_no_names(text: str):
    with pytest.raises(HubError, match="is no repository; those are written owner/name"):
        Repository.named(text)


def test_one_revision_is_enough():
    assert Repository.named("owner/name", "v1").address == "hub:owner/name@v1"
    with pytest.raises(HubError, match="is no repository"):
        Repository.named("owner/name@v1", "v2")


def test_a_file_is_downloaded_once_and_followed_when_it_changes(hub: Hub):
    assert [fetch(REPO, "thing.bin", Path.read_bytes) for _ in range(2)] == [CONTENT] * 2
    assert hub.given == ["thing.bin"]
    (hub.folder(REPO.name) / "thing.bin").write_bytes(b"new")
    hub.commits[REPO.name, "main"] = "a" * 40
    assert fetch(REPO, "thing.bin", Path.read_bytes) == b"new"
    pinned = REPO._replace(revision=COMMIT)
    asked = hub.asked
    assert fetch(pinned, "thing.bin", Path.read_bytes) == CONTENT
    assert hub.asked == asked  # a commit never changes, so what is cached of it needs no hub


def test_the_cached_copy_is_used_and_named_without_a_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    path = fetch(REPO, "thing.bin", lambda path: path)
    for fault in ("html", "down"):
        hub.fault = fault
        with pytest.warns(
            RuntimeWarning, match="hub can't be asked .*owner/things is used as cached in"
        ) as seen:
            assert fetch(REPO, "thing.bin", read) == CONTENT
        assert str(path) in str(seen[0].message)
    use(closed_port(), monkeypatch)
    with pytest.warns(RuntimeWarning, match="refused"):
        assert fetch(REPO, "thing.bin", read) == CONTENT
    with warnings.catch_warnings():  # asked for, so no reason to warn
        warnings.simplefilter("error")
        assert fetch(REPO, "thing.bin", read, local_files_only=True) == CONTENT
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
        assert fetch(REPO, "thing.bin", read) == CONTENT


def test_nothing_cached_and_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    refused("not in the cache .*can't be asked: local_files_only is set", local=True)
    assert hub.asked == 0
    hub.fault = "html"
    refused("not in the cache .*can't be asked: ")
    hub.fault = "down"
    refused("can't be asked: .*(503|Service Unavailable)")
    use(closed_port(), monkeypatch)
    refused("can't be asked: .*refused")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    refused("can't be asked: HF_HUB_OFFLINE is set")


def test_not_there(hub: Hub):
    refused("no repository owner/others that you may read", Repository("owner/others"))
    refused("owner/things has no revision 'v9'", REPO._replace(revision="v9"))
    refused("owner/things has no pack.safetensors; it has README.md, thing.bin$", file="pack.safetensors")
    hub.private.add(REPO.name)
    refused("no repository owner/things that you may read; check the name, or log in")
    assert hub.given == []


def test_a_download_that_fails_leaves_nothing_and_is_tried_again(hub: Hub, tmp_path: Path):
    hub.fault = "short"
    refused("can't download thing.bin of owner/things: Consistency check failed")
    assert leftovers(tmp_path / "cache") == []
    hub.fault, hub.withheld = "", "thing.bin"
    refused("can't download thing.bin of owner/things: 403")
    hub.withheld = ""
    assert fetch(REPO, "thing.bin", read) == CONTENT


def test_a_file_that_is_refused_is_removed_and_downloaded_again(hub: Hub, tmp_path: Path):
    hub.fault = "altered"
    refused("thing.bin of owner/things can't be used and was removed .*next call.*was altered")
    assert leftovers(tmp_path / "cache") == []
    hub.fault = ""
    assert fetch(REPO, "thing.bin", read) == CONTENT
    assert hub.given == ["thing.bin"] * 2


def test_a_cached_file_that_was_damaged_is_replaced(hub: Hub):
    path = fetch(REPO, "thing.bin", lambda path: path)
    path.resolve().write_bytes(CONTENT[:5])
    refused("was removed from the cache")
    assert fetch(REPO, "thing.bin", read) == CONTENT


def test_a_cache_without_links(hub: Hub):
    """As on file systems that have none: the snapshot holds the file itself."""
    path = fetch(REPO, "thing.bin", lambda path: path)
    content = path.resolve()
    path.unlink()
    shutil.move(content, path)
    path.write_bytes(b"damaged")
    refused("was removed from the cache")
    assert fetch(REPO, "thing.bin", read) == CONTENT


@pytest.mark.parametrize(
    ("model", "repository"),
    [
        ("tiny.en", "openai/whisper-tiny.en"),
        ("turbo", "openai/whisper-large-v3-turbo"),
        ("large", "openai/whisper-large-v3"),
        ("distil-whisper/distil-small.en", "distil-whisper/distil-small.en"),
        ("mine", None),
        ("", None),
    ],
)
def test_whisper_on_the_hub(model: str, repository: str | None):
    assert whisper_on_hub(model) == repository
