"""Single words in ten languages, ready for `calibrate --speech`: KTuberling's, of a volunteer each.

    python -m calibration.words OUT

Written are 24 words a language at most, drawn by their names, and a manifest. Needs apt-get and dpkg-deb. The
benchmark of unseen speech (benchmarks/speech/unseen.py) takes the other languages of the same package.
"""

import argparse
from pathlib import Path

from benchmarks.speech.unseen import unpacked, write_some
from benchmarks.speech.unseen_sources import CALIBRATION_LANGUAGES, things
from whisper_sae_steer.audio.clips import write_manifest
from whisper_sae_steer.audio.reading import audio_seconds

PACKAGE = "ktuberling-data"
PER_LANGUAGE = 24
NO_WORDS = frozenset({"tux-laugh", "tux-huh"})
"""names of sounds that nobody can write down"""


def main() -> None:
    """Unpack the package and write its words."""
    parser = argparse.ArgumentParser(description="write single words in ten languages as 16 kHz WAV")
    parser.add_argument("out", type=Path, help="folder for the words and their manifest.tsv")
    out: Path = parser.parse_args().out
    rows: list[dict[str, str]] = []
    with unpacked([PACKAGE]) as root:
        words = [
            word
            for word in things(root)
            if word.language in CALIBRATION_LANGUAGES and word.path.stem not in NO_WORDS
        ]
        for path, word in write_some(words, root, PER_LANGUAGE, out / "ktuberling"):
            rows.append(
                {"path": path.relative_to(out).as_posix(), "split": "calib", "kind": word.kind,
                 "class": word.language, "seconds": f"{audio_seconds(path):.2f}",
                 "language": word.language, "group": word.group, "source": f"deb:{PACKAGE}",
                 "licence": "GPL-2+"}
            )  # fmt: skip
    write_manifest(out / "manifest.tsv", rows)


if __name__ == "__main__":
    main()
