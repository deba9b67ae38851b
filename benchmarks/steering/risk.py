"""How well speech_prob and hallucination_risk tell what was said from what was made up.

    python -m benchmarks.steering.risk MANIFEST --split dev --model base --out risk-base

By clip: the scores of its windows, clips of speech against clips without. By segment: what the unsteered
model writes for speech; a segment was made up if no word of it is right and most have no counterpart in the
reference, else it was said, or misheard. The reliability tables say how often clips and segments of a given
risk are without speech.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer.audio.clips import Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import ENCODER_FRAME_SECONDS, WINDOW_SAMPLES, content_frames
from whisper_sae_steer.bench.gaps import align
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.labels import Labels, label_stretch
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import load_pack

from ..arguments import script_parser
from ..results import as_json, write_results

UNNOTICEABLE = 1e-9
"""an α that labels segments and changes no frame"""
BINS = (0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)


class Marked(NamedTuple):
    """A clip or a segment with its labels."""

    name: str
    positive: bool
    """a clip with speech, or a segment that was said"""
    labels: Labels


def main() -> None:
    """Measure, write OUT/risk.json and print it."""
    parser = script_parser(
        __doc__, "--split", "--model", "--compute_type", "--threads", "--out", per_class=20
    )
    parser.add_argument("manifest", type=Path, nargs="+")
    parser.add_argument("--source", nargs="+", help="only clips of these sources")
    args = parser.parse_args()
    read = [clip for path in args.manifest for clip in read_manifest(path, args.split, source=args.source)]
    clips = select(read, args.per_class)
    by_clip = list(mark_clips(args.model, clips, args.threads))
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    spoken = [clip for clip in clips if clip.kind == "speech" and clip.text]
    by_segment = [segment for clip in tqdm(spoken, "segments") for segment in mark_segments(model, clip)]
    found = {
        "model": args.model,
        "clips": summarise(by_clip),
        "segments of speech": summarise(by_segment),
        "made up": [m.name for m in by_segment if not m.positive],
    }
    write_results(args.out / "risk.json", found)
    print(as_json({key: value for key, value in found.items() if key != "made up"}))


def mark_clips(model: str, clips: Sequence[Clip], threads: int) -> Iterator[Marked]:
    """Each clip with the labels of the window that speaks most for speech (float32)."""
    weights = resolve(model)
    encoder, steering = WindowEncoder(weights, threads=threads), Operator(load_pack("auto", weights))
    for clip in tqdm(clips, "clips"):
        audio = load_audio(clip.path)
        windows = [audio[i : i + WINDOW_SAMPLES] for i in range(0, len(audio), WINDOW_SAMPLES)]
        labels = [_label(encoder, steering, window) for window in windows]
        yield Marked(clip.key, clip.kind == "speech", max(labels, key=lambda label: label.speech_prob))


def _label(encoder: WindowEncoder, steering: Operator, window: NDArray[np.float32]) -> Labels:
    content = content_frames(len(window))
    scores = steering.scores(encoder([window]))[0, :content]
    return label_stretch(scores, 0.0, content * ENCODER_FRAME_SECONDS, steering.metadata)


def mark_segments(model: WhisperModel, clip: Clip) -> Iterator[Marked]:
    """Segments of the unsteered transcript, said or made up."""
    language = clip.language or "en"
    segments: list[Any] = list(
        model.transcribe(load_audio(clip.path), language=language, steer_alpha=UNNOTICEABLE, skip_gaps=False)[
            0
        ]
    )
    written = [metrics.normalise(segment.text, language).split() for segment in segments]
    truth = metrics.normalise(clip.text.replace("|", " "), language).split()
    _, right, inserted = align(truth, [word for words in written for word in words])
    edges = np.cumsum([0, *map(len, written)]).tolist()
    for segment, (start, end) in zip(segments, pairwise(edges), strict=True):
        if end > start:
            places = range(start, end)
            said = bool(right.intersection(places)) or 2 * len(inserted.intersection(places)) <= len(places)
            labels = Labels(segment.speech_prob, segment.hallucination_risk)
            yield Marked(f"{clip.key} {segment.start:.1f} {segment.text.strip()}", said, labels)


def summarise(marked: Sequence[Marked]) -> dict[str, Any]:
    """AUC of both labels, and how often the risk is right in each of BINS."""
    said, unsaid = ([m.labels for m in marked if m.positive is positive] for positive in (True, False))
    risks = np.array([m.labels.hallucination_risk for m in marked])
    wrong = np.array([not m.positive for m in marked])
    where = np.digitize(risks, BINS[1:-1])
    return {
        "said": len(said),
        "unsaid": len(unsaid),
        "speech_prob_auc": metrics.auc([x.speech_prob for x in said], [x.speech_prob for x in unsaid]),
        "hallucination_risk_auc": metrics.auc(
            [x.hallucination_risk for x in unsaid], [x.hallucination_risk for x in said]
        ),
        "brier": float(np.mean((risks - wrong) ** 2)) if marked else None,
        "reliability": [
            {
                "risk": [low, high],
                "count": int(np.sum(where == i)),
                "unsaid": float(wrong[where == i].mean()) if (where == i).any() else None,
            }
            for i, (low, high) in enumerate(pairwise(BINS))
        ],
    }


if __name__ == "__main__":
    main()
