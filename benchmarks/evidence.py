"""Writes docs/evidence.md from recorded results, so that the page can't say what was not measured.

    python -m benchmarks.evidence

A test compares the page with what this script makes of the results.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .arguments import script_parser

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "evidence.md"
MODELS = ("base", "tiny.en")
SOUNDS = {
    "{}-int8-all-fpr": "faster-whisper",
    "{}-en-int8-all-fpr": "faster-whisper, told that it is English",
    "{}-openai-fpr": "openai-whisper",
}
SPEECH = {
    "{}-int8-wer": "LibriSpeech sentences",
    "{}-int8-short-wer": "single short words",
    "{}-int8-repeated-wer": "words said two and three times",
    "{}-int8-robotic-wer": "words of robotic voices",
    "{}-int8-languages-wer": "other languages",
}
PEERS = {
    "{}-int8-hard-peers": "hard recordings: noise, music, babble, gaps, telephone, far, quiet and more",
    "{}-int8-scenes-peers": "scenes: sentences, replies, sounds and gaps",
    "{}-int8-scenes2-peers": "scenes and gaps, other recordings",
}
RISKS = {
    "base-dev": "base, English",
    "tiny.en-dev": "tiny.en, English",
    "base-languages": "base, German, Spanish and French",
}
WAYS = {"faster": "unsteered", "vad-0.5": "Silero VAD in front", "ours": "**steered**"}
NEVER_MEASURED = (
    ("anything on a GPU: kernels, half precision, speed", "`benchmarks/gpu.sh OUT`"),
    (
        "small, medium, large-v3, large-v3-turbo, distil-large-v3 with packs of their own",
        "`whisper-sae-steer make-pack --model small`, then `bench fpr` and `bench wer`",
    ),
    (
        "HALAS: spans that people marked as hallucinated",
        "`python -m benchmarks.steering.halas TABLE --audio FOLDER --model large-v2 --out OUT`",
    ),
    (
        "UrbanSound8K without children playing and street music",
        "`python -m benchmarks.steering.us8k UrbanSound8K --out OUT`",
    ),
    (
        "the sets of the Open ASR Leaderboard",
        "`python -m benchmarks.speech.open_asr hf-audio/esb-datasets-test-only-sorted --name ami --out OUT`",
    ),
    (
        "[Hush-Bench](https://huggingface.co/datasets/udgamlabs/hush-bench): what its table's columns are"
        " is not known to us, so there is no runner",
        "its clips in a folder for each set, and"
        " `whisper-sae-steer bench fpr silence/ noise/ music/ --out OUT`",
    ),
    ("SHALLOW's kinds of hallucination", "`python -m benchmarks.steering.shallow MANIFEST --out OUT`"),
)


def main() -> None:
    script_parser(__doc__).parse_args()
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page, in Markdown."""
    return f"""# Evidence

What was measured, on which recordings, how sure it is, and where steering loses. A script writes this page
from the recorded results (`python -m benchmarks.evidence`); [RESULTS.md](../benchmarks/RESULTS.md) has all of
them with their conditions. Nothing was calibrated or fitted on these recordings. Brackets are 95% intervals:
Wilson's for shares, a paired bootstrap over recordings for changes.

## Where nobody speaks

Recordings without speech for which `transcribe` leaves a letter or a digit (FPR_text), with the packs that
ship:

{_table(("model", "library", "with text", "FPR_text"), _sounds())}

## Where somebody speaks

The same speech without and with steering. *Change* is in percentage points; *emptied* are utterances that had
text, right or wrong, and have none when steered.

{_table(("model", "speech", "words", "WER unsteered", "WER steered", "change", "emptied"), _speech())}

## Beside a voice detector

Words of whole recordings that are wrong. *Invented* are words written into gaps in which nobody speaks;
*late* is by how much the first words behind a gap are off, as a median.

{_table(("recordings", "model", "way", "replaced, missing, added", "WER", "invented", "late"), _peers())}

## Time

Processor time of `transcribe` with one thread, int8, divided by that of the other way in the same run:

{_table(("recordings", "model", "to Silero VAD in front", "to unsteered"), _times())}

## Which words were made up

`hallucination_risk` of words against Whisper's own word probability, on recordings of speech. *AP* is average
precision.

{_table(("recordings", "right, made up", "AUC", "AUC of probability", "AP", "AP of probability"), _risks())}

## Where it loses

What is worse than with Silero VAD in front, of all rows above:

{_listed(_losses())}

## What was never measured

{_table(("what", "the command that measures it"), NEVER_MEASURED)}
"""


def _read(room: str, name: str) -> dict[str, Any] | None:
    path = HERE / room / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _named(room: str, names: dict[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Model, what it was measured on, and the results, of those that are there."""
    for name, on in names.items():
        for model in MODELS:
            found = _read(room, name.format(model))
            if found is not None:
                yield model, on, found


def _sounds() -> Iterator[Sequence[str]]:
    for model, library, found in _named("steering", SOUNDS):
        rate = found["nonspeech"]["total"]["1"]["FPR_text"]
        yield model, library, f"{rate['k']} of {rate['n']}", _share(rate)


def _speech() -> Iterator[Sequence[str]]:
    for model, on, found in _named("speech", SPEECH):
        before, after = (found["speech"]["total"][alpha] for alpha in ("0", "1"))
        change, emptied = after["WER_change"], after["FRR"]
        points = " ".join(f"{100 * change[k]:+.2f}" for k in ("value", "low", "high"))
        value, low, high = points.split()
        yield (
            *(model, on, str(before["words"]), f"{before['WER']:.2%}", f"{after['WER']:.2%}"),
            *(f"{value} [{low}, {high}]", f"{emptied['k']} of {emptied['n']}"),
        )


def _peers() -> Iterator[Sequence[str]]:
    for model, on, found in _named("peers", PEERS):
        for way, speech in _ways(found).items():
            wrong = (speech[kind] for kind in ("substitutions", "deletions", "insertions"))
            yield (
                *(on, model, WAYS[way], ", ".join(map(str, wrong)), f"{speech['WER']:.1%}"),
                *(str(speech["gap_words"]), f"{speech['timestamp_shift_median']:.1f} s"),
            )


def _ways(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {peer["name"]: peer["speech"] for peer in found["peers"] if peer["name"] in WAYS}


def _times() -> Iterator[Sequence[str]]:
    for row in _rows_of_times():
        yield row["group"], row["model"], f"{row['ours_to_vad']:.2f}", f"{row['ours_to_unsteered']:.2f}"


def _rows_of_times() -> list[dict[str, Any]]:
    found = _read("speed", "against_vad")
    return [row for row in found["times"] if row["threads"] == 1] if found else []


def _risks() -> Iterator[Sequence[str]]:
    found = _read("steering", "word-risk") or {}
    for on, figures in ((on, found[name]) for name, on in RISKS.items() if name in found):
        risk, probability = (figures[by]["speech"] for by in ("word timestamps", "probability alone"))
        yield (
            *(on, f"{risk['right']}, {risk['made up']}", f"{risk['AUC']:.3f}", f"{probability['AUC']:.3f}"),
            *(f"{risk['average precision']:.2f}", f"{probability['average precision']:.2f}"),
        )


def _losses() -> Iterator[str]:
    kinds = {"deletions": "missing", "insertions": "added", "substitutions": "replaced"}
    for model, on, found in _named("peers", PEERS):
        vad, ours = (_ways(found)[way] for way in ("vad-0.5", "ours"))
        worse = [f"{word} {ours[k]} (VAD {vad[k]})" for k, word in kinds.items() if ours[k] > vad[k]]
        if worse:
            yield f"{model}, {on.partition(':')[0]}: words {', '.join(worse)}"
    for row in _rows_of_times():
        if row["ours_to_vad"] > 1.1:
            yield f"{row['model']}, {row['group']}: takes {row['ours_to_vad']:.2f} times as long"


def _share(rate: dict[str, float]) -> str:
    return f"{rate['rate']:.1%} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
