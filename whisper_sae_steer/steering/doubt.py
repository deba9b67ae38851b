"""Doubt: where the gate can't tell, Whisper's own decoder is asked.

Barks, cries and single words of robotic voices score alike: above nearly all noise, below nearly all
speech. Such a window is decoded as it is. What the decoder stands by stays; or else the window is edited in
full and decoded again.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from whisper.utils import compression_ratio

from ..kernels import openness
from ..models.rules import COMPRESSION_RATIO_THRESHOLD, SilenceRule
from .batch import SteeredBatch, SteeredWindow, Verdict
from .metadata import PackMetadata

InDoubt = Literal["ramp", "ask", "edit"]
"""What is done with windows that the gate is in doubt about: edited as far as its ramp says; left as they are
until the decoder has been asked; edited in full, because the decoder heard nobody."""
BRIEF_FRAMES = 100
"""2 s"""
FRAMES_PER_REPEATED_WORD = 12
"""0.24 s of sound that each word of a repetition takes at least, if somebody says it"""
LEAST_LOGPROB = -1.25
"""average log-probability of a text where the gate leans to speech: short words lie below Whisper's bound"""
ECHO_WORDS = 3
"""of the text before, in a row: from so many on they are taken for an echo of the prompt"""


def in_doubt(scores: Tensor, metadata: PackMetadata) -> Tensor:
    """Windows that noise hardly reaches and speech hardly falls to, from smoothed scores [B, T]: [B] bool.

    The gate's threshold lies between the two. Above it only brief sounds are in doubt: a bark is over in
    a second, words buried in noise go on. These are in doubt twice as far up: to ask about speech costs
    nothing, because what the decoder wrote of it stays, and few sounds score so high.
    """
    levels = metadata.levels
    above = scores.amax(dim=1) - levels.threshold
    brief = (scores > levels.noise_ceiling).sum(dim=1) < BRIEF_FRAMES
    leans_to_noise = (above < 0) & (-above < levels.threshold - levels.noise_ceiling)
    leans_to_speech = (above >= 0) & (above < 2 * (levels.speech_floor - levels.threshold)) & brief
    return (leans_to_noise | leans_to_speech) & (metadata.gate == "window")


def verdicts(scores: Tensor, metadata: PackMetadata, when_in_doubt: InDoubt) -> Tensor:
    """What the gate makes of windows, from smoothed scores [B, T]: [B] int8 of :class:`Verdict`.

    Only the gate that looks at whole windows can tell that nobody speaks in one. Nothing waits for a GPU.
    """
    verdict = torch.zeros(len(scores), dtype=torch.int8, device=scores.device)
    if metadata.gate != "window" or not scores.numel():
        return verdict
    opened = openness(scores, metadata.gate, metadata.levels.threshold, metadata.levels.ramp)[:, 0]
    verdict.masked_fill_(opened == 1, Verdict.SILENCE)
    if when_in_doubt != "ramp":
        doubtful = Verdict.DOUBT if when_in_doubt == "ask" else Verdict.SILENCE
        verdict.masked_fill_(in_doubt(scores, metadata), doubtful)
    return verdict


class Answer(NamedTuple):
    """What the decoder wrote, and how sure it is."""

    text: str
    avg_logprob: float
    no_speech_prob: float
    prompt: str = ""
    """the text before, with which it was prompted"""

    def could_be_said(self, voiced_frames: int) -> bool:
        """Whether somebody can have said it in that much sound: words, and no loop that noise gives.

        Whisper's compression ratio shows loops in long texts only: half of the words must differ too. One
        word alone may be said again ("no, no"), if the decoder is sure and each had time to be said.
        """
        words = words_of(self.text)
        if not words or compression_ratio(self.text) > COMPRESSION_RATIO_THRESHOLD:
            return False
        if len(words) == 1 or len(set(words)) > 1:
            return 2 * len(set(words)) > len(words)
        had_time = voiced_frames >= FRAMES_PER_REPEATED_WORD * len(words)
        return had_time and SilenceRule().is_likely(self.avg_logprob)

    def echoes_prompt(self, least_words: int = ECHO_WORDS) -> bool:
        """Whether it is nothing but words of the text before, which Whisper repeats where it hears none."""
        words, before = words_of(self.text), words_of(self.prompt)
        starts = range(len(before) - len(words) + 1)
        return len(words) >= least_words and any(before[i : i + len(words)] == words for i in starts)

    def is_likely(self, stock_texts: Collection[str], no_speech_works: bool = True) -> bool:
        """By each of Whisper's own bounds, and no text that the model writes for any noise, once or again.

        A no-speech token that doesn't work isn't asked.
        """
        rule = SilenceRule()
        sounds_silent = no_speech_works and rule.sounds_silent(self.no_speech_prob)
        likely = rule.is_likely(self.avg_logprob) and not sounds_silent
        return likely and " ".join(_said_once(words_of(self.text))) not in stock_texts


def believes(window: SteeredWindow, answer: Answer, metadata: PackMetadata) -> bool:
    """Whether the decoder's answer about a window in doubt stays.

    It is a text that somebody can have said, not the text before, and no unlikely one. Where the gate leans
    to noise Whisper must find speech probable too, and what it writes for any noise isn't believed.
    """
    levels = metadata.levels
    sound_above = levels.noise_ceiling if levels.gap_below is None else levels.gap_below
    voiced_frames = int((window.scores > sound_above).sum())
    if not answer.could_be_said(voiced_frames) or answer.echoes_prompt():
        return False
    if window.scores.amax() >= levels.threshold:
        return answer.avg_logprob > LEAST_LOGPROB
    return answer.is_likely(metadata.stock_texts, metadata.no_speech_works)


def resolve_doubt(
    batch: SteeredBatch,
    metadata: PackMetadata,
    ask: Callable[[Sequence[int]], Sequence[Answer]],
    edit_refused: Callable[[SteeredBatch, Sequence[int]], SteeredBatch],
) -> SteeredBatch:
    """Ask the decoder about the windows in doubt, and edit those in which it heard nobody.

    ``ask`` decodes windows of the batch, by row, as they are; ``edit_refused`` gives the batch with those
    windows edited in full. Both are the back end's.
    """
    rows = batch.rows(Verdict.DOUBT)
    if not rows:
        return batch
    answers = zip(rows, ask(rows), strict=True)
    refused = [row for row, answer in answers if not believes(batch.window(row), answer, metadata)]
    verdict = batch.verdict.clone()
    verdict[rows] = Verdict.SPEECH
    verdict[refused] = Verdict.SILENCE
    return (edit_refused(batch, refused) if refused else batch)._replace(verdict=verdict)


def stock_texts(texts: Iterable[str], share: float = 0.01) -> tuple[str, ...]:
    """Words of what a model wrote for ``share`` or more of some recordings, and three times at least."""
    counts = Counter(" ".join(words_of(text)) for text in texts)
    return tuple(sorted(t for t, n in counts.items() if t and n >= max(3, share * counts.total())))


def _said_once(words: Sequence[str]) -> Sequence[str]:
    """The words that a text says over and over; all of it if it doesn't."""
    for length in range(1, len(words) // 2 + 1):
        if len(words) % length == 0 and list(words) == list(words[:length]) * (len(words) // length):
            return words[:length]
    return words


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())
