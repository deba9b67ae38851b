"""Speech, short words and silence over Wyoming, with the package's own client and real tiny.en."""

import asyncio
import time
from collections.abc import Generator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from scipy.signal import resample_poly
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info, SelectProgram

from tests.support.real_models import sample, truth
from tests.support.serving_parts import post, tiny
from tests.support.wyoming_parts import (
    CHUNK_BYTES,
    Heard,
    Listening,
    answer,
    listening,
    pcm,
    said,
    send,
    wav,
    with_client,
)
from whisper_sae_steer import __version__
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.serving.wyoming.utterances import FIRST_CHUNK
from whisper_sae_steer.streaming import StreamingTranscriber

LIVE = "whisper-sae-steer-live"
SPEECH = sample("speech")
WORDS = metrics.normalise(truth("speech")["speech"][0]["text"], "en").split()

FORMS = [(48_000, 2, 1), (16_000, 2, 2), (16_000, 1, 1), (44_100, 3, 2), (22_050, 4, 1), (16_000, 2, 6)]
"""rates in hertz, bytes of a sample (8-bit noise may cost a word), channels"""


@pytest.fixture(scope="module")
def server() -> Generator[Listening]:
    with listening(model="tiny.en") as running:
        yield running


def words(text: str) -> list[str]:
    return metrics.normalise(text, "en").split()


def mistakes(text: str) -> int:
    """Words that are wrong, left out or added."""
    return Levenshtein.distance(words(text), WORDS)


def stretched(rate: int, width: int, channels: int) -> bytes:
    """The speech in another form, made by other libraries than the server's; on each channel the same."""
    samples = resample_poly(SPEECH, rate, 16_000) if rate != 16_000 else SPEECH
    whole = np.repeat(np.clip(samples, -1, 1 - 2**-23)[:, None], channels, axis=1)
    if width == 1:
        return np.round(whole * 127 + 128).astype(np.uint8).tobytes()
    scaled = np.round(whole.astype(np.float64) * 2**31).clip(-(2**31), 2**31 - 1).astype("<i4")
    return scaled.view(np.uint8).reshape(-1, 4)[:, 4 - width :].tobytes()


def test_describe_says_what_there_is(server: Listening):
    async def use(client: AsyncClient) -> Any:
        await client.write_event(Describe().event())
        return await client.read_event()

    programs = Info.from_event(with_client(server.address, use)).asr
    assert [program.name for program in programs] == ["whisper-sae-steer", LIVE]
    for program in programs:
        assert program.installed
        assert program.version == __version__
        assert program.supports_transcript_streaming
        assert program.attribution.name
        (model,) = program.models
        assert (model.name, model.languages, model.installed) == (
            "tiny.en",
            ["en"],
            True,
        ) or model.name == "base"


@pytest.mark.parametrize("program", [None, "whisper-sae-steer", LIVE])
def test_speech_comes_back_as_a_transcript_in_chunks(server: Listening, program: str | None):
    heard = said(server.address, pcm(SPEECH), program, language="en")
    assert words(heard.text) == words(heard.chunks) == WORDS
    kinds = list(dict.fromkeys(heard.types))
    assert kinds == ["transcript-start", "transcript-chunk", "transcript", "transcript-stop"]
    assert heard.events[-2].data["language"] == "en"


@pytest.mark.parametrize("form", FORMS)
def test_words_are_those_of_an_upload_to_the_letter(server: Listening, form: tuple[int, int, int]):
    rate, width, channels = form
    audio = stretched(*form)
    text = said(server.address, audio, rate=rate, width=width, channels=channels).text
    assert text == post(server.server, wav(audio, *form)).json()["text"].strip()
    assert mistakes(text) <= (width == 1)


@pytest.mark.parametrize("form", FORMS)
def test_live_audio_may_have_any_form_as_well(server: Listening, form: tuple[int, int, int]):
    rate, width, channels = form
    heard = said(server.address, stretched(*form), LIVE, rate=rate, width=width, channels=channels)
    assert mistakes(heard.text) <= (width == 1)


def short_words() -> list[NDArray[np.float32]]:
    """Two short stretches of speech, as a command would be, with the pauses of a microphone around them."""
    quiet = np.random.default_rng(0).normal(0, 1e-3, 8_000).astype(np.float32)
    starts = [segment["start"] for segment in truth("speech")["speech"]]
    begin = int(starts[0] * 16_000)
    return [np.concatenate([quiet, SPEECH[begin : begin + n], quiet]) for n in (20_000, 40_000)]


@pytest.mark.parametrize("index", range(2))
def test_short_commands_are_as_good_as_of_transcribe(server: Listening, index: int):
    audio = np.frombuffer(pcm(short_words()[index]), "<i2").astype(np.float32) / 2**15
    segments, _ = tiny().transcribe(audio, language="en", steer_alpha=1.0)
    expected = "".join(segment.text for segment in segments).strip()
    assert expected
    assert said(server.address, pcm(short_words()[index])).text == expected


@pytest.mark.parametrize("program", [None, LIVE])
@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0, np.float32),
        np.zeros(100, np.float32),
        np.zeros(48_000, np.float32),
        np.random.default_rng(0).normal(0, 0.02, 64_000).astype(np.float32),
    ],
    ids=["nothing", "a moment", "silence", "noise"],
)
def test_silence_and_noise_give_an_empty_transcript(
    server: Listening, program: str | None, audio: NDArray[np.float32]
):
    heard = said(server.address, pcm(audio), program)
    assert heard.text == ""
    assert heard.types == ["transcript-start", "transcript", "transcript-stop"]


@pytest.mark.parametrize("steer_alpha", [0.0, 0.5])
def test_the_servers_alpha_steers(steer_alpha: float):
    """What reaches the model: what it writes unsteered for a sound without speech is too often a draw."""
    with (
        listening(steer_alpha=steer_alpha) as server,
        patch.object(tiny(), "transcribe", wraps=tiny().transcribe) as transcribe,
    ):
        assert words(said(server.address, pcm(SPEECH)).text) == WORDS
    assert [call.kwargs["steer_alpha"] for call in transcribe.call_args_list] == [steer_alpha]


def test_a_connection_takes_several_utterances(server: Listening):
    async def use(client: AsyncClient) -> list[Heard]:
        heard: list[Heard] = []
        for audio in (SPEECH, np.zeros(16_000, np.float32), SPEECH):
            await client.write_event(Transcribe(language="en").event())
            await send(client, pcm(audio))
            heard.append(await answer(client))
        return heard

    texts = [words(heard.text) for heard in with_client(server.address, use)]
    assert texts == [WORDS, [], WORDS]


def test_text_comes_while_somebody_speaks(server: Listening):
    """At real speed. On an idle machine the first chunk is there within 1.5 s of the first word."""

    async def use(client: AsyncClient) -> tuple[float, Heard]:
        await client.write_event(SelectProgram(LIVE).event())
        await send(client, b"", stop=False)
        started, audio = time.monotonic(), pcm(SPEECH)
        first = asyncio.create_task(answer(client, "transcript-chunk"))
        for i in range(0, len(audio), CHUNK_BYTES):
            await asyncio.sleep(max(0, started + i / 32_000 - time.monotonic()))
            if first.done():
                break
            await client.write_event(AudioChunk(16_000, 2, 1, audio[i : i + CHUNK_BYTES]).event())
        return time.monotonic() - started, await first

    elapsed, heard = with_client(server.address, use)
    waited = elapsed - truth("speech")["speech"][0]["start"]
    print(f"first chunk {waited:.2f} s after speech began: {heard.chunks!r}")
    assert heard.types == ["transcript-start", "transcript-chunk"]
    assert words(heard.chunks) == WORDS[: len(words(heard.chunks))]
    assert waited < 5  # where other tests run beside it


def test_the_first_words_are_final_after_a_second_of_speech():
    """What of the bar of 1.5 s is waiting for audio, whatever else the machine does."""
    session, begin = (
        StreamingTranscriber(tiny(), first_chunk=FIRST_CHUNK),
        truth("speech")["speech"][0]["start"],
    )
    fed = 0
    while not session.feed(SPEECH[fed : fed + 800]).final:
        fed += 800
    assert session.seconds - begin <= 1.0
