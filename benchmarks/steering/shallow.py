"""Write what SHALLOW's scorer reads: references, and transcripts unsteered, steered and filtered.

    python -m benchmarks.steering.shallow MANIFEST --split dev --model base --out shallow

SHALLOW (https://github.com/SALT-Research/SHALLOW) splits errors into lexical, phonetic, morphological and
semantic hallucinations. It reads two text files with a line "name: text" for each recording. Names may not
hold a colon there, and a reference without words would shift its scores, so such recordings are left out,
like those in other languages than English, the only one that it knows. The command that scores each file is
printed, to be run in SHALLOW's folder ``src``.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from whisper_sae_steer.audio.clips import Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.errors import ManifestError
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.files import write_text
from whisper_sae_steer.reports import metrics

from ..arguments import script_parser

FILTER_RISK = 0.9
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "unsteered": {"steer_alpha": 0.0},
    "steered": {},
    "filtered": {"filter_risk": FILTER_RISK},
}
"""of ``transcribe``, beside word timestamps: the filter needs them, and all are to differ in nothing else"""


def main() -> None:
    parser = script_parser(
        __doc__, "manifest", "--split", "--source", "--model", "--compute_type", "--threads", "--out",
        per_class=None,
    )  # fmt: skip
    args = parser.parse_args()
    read = read_manifest(args.manifest, args.split, "speech", args.source)
    clips = scorable(read if args.per_class is None else select(read, args.per_class))
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    references = args.out / "references.txt"
    write_text(references, as_lines(clips, [clip.text.replace("|", " ") for clip in clips]))
    for name, options in SETTINGS.items():
        texts = [transcript(model, clip, options) for clip in tqdm(clips, name, unit="clip")]
        write_text(args.out / f"{name}.txt", as_lines(clips, texts))
        print(scoring_command(references, args.out / f"{name}.txt"))


def scorable(clips: Sequence[Clip]) -> list[Clip]:
    """Clips of English speech whose reference has words. ManifestError without any."""
    found = [clip for clip in clips if clip.language == "en" and metrics.normalise(clip.text, "en").strip()]
    if not found:
        raise ManifestError("no clip of English speech has a text: SHALLOW can score none")
    return found


def transcript(model: WhisperModel, clip: Clip, options: Mapping[str, Any]) -> str:
    """What the model writes for a clip in one of SETTINGS."""
    segments, _ = model.transcribe(load_audio(clip.path), language="en", word_timestamps=True, **options)
    return "".join(segment.text for segment in segments)


def as_lines(clips: Sequence[Clip], texts: Sequence[str]) -> str:
    """A line for each clip: its key without colons, and its text without line breaks."""
    return "".join(
        f"{clip.key.replace(':', '_')}: {' '.join(text.split())}\n"
        for clip, text in zip(clips, texts, strict=True)
    )


def scoring_command(references: Path, transcripts: Path) -> str:
    """SHALLOW's command for a file of transcripts."""
    folder = transcripts.parent.resolve()
    return shlex.join(
        [
            *("python", "main.py", "--dataset_name", folder.name, "--model_name", transcripts.stem),
            *("--gt_transcriptions_path", str(references.resolve())),
            *("--predictions_path", str(transcripts.resolve()), "--output_dir", str(folder)),
        ]
    )


if __name__ == "__main__":
    main()
