"""Word errors on a set of the Open ASR Leaderboard, or on any set of the same layout.

    python -m benchmarks.speech.open_asr hf-audio/esb-datasets-test-only-sorted --name librispeech \\
        --split test.clean --model base --out librispeech-base

The set is an id on the Hugging Face hub, or a folder with a copy of it: parquet files and a card. A row has
``audio`` and a transcript in the first of TEXTS that is there. These columns, the rows that are left out and
the language (told to be English) are those of ``normalizer/data_utils.py`` and ``ctranslate2/run_eval.py`` in
https://github.com/huggingface/open_asr_leaderboard. Texts are compared after Whisper's English normaliser.
The leaderboard's is a changed copy of it, so figures may differ a little. Speed isn't measured. OUT gets the
recordings, and what ``bench wer`` writes.
"""

import argparse
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from tqdm import tqdm

from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.errors import ManifestError
from whisper_sae_steer.files import write_atomically
from whisper_sae_steer.reports import metrics

from ..arguments import script_parser
from ..published import measure

TEXTS = ("text", "sentence", "normalized_text", "transcript", "transcription")
UNSCORED = frozenset({"", "ignore time segment in scoring"})
"""references, after the normaliser, that the leaderboard leaves out"""


def main() -> None:
    args = arguments()
    rows = islice(read_rows(args.dataset, args.name, args.split), args.count)
    source = f"{args.name or Path(args.dataset).name}, {args.split}"
    clips = list(tqdm(write_clips(rows, args.out / "audio", source), "reads", unit="recording"))
    if not clips:
        raise ManifestError(f"{source}: no recording has a transcript that can be scored")
    measure(args, clips, raw=False, language="en")


def arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, "--model", "--compute_type", "--threads", "--out", split="test")
    parser.add_argument("dataset", help="id on the hub, or a folder")
    parser.add_argument("--name", help="of one configuration of the set, if it has several")
    parser.add_argument("--count", type=int, help="only the first rows (default: all)")
    return parser.parse_args()


def read_rows(dataset: str, name: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a split, as they arrive, with audio as the bytes of a file. ManifestError."""
    stream = datasets.load_dataset(dataset, name, split=split, streaming=True)
    columns = stream.column_names or []
    if "audio" not in columns or not {*TEXTS} & {*columns}:
        raise ManifestError(f"{dataset}: audio and one of {', '.join(TEXTS)} are needed, not {columns}")
    # the library itself would decode with torchcodec only
    return iter(stream.cast_column("audio", datasets.Audio(decode=False)))


def write_clips(rows: Iterator[Mapping[str, Any]], folder: Path, source: str) -> Iterator[Clip]:
    """The rows that are scored, with their recordings as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        text = next(row[column] for column in TEXTS if column in row)
        if metrics.normalise(text, "en").strip() in UNSCORED:
            continue
        audio = row["audio"]
        path = folder / f"{number:06}{Path(audio['path'] or '').suffix}"
        with write_atomically(path) as partial:
            partial.write_bytes(audio["bytes"])
        yield Clip(
            path=path.resolve(),
            key=path.name,
            source=source,
            kind="speech",
            class_=source,
            language="en",
            text=" ".join(text.split()),
            group=path.stem,
            seconds=None,
        )


if __name__ == "__main__":
    main()
