"""Lists of audio clips with labels: from a tab-separated manifest or from a folder."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ManifestError
from ..files import write_text
from .reading import find_audio

KINDS = ("nonspeech", "music", "speech")
NONSPEECH_KINDS = ("nonspeech", "music")
KIND_WORDS = {"speech": "speech", "music": "music", "sound": "nonspeech"}
"""What users call the kinds where they name recordings: `speech=PATH`."""
MANIFEST_COLUMNS = (
    *("path", "split", "kind", "class", "seconds"),
    *("language", "text", "group", "source", "licence"),
)


@dataclass(frozen=True)
class Clip:
    """One labelled audio file."""

    path: Path
    """Absolute path of the audio file."""
    key: str
    """Name that rows and resuming use: the path as the manifest gives it."""
    source: str
    """Collection the clip belongs to: the third part of `split/kind/source/...` paths."""
    kind: str
    """`nonspeech`, `music` or `speech`."""
    class_: str
    """Sort of sound, e.g. `rain`; the parent folder's name for clips from a folder."""
    language: str
    """Language code of speech, or ""."""
    text: str
    """Reference transcript, or "" where there is none."""
    group: str
    """Recording or speaker: data are split by it, never by clip."""
    seconds: float | None
    """Length in seconds, if known."""
    origin: str = ""
    """Where the recording was published, if the manifest tells (its column `source`)."""
    licence: str = ""
    """Its licence, if the manifest tells."""
    gaps: tuple[tuple[float, float], ...] = ()
    """Start and end in seconds of the parts of a speech clip where nobody speaks, in order. Each
    is marked by a `|` in `text`, where it falls among the words."""


def read_manifest(
    manifest: str | Path,
    split: str | None = None,
    kind: str | Collection[str] | None = None,
    source: str | Collection[str] | None = None,
) -> list[Clip]:
    """Read a tab-separated manifest with a header line.

    Columns `path` (relative to the manifest) and `kind` are required; `split`, `class`, `seconds`,
    `language`, `text`, `group`, `source`, `licence` and `gaps` (seconds: `3.21-15.8;18.02-60`) are
    read if present, others ignored. The filters keep lines with that split, and with one of those
    kinds and sources.

    Raises ManifestError if the file is missing, empty or broken, or if nothing passes the filters.
    """
    manifest = Path(manifest)
    lines = _read_lines(manifest)
    header = lines[0].split("\t")
    absent = {"path", "kind"} - set(header)
    if absent:
        raise ManifestError(
            f"{manifest}: the header lacks {', '.join(sorted(absent))}; "
            "it must name tab-separated columns, `path` and `kind` among them"
        )
    root = manifest.resolve().parent
    clips: dict[str, Clip] = {}
    for number, line in enumerate(lines[1:], 2):
        where = f"{manifest}, line {number}"
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ManifestError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        clip = _clip(row, root, where)
        if clip.key in clips:
            raise ManifestError(f"{where}: {clip.key} is listed twice")
        if _passes(row.get("split"), split) and _passes(clip.kind, kind):
            clips[clip.key] = clip
    kept = [clip for clip in clips.values() if _passes(clip.source, source)]
    if not kept:
        sources = ", ".join(sorted({clip.source for clip in clips.values()})) or "none"
        raise ManifestError(
            f"{manifest}: no clip passes split={split}, kind={kind}, source={source}; "
            f"sources of that split and kind: {sources}"
        )
    return kept


def write_manifest(manifest: str | Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write, atomically, a manifest of the columns MANIFEST_COLUMNS; what a row lacks is left empty."""
    lines = [MANIFEST_COLUMNS, *([row.get(column, "") for column in MANIFEST_COLUMNS] for row in rows)]
    write_text(Path(manifest), "".join("\t".join(line) + "\n" for line in lines))


def manifest_row(clip: Clip, split: str) -> dict[str, str]:
    """A clip as a row for :func:`write_manifest`, with its key as the path."""
    return {
        "path": clip.key,
        "split": split,
        "kind": clip.kind,
        "class": clip.class_,
        "seconds": "" if clip.seconds is None else f"{clip.seconds:.2f}",
        "language": clip.language,
        "text": clip.text,
        "group": clip.group,
        "source": clip.origin,
        "licence": clip.licence,
    }


def read_folder(directory: str | Path, kind: str, language: str = "") -> list[Clip]:
    """All audio files below a folder, one recording a file.

    The source is the folder's name, the class each file's parent folder, the group its path
    without suffix. A text file beside the audio with the same stem (`a.wav`, `a.txt`) is its
    transcript.

    Raises ManifestError if the folder is missing, AudioError if it holds no audio.
    """
    root = Path(directory).resolve()
    if not root.is_dir():
        raise ManifestError(f"{directory}: no such folder")
    if kind not in KINDS:
        raise ManifestError(f"{directory}: kind {kind!r} is none of {', '.join(KINDS)}")
    clips: list[Clip] = []
    for path in find_audio([root]):
        key = Path(root.name) / path.relative_to(root)
        clips.append(
            Clip(
                path=path,
                key=key.as_posix(),
                source=root.name,
                kind=kind,
                class_=path.parent.name,
                language=language,
                text=_read_transcript(path.with_suffix(".txt")),
                group=key.with_suffix("").as_posix(),
                seconds=None,
            )
        )
    return clips


def read_file(path: str | Path, kind: str, language: str = "") -> Clip:
    """One audio file, called by the path as it is given; the rest as in :func:`read_folder`.

    Raises ManifestError if it is missing.
    """
    path = Path(path)
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder")
    return Clip(
        path=path.resolve(),
        key=path.as_posix(),
        source=path.parent.name,
        kind=kind,
        class_=kind,
        language=language,
        text=_read_transcript(path.with_suffix(".txt")),
        group=path.as_posix(),
        seconds=None,
    )


def read_clips(
    sources: Sequence[str | Path],
    split: str | None,
    kinds: Sequence[str],
    per_class: int | None = None,
    source: Collection[str] | None = None,
    language: str = "",
) -> list[Clip]:
    """Clips of several sources ``[KIND=]PATH``: manifests (.tsv), folders and files; see :func:`select`.

    KIND, one of KIND_WORDS, says what a folder or file holds, and keeps lines of that kind of a manifest.
    Without it, folders and files are of ``kinds[0]`` and a manifest gives its lines of all ``kinds``.
    ``language`` is that of folders and files. Raises ManifestError and AudioError.
    """
    clips: list[Clip] = []
    for named in sources:
        word, path = _kind_and_path(named, kinds)
        kind = word or kinds[0]
        if path.suffix == ".tsv":
            clips += read_manifest(path, split, word or kinds, source)
        elif path.is_dir() or not path.suffix:
            clips += read_folder(path, kind, language)
        else:
            clips.append(read_file(path, kind, language))
    return clips if per_class is None or not clips else select(clips, per_class)


def select(clips: Sequence[Clip], per_class: int) -> list[Clip]:
    """At most `per_class` clips of each source and class, spread over their groups.

    The choice depends only on the keys and groups: every machine and every order of `clips`
    gives the same one. The clips come back in the order they had.
    """
    if per_class < 1:
        raise ManifestError(f"per_class must be at least 1, not {per_class}")
    strata: dict[tuple[str, str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        strata[clip.kind, clip.source, clip.class_].append(clip)
    chosen = {clip.key for members in strata.values() for clip in spread(members)[:per_class]}
    return [clip for clip in clips if clip.key in chosen]


def spread(clips: Sequence[Clip]) -> list[Clip]:
    """The clips, one of each group in turn, in the order of their hashes: every prefix is a fair sample."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.group].append(clip)
    ranked: list[tuple[int, str, Clip]] = []
    for group, members in groups.items():
        members = sorted(members, key=lambda clip: _hash(clip.key))
        ranked += [(turn, _hash(group), clip) for turn, clip in enumerate(members)]
    ranked.sort(key=lambda item: item[:2])
    return [clip for _, _, clip in ranked]


def _kind_and_path(named: str | Path, kinds: Sequence[str]) -> tuple[str | None, Path]:
    """The two parts of `[KIND=]PATH`; a path that exists is one, whatever its name."""
    word, equals, path = str(named).partition("=")
    if not equals or Path(named).exists():
        return None, Path(named)
    taken = [name for name, kind in KIND_WORDS.items() if kind in kinds]
    if word not in taken:
        raise ManifestError(f"{named}: {word!r} is none of {', '.join(taken)}")
    return KIND_WORDS[word], Path(path)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _passes(value: str | None, wanted: str | Collection[str] | None) -> bool:
    if wanted is None:
        return True
    return value == wanted if isinstance(wanted, str) else value in wanted


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not a readable UTF-8 text file ({error})") from error
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[0].strip() or not any(line.strip() for line in lines[1:]):
        raise ManifestError(f"{path}: an empty manifest; it needs a header line and clips")
    return lines


def _read_transcript(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: a transcript must be UTF-8 text") from error


def _clip(row: dict[str, str], root: Path, where: str) -> Clip:
    key, kind = row["path"], row["kind"]
    if not key:
        raise ManifestError(f"{where}: no path")
    if kind not in KINDS:
        raise ManifestError(f"{where}: kind {kind!r} is none of {', '.join(KINDS)}")
    parts = Path(key).parts
    source = parts[2] if len(parts) > 3 else Path(key).parent.name
    try:
        seconds = float(row["seconds"]) if row.get("seconds") else None
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 <= seconds < math.inf:
        raise ManifestError(f"{where}: seconds {row['seconds']!r} is not a number of 0 or more")
    return Clip(
        path=root / key,
        key=key,
        source=source or root.name,
        kind=kind,
        class_=row.get("class", "") or kind,
        language=row.get("language", ""),
        text=row.get("text", ""),
        group=row.get("group", "") or key,
        seconds=seconds,
        origin=row.get("source", ""),
        licence=row.get("licence", ""),
        gaps=_gaps(row.get("gaps", ""), where),
    )


def _gaps(cell: str, where: str) -> tuple[tuple[float, float], ...]:
    try:
        edges = [tuple(float(time) for time in part.split("-")) for part in cell.split(";") if cell]
        gaps = tuple((start, end) for start, end in edges)
    except ValueError:
        raise ManifestError(f"{where}: gaps {cell!r} are not like 3.21-15.8;18.02-60") from None
    ends = (0.0, *(end for _, end in gaps))
    if not all(last <= start < end < float("inf") for last, (start, end) in zip(ends, gaps, strict=False)):
        raise ManifestError(f"{where}: gaps {cell!r} are not in order, each with start < end")
    return gaps
