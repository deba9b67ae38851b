"""Clients of every kind, well behaved or not, that tell what became of each request.

What comes back is an HTTP status or a WebSocket's close code as text, WRONG for an answer other than the one
the same recording gets alone, GONE for a client that hung up by itself, or the name of a connection error.
"""

import asyncio
import io
import json
import random
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

import whisper_sae_steer
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE

SAMPLES = Path(whisper_sae_steer.__file__).parent / "samples"
TRANSCRIBE = "/v1/audio/transcriptions"
WRONG, GONE = "wrong", "gone"
ALPHAS = (0.0, 0.5, 1.0, 2.0)
PATIENCE_SECONDS = 600.0
"""that a client waits for its answer"""
SLOW_SECONDS = 5.0
"""that a slow client takes to send its file"""
LIVE_OPTIONS = {"min_chunk": 5.0}


class Recording(NamedTuple):
    """A file to upload, and its samples [n] for live sessions."""

    data: bytes
    samples: NDArray[np.float32]


class Case(NamedTuple):
    """A recording at a strength, and its text where nobody else asks; that of a live session apart."""

    recording: Recording
    alpha: float
    text: str = ""
    live_text: str = ""


Kind = Callable[[httpx.AsyncClient, Case], Awaitable[str]]


def recordings() -> list[Recording]:
    """Of 0.02 to 2 MB: a sentence, the same as WAV, sentences with a gap between, a minute of silence."""
    speech, gap = (SAMPLES / f"{name}.ogg" for name in ("speech", "gap"))
    samples, silence = load_audio(speech), np.zeros(60 * SAMPLE_RATE, np.float32)
    return [
        Recording(speech.read_bytes(), samples),
        Recording(_wav(samples), samples),
        Recording(gap.read_bytes(), load_audio(gap)),
        Recording(_wav(silence), silence),
    ]


async def known_cases(client: httpx.AsyncClient) -> list[Case]:
    """Every recording at every strength, with the server's answers to one request at a time."""
    cases: list[Case] = []
    for recording in recordings():
        for alpha in ALPHAS:
            case = Case(recording, alpha)
            answer = await client.post(TRANSCRIBE, **_form(case))
            text = answer.raise_for_status().json()["text"]
            cases.append(case._replace(text=text, live_text=await _live_text(client, case)))
    return cases


async def upload(client: httpx.AsyncClient, case: Case) -> str:
    """One answer for the whole file."""
    return _judged(await client.post(TRANSCRIBE, **_form(case)), case)


async def events(client: httpx.AsyncClient, case: Case) -> str:
    """Server-sent events."""
    answer = await client.post(TRANSCRIBE, **_form(case, stream="true"))
    if answer.status_code != 200:
        return str(answer.status_code)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    is_right = lines[-1] == "[DONE]" and json.loads(lines[-2]).get("text", "").strip() == case.text
    return "200" if is_right else WRONG


async def slow(client: httpx.AsyncClient, case: Case) -> str:
    """A file that comes in pieces."""
    request = client.build_request("POST", TRANSCRIBE, **_form(case))
    body = await request.aread()

    async def pieces(count: int = 10) -> AsyncIterator[bytes]:
        size = -(-len(body) // count)
        for start in range(0, len(body), size):
            yield body[start : start + size]
            await asyncio.sleep(SLOW_SECONDS / count)

    kind = {"Content-Type": request.headers["content-type"], "Content-Length": str(len(body))}
    return _judged(await client.post(TRANSCRIBE, content=pieces(), headers=kind), case)


async def vanishing(client: httpx.AsyncClient, case: Case) -> str:
    """Hangs up while it sends, waits or reads, unless it has its answer before."""
    try:
        return await asyncio.wait_for(slow(client, case), random.uniform(0, 2 * SLOW_SECONDS))
    except asyncio.TimeoutError:
        return GONE


async def bad(client: httpx.AsyncClient, case: Case) -> str:
    """A damaged file, or none: an answer of 200 can't be judged and is right."""
    data = bytearray(case.recording.data[: random.randrange(len(case.recording.data))])
    for _ in range(min(len(data), random.choice((0, 10, 1000)))):
        data[random.randrange(len(data))] = random.randrange(256)
    form = _form(case, response_format=random.choice(("json", "json", "json", "no such")))
    answer = await client.post(TRANSCRIBE, files={"file": ("a", bytes(data))}, data=form["data"])
    return str(answer.status_code)


async def live(client: httpx.AsyncClient, case: Case) -> str:
    """A live session, fed at once."""
    try:
        return "200" if await _live_text(client, case) == case.live_text else WRONG
    except ConnectionClosed as closed:
        return str(closed.rcvd.code) if closed.rcvd else type(closed).__name__


async def live_vanishing(client: httpx.AsyncClient, case: Case) -> str:
    """A live session whose client goes without a word."""
    try:
        return await asyncio.wait_for(live(client, case), random.uniform(0, 3))
    except asyncio.TimeoutError:
        return GONE


KINDS: Mapping[str, tuple[Kind, float]] = {
    "upload": (upload, 0.3),
    "events": (events, 0.2),
    "slow": (slow, 0.1),
    "vanishing": (vanishing, 0.1),
    "bad": (bad, 0.2),
    "live": (live, 0.05),
    "live_vanishing": (live_vanishing, 0.05),
}
"""and the share of each"""


def choose_kind() -> str:
    return random.choices(list(KINDS), [share for _, share in KINDS.values()])[0]


def choose_case(cases: list[Case]) -> Case:
    """Long ones are rarer."""
    return random.choices(cases, [1 / len(case.recording.samples) for case in cases])[0]


async def ask(client: httpx.AsyncClient, kind: str, case: Case) -> str:
    """What becomes of one request; what went wrong with the connection in the place of a status."""
    try:
        return await KINDS[kind][0](client, case)
    except (httpx.HTTPError, WebSocketException, OSError) as error:
        return type(error).__name__


def is_fault(outcome: str) -> bool:
    """Whether it is neither a right answer nor a refusal that says why."""
    refused = outcome.isdecimal() and (400 <= int(outcome) < 500 or outcome in ("1007", "1008", "1013"))
    return outcome not in ("200", GONE) and not refused


async def _live_text(client: httpx.AsyncClient, case: Case) -> str:
    """In one message, so that the steps never fall otherwise."""
    url = str(client.base_url.join("/v1/audio/stream")).replace("http", "ws", 1)
    samples = case.recording.samples[: 30 * SAMPLE_RATE]
    final: list[str] = []
    async with connect(url, open_timeout=PATIENCE_SECONDS) as session:
        await session.send(json.dumps({**LIVE_OPTIONS, "steer_alpha": case.alpha}))
        await session.recv()
        await session.send(_pcm(samples))
        await session.send('{"type": "end"}')
        async for message in session:
            said = json.loads(message)
            final += [segment["text"] for segment in said.get("final", ())]
    return "".join(final).strip()


def _form(case: Case, **fields: str) -> dict[str, Any]:
    return {
        "files": {"file": ("audio", case.recording.data)},
        "data": {"steer_alpha": str(case.alpha), **fields},
    }


def _judged(answer: httpx.Response, case: Case) -> str:
    if answer.status_code != 200:
        return str(answer.status_code)
    return "200" if answer.json()["text"] == case.text else WRONG


def _wav(samples: NDArray[np.float32]) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(_pcm(samples))
    return written.getvalue()


def _pcm(samples: NDArray[np.float32]) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()
