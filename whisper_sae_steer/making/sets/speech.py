"""LibriSpeech and FLEURS, streamed from the Hugging Face hub by the library ``datasets``.

Both are parquet files there, of row groups that hold the audio as files of their own. Clips are chosen by the
other columns, which are small; of the audio only the row groups with those clips are read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...audio.clips import Clip
from ...audio.reading import load_audio
from ...errors import AudioError, DownloadError, SteerError
from ...models.repository import brief
from .audio_set import SPLIT, AudioSet, lacks, not_as_expected

LIBRISPEECH_REPOSITORY, FLEURS_REPOSITORY = "openslr/librispeech_asr", "google/fleurs"
LANGUAGES = {
    "en_us": "en", "de_de": "de", "fr_fr": "fr", "es_419": "es", "it_it": "it",
    "ru_ru": "ru", "hi_in": "hi", "ar_eg": "ar", "cmn_hans_cn": "zh", "ja_jp": "ja",
}  # fmt: skip
"""FLEURS's names and Whisper's"""
UNSPACED = frozenset({"zh", "ja"})
"""written without spaces: word errors mean nothing, so these clips get no transcript"""
FIRST_ROWS = 100
"""of a language of FLEURS to choose from: the first row group, a quarter of the split's file"""


def librispeech_clips(_work: Path) -> list[Clip]:
    """dev-clean: 40 speakers, none of whom is in the bundle of a checkout, which has train-clean-100."""
    rows = _rows(LIBRISPEECH_REPOSITORY, "clean", ("id", "speaker_id", "text"))
    return [
        _clip(
            "librispeech",
            str(row["id"]),
            class_="dev-clean",
            language="en",
            text=row["text"],
            group=f"ls-spk{row['speaker_id']}",
            origin="openslr:12",
            licence="CC BY 4.0 (LibriSpeech)",
        )
        for row in rows
    ]


def librispeech_audio(clips: Sequence[Clip], _work: Path) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
    """Of row groups where no clip is missing nothing is read: they are sorted by ``id``."""
    missing = {PurePosixPath(clip.key).stem: clip for clip in clips}
    only = [("id", "in", list(missing))]
    for row in _rows(LIBRISPEECH_REPOSITORY, "clean", ("id", "audio"), only):
        yield missing[row["id"]], _samples(row, LIBRISPEECH_REPOSITORY)


def fleurs_clips(_work: Path) -> list[Clip]:
    """One recording of each sentence among the first rows of every language.

    FLEURS doesn't name its speakers, and each has read many sentences. Its two genders in a language are the
    smallest groups that surely have no speaker in common.
    """
    clips: list[Clip] = []
    for config, language in LANGUAGES.items():
        rows = _rows(FLEURS_REPOSITORY, config, ("id", "path", "raw_transcription", "gender"))
        sentences: dict[int, dict[str, Any]] = {}
        for row in islice(rows, FIRST_ROWS):
            sentences.setdefault(row["id"], row)
        clips += [
            _clip(
                "fleurs",
                PurePosixPath(row["path"]).stem,
                class_=config,
                language=language,
                text="" if language in UNSPACED else row["raw_transcription"],
                group=f"fleurs-{config}-gender{row['gender']}",
                origin="google/fleurs",
                licence="CC BY 4.0 (FLEURS)",
            )
            for row in sentences.values()
        ]
    return clips


def fleurs_audio(clips: Sequence[Clip], _work: Path) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
    """Each language is read until nothing of it is missing."""
    for config in LANGUAGES:
        missing = {PurePosixPath(clip.key).stem: clip for clip in clips if clip.class_ == config}
        if not missing:
            continue
        for row in _rows(FLEURS_REPOSITORY, config, ("path", "audio")):
            clip = missing.pop(PurePosixPath(row["path"]).stem, None)
            if clip is not None:
                yield clip, _samples(row, FLEURS_REPOSITORY)
            if not missing:
                break


LIBRISPEECH = AudioSet("LibriSpeech dev-clean", "340 MB", 120, librispeech_clips, librispeech_audio)
FLEURS = AudioSet(f"FLEURS in {len(LANGUAGES)} languages", "about 60 MB each", 12, fleurs_clips, fleurs_audio)


def _clip(
    source: str, name: str, *, class_: str, language: str, text: str, group: str, origin: str, licence: str
) -> Clip:
    return Clip(
        path=Path(),
        key=f"speech/{SPLIT}/{source}/{class_}/{name}.opus",
        source=source,
        kind="speech",
        class_=class_,
        language=language,
        text=" ".join(text.split()),
        group=group,
        seconds=None,
        origin=origin,
        licence=licence,
    )


def _rows(
    repository: str,
    config: str,
    columns: Sequence[str],
    only: Sequence[tuple[str, str, list[str]]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the split ``validation`` with those columns, as they arrive; DownloadError if they don't."""
    try:
        import datasets
    except ImportError:
        raise lacks("datasets", repository) from None
    try:
        stream = datasets.load_dataset(
            repository, config, split="validation", streaming=True, columns=list(columns), filters=only
        )
        absent = set(columns) - set(stream.features or ())
        if absent:
            raise not_as_expected(repository, f"no column {', '.join(sorted(absent))}")
        if "audio" in columns:  # as the bytes of a file: `datasets` itself decodes with torchcodec only
            stream = stream.cast_column("audio", datasets.Audio(decode=False))
        yield from stream
    except SteerError:
        raise
    except (ValueError, KeyError, TypeError, FileNotFoundError, RuntimeError) as error:
        raise not_as_expected(repository, brief(error)) from None
    except Exception as error:  # the errors of the libraries below `datasets` share no base
        raise DownloadError(
            f"{repository} can't be reached ({brief(error)}); what was fetched is kept, the same command"
            " goes on"
        ) from None


def _samples(row: dict[str, Any], repository: str) -> NDArray[np.float32]:
    try:
        return load_audio(io.BytesIO(row["audio"]["bytes"]))
    except AudioError as error:
        raise not_as_expected(repository, f"{row['audio']['path']}: {error}") from None
