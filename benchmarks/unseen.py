"""Sounds of sources nobody here has calibrated or chosen on, from Debian packages: a folder with a manifest.

    python benchmarks/unseen.py --out unseen
    whisper-sae-steer bench peers --manifest unseen/manifest.tsv --peers faster vad-0.5 ours --out unseen-base

The first half minute of some files of each package, drawn by their names. They are games, so that a few may
have spoken words: read the texts that are left before counting them. Needs apt-get and dpkg-deb.
"""

import argparse
import hashlib
import subprocess
import tempfile
from pathlib import Path

from tqdm import tqdm

from whisper_sae_steer.audio import SAMPLE_RATE, find_audio, load_audio
from whisper_sae_steer.clips import write_manifest
from whisper_sae_steer.errors import AudioError
from whisper_sae_steer.synthetic import write_wav

PACKAGES = (
    *("btanks-data", "bzflag-data", "chromium-bsu-data", "colobot-common-sounds", "extremetuxracer-data"),
    *("freedroidrpg-data", "lincity-ng-data", "minetest-data", "supertux-data", "xmoto-data"),
)
SECONDS = 30
SHORTEST = 0.1
"""seconds"""


def main() -> None:
    """Unpack every package and write its sounds; what is there already is not fetched again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES))
    parser.add_argument("--count", type=int, default=20, help="files of each package")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for package in args.packages:
        for path in sounds(package, args.count, args.out / package):
            kind = "music" if "music" in path.name else "nonspeech"
            rows.append(
                {"path": path.relative_to(args.out).as_posix(), "split": "test", "kind": kind, "class": kind,
                 "group": path.stem, "source": package}
            )  # fmt: skip
    write_manifest(args.out / "manifest.tsv", rows)


def sounds(package: str, count: int, folder: Path) -> list[Path]:
    """Sounds of a package as WAV files below ``folder``, which is complete or not there."""
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            root = Path(temporary)
            subprocess.run(["apt-get", "download", "-q", package], cwd=root, check=True)
            (archive,) = root.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, root / "files"], check=True)
            _write(root / "files", count, root / "sounds")
            (root / "sounds").rename(folder)
    return sorted(folder.glob("*.wav"))


def _write(root: Path, count: int, folder: Path) -> None:
    """The first files below ``root``, by a hash of their names, that can be read and aren't too short."""
    folder.mkdir()
    names = [str(path.relative_to(root)) for path in find_audio([root])]
    written = tqdm(total=count, desc=folder.name, unit="file")
    for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        try:
            audio = load_audio(root / name)
        except AudioError as error:
            tqdm.write(f"skipped: {error}")
            continue
        if len(audio) >= SHORTEST * SAMPLE_RATE:
            short = "-".join(Path(name).with_suffix("").parts[-2:])
            write_wav(folder / f"{short}.wav", audio[: SECONDS * SAMPLE_RATE])
            written.update()
        if written.n == count:
            break
    written.close()


if __name__ == "__main__":
    main()
