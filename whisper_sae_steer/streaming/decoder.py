"""One window of a live session: encoded once, scored by the gate, and decoded to words if someone speaks."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens
from numpy.typing import NDArray

from ..audio.units import ENCODER_FRAME_SECONDS, MEL_FRAMES_PER_ENCODER_FRAME, SAMPLE_RATE, content_frames
from ..errors import StreamError
from ..faster import PADDING_MEL_FRAMES, WhisperModel
from ..models.rules import COMPRESSION_RATIO_THRESHOLD, SilenceRule, average_logprob
from ..steering.calls import CallOptions, active
from ..steering.ctranslate import EncoderOutput, SteeredStorage
from ..steering.cuts import MIN_GAP_FRAMES, speech_regions, with_replies
from ..steering.operator import check_alpha
from ..steering.risk import WrittenSegment, WrittenWord
from ..steering.speech_map import last_voice
from .agreement import Word

Task = Literal["transcribe", "translate"]
FULL_LENGTH, SHORTEST = 3000, 500
"""mel frames of 10 ms: Whisper's window, and for the gate alone the shortest one"""
QUIET, UNHEARD = SAMPLE_RATE // 2, SAMPLE_RATE // 2
"""samples after speech that the decoder is shown at most, and of speech that it is asked again for"""
TOKENS_PER_SECOND, TOKENS_AT_LEAST = 10, 30
"""nobody speaks faster; a loop ends there"""
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""languages whose words have no spaces between them"""
PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
"""punctuation that goes with the next and the last word, both libraries' defaults"""


class StreamWindow(NamedTuple):
    """A window of at most 30 s of audio, encoded."""

    encoded: EncoderOutput
    content: int
    """encoder frames with audio"""

    @property
    def scores(self) -> NDArray[np.float32]:
        """Smoothed speech scores [content] of a steered window."""
        assert isinstance(self.encoded, SteeredStorage)
        return self.encoded.batch.scores[0, : self.content].cpu().numpy()


class Heard(NamedTuple):
    """What the gate heard in the buffer."""

    regions: Sequence[tuple[int, int]]
    """frames in which someone speaks, in stretches at least the session's pause apart. Without one, 3 s; then
    a reply and what is said before and after it make one stretch, if the pauses are no longer than 6 s"""
    window: StreamWindow | None = None
    """the buffer, encoded for the decoder as far as a voice may be in it; None if the decoder would need more
    """
    judged: StreamWindow | None = None
    """the buffer as the gate listened to it; None where it did not, as a detector heard no voice"""


class Written(NamedTuple):
    """What the decoder wrote for a window."""

    words: list[Word]
    """timed from the window's start; none if nobody speaks"""
    next: int | None
    """frame from which it wants to go on, if not from the end"""


class GapLevels(NamedTuple):
    """Smoothed speech scores that part speech from gaps (see ``GateLevels``)."""

    gap_below: float
    noise_ceiling: float


def gap_levels(model: WhisperModel, alpha: float) -> GapLevels | None:
    """Those of a session; None where nothing tells speech from noise."""
    metadata = model.steerer.pack.metadata if model.steerer and alpha else None
    if metadata is None or metadata.gate != "window" or metadata.levels.gap_below is None:
        return None
    return GapLevels(metadata.levels.gap_below, metadata.levels.noise_ceiling)


class StreamDecoder:
    """A model with the options of one session."""

    def __init__(
        self,
        model: WhisperModel,
        alpha: float,
        language: str | None,
        task: Task,
        beam_size: int,
        pause: int | None,
    ) -> None:
        self._options = CallOptions(check_alpha(alpha), in_doubt="ask")
        self._model, self._task, self._beam_size = model, task, beam_size
        self._multilingual: bool = model.model.is_multilingual
        if language is not None and language not in model.supported_languages:
            raise StreamError(f"this model knows no language {language!r}; leave it out to have it detected")
        if task not in ("transcribe", "translate"):
            raise StreamError(f"task must be 'transcribe' or 'translate', not {task!r}")
        self._levels, self._pause = gap_levels(model, self._options.alpha), pause
        if pause is not None and self._levels is None:
            raise StreamError("the gate hears pauses: it takes a model with a pack and steer_alpha above 0")
        self.language = language if self._multilingual else "en"
        """as given or last detected"""
        self.settled = self.language is not None
        """whether it is detected no more"""

    @property
    def has_gate(self) -> bool:
        """Whether anything tells speech from noise."""
        return self._levels is not None

    def listen(self, audio: NDArray[np.float32], known: int) -> Heard | None:
        """Where someone speaks in samples [n]; what is said in the first ``known`` is written already.

        A detector listens first: nothing is encoded where it hears no voice. None if it hears none behind
        ``known``, so that nothing has changed. Where nothing is written yet the gate listens to a window that
        is padded to little more than the audio: it hears enough, and that costs a fraction of one of 30 s,
        which only the decoder needs. Without a gate all of it counts as speech.
        """
        frames = content_frames(len(audio))
        if self._levels is None:
            return Heard([(0, frames)])
        voice = last_voice(audio)
        if known:
            if voice <= max(0, known - UNHEARD):
                return None
            window = self.encode(audio[: voice + QUIET])
        elif not voice:
            return Heard([])
        else:
            length = max(SHORTEST, MEL_FRAMES_PER_ENCODER_FRAME * frames + PADDING_MEL_FRAMES)
            window = self._encode(audio, min(length, FULL_LENGTH))
        regions = speech_regions(window.scores, *self._levels, self._pause or MIN_GAP_FRAMES)
        if self._pause is None:
            regions = with_replies(regions, frames + 1)  # what has just begun may be a reply
        return Heard(regions, window if known else None, window)

    def encode(self, audio: NDArray[np.float32]) -> StreamWindow:
        """Encode samples [n], at most 30 s, for :meth:`write`."""
        return self._encode(audio, FULL_LENGTH)

    def _encode(self, audio: NDArray[np.float32], length: int) -> StreamWindow:
        model = self._model
        with active(model.steerer, model.call_with(self._options)):
            encoded = model.encode(pad_or_trim(model.feature_extractor(audio)[:, :-1], length))
        return StreamWindow(encoded, content_frames(len(audio)))

    def write(self, window: StreamWindow, said: str) -> Written | None:
        """Text of the window, with what was ``said`` before as prompt; None if the decoder repeats itself."""
        model = self._model
        with active(model.steerer, model.call_with(self._options)):
            tokenizer = self._tokenizer(window)
            prompt = model.get_prompt(tokenizer, tokenizer.encode(" " + said) if said else [])
            longest = TOKENS_AT_LEAST + TOKENS_PER_SECOND * int(window.content * ENCODER_FRAME_SECONDS)
            result = model.model.generate(
                window.encoded,
                [prompt],
                beam_size=self._beam_size,
                max_length=min(model.max_length, len(prompt) + longest),
                return_scores=True,
                return_no_speech_prob=True,
                suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),  # pyright: ignore[reportArgumentType]
            )[0]
            tokens = result.sequences_ids[0]
            logprob = average_logprob(result.scores[0], len(tokens))
            if SilenceRule()(result.no_speech_prob, logprob):
                return Written([], None)
            if get_compression_ratio(tokenizer.decode(tokens).strip()) > COMPRESSION_RATIO_THRESHOLD:
                return None
            times = [token - tokenizer.timestamp_begin for token in tokens[-2:]]
            goes_on = len(times) == 2 and min(times) >= 0
            words = self._with_risk(self._words(tokens, tokenizer, window), logprob, window)
            return Written(words, times[1] if goes_on else None)

    def speech_prob(self, window: StreamWindow, start: float, end: float) -> float | None:
        """Probability that someone speaks ``start``…``end`` seconds into the window, if that is steered."""
        if not isinstance(window.encoded, SteeredStorage) or self._model.steerer is None:
            return None
        scores = window.encoded.batch.scores[0]
        return self._model.steerer.label_stretch(scores, start, end).speech_prob

    def moment_speech_prob(self, window: StreamWindow, seconds: float) -> float:
        """Probability that someone speaks around a moment of a window that the gate listened to."""
        assert isinstance(window.encoded, SteeredStorage)
        assert self._model.steerer is not None
        return self._model.steerer.label_moment(window.encoded.batch.scores[0], seconds).speech_prob

    def _with_risk(self, words: list[Word], logprob: float, window: StreamWindow) -> list[Word]:
        """The words with how likely each was made up, if the window is steered."""
        if not words or not isinstance(window.encoded, SteeredStorage) or self._model.steerer is None:
            return words
        written = WrittenSegment(
            words[0].start,
            words[-1].end,
            "".join(word.text for word in words),
            logprob,
            [WrittenWord(word.text, word.probability) for word in words],
        )
        labels = self._model.steerer.label_segment(written, window.encoded.batch.scores[0])
        risks = zip(words, labels.word_risks, strict=True)
        return [word._replace(hallucination_risk=risk) for word, risk in risks]

    def _tokenizer(self, window: StreamWindow) -> Tokenizer:
        if not self.settled:
            token, _ = self._model.model.detect_language(window.encoded)[0][0]
            self.language = token[2:-2]
        return Tokenizer(
            self._model.hf_tokenizer, self._multilingual, task=self._task, language=self.language
        )

    def _words(self, tokens: list[int], tokenizer: Tokenizer, window: StreamWindow) -> list[Word]:
        """Timed by cross-attention, with the library's own corrections."""
        seconds = window.content * ENCODER_FRAME_SECONDS
        segment: dict[str, Any] = {"seek": 0, "start": 0.0, "end": seconds, "tokens": tokens}
        self._model.add_word_timestamps(
            [[segment]],
            tokenizer,
            window.encoded,
            MEL_FRAMES_PER_ENCODER_FRAME * window.content,
            PREPENDED,
            APPENDED,
            0.0,
        )
        spaced = tokenizer.language_code not in UNSPACED
        words: list[Word] = []
        for timing in segment["words"]:
            start, end = (min(float(timing[edge]), seconds) for edge in ("start", "end"))
            word = Word(start, end, timing["word"], float(timing["probability"]))
            if words and spaced and not word.text.startswith(" "):
                last = words.pop()  # the library divides "17.05" and "well-known"
                probability = min(last.probability, word.probability)
                word = Word(last.start, word.end, last.text + word.text, probability)
            words.append(word)
        return words
