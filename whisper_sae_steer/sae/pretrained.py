"""Pretrained SAEs by repository and layer, on the Hugging Face hub or in a local folder."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torch import Tensor

from ..errors import HubError, SAEFormatError
from ..models.repository import Repository
from .autoencoder import SAE
from .formats import CONFIG_FILES, WEIGHT_FILES, load_sae

_SHOWN = 40  # names in an error message


def from_pretrained(
    repo_or_path: str | os.PathLike[str],
    layer: int | str | None = None,
    *,
    tap: str | None = None,
    calibrate_on: Tensor | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> SAE:
    """One layer's SAE of a hub repository (``owner/name``) or of a folder laid out like one.

    For AudioSAE (Aparin et al. 2026, arXiv 2602.05027) the repository is ``Egorgij21/Audio-SAE-``
    and Whisper-small, Whisper-large-v3, Whisper-large-v3-turbo, HuBERT-base or HuBERT-large. Any
    format that :func:`~whisper_sae_steer.sae.formats.load_sae` recognises by the names of its files will do.

    ``layer``, if there are several, is a number as the repository's own folders count it (6 finds
    ``layer_6`` or ``encoder.layers.6``), or the folder or file itself. AudioSAE counts from 1, its
    layer 6 reads ``block.5``. ``tap`` and ``calibrate_on`` are load_sae's: AudioSAE's files store no
    threshold, and frames [..., d_in] of speech and sound give them one. The others are
    huggingface_hub's: only that layer's files are downloaded, and without a network what is cached
    is used.

    SAEFormatError if there is no such layer (it lists those there), if the layer is ambiguous, or from
    load_sae; HubError, which is one too, if there is no such repository or revision, or if the hub can't be
    reached.
    """
    place = None if cache_dir is None else os.fspath(cache_dir)
    weights = find_pretrained(repo_or_path, layer, revision, place, token, local_files_only)
    return load_sae(weights, tap, calibrate_on)


def find_pretrained(
    repo_or_path: str | os.PathLike[str],
    layer: int | str | None = None,
    revision: str | None = None,
    cache_dir: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The weights that :func:`from_pretrained` loads, with their settings beside them; arguments as there."""
    name = os.fspath(repo_or_path)
    if os.path.isdir(name):
        return _in_folder(Path(name), layer, name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _in_repository(Repository(name, revision, cache_dir, token), layer, local_files_only)
    raise SAEFormatError(f"{name!r} is no folder and no repository; those are written owner/name")


def _in_repository(repository: Repository, layer: int | str | None, local_files_only: bool) -> Path:
    """The weights of one layer in the cache, downloaded with their settings where the hub answers."""
    files, reason = (None, "local_files_only is set") if local_files_only else repository.listed()
    if files is None:
        snapshot = repository.cached_folder()
        if snapshot is None:
            raise HubError(f"{repository.name} is not in the cache, and the hub can't be asked: {reason}")
        return _in_folder(snapshot, layer, f"{repository.name} as cached ({reason})")
    weights = PurePosixPath(_pick(files, layer, repository.name))
    settings = {str(weights.with_name(name)) for name in CONFIG_FILES}
    for file in sorted(settings.intersection(files)):
        repository.download(file)
    return repository.download(str(weights))


def _in_folder(root: Path, layer: int | str | None, name: str) -> Path:
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return root / _pick(files, layer, name)


def _pick(files: Sequence[str], layer: int | str | None, name: str) -> str:
    """The one file of weights that ``layer`` names."""
    weights = sorted((file for file in files if PurePosixPath(file).name in WEIGHT_FILES), key=_natural)
    if layer is None:
        found = weights
    elif isinstance(layer, int):
        number = re.compile(rf"(?<![a-z])(?:layers?|blocks?)[._-]?0*{layer}(?!\d)", re.IGNORECASE)
        found = [file for file in weights if number.search(_place(file))]
    else:
        wanted = str(PurePosixPath(layer))
        found = [wanted] if wanted in files else [file for file in weights if _place(file) == wanted]
    if len(found) == 1:
        return found[0]
    if not weights:
        raise SAEFormatError(f"{name} holds no SAE: none of its files is called {', '.join(WEIGHT_FILES)}")
    if not found:
        raise SAEFormatError(f"{name} has no layer {layer!r}; it has {_names(weights)}")
    raise SAEFormatError(f"{name} has several SAEs; pass one as layer: {_names(found)}")


def _place(file: str) -> str:
    return str(PurePosixPath(file).parent)


def _names(files: Sequence[str]) -> str:
    """Folders, or files where a folder holds several, as ``layer`` takes them."""
    places = [_place(file) for file in files]
    names = [file if places.count(place) > 1 else place for file, place in zip(files, places, strict=True)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _natural(file: str) -> list[tuple[int, str]]:
    """Sorts layer_2 before layer_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file)]
