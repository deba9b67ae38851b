"""Sounds and speech nobody here has calibrated or chosen on, from Debian packages: a folder with a manifest.

    python -m benchmarks.speech.unseen --out unseen
    whisper-sae-steer bench peers --manifest unseen/manifest.tsv --peers faster vad-0.5 ours --out unseen-base
    whisper-sae-steer bench wer --manifest unseen/manifest.tsv --language own --out unseen-base-wer

The first half minute of some recordings of each source, of speech of each of its languages, drawn by their
names. The sounds are those of games, so that a few may have spoken words: read the texts that are left first.
What speech of `ktuberling` says isn't known; `bench wer` compares it with unsteered transcripts.
Needs apt-get and dpkg-deb.
"""

import hashlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from whisper_sae_steer.audio.clips import write_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.errors import AudioError

from ..arguments import script_parser
from .unseen_sources import SOURCES, Found

SECONDS = 30
SHORTEST = 0.1
"""seconds"""


def main() -> None:
    """Unpack the packages of every source and write their recordings."""
    parser = script_parser(__doc__, "--out")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="SOURCE")
    parser.add_argument("--count", type=int, default=20, help="recordings of each source and language")
    args = parser.parse_args()
    rows: list[dict[str, str]] = []
    for source in args.sources:
        find, packages = SOURCES[source]
        with unpacked(packages) as root:
            for path, found in write_some(list(find(root)), root, args.count, args.out / source):
                rows.append(
                    {"path": path.relative_to(args.out).as_posix(), "split": "test", "kind": found.kind,
                     "class": found.language or found.kind, "language": found.language, "text": found.text,
                     "group": found.group, "source": source}
                )  # fmt: skip
    write_manifest(args.out / "manifest.tsv", rows)


@contextmanager
def unpacked(packages: Sequence[str]) -> Generator[Path]:
    """A temporary folder with the files of Debian packages, as they would be installed."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        subprocess.run(["apt-get", "download", "-q", *packages], cwd=root, check=True)
        for archive in root.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, root / "files"], check=True)
        yield root / "files"


def write_some(recordings: list[Found], root: Path, count: int, folder: Path) -> Iterator[tuple[Path, Found]]:
    """The first of each language, by a hash of their names, that can be read and aren't too short."""

    def rank(found: Found) -> str:
        return hashlib.sha256(str(found.path.relative_to(root)).encode()).hexdigest()

    written: Counter[str] = Counter()
    for found in tqdm(sorted(recordings, key=rank), desc=folder.name, unit="file"):
        if written[found.language] == count:
            continue
        try:
            audio = load_audio(found.path)
        except AudioError as error:
            tqdm.write(f"skipped: {error}")
            continue
        if len(audio) >= SHORTEST * SAMPLE_RATE:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{found.name}.wav"
            write_wav(path, audio[: SECONDS * SAMPLE_RATE])
            written[found.language] += 1
            yield path, found


if __name__ == "__main__":
    main()
