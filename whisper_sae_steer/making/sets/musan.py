"""MUSAN, noise and instrumental music, through lhotse's recipe: it downloads, unpacks and reads the set.

D. Snyder, G. Chen, D. Povey: MUSAN, a music, speech and noise corpus, 2015 (arXiv 1510.08484). There is one
archive of everything at openslr.org/17. lhotse goes on with a half downloaded one and extracts it, but knows
no checksum: what gzip finds broken is fetched anew.
"""

from __future__ import annotations

import gzip
import http.client
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...audio.clips import Clip
from ...audio.reading import load_audio
from ...audio.units import SAMPLE_RATE
from ...errors import DownloadError
from ...models.repository import brief
from .audio_set import SPLIT, AudioSet, lacks, not_as_expected

LONGEST_SECONDS = {"nonspeech": 12, "music": 20}

_VERSION = re.compile(
    r"\b(?:attribution|licen[cs]es?|alike|by|sa)\b[^\d\n]{0,40}?([1-4]\.[05])", re.IGNORECASE
)
_MARKS = {
    "NC": r"\bNC\b|by-nc|(?i:non-?\s?commercial)",
    "ND": r"\bND\b|-nd\b|(?i:no-?\s?deriv)",
    "SA": r"\bSA\b|-sa\b|(?i:share-?\s?alike)",
}
_NAME = r"(?:music|noise)-[\w-]+-\d+"


def musan_clips(work: Path) -> list[Clip]:
    """All noise and all music without singing, which Whisper may rightly write down.

    A sound is a group of its own, music is grouped by artist. Files that no licence is told for have none.
    """
    tree = _downloaded(work)
    parts = _prepared(tree)
    artists = {
        supervision.recording_id: supervision.speaker
        for supervision in parts["music"]["supervisions"]
        # some files of annotations have genre and vocals the other way round
        if not supervision.custom["vocals"] and "Y" not in supervision.custom["genres"]
    }
    groups = {recording.id: recording.id for recording in parts["noise"]["recordings"]} | artists
    licences: dict[Path, str] = {}
    clips: list[Clip] = []
    for wav in sorted(tree.rglob("*.wav")):
        if wav.stem in groups:
            notice = wav.parent / "LICENSE"
            if notice not in licences:
                licences[notice] = notice.read_text("utf-8", "replace") if notice.is_file() else ""
            clips.append(
                _clip(wav.relative_to(tree), groups[wav.stem], licence_in(licences[notice], wav.stem))
            )
    if not clips:
        raise not_as_expected("musan", "no noise and no music in its archive")
    return clips


def musan_audio(clips: Sequence[Clip], work: Path) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
    """The first seconds of each file, LONGEST_SECONDS at most."""
    files = {wav.stem: wav for wav in _downloaded(work).rglob("*.wav")}
    for clip in clips:
        name = PurePosixPath(clip.key).stem
        if name not in files:
            raise not_as_expected("musan", f"no {name}.wav in its archive")
        yield clip, load_audio(files[name])[: LONGEST_SECONDS[clip.kind] * SAMPLE_RATE]


MUSAN = AudioSet(
    "MUSAN, noise and music",
    "an archive of 11 GB, which needs 24 GB of disk until its clips are made",
    75,
    musan_clips,
    musan_audio,
)


def licence_in(notice: str, name: str) -> str:
    """What a folder's LICENSE says of a file, as ``CC BY-SA 3.0`` and the like; "" if nothing that is clear.

    A notice has a block for each file, lines of ``=`` between them, or one statement for the whole folder.
    """
    blocks = re.split(r"^=+\s*$", notice, flags=re.MULTILINE)
    own = [block for block in blocks if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", block)]
    if not own and not re.search(_NAME, notice):
        own = [notice]
    return _short("\n".join(own))


def _short(terms: str) -> str:
    """The licence of a text in free words; of several the demands of all."""
    marks = [mark for mark, pattern in _MARKS.items() if re.search(pattern, terms)]
    if marks or re.search(r"\battribution\b|\bCC[ -]BY\b|licenses/by\b", terms, re.IGNORECASE):
        version = _VERSION.search(terms)
        return "-".join(["CC BY", *marks]) + (f" {version[1]}" if version else "")
    if re.search(r"\bCC-?0\b|public domain|publicdomain", terms, re.IGNORECASE):
        return "public domain"
    return ""


def _clip(wav: Path, group: str, licence: str) -> Clip:
    part, folder = wav.parts[0], wav.parent.name
    kind = "music" if part == "music" else "nonspeech"
    return Clip(
        path=Path(),
        key=f"{kind}/{SPLIT}/musan/{folder}/{wav.stem}.opus",
        source="musan",
        kind=kind,
        class_=part,
        language="",
        text="",
        group=f"musan-{group}",
        seconds=None,
        origin=f"openslr:17 {folder}",
        licence=licence,
    )


def _recipe() -> ModuleType:
    try:
        from lhotse.recipes import musan
    except ImportError:
        raise lacks("lhotse", "musan") from None
    return musan


def _downloaded(work: Path) -> Path:
    """The folder ``musan`` of the archive, fetched unless it is there."""
    archive = work / "musan.tar.gz"
    try:
        return _recipe().download_musan(work)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        archive.unlink(missing_ok=True)
        raise DownloadError(
            f"MUSAN's archive is broken ({brief(error)}); run the same command again"
        ) from None
    except (OSError, EOFError, http.client.HTTPException) as error:
        raise DownloadError(
            f"MUSAN can't be fetched ({brief(error)}); {archive} is kept, the same command goes on"
        ) from None


def _prepared(tree: Path) -> dict[str, Any]:
    try:
        return _recipe().prepare_musan(tree, parts=("music", "noise"))
    except Exception as error:  # lhotse asserts, and what it reads audio with has errors of its own
        raise not_as_expected("musan", brief(error)) from None
