"""Live audio: a session that is fed chunks and says which text is final, and which may still change.

    session = StreamingTranscriber(model)
    for chunk in microphone:
        final, partial = session.feed(chunk)
    final, _ = session.finish()

Every second the gate says whether someone speaks. Where nobody does, audio is forgotten, never decoded, and
not even encoded if a detector is sure that there is no voice. Speech is transcribed again as it grows, and
what two hypotheses agree on is final (LocalAgreement-2, see ``agreement.py``); it is finished by a gap, or
cut off where a final sentence ends.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..audio.reading import load_audio
from ..audio.units import (
    ENCODER_FRAMES_PER_SECOND,
    SAMPLE_RATE,
    SAMPLES_PER_ENCODER_FRAME,
    WINDOW_SAMPLES,
    content_frames,
)
from ..errors import AudioError, StreamError
from ..faster import WhisperModel
from ..steering.cuts import MIN_GAP_FRAMES, PAD_FRAMES, REPLY_GAP_FRAMES
from .agreement import Word, agreed, continues_at, ends_sentence, sentences
from .curve import SpeechCurve
from .decoder import QUIET, UNHEARD, StreamDecoder, StreamWindow, Task
from .results import StreamSegment, Stretch, Update

KEPT = 2 * SAMPLE_RATE
"""samples without speech that stay: its beginning may not show yet"""
LONG, FULL = 15 * SAMPLE_RATE, 25 * SAMPLE_RATE
"""samples of speech from which the buffer is cut at the end of a sentence, or of any word"""
PROMPT_WORDS = 40
"""at most this much of what was said before the buffer is the decoder's prompt"""
LONGEST_MIN_CHUNK, LONGEST_PAUSE = 5.0, 10.0


class StreamingTranscriber:
    """A live session on a model, which other sessions and threads may use at the same time.

    ``steer_alpha`` as in ``transcribe``; at 0, or where the model has no pack, nothing tells speech from
    noise and everything is decoded. ``language`` None has it detected from the first words. Audio is
    transcribed when ``min_chunk`` seconds of it are new, in one go if more of it is fed at once: shorter is
    sooner and dearer. The same chunks give the same updates. ``prompt`` is text that is taken as said before.
    With ``pause`` the session is finished by itself as soon as someone has spoken and then been silent for
    so many seconds; what it was fed beyond is in ``rest``. Raises AlphaError and StreamError.
    """

    def __init__(
        self,
        model: WhisperModel,
        *,
        steer_alpha: float = 1.0,
        language: str | None = None,
        task: Task = "transcribe",
        min_chunk: float = 1.0,
        beam_size: int = 5,
        prompt: str = "",
        pause: float | None = None,
    ) -> None:
        if not 0.1 <= min_chunk <= LONGEST_MIN_CHUNK:
            raise StreamError(f"min_chunk must be 0.1 to {LONGEST_MIN_CHUNK:g} seconds, not {min_chunk}")
        if pause is not None and not 0 < pause <= LONGEST_PAUSE:
            raise StreamError(f"pause must be above 0 and at most {LONGEST_PAUSE:g} seconds, not {pause}")
        self._pause = None if pause is None else round(pause * ENCODER_FRAMES_PER_SECOND)
        """frames without speech that end the session"""
        self._decoder = StreamDecoder(model, steer_alpha, language, task, beam_size, self._pause)
        self._min_chunk = round(min_chunk * SAMPLE_RATE)
        self._waiting: deque[NDArray[np.float32]] = deque()
        """chunks not in the buffer yet"""
        self._buffer = np.zeros(0, np.float32)
        self._start = 0
        """samples of the session before the buffer"""
        self._covered = 0
        """samples of the session that the last hypothesis was made from"""
        self._regions: list[tuple[int, int]] = []
        """samples of the session in which someone spoke, as last heard"""
        self._heard = 0
        """samples of the session that they were heard in"""
        self._said = deque((f" {word}" for word in prompt.split()), maxlen=PROMPT_WORDS)
        """final words before the buffer"""
        self._committed: list[Word] = []
        """final words in the buffer"""
        self._pending: list[Word] = []
        """what the last hypothesis says beyond them"""
        self._final: list[StreamSegment] = []
        self._partial: list[StreamSegment] = []
        self._segments = 0
        self._windows: list[tuple[int, StreamWindow]] = []
        """windows of the last hypothesis, and samples of the session before each"""
        self._finished = False
        self._curve = SpeechCurve(self._decoder)
        self.speech_prob: list[float] = []
        """probability of speech at each 0.1 s that the last call was the first to listen to"""
        self._done = 0
        """samples of the buffer that the session ended with"""

    @property
    def language(self) -> str | None:
        """Language code as given or detected; None before anyone spoke."""
        return self._decoder.language

    @property
    def seconds(self) -> float:
        """Seconds of audio fed so far."""
        return (self._start + len(self._buffer) + self._samples_waiting()) / SAMPLE_RATE

    @property
    def speech(self) -> list[Stretch]:
        """Where someone speaks, as last heard, of what the session has not let go of."""
        heard = [(a, b) for a, b in self._regions if b > self._start]
        return [Stretch(a / SAMPLE_RATE, b / SAMPLE_RATE) for a, b in heard]

    @property
    def finished(self) -> bool:
        """Whether all text is final and no more audio is taken."""
        return self._finished

    @property
    def rest(self) -> NDArray[np.float32]:
        """Samples [n] of what was fed that another session could go on from.

        Those behind the pause that ended this one; before it ends, all that it has not let go of.
        """
        return np.concatenate([self._buffer[self._done :], *self._waiting])

    def feed(self, chunk: NDArray[np.float32]) -> Update:
        """Take samples [n], float32 mono at 16 kHz, of any length.

        Raises AudioError for anything else and for NaN, and StreamError after the end; the session goes on.
        """
        if self._finished:
            raise StreamError("this session is finished: start another one")
        self.speech_prob = []
        if not isinstance(chunk, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AudioError(f"a chunk must be an array of samples, not {type(chunk)}")
        samples = chunk if chunk.shape == (0,) else load_audio(chunk)
        self._waiting.append(np.array(samples, np.float32))  # the caller may write to its own again
        while self._samples_waiting() >= self._min_chunk and not self._finished:
            self._take()
            self._advance(last=False)
        return self._update()

    def finish(self) -> Update:
        """Transcribe the rest; all text is final then. Once more gives an empty update."""
        self.speech_prob = []
        if not self._finished:
            self._finished = True
            self._take()
            self._advance(last=True)
        return self._update()

    def _samples_waiting(self) -> int:
        return sum(len(chunk) for chunk in self._waiting)

    def _update(self) -> Update:
        final, self._final = self._final, []
        return Update(final, self._partial)

    def _take(self) -> None:
        """Move waiting audio to the buffer, as much as fits."""
        waiting = np.concatenate([*self._waiting, np.zeros(0, np.float32)])
        room = WINDOW_SAMPLES - len(self._buffer)
        self._buffer = np.concatenate([self._buffer, waiting[:room]])
        self._waiting = deque([waiting[room:]])

    def _advance(self, last: bool) -> None:
        """Transcribe what was said in the buffer, and let go of what is done with."""
        while len(self._buffer):
            regions, encoded = self._listen()
            kept = 0 if last else KEPT
            if not regions:
                # what was pending came of a sound that turned out to be no speech
                self._pending, self._partial = [], []
                self._drop(len(self._buffer) - kept)
                return
            start, end = regions[0]
            if start - PAD_FRAMES >= MIN_GAP_FRAMES:
                self._drop((start - PAD_FRAMES) * SAMPLES_PER_ENCODER_FRAME)
                continue
            silent = content_frames(len(self._buffer)) - end
            over = last or silent >= (self._pause or MIN_GAP_FRAMES)
            self._transcribe((end + PAD_FRAMES) * SAMPLES_PER_ENCODER_FRAME, over, encoded)
            if not over:
                self._shorten()
                return
            if self._pause and not last:
                self._end_behind(end + min(PAD_FRAMES, self._pause))
                return
            if len(regions) == 1:
                # a reply is read better with what it answers
                if last or silent >= REPLY_GAP_FRAMES:
                    self._drop(len(self._buffer) - kept)
                return
            self._drop((regions[1][0] - PAD_FRAMES) * SAMPLES_PER_ENCODER_FRAME)

    def _end_behind(self, frame: int) -> None:
        """Finish the session with this frame of the buffer."""
        self._finished, self._done = True, frame * SAMPLES_PER_ENCODER_FRAME

    def _listen(self) -> tuple[list[tuple[int, int]], StreamWindow | None]:
        """Frames of the buffer in which someone speaks, and the buffer for the decoder if it was encoded."""
        in_speech = bool(self._committed or self._pending)
        heard = self._decoder.listen(self._buffer, self._heard - self._start if in_speech else 0)
        judged, end = heard.judged if heard else None, self._start + len(self._buffer)
        self.speech_prob += self._curve.extend(judged, self._start, end)
        step = SAMPLES_PER_ENCODER_FRAME
        if heard is not None:
            self._heard = end
            self._regions = [(self._start + step * a, self._start + step * b) for a, b in heard.regions]
        edges = ((max(0, a - self._start), b - self._start) for a, b in self._regions)
        return [(a // step, b // step) for a, b in edges if b > 0], heard.window if heard else None

    def _transcribe(self, spoken: int, over: bool, encoded: StreamWindow | None) -> None:
        """Bring the text up to date with the speech that ends ``spoken`` samples into the buffer.

        For good if it is ``over``. Where nothing more was said the next hypothesis would agree. ``encoded``
        is the buffer as far as a voice may be in it, if that is known.
        """
        words, confirmed = self._pending, len(self._pending)
        if self._start + spoken > self._covered:
            self._covered = self._start + len(self._buffer)
            hypothesis = self._hypothesis(spoken, encoded)
            if hypothesis is not None:
                words = hypothesis[continues_at(self._committed, hypothesis) :]
                confirmed = agreed(self._pending, words)
        self._commit(words, len(words) if over else confirmed)

    def _hypothesis(self, spoken: int, encoded: StreamWindow | None) -> list[Word] | None:
        """All words of the buffer, as the decoder now has them; None if there are none to rely on.

        As Whisper asks for it, the window moves on as long as it leaves speech behind.
        """
        shown = SAMPLES_PER_ENCODER_FRAME * encoded.content if encoded else len(self._buffer)
        if shown - spoken > QUIET:
            shown, encoded = spoken, None
        audio, begin = self._buffer[:shown], 0
        self._windows, words = [], list[Word]()
        while True:
            window = encoded if encoded and not begin else self._decoder.encode(audio[begin:])
            self._windows.append((self._start + begin, window))
            written = self._decoder.write(window, "".join([*self._said, *(w.text for w in words)]).strip())
            if written is None:
                return words or None
            words += [word.shifted((self._start + begin) / SAMPLE_RATE) for word in written.words]
            if not written.next:
                return words
            begin += written.next * SAMPLES_PER_ENCODER_FRAME
            if spoken - PAD_FRAMES * SAMPLES_PER_ENCODER_FRAME - begin < UNHEARD:
                return words

    def _commit(self, words: list[Word], confirmed: int) -> None:
        """Make the first words final; the others are pending."""
        final = self._as_segments(words[:confirmed])
        self._final += final
        self._segments += len(final)
        self._committed += words[:confirmed]
        self._decoder.settled |= bool(final)
        self._pending = words[confirmed:]
        self._partial = self._as_segments(self._pending)

    def _as_segments(self, words: list[Word]) -> list[StreamSegment]:
        segments: list[StreamSegment] = []
        for stretch in sentences(words):
            start, end = stretch[0].start, stretch[-1].end
            segments.append(
                StreamSegment(
                    self._segments + len(segments),
                    start,
                    end,
                    "".join(word.text for word in stretch),
                    self._speech_prob(start, end),
                    _mean([word.hallucination_risk for word in stretch]),
                    tuple(stretch),
                )
            )
        return segments

    def _speech_prob(self, start: float, end: float) -> float | None:
        """From the window that the words were read in."""
        windows = [(begin / SAMPLE_RATE, window) for begin, window in self._windows]
        offset, window = next((w for w in reversed(windows) if w[0] <= start), windows[0])
        return self._decoder.speech_prob(window, start - offset, end - offset)

    def _shorten(self) -> None:
        """Cut a long buffer where a final sentence ends, or if it is nearly full where any word does."""
        ended = [i for i, word in enumerate(self._committed) if ends_sentence(word)]
        if len(self._buffer) > LONG and ended:
            self._drop_after(ended[-1])
        if len(self._buffer) > FULL and self._committed:
            self._drop_after(len(self._committed) - 1)
        if len(self._buffer) > FULL:
            self._give_up_agreeing()

    def _give_up_agreeing(self) -> None:
        """No two hypotheses agree: all but the newest words of the last one are final."""
        newest = (self._start + len(self._buffer) - KEPT) / SAMPLE_RATE
        old = sum(word.end < newest for word in self._pending)
        self._commit(self._pending, old)
        if old:
            self._drop_after(len(self._committed) - 1)
        else:
            self._drop(len(self._buffer) - KEPT)

    def _drop_after(self, index: int) -> None:
        """Drop the buffer up to half-way between a final word and the next."""
        words = [*self._committed, *self._pending]
        end = words[index].end
        following = words[index + 1].start if index + 1 < len(words) else end
        self._drop(round((end + max(end, following)) / 2 * SAMPLE_RATE) - self._start)

    def _drop(self, samples: int) -> None:
        """Drop so many samples from the buffer's start; final words in them become the prompt."""
        samples = max(0, min(samples, len(self._buffer)))
        self._start += samples
        self._buffer = self._buffer[samples:]
        begin = self._start / SAMPLE_RATE
        gone = sum((word.start + word.end) / 2 < begin for word in self._committed)
        self._said.extend(word.text for word in self._committed[:gone])
        self._committed = self._committed[gone:]


def _mean(risks: Sequence[float | None]) -> float | None:
    known = [risk for risk in risks if risk is not None]
    return sum(known) / len(known) if known else None
