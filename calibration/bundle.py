"""Make the bundle of open recordings in calibration/audio from manifests of audio.

    python -m calibration.bundle MANIFEST... [--out calibration/audio]

Of the manifests' split `calib` it takes what may be passed on with attribution (CC0, CC BY, CC BY-SA,
Apache-2.0), so many of each source and class, as Opus of 24 kbit/s; sounds and music are shortened. Beside
them it writes manifest.tsv and ATTRIBUTION.md.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.arguments import script_parser
from whisper_sae_steer.audio.clips import Clip, manifest_row, read_manifest, spread, write_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.audio.writing import write_opus
from whisper_sae_steer.files import write_text

OPEN_LICENCE = re.compile(r"^(CC0|CC BY(-SA)? \d|CC BY-SA|CC0/CC BY|Apache-2\.0)")
REFUSED = re.compile(r"GPL|NC|Pixabay|per-")
LONGEST_SECONDS = {"nonspeech": 12, "music": 20}
"""of sounds and music; speech is never cut, its transcript covers all of it"""
COUNTS: Mapping[str, int] = {
    "librispeech": 85, "asterisk": 25, "kerstin": 25, "accented": 15, "wake": 60, "fsdd": 60,
    "foley-objects": 90, "human-nonverbal": 50, "instrument": 35, "combat": 40, "work-tools": 40,
}  # fmt: skip
"""clips of a source or class whose name holds the word; others come whole"""


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("calibration/audio"))
    args = parser.parse_args()
    clips = chosen(
        [clip for path in args.manifests for clip in read_manifest(path, "calib") if is_open(clip.licence)]
    )
    rows = [write(clip, args.out) for clip in tqdm(clips, unit="clip")]
    write_manifest(args.out / "manifest.tsv", rows)
    write_text(args.out / "ATTRIBUTION.md", attribution(rows))


def is_open(licence: str) -> bool:
    """Whether a licence lets anybody pass the recording on with attribution."""
    return bool(OPEN_LICENCE.match(licence)) and not REFUSED.search(licence)


def chosen(clips: Sequence[Clip]) -> list[Clip]:
    """So many clips of each source and class as COUNTS says, spread over speakers and recordings."""
    strata: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        strata[clip.source, clip.class_].append(clip)
    kept: list[Clip] = []
    for names, members in sorted(strata.items()):
        limits = [count for word, count in COUNTS.items() if any(word in name for name in names)]
        kept += spread(members)[: min(limits, default=len(members))]
    return kept


def write(clip: Clip, out: Path) -> dict[str, str]:
    """Write a clip below ``out`` and return its line of the manifest."""
    audio = load_audio(clip.path)
    if clip.kind in LONGEST_SECONDS:
        audio = audio[: LONGEST_SECONDS[clip.kind] * SAMPLE_RATE]
    path = out / Path(clip.key).with_suffix(".opus")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_opus(path, audio)
    written = replace(clip, key=path.relative_to(out).as_posix(), seconds=len(audio) / SAMPLE_RATE)
    return manifest_row(written, "calib")


def attribution(rows: Sequence[Mapping[str, str]]) -> str:
    """A page that names every collection, its licence and what was changed."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        seconds[row["source"], row["licence"]].append(float(row["seconds"]))
    minutes = sum(map(sum, seconds.values())) / 60
    lines = [
        "# Open recordings for calibration",
        "",
        f"{len(rows)} clips, {minutes:.0f} minutes. All were resampled to 16 kHz mono and encoded as Opus of"
        " 24 kbit/s; sounds and music were cut to their first"
        f" {LONGEST_SECONDS['nonspeech']} and {LONGEST_SECONDS['music']} seconds. `manifest.tsv` names the"
        " collection and the licence of each clip; a changed clip is under the licence of its collection.",
        "",
        "| published as | licence | clips | minutes |",
        "|---|---|---|---|",
        *(
            f"| {source} | {licence} | {len(lengths)} | {sum(lengths) / 60:.1f} |"
            for (source, licence), lengths in sorted(seconds.items())
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
