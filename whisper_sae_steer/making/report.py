"""The page of a made pack: the verdict, gains and costs beside Silero VAD, and the recordings that failed."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..calibrate.measure import CalibrationReport
from ..calibrate.report import details, gains
from ..reports.failures import failed_recordings
from ..reports.metrics import Rate
from ..reports.page import aligned, heading, image, paragraph, percent, points, table, write_page
from .judge import WAYS, Judgement, Outcome
from .verdict import Verdict

HEAD = ("", "text without speech", "WER", "change", "lost", "short words lost", "seconds a minute")


class MadePack(NamedTuple):
    """All that the page tells."""

    verdict: Verdict
    judgement: Judgement
    calibration: CalibrationReport
    sae: str
    """the SAE in words"""
    warnings: tuple[str, ...] = ()
    """what was odd about the recordings before the work started"""


def write_html(made: MadePack, path: Path) -> None:
    """Write the page."""
    judgement = made.judgement
    body = [
        paragraph(made.verdict.sentence),
        *(paragraph(f"Falls short: {shortfall}.") for shortfall in made.verdict.shortfalls),
        *(paragraph(advice) for advice in [*made.verdict.advice, *made.warnings]),
        heading("Gains and costs, on recordings held back"),
        table(HEAD, _lines(judgement)),
        image(partial(_plot, judgement), "Text without speech, word errors and lost utterances", height=2.2),
        paragraph(
            f"{judgement.sounds} recordings without speech and {judgement.utterances} utterances, transcribed"
            " with the library's defaults. Text without speech: at least one letter or digit is left after"
            " Whisper's normaliser. Lost: no text, where unsteered wrote some; short words: one to three that"
            " unsteered reads rightly. Whiskers are 95% Wilson intervals.",
            small=True,
        ),
        *failed_recordings(judgement.failures),
        heading("How it was made"),
        paragraph(f"{made.sae}."),
        *gains(made.calibration),
        *details(made.calibration),
    ]
    write_page(path, f"Steering pack for {made.calibration.metadata.model}", body)


def text_report(made: MadePack) -> str:
    """The verdict and the table for a terminal."""
    verdict = made.verdict
    lines = [verdict.sentence, *(f"Falls short: {shortfall}." for shortfall in verdict.shortfalls)]
    return "\n".join([*lines, *verdict.advice, *made.warnings, "", *aligned(HEAD, _lines(made.judgement))])


def _lines(judgement: Judgement) -> list[tuple[str, ...]]:
    return [(words, *_cells(judgement.outcomes[name])) for name, words in WAYS.items()]


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        _rate(outcome.texts),
        percent(outcome.words.rate, 2) if outcome.words.words else "–",
        points(outcome.wer_change.value) if outcome.words.words else "–",
        _rate(outcome.lost),
        _rate(outcome.short_lost),
        f"{outcome.seconds_a_minute:.1f}",
    )


def _rate(rate: Rate) -> str:
    return f"{rate.k} of {rate.n}" if rate.n else "–"


def _plot(judgement: Judgement, figure: Any) -> None:
    names = list(WAYS)
    outcomes = [judgement.outcomes[name] for name in names]
    panels = {
        "text without speech": [outcome.texts for outcome in outcomes],
        "utterances lost": [outcome.lost for outcome in outcomes],
    }
    for axes, (title, rates) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        for row, rate in enumerate(rates):
            if rate.n:
                axes.plot([100 * rate.low, 100 * rate.high], [row, row], color="0.6")
                axes.plot(100 * rate.rate, row, "o", color="C0")
        axes.set(title=title, xlabel="%", xlim=(-2, None), ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), [WAYS[name] for name in names])
