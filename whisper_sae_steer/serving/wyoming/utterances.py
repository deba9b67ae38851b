"""What is said from audio-start to audio-stop, and its text: of the whole recording, or as it is spoken."""

import asyncio
import wave
from collections.abc import AsyncGenerator
from contextlib import aclosing
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Literal, Protocol, cast

import numpy as np
from av import AudioFrame, AudioResampler
from pydantic import BaseModel, ConfigDict, Field

from ...audio.units import SAMPLE_RATE
from ...streaming import StreamingTranscriber
from ..engine import ServingEngine
from ..errors import ApiError
from ..options import RequestOptions
from ..sessions import LiveSession, TooLong
from ..transcribing import RecordingInfo, transcribe
from .events import BadEvent

IN_MEMORY_BYTES = 2**20
"""of a recording; what is longer is on disk, as uploads are"""
MIN_CHUNK = 0.3
"""seconds of new audio after which a live utterance is transcribed again"""


class SampleFormat(BaseModel):
    """Of raw little-endian samples."""

    model_config = ConfigDict(frozen=True, strict=True)

    rate: int = Field(ge=1_000, le=384_000)
    """hertz"""
    width: Literal[1, 2, 3, 4]
    """bytes of a sample; single ones are unsigned, as in WAV files"""
    channels: int = Field(ge=1, le=8)

    def seconds(self, audio: bytes) -> float:
        """How long it is; BadEvent if it doesn't end with a whole sample of each channel."""
        frames, rest = divmod(len(audio), self.width * self.channels)
        if rest:
            raise BadEvent(f"{len(audio)} bytes are no whole number of {self.channels} × {self.width} bytes")
        return frames / self.rate


class Utterance(Protocol):
    """Audio in, text out."""

    seconds: float
    """of audio so far"""

    @property
    def language(self) -> str | None:
        """Its code, once it is known."""
        ...

    async def put(self, audio: bytes) -> None:
        """Append audio, as soon as there is room. Raises BadEvent, and ApiError for more than may come."""
        ...

    async def end(self) -> None:
        """No more will come."""
        ...

    def texts(self) -> AsyncGenerator[str]:
        """Final text, piece by piece: joined, it is the transcript. Raises ApiError."""
        ...

    def close(self) -> None:
        """Forget it."""
        ...


class Recording:
    """An utterance that is transcribed when it is over, in every way as an upload is."""

    def __init__(self, engine: ServingEngine, options: RequestOptions, form: SampleFormat):
        self._engine, self._options, self._form = engine, options, form
        self._file = cast(BinaryIO, SpooledTemporaryFile(IN_MEMORY_BYTES))  # noqa: SIM115
        self._wav = wave.open(self._file, "wb")  # noqa: SIM115
        self._wav.setparams((form.channels, form.width, form.rate, 0, "NONE", ""))
        self._bytes = 0
        self._ended = asyncio.Event()
        self.seconds = 0.0
        self.language: str | None = None

    async def put(self, audio: bytes) -> None:
        config = self._engine.config
        self.seconds += self._form.seconds(audio)
        self._bytes += len(audio)
        if self.seconds > config.max_audio_seconds:
            raise TooLong(config.max_audio_seconds)
        if self._bytes > config.max_upload_bytes:
            limit = f"{config.max_upload_bytes / 2**20:g} MiB"
            raise ApiError(413, f"the audio is larger than {limit}", "file_too_large")
        self._wav.writeframesraw(audio)

    async def end(self) -> None:
        self._wav.close()  # which completes the header, and leaves the file open
        self._file.seek(0)
        self._ended.set()

    async def texts(self) -> AsyncGenerator[str]:
        await self._ended.wait()
        if not self._bytes:
            return
        job = self._engine.draw(transcribe, self._engine, self._file, self._options, "transcribe")
        async with aclosing(job):
            async for item in job:
                if isinstance(item, RecordingInfo):
                    self.language = item.language
                else:
                    yield item["text"]

    def close(self) -> None:
        self._wav.close()  # before its file, into which it writes a header
        self._file.close()


class LiveUtterance:
    """An utterance that is transcribed while it lasts; its pieces are what two hypotheses agree on."""

    def __init__(self, engine: ServingEngine, options: RequestOptions, form: SampleFormat):
        self._form = form
        self._resampler = AudioResampler("flt", "mono", SAMPLE_RATE)
        transcriber = StreamingTranscriber(
            engine.model, steer_alpha=options.steer_alpha, language=options.language, min_chunk=MIN_CHUNK
        )
        self._session = LiveSession(engine, transcriber, MIN_CHUNK)
        self.seconds = 0.0

    @property
    def language(self) -> str | None:
        return self._session.transcriber.language

    async def put(self, audio: bytes) -> None:
        self.seconds += self._form.seconds(audio)
        if audio:
            await self._put(_mono(audio, self._form))

    async def end(self) -> None:
        if self.seconds:
            await self._put(None)
        await self._session.end()

    async def texts(self) -> AsyncGenerator[str]:
        async with aclosing(self._session.updates()) as updates:
            async for update in updates:
                for segment in update.final:
                    yield segment.text

    def close(self) -> None:
        pass

    async def _put(self, frame: AudioFrame | None) -> None:
        """None: what the resampler holds back."""
        for made in self._resampler.resample(frame):
            await self._session.put(made.to_ndarray()[0])


def _mono(audio: bytes, form: SampleFormat) -> AudioFrame:
    """The mean of all channels, in [-1, 1], at the same rate."""
    if form.width == 1:
        samples = np.frombuffer(audio, np.uint8).astype(np.float32) / 128 - 1
    else:
        # the bytes of a sample are the highest ones of 32 bits
        wide = np.zeros((len(audio) // form.width, 4), np.uint8)
        wide[:, 4 - form.width :] = np.frombuffer(audio, np.uint8).reshape(-1, form.width)
        samples = wide.view("<i4")[:, 0].astype(np.float32) / 2**31
    mixed = samples.reshape(-1, form.channels).mean(axis=1, dtype=np.float32)
    frame = AudioFrame.from_ndarray(mixed[None], "flt", "mono")
    frame.sample_rate = form.rate
    return frame
