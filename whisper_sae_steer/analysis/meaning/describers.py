"""Describers put features into words: from labels (offline), or by any command, such as a captioner or LLM.

A describer sees where a feature fires in one part of the recordings and writes a sentence. From the
sentence alone it then predicts where the feature fires in recordings it has not seen.
"""

import json
import math
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from threading import Timer
from typing import Any, NamedTuple, Protocol

from ...errors import AnalysisError
from ..results import plain
from ..store.excerpts import Excerpt
from .sound import SoundSummary

SCALE_DB = 10.0
"""loudness that speaks clearly for or against a band"""


class Evidence(NamedTuple):
    """What is known of a feature from the recordings to fit on."""

    feature: int
    labels: Mapping[str, float]
    """for each label the share of its spans in which the feature fires"""
    domains: Mapping[str, float]
    """the same for speech, music and sound"""
    sound: SoundSummary
    """around its activations"""
    excerpts: Sequence[Excerpt]
    """where it is strongest, at most one a recording"""


class Span(NamedTuple):
    """A second of a recording to predict for. Levels are relative to the average sound."""

    clip: str
    path: str
    start: float
    """seconds into the recording"""
    seconds: float
    label: str
    domain: str
    low_db: float
    """mean level under 500 Hz"""
    middle_db: float
    high_db: float
    """and over 2000 Hz"""
    rise_db: float
    """second half minus first"""


class Describer(Protocol):
    """Describes features and predicts from descriptions."""

    def describe(self, evidence: Evidence) -> str:
        """A sentence about a feature."""
        ...

    def predict(self, description: str, spans: Sequence[Span]) -> Sequence[float]:
        """How likely a feature of that description fires in each span; only the order of scores counts."""
        ...


class LabelDescriber:
    """Names the labels and domains a feature fires in, how often, and the sound in words. Needs no model.

    ``dog-bark (0.82), rooster (0.41); sound (0.12), music (0.01), speech (0.00); loud high onset``: the
    figures are shares of seconds in which it fires. It predicts the label's share if that is named, or else
    the domain's, more where a span is as loud in the band as the words say.
    """

    def __init__(self, labels: int = 4):
        self.labels = labels
        """at most so many are named"""

    def describe(self, evidence: Evidence) -> str:
        ranked = sorted(evidence.labels.items(), key=lambda item: -item[1])
        named = [(label, share) for label, share in ranked if share >= 0.005][: self.labels]
        domains = sorted(evidence.domains.items(), key=lambda item: -item[1])
        parts = [_shares(named), _shares(domains), evidence.sound.words]
        return "; ".join(part for part in parts if part)

    def predict(self, description: str, spans: Sequence[Span]) -> list[float]:
        *shares, words = description.split("; ")
        known = [dict(_read(part)) for part in shares]
        domains = known[-1] if known else {}
        labels = known[0] if len(known) > 1 else {}
        return [
            labels.get(span.label, domains.get(span.domain, 0.0)) * _fit(words.split(), span)
            for span in spans
        ]


def _shares(named: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} ({share:.2f})" for name, share in named)


def _read(part: str) -> list[tuple[str, float]]:
    return [(name, float(share)) for name, share in re.findall(r"(.+?) \((\d\.\d\d)\)(?:, |$)", part)]


def _fit(words: Sequence[str], span: Span) -> float:
    """How well a span's sound fits the words, between 0 and 1 each."""
    bands = {"low": span.low_db, "middle": span.middle_db, "high": span.high_db}
    mean = sum(bands.values()) / len(bands)
    fit = 1.0
    for word in words:
        if word in bands:
            fit *= _sigmoid((bands[word] - mean) / SCALE_DB)
        elif word in ("loud", "quiet"):
            fit *= _sigmoid((mean if word == "loud" else -mean) / SCALE_DB)
        elif word in ("onset", "end"):
            fit *= _sigmoid((span.rise_db if word == "onset" else -span.rise_db) / SCALE_DB)
    return fit


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class CommandDescriber:
    """Asks a program: one line of JSON in, one line of JSON out, for as long as it runs.

    ``{"ask": "describe", "evidence": {…}}`` → ``{"description": "…"}`` and
    ``{"ask": "predict", "description": "…", "spans": [{…}, …]}`` → ``{"scores": [0.9, …]}``, with the
    fields of :class:`Evidence` and :class:`Span`. AnalysisError if it can't be started, ends early, answers
    something else or not within ``timeout`` seconds.
    """

    def __init__(self, command: str, timeout: float = 600.0):
        self.command, self.timeout = command, timeout
        try:
            self._process = subprocess.Popen(
                shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        except (OSError, ValueError, IndexError) as error:
            raise AnalysisError(f"{command!r} can't be started: {error}") from None

    def __enter__(self) -> "CommandDescriber":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        self._process.wait()

    def describe(self, evidence: Evidence) -> str:
        answer = self._ask({"ask": "describe", "evidence": plain(evidence)}).get("description")
        if not isinstance(answer, str) or not answer.strip():
            raise AnalysisError(f"{self.command!r} gave no description of feature {evidence.feature}")
        return " ".join(answer.split())

    def predict(self, description: str, spans: Sequence[Span]) -> list[float]:
        asked = {"ask": "predict", "description": description, "spans": plain(list(spans))}
        answer = self._ask(asked).get("scores")
        scores = answer if isinstance(answer, list) else []
        if len(scores) != len(spans) or not all(_is_number(score) for score in scores):
            raise AnalysisError(f"{self.command!r} must give {len(spans)} numbers as scores")
        return [float(score) for score in scores]

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        sent, received = self._process.stdin, self._process.stdout
        assert sent is not None
        assert received is not None
        began, patience = time.monotonic(), Timer(self.timeout, self._process.kill)
        patience.start()
        try:
            sent.write(json.dumps(question) + "\n")
            sent.flush()
            line = received.readline()
        except OSError:
            line = ""
        finally:
            patience.cancel()
        if not line:
            late = time.monotonic() - began >= self.timeout
            what = f"gave no answer within {self.timeout:g} s" if late else "ended before it answered"
            raise AnalysisError(f"{self.command!r} {what}")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AnalysisError(
                f"{self.command!r} must answer with one JSON object a line, not {line[:60]!r}"
            )
        return answer


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
