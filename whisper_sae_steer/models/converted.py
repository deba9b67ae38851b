"""Weights of other forms as CTranslate2 folders in the cache, made once and never half written."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import whisper

from ..errors import WeightsError
from . import convert
from .cache import cache_dir, file_sha256, unwritable
from .from_transformers import SETTINGS, read_transformers, weight_files
from .model_bin import EMBEDDINGS, read_stored
from .vocabulary import get_tokenizer


def from_checkpoint(path: Path, official: str | None = None) -> Path:
    """The CTranslate2 folder of an openai-whisper .pt file.

    `official` names a model of OpenAI's, whose alignment heads are known. Raises `WeightsError`.
    """
    digest = file_sha256(path)
    folder = cache_dir() / "converted" / (f"{official}-{digest[:16]}" if official else digest[:32])

    def write(target: Path) -> None:
        model = convert.read_openai(path)
        if official:
            model.set_alignment_heads(whisper._ALIGNMENT_HEADS[official])  # pyright: ignore[reportPrivateUsage]
        convert.openai_to_ct2(model, target)

    return _cached(folder, write)


def from_transformers(source: Path) -> Path:
    """The CTranslate2 folder of a transformers folder, with that one's tokenizer.json if it has one.

    Raises `WeightsError`.
    """
    used = [path for name in SETTINGS if (path := source / name).is_file()]
    folder = cache_dir() / "converted" / _key(file_sha256(file) for file in [*used, *weight_files(source)])

    def write(target: Path) -> None:
        convert.openai_to_ct2(read_transformers(source), target)
        if (tokenizer := source / "tokenizer.json").is_file():
            shutil.copyfile(tokenizer, target / tokenizer.name)

    return _cached(folder, write)


def with_tokenizer(source: Path) -> Path:
    """`source`, a CTranslate2 folder; if it lacks what faster-whisper reads, one that links it and has that.

    Converters leave out tokenizer.json, and preprocessor_config.json with the number of mels, unless
    they are told to copy them. Raises `WeightsError`.
    """
    arrays = read_stored(source)
    try:
        n_mels = arrays["encoder/conv1/weight"].shape[1]
        n_vocab = arrays[EMBEDDINGS].shape[0]
    except KeyError as error:
        raise WeightsError(f"{source}: model.bin lacks {error.args[0]}") from None
    has_tokenizer = (source / "tokenizer.json").is_file()
    has_features = n_mels == 80 or (source / "preprocessor_config.json").is_file()
    if has_tokenizer and has_features:
        return source

    def write(target: Path) -> None:
        target.mkdir()
        if not has_tokenizer:
            try:
                convert.write_tokenizer(get_tokenizer(n_vocab), target)
            except ValueError as error:
                raise WeightsError(f"{source} has no tokenizer.json, and {error}; add its own") from None
        if not has_features:
            convert.write_features(n_mels, target)
        for file in source.iterdir():
            (target / file.name).symlink_to(file.resolve())

    return _cached(cache_dir() / "completed" / _key([str(source.resolve()), n_mels, n_vocab]), write)


def _key(facts: Iterable[object]) -> str:
    return hashlib.sha256(repr(list(facts)).encode()).hexdigest()[:32]


def _cached(folder: Path, write: Callable[[Path], None]) -> Path:
    """`folder`, if need be with the files that `write` writes to another one."""
    with suppress(WeightsError):
        read_stored(folder)
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as temporary:
            made = Path(temporary) / "model"
            write(made)
            folder.mkdir(exist_ok=True)
            # model.bin last: a folder without it does not count as a model
            for file in sorted(made.iterdir(), key=lambda file: file.name == "model.bin"):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise unwritable(error) from None
    return folder
