"""Transcripts with all that the risk of a word is read from, to fit and measure it on.

    whisper-sae-steer bench hard CLIPS --split calib --conditions clean snr0 babble0 tails --out hard
    python -m benchmarks.steering.written_words hard/manifest.tsv --split calib --model base --out words.jsonl

Word timestamps, no edit (an α too small to change a frame), the language as the manifest says. Recordings
without speech are read with their gaps, so that the model writes what it invents. Goes on where it was.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from faster_whisper.transcribe import Segment
from tqdm import tqdm

from whisper_sae_steer.audio.clips import Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import MEL_FRAME_SECONDS
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.steering.batch import WindowTokens

from ..arguments import script_parser
from .risk import UNNOTICEABLE


class ListeningModel(WhisperModel):
    """Segments also tell the risk that the gate alone sees in their stretch."""

    def labelled(self, segment: Segment, said: Iterable[str] = ()) -> Segment:
        tokens, gate = segment.tokens, 0.0
        if isinstance(tokens, WindowTokens) and self.steerer is not None:
            start, end = (t - segment.seek * MEL_FRAME_SECONDS for t in (segment.start, segment.end))
            gate = self.steerer.label_stretch(tokens.window.scores, start, end).hallucination_risk
        labelled = super().labelled(segment, said)
        vars(labelled)["gate"] = gate
        return labelled


def main() -> None:
    parser = script_parser(
        __doc__, "--split", "--model", "--compute_type", "--threads", "--out", per_class=None
    )
    parser.add_argument("manifests", nargs="+", type=Path)
    args = parser.parse_args()
    clips = [clip for path in args.manifests for clip in read_manifest(path, args.split)]
    if args.per_class is not None:
        clips = select(clips, args.per_class)
    model = ListeningModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    done = {row["clip"] for row in read(args.out)} if args.out.exists() else set()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a", encoding="utf-8") as file:
        for clip in tqdm([clip for clip in clips if clip.key not in done], unit="clip"):
            file.write(json.dumps(listen(model, clip), ensure_ascii=False) + "\n")
            file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows that were written so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def listen(model: ListeningModel, clip: Clip) -> dict[str, Any]:
    """A clip with its segments."""
    spoken = clip.kind == "speech"
    segments, _ = model.transcribe(
        load_audio(clip.path),
        language=clip.language or "en",
        word_timestamps=True,
        steer_alpha=UNNOTICEABLE,
        skip_gaps=spoken,
    )
    return {
        "clip": clip.key,
        "condition": clip.class_ if spoken else "no speech",
        "language": clip.language or "en",
        "reference": clip.text.replace("|", " ") if spoken else "",
        "segments": [
            {
                "text": segment.text,
                "avg_logprob": segment.avg_logprob,
                "gate": vars(segment)["gate"],
                "words": [[word.word, word.probability] for word in segment.words or ()],
            }
            for segment in segments
        ],
    }


if __name__ == "__main__":
    main()
