"""Uploads that are wrong, hostile, slow or too many: the right status, and nobody else harmed."""

import io
import os
import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.io import wavfile

from tests.support.serving_parts import (
    TRANSCRIBE,
    ModelAsTold,
    Serving,
    http,
    multipart,
    open_request,
    post,
    refusal,
    serving,
    status_of,
    until,
    wav,
)
from whisper_sae_steer.serving import uploads
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.memory import give_back_memory

MB = 2**20
CONFIG = ServeConfig(
    model="some-model",
    max_upload_bytes=MB,
    max_audio_seconds=60,
    upload_timeout=0.5,
    max_queue=2,
    max_uploads=8,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(CONFIG, ModelAsTold()) as started:
        yield started


@pytest.fixture
def model() -> ModelAsTold:
    return ModelAsTold(blocks=True)


@pytest.fixture
def held(model: ModelAsTold) -> Iterator[Serving]:
    """A server whose model gives a segment only when it is told to."""
    with serving(CONFIG, model) as started:
        yield started
        model.go.release(10**6)


@pytest.fixture(autouse=True)
def others_are_unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the server works and nothing of it is still taken."""
    (name,) = {"server", "held"} & set(request.fixturenames) or {"server"}
    started: Serving = request.getfixturevalue(name)
    yield
    started.app.state.engine.model.go.release(1000)
    assert post(started).status_code == 200
    until(lambda: started.app.state.engine.uploads.taken == 0)
    until(lambda: http.get(started.url + "/health").json()["queued"] == 0)


# ---- wrong media


def float_wav(samples: list[float]) -> bytes:
    written = io.BytesIO()
    wavfile.write(written, 16_000, np.array(samples * 1000, np.float32))
    return written.getvalue()


def silent_video() -> bytes:
    """An mp4 without an audio stream."""
    written = io.BytesIO()
    with av.open(written, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return written.getvalue()


@pytest.mark.parametrize(
    ("file", "status"),
    [
        (b"", 400),
        (wav(0), 400),
        (float_wav([0.1, float("nan")]), 400),
        (float_wav([0.1, float("inf")]), 400),
        (float_wav([0.1, 32768.0]), 400),
        (b"Dear server, this is text. " * 100, 415),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), 415),
        (b"PK\x03\x04" + bytes(1000), 415),
        (os.urandom(100_000), 415),
        (wav(1)[:20], 415),
        (silent_video(), 415),
        (wav(1)[:20] + b"\x34\x12" + wav(1)[22:], 415),
    ],
    ids=[
        *("empty", "no samples", "nan", "inf", "loud", "text", "png", "zip", "random", "cut", "silent video"),
        "unknown codec",
    ],
)
def test_what_is_no_audio_is_refused(server: Serving, file: bytes, status: int) -> None:
    code = "unsupported_media" if status == 415 else "invalid_audio"
    assert refusal(post(server, file=file)) == (status, code, "file")


def test_float_samples_that_are_numbers_are_fine(server: Serving) -> None:
    assert post(server, file=float_wav([0.1, -0.1])).status_code == 200


def test_lists_that_name_other_files_are_not_followed(server: Serving, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(5))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{secret.as_uri()}\n#EXT-X-ENDLIST\n"
    for text in (playlist, f"ffconcat version 1.0\nfile '{secret}'\n"):
        assert refusal(post(server, file=text.encode()))[0] == 415


@pytest.mark.parametrize("name", ["../../pwned.wav", "/tmp/pwned.wav", "..\\pwned", "x" * 4000, "pipe:0"])
def test_a_files_name_is_never_used(
    server: Serving, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert post(server, name=name).status_code == 200
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent.parent / "pwned.wav").exists()
    assert not Path("/tmp/pwned.wav").exists()


# ---- more than it looks


def silent_flac(hours: float, rate: int = 8000) -> bytes:
    written = io.BytesIO()
    with av.open(written, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 100 * 4608), np.int16), "s16", "mono")
        frame.rate = rate
        for _ in range(round(hours * 3600 * rate / frame.samples)):
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return written.getvalue()


def resident(server: Serving) -> float:
    """MiB that are held, not free"""
    give_back_memory()
    text = http.get(server.url + "/metrics").text
    (line,) = (line for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
    return float(line.split()[1]) / MB


def test_hours_in_a_small_file_are_stopped_at_the_limit(server: Serving) -> None:
    honest = silent_flac(1.2)
    assert len(honest) < MB
    lying = bytearray(honest)
    lying[21] &= 0xF0  # the count of samples: 36 bits, 0 for unknown
    lying[22:26] = bytes(4)
    before = resident(server)
    started = time.monotonic()
    for _ in range(5):
        assert refusal(post(server, file=honest)) == (413, "audio_too_long", "file")
        assert refusal(post(server, file=bytes(lying))) == (413, "audio_too_long", "file")
    assert time.monotonic() - started < 10
    assert resident(server) - before < 30


def test_seconds_that_a_low_rate_makes_hours_of_are_refused(server: Serving) -> None:
    """Whose length no header tells: one block of it would be gigabytes."""
    lying = bytearray(silent_flac(128, rate=1))
    lying[21] &= 0xF0
    lying[22:26] = bytes(4)
    before = resident(server)
    assert refusal(post(server, file=bytes(lying))) == (400, "invalid_audio", "file")
    assert resident(server) - before < 30


def test_what_decodes_too_slowly_is_stopped() -> None:
    config = ServeConfig(model="some-model", decode_timeout=1e-6)
    with serving(config, ModelAsTold()) as server:
        assert refusal(post(server)) == (413, "audio_too_slow", "file")


def test_a_file_above_the_limit_is_413_and_one_at_it_is_not(server: Serving) -> None:
    assert refusal(post(server, file=bytes(MB + 1))) == (413, "file_too_large", "file")
    assert refusal(post(server, file=bytes(MB)))[0] == 415


def test_a_length_above_the_limit_is_413_before_any_of_it_is_sent(server: Serving) -> None:
    head = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 30000000\r\n"
    with open_request(server, head) as connection:
        assert status_of(connection) == 413


def test_chunks_beyond_the_limit_are_413_while_they_come(server: Serving) -> None:
    head = "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    piece, sent = b"10000\r\n" + bytes(2**16) + b"\r\n", 0
    with open_request(server, head, b"%x\r\n%b\r\n" % (len(part), part)) as connection:
        while not select.select([connection], [], [], 0.002)[0]:
            connection.sendall(piece)
            sent += 2**16
            assert sent < 10 * MB
        assert status_of(connection) == 413


# ---- forms

CLOSED = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data", FILE % wav() + b"--b--\r\n", 400),
        ("multipart/form-data; boundary=other", FILE % wav() + b"--b--\r\n", 400),
        ("multipart/form-data; boundary=b", b"", 400),
        ("multipart/form-data; boundary=b", b"\x00\xff" * 500, 400),
        ("multipart/form-data; boundary=b", (FILE % wav())[:1000], 400),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
            400,
        ),
        ("multipart/form-data; boundary=b", CLOSED % (b"file", b"text") + b"--b--\r\n", 400),
        ("multipart/form-data; boundary=b", (FILE % wav()) * 2 + b"--b--\r\n", 400),
        ("multipart/form-data; boundary=b", (CLOSED % (b"x", b"y")) * 100 + b"--b--\r\n", 400),
        ("multipart/form-data; boundary=b", CLOSED % (b"prompt", bytes(100_000)) + b"--b--\r\n", 400),
        ("multipart/form-data; boundary=" + "b" * 3000, FILE % wav() + b"--b--\r\n", 400),
        ("application/json", b'{"file": "a.wav"}', 415),
        ("application/x-www-form-urlencoded", b"file=a.wav", 415),
        ("", b"", 415),
    ],
)
def test_forms_that_are_none(server: Serving, kind: str, body: bytes, status: int) -> None:
    response = http.post(server.url + TRANSCRIBE, content=body, headers={"Content-Type": kind})
    assert refusal(response)[0] == status


def test_content_length_that_is_no_number_is_400(server: Serving) -> None:
    with open_request(server, "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: x\r\n") as c:
        assert status_of(c) == 400


# ---- clients that are slow or go away


def test_a_slow_client_is_408_and_holds_up_nobody(server: Serving) -> None:
    head, body = multipart(wav(5))
    with open_request(server, head, body[:100]) as slow:
        assert post(server).status_code == 200
        for offset in range(100, 2000, 100):  # a little now and then is too slow all the same
            if select.select([slow], [], [], 0.05)[0]:
                break
            slow.sendall(body[offset : offset + 100])
        assert status_of(slow) == 408
        slow.settimeout(2)
        while slow.recv(4096):
            pass  # until the server closes the connection


def test_an_upload_that_stalls_is_408_long_before_the_whole_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.2)
    config = ServeConfig(model="some-model", max_uploads=1, upload_timeout=60)
    head, body = multipart(wav(5))
    with serving(config, ModelAsTold()) as server, open_request(server, head, body[:1000]) as stalled:
        until(lambda: server.app.state.engine.uploads.taken == 1)
        assert status_of(stalled) == 408
        assert post(server).status_code == 200


def test_an_upload_that_trickles_is_408_long_before_the_whole_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.2)
    config = ServeConfig(model="some-model", max_uploads=1, upload_timeout=60)
    head, body = multipart(wav(5))
    with serving(config, ModelAsTold()) as server, open_request(server, head, body[:100]) as trickling:
        for offset in range(100, 10_000):
            if select.select([trickling], [], [], 0.05)[0]:
                break
            trickling.sendall(body[offset : offset + 1])
        assert status_of(trickling) == 408
        assert post(server).status_code == 200


def test_a_client_that_goes_while_it_sends_leaves_nothing(server: Serving) -> None:
    head, body = multipart(wav(5))
    connection = open_request(server, head, body[:1000])
    until(lambda: server.app.state.engine.uploads.taken == 1)
    connection.close()
    until(lambda: server.app.state.engine.uploads.taken == 0)


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
def test_a_client_that_goes_ends_its_job_between_segments(
    held: Serving, model: ModelAsTold, fields: dict[str, str]
) -> None:
    head, body = multipart(wav(30), **fields)
    connection = open_request(held, head, body)
    count = held.app.state.engine.metrics.registry.get_sample_value
    model.go.release(2)
    until(lambda: count("whisper_segments_total", {"model": "some-model"}) == 2)
    connection.close()
    until(lambda: count("whisper_hangups_total") == 1)
    assert model.ended == 0
    model.go.release()
    until(lambda: model.ended == 1)  # though 27 seconds of it were left


def test_a_client_that_goes_frees_its_place_in_the_queue(held: Serving, model: ModelAsTold) -> None:
    engine = held.app.state.engine
    head, body = multipart(wav(1))
    waiting = [open_request(held, head, body) for _ in range(3)]
    until(lambda: engine.queued == 2)
    assert refusal(post(held)) == (429, "server_busy", None)
    waiting[2].close()
    until(lambda: engine.queued == 1)
    model.go.release(2)
    assert [status_of(connection) for connection in waiting[:2]] == [200, 200]
    assert len(model.calls) == 2  # the one that left was never begun


# ---- too many


def test_more_than_the_queue_holds_is_429_with_a_time_to_come_back(held: Serving, model: ModelAsTold) -> None:
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(post, held) for _ in range(40)]
        until(lambda: sum(future.done() for future in asked) == 37)
        refused = [future.result() for future in asked if future.done()]
        assert http.get(held.url + "/health").json()["ready"] is False
        assert http.get(held.url + "/health/ready").status_code == 503
        model.go.release(3)
        answers = [future.result().status_code for future in asked]
    assert sorted(answers) == [200] * 3 + [429] * 37
    assert {refusal(response) for response in refused} == {(429, "server_busy", None)}
    assert all(1 <= int(response.headers["retry-after"]) <= 60 for response in refused)


def test_uploads_at_once_are_bounded(server: Serving) -> None:
    head, body = multipart(wav(5))
    sending = [open_request(server, head, body[:1000]) for _ in range(CONFIG.max_uploads)]
    until(lambda: server.app.state.engine.uploads.taken == CONFIG.max_uploads)
    assert refusal(post(server)) == (429, "server_busy", None)
    assert http.get(server.url + "/health/ready").status_code == 503
    for connection in sending:
        connection.close()
    until(lambda: server.app.state.engine.uploads.taken == 0)
