"""Features that make Whisper write where nobody speaks: by three criteria, and by trying each one.

|β| of a logistic regression and Fisher's score find features that tell sound from speech (arXiv 2602.05027,
arXiv 2606.07473), attribution those the decoder acts on. What a feature causes is measured: windows are
decoded without its contribution and with more of it, the best of each criterion beside others at random.
"""

import argparse
from typing import Any

from ...reports.page import aligned, paragraph, percent, table
from ..store.arguments import add_stores_argument, chosen_saes
from .causes import EffectConfig, FeatureEffect, HallucinationResult, measure
from .criteria import CRITERIA
from .effects import NEW_TOKENS

TITLE = "Features that make Whisper write"
QUESTION = "Which features go with text where nobody speaks, and what does each one do to the decoder?"
HEIGHT = 3.4

WORK = "hallucination-work"
SHOWN = 15
COLOURS = {"logistic": "C0", "fisher": "C1", "attribution": "C3", "random": "0.6"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_stores_argument(
        parser,
        "folders that `analyze encode` made; effects are of the first, the others are compared with it",
    )
    add("--model", help="name or path of the Whisper model (default: the one that made the store)")
    add("--windows", type=int, default=EffectConfig.windows, metavar="N", help="windows without speech")
    add("--speech", type=int, default=EffectConfig.speech, metavar="N", help="windows with speech")
    add("--top", type=int, default=EffectConfig.top, metavar="N", help="features a criterion, and at random")
    add(
        "--factor",
        type=float,
        default=EffectConfig.factor,
        help="how much is added, in a feature's mean activations",
    )


def run(args: argparse.Namespace) -> HallucinationResult:
    config = EffectConfig(args.windows, args.speech, args.top, args.factor)
    return measure(chosen_saes(args), args.out / WORK, config, args.model)


def text(result: HallucinationResult) -> list[str]:
    lines = [_answer(result), *aligned(_GROUP_HEAD, _group_rows(result))]
    return [*lines, *aligned(_AGREEMENT_HEAD, _agreement_rows(result)), *_overlap_lines(result)]


def _answer(result: HallucinationResult) -> str:
    quiet = max(result.features, key=lambda f: f.added.d_no_speech)
    loud = min(result.features, key=lambda f: f.added.d_no_speech)
    emptied = max(result.features, key=lambda f: f.added.emptied)
    return (
        f"{result.sae}, {result.model} at {result.tap}: of {result.windows} windows without speech"
        f" {result.with_text} get text; mean P(nospeech) {result.no_speech:.3f}, P(end of text)"
        f" {result.end_of_text:.3f}. Of {len(result.features)} features tried, adding {quiet.feature} changes"
        f" P(nospeech) by {quiet.added.d_no_speech:+.3f} and {loud.feature} by {loud.added.d_no_speech:+.3f},"
        f" the most up and down; adding {emptied.feature} empties most windows, {emptied.added.emptied}."
    )


_GROUP_HEAD = (
    "criterion", "features", "removed: |Δ P(nospeech)|", "|Δ P(end)|", "texts changed", "words changed",
    "added: |Δ P(nospeech)|", "p", "|Δ P(end)|",
)  # fmt: skip


def _group_rows(result: HallucinationResult) -> list[list[str]]:
    return [
        [
            g.name, str(g.features), f"{g.d_no_speech:.4f}", f"{g.d_end_of_text:.5f}", percent(g.texts),
            percent(g.speech_words), f"{g.added_no_speech:.4f}", "–" if g.p is None else f"{g.p:.3f}",
            f"{g.added_end_of_text:.5f}",
        ]
        for g in result.groups
    ]  # fmt: skip


_AGREEMENT_HEAD = ("criteria", "rank correlation", "Jaccard of the top tried", "of the top 100")


def _agreement_rows(result: HallucinationResult) -> list[list[str]]:
    return [
        [f"{a.a}, {a.b}", f"{a.spearman:.2f}", f"{a.jaccard:.2f}", f"{a.jaccard_100:.2f}"]
        for a in result.agreements
    ]


_OVERLAP_HEAD = ("criterion", "of", "in", "found (IoU ≥ 0.5)", "median IoU", "also top there", "by chance")


def _overlap_rows(result: HallucinationResult) -> list[list[str]]:
    return [
        [
            o.criterion,
            o.a,
            o.b,
            percent(o.matched),
            f"{o.median_iou:.2f}",
            percent(o.shared),
            percent(o.chance),
        ]
        for o in result.overlaps
    ]


def _overlap_lines(result: HallucinationResult) -> list[str]:
    return aligned(_OVERLAP_HEAD, _overlap_rows(result)) if result.overlaps else []


_FEATURE_HEAD = (
    "feature", "chosen by", "frames", "removed: Δ P(nospeech)", "Δ P(end)", "texts changed",
    "added: Δ P(nospeech)", "Δ P(end)", "emptied", "speech words changed",
)  # fmt: skip


def _feature_row(f: FeatureEffect) -> list[str]:
    removed, added = f.removed, f.added
    spoken = f.speech.words_changed / f.speech.words if f.speech else None
    return [
        str(f.feature), ", ".join(f.chosen_by), percent(f.rate, 2), f"{removed.d_no_speech:+.4f}",
        f"{removed.d_end_of_text:+.4f}", f"{removed.changed} of {removed.windows}",
        f"{added.d_no_speech:+.4f}", f"{added.d_end_of_text:+.4f}", str(added.emptied), percent(spoken),
    ]  # fmt: skip


def plot(result: HallucinationResult, figure: Any) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for name, colour in COLOURS.items():
        some = [f for f in result.features if f.chosen_by[0] == name]
        added = [f.added.d_no_speech for f in some]
        left.scatter([f.removed.d_no_speech for f in some], added, s=12, c=colour, label=name)
        right.scatter([f.added.d_end_of_text for f in some], added, s=12, c=colour)
    for axis in (left, right):
        axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    left.set(xlabel="change of P(nospeech), removed", ylabel="change of P(nospeech), added")
    right.set(xlabel="change of P(end of text), added")
    left.legend(frameon=False, fontsize=7)


def section(result: HallucinationResult) -> list[str]:
    ranked = sorted(result.features, key=lambda f: -abs(f.added.d_no_speech))
    parts = [
        paragraph(_answer(result)),
        table(_GROUP_HEAD, _group_rows(result)),
        paragraph("How far the criteria agree:"),
        table(_AGREEMENT_HEAD, _agreement_rows(result)),
    ]
    if result.overlaps:
        parts += [paragraph("The top features in other SAEs:"), table(_OVERLAP_HEAD, _overlap_rows(result))]
    return [
        *parts,
        paragraph("Features whose addition changes P(nospeech) most:"),
        table(_FEATURE_HEAD, [_feature_row(f) for f in ranked[:SHOWN]]),
        paragraph(_notes(result), small=True),
    ]


def _notes(result: HallucinationResult) -> str:
    amounts = sorted(f.amount for f in result.features)
    return (
        f"{', '.join(CRITERIA)}: |β|, Fisher's score of sampled frames, and attribution through the decoder;"
        " random: drawn by how often features fire. P(nospeech) is read at the start of the transcript,"
        " P(end) right after <|0.00|>; changes are means over windows, medians of absolute values over"
        " features. Removed: the feature's contribution is taken out of every frame. Added: its mean"
        f" activation times the factor ({amounts[0]:.2f} to {amounts[-1]:.2f}) is added to every frame."
        f" Texts are the first {NEW_TOKENS} tokens, decoded greedily with no threshold, and compared after"
        " Whisper's normaliser. Words changed: word errors that removing makes in"
        f" {result.speech_windows} windows with speech, of the words before. p: one-sided Mann–Whitney test"
        " against the random features, of |Δ P(nospeech)| when added."
    )
