"""Fetches open sets of recordings into the cache, as Opus files with a manifest: ``make-pack --download``.

A set's folder holds ``manifest.tsv`` once it is whole, and SHA256SUMS (``sha256sum -c`` reads it) from the
first clip on: a clip counts as fetched if its file has the sum that is written there.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..audio.clips import Clip, manifest_row, read_manifest, select, write_manifest
from ..audio.reading import audio_seconds
from ..audio.writing import write_opus
from ..errors import DownloadError
from ..files import write_text
from ..hub.licences import may_be_passed_on
from ..models.cache import cache_dir
from .audio import Recordings, by_kind
from .sets.audio_set import SPLIT, AudioSet, not_as_expected
from .sets.musan import MUSAN
from .sets.speech import FLEURS, LIBRISPEECH

SETS: dict[str, AudioSet] = {"librispeech": LIBRISPEECH, "fleurs": FLEURS, "musan": MUSAN}


def with_downloaded(recordings: Recordings, names: Sequence[str] | None) -> Recordings:
    """The recordings and those of the sets named: all of SETS if the list is empty, none if there is no list.

    Stopped, it goes on where it was. Raises DownloadError for a set that can't be fetched.
    """
    if names is None:
        return recordings
    fetched = by_kind([clip for name in dict.fromkeys(names or SETS) for clip in downloaded(name)])
    return Recordings([*recordings.nonspeech, *fetched.nonspeech], [*recordings.speech, *fetched.speech])


def downloaded(name: str) -> list[Clip]:
    """The clips of a set, of which those are fetched that don't lie in the cache whole."""
    folder = cache_dir() / "audio" / name
    try:
        return _completed(name, SETS[name], folder)
    except OSError as error:
        raise DownloadError(
            f"can't write to {folder} ({error.strerror or error}); what was fetched is kept, the same command"
            " goes on; WHISPER_SAE_STEER_CACHE names another folder for the cache"
        ) from None


def _completed(name: str, wanted: AudioSet, folder: Path) -> list[Clip]:
    manifest, work = folder / "manifest.tsv", folder / "download"
    sums = _read_sums(folder)
    listed = read_manifest(manifest) if manifest.is_file() else []
    if listed and not _missing(folder, listed, sums):
        return listed
    print(f"{wanted.title}: {wanted.size}, into {folder}")
    clips = listed or _chosen(name, wanted, work)
    _fetch(name, _missing(folder, clips, sums), folder, sums)
    if absent := _missing(folder, clips, sums):
        first = Path(absent[0].key).stem
        raise not_as_expected(name, f"{len(absent)} of its clips are not there, {first} the first")
    rows = [replace(clip, seconds=audio_seconds(folder / clip.key)) for clip in clips]
    write_manifest(manifest, [manifest_row(clip, SPLIT) for clip in rows])
    shutil.rmtree(work, ignore_errors=True)
    return read_manifest(manifest)


def _chosen(name: str, wanted: AudioSet, work: Path) -> list[Clip]:
    """So many clips of each class that anybody may pass on what was made from them."""
    free = [clip for clip in wanted.candidates(work) if may_be_passed_on(clip.licence)]
    if not free:
        raise not_as_expected(name, "nothing in it is under a licence that is known to be free")
    return select(free, wanted.per_class)


def _fetch(name: str, missing: Sequence[Clip], folder: Path, sums: dict[str, str]) -> None:
    """Write the clips and, after each, ``sums``, to which they are added."""
    with tqdm(total=len(missing), unit="clip", desc=name) as bar:
        for clip, audio in SETS[name].audio(missing, folder / "download") if missing else ():
            path = folder / clip.key
            path.parent.mkdir(parents=True, exist_ok=True)
            write_opus(path, audio)
            sums[clip.key] = _sha256(path)
            write_text(folder / "SHA256SUMS", "".join(f"{sums[key]}  {key}\n" for key in sorted(sums)))
            bar.update()


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / "SHA256SUMS"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {key: digest for digest, _, key in (line.partition("  ") for line in lines)}


def _missing(folder: Path, clips: Sequence[Clip], sums: Mapping[str, str]) -> list[Clip]:
    """The clips without a file that has its sum."""
    return [
        clip
        for clip in clips
        if not (path := folder / clip.key).is_file() or sums.get(clip.key) != _sha256(path)
    ]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
