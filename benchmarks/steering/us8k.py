"""Text written for the city sounds of UrbanSound8K, without the classes in which people may speak or sing.

    python -m benchmarks.steering.us8k UrbanSound8K --model base --out us8k-base

The folder is the one that the archive of https://urbansounddataset.weebly.com/urbansound8k.html unpacks to:
``metadata/UrbanSound8K.csv`` with the columns slice_file_name, fsID, fold and class among others, and the
recordings in ``audio/fold1`` to ``audio/fold10``. OUT gets what ``bench fpr`` writes, at α = 0 and 1, with a
figure for each class and each definition of FPR. The language is detected.
"""

import argparse
import csv
from pathlib import Path

from whisper_sae_steer.audio.clips import Clip, select
from whisper_sae_steer.errors import ManifestError

from ..arguments import script_parser
from ..published import measure

VOICES = frozenset({"children_playing", "street_music"})
COLUMNS = ("slice_file_name", "fsID", "fold", "class")


def main() -> None:
    args = arguments()
    clips = read_clips(args.folder)
    measure(args, clips if args.per_class is None else select(clips, args.per_class), raw=True, language=None)


def arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, "--model", "--compute_type", "--threads", "--out", per_class=None)
    parser.add_argument("folder", type=Path, help="folder with audio/ and metadata/")
    return parser.parse_args()


def read_clips(folder: Path) -> list[Clip]:
    """The recordings of all classes but VOICES; of one group are slices of one upload. ManifestError."""
    table = folder / "metadata" / "UrbanSound8K.csv"
    if not table.is_file():
        raise ManifestError(f"{table}: no such file; give the folder that has metadata/ and audio/")
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        absent = set(COLUMNS) - set(reader.fieldnames or ())
        if absent:
            raise ManifestError(f"{table}: no column {', '.join(sorted(absent))}")
        clips = [_clip(folder, row) for row in reader if row["class"] not in VOICES]
    missing = [clip.key for clip in clips if not clip.path.is_file()]
    if missing or not clips:
        raise ManifestError(f"{len(missing)} of {len(clips)} recordings are not in {folder}: {missing[:1]}")
    return clips


def _clip(folder: Path, row: dict[str, str]) -> Clip:
    path = Path("audio") / f"fold{row['fold']}" / row["slice_file_name"]
    return Clip(
        path=(folder / path).resolve(),
        key=path.as_posix(),
        source="UrbanSound8K",
        kind="nonspeech",
        class_=row["class"],
        language="",
        text="",
        group=row["fsID"],
        seconds=None,
    )


if __name__ == "__main__":
    main()
