"""Make the sample recordings: samples/speech.ogg and samples/gap.ogg with their truth as JSON.

The voice is `slt` of the Debian package `flite`, the noise is made by
`whisper_sae_steer.audio.reading.synthetic`, so nobody else's recording is in them:

    apt-get install -y flite
    python calibration/make_sample.py [--out samples]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.synthetic import clip
from whisper_sae_steer.audio.units import SAMPLE_RATE

VOICE = "slt"
TEXTS = (
    "The train to the coast leaves at noon, so please bring the two blue boxes to the station "
    "before the doors close.",
    "We found both boxes under the window, and my brother will carry them to the harbor this evening.",
)
SPEECH_DBFS, NOISE_DBFS = -23.0, -40.0
NOISE = ("room", 1)  # kind and index of the synthetic clip
FIRST, NOISE_FROM, NOISE_TO, SECOND = 0.3, 20.0, 90.8, 91.5  # seconds

Audio = npt.NDArray[np.float32]


def at_level(x: Audio, dbfs: float) -> Audio:
    """`x` scaled to an RMS of `dbfs`."""
    rms = np.sqrt(np.mean(np.square(x), dtype=np.float64))
    return np.clip(x * (10 ** (dbfs / 20) / rms), -1, 1).astype(np.float32)


def speak(text: str) -> Audio:
    """`text` read by flite, float32 [n] at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", str(path)], check=True)
        return at_level(load_audio(path), SPEECH_DBFS)


def place(recording: Audio, part: Audio, at: float) -> tuple[float, float]:
    """Add `part` to `recording` at `at` seconds; return its start and end in seconds."""
    start = round(at * SAMPLE_RATE)
    recording[start : start + len(part)] += part
    return at, round((start + len(part)) / SAMPLE_RATE, 3)


def encode(path: Path, audio: Audio) -> None:
    """Write `audio` as Ogg Opus, 24 kbit/s, the same bytes every time."""
    partial = path.with_suffix(".part")
    options = {"fflags": "+bitexact"}
    with av.open(str(partial), "w", format="ogg", container_options=options) as file:
        stream = file.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = 24_000
        samples = np.round(audio * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    os.replace(partial, path)


def write(out: Path, name: str, audio: Audio, truth: Mapping[str, object]) -> None:
    encode(out / f"{name}.ogg", audio)
    made = {
        "audio": f"{name}.ogg",
        "seconds": round(len(audio) / SAMPLE_RATE, 3),
        "language": "en",
        "made_by": "calibration/make_sample.py",
        "voice": f"flite {VOICE} (Debian package flite), {SPEECH_DBFS} dBFS RMS",
        "licence": "MIT",
    }
    (out / f"{name}.json").write_text(json.dumps({**made, **truth}, indent=2) + "\n")


def make_speech(out: Path) -> None:
    """About 10 s: the voice alone."""
    part = speak(TEXTS[0])
    audio = np.zeros(10 * SAMPLE_RATE, np.float32)
    start, end = place(audio, part, 1.0)
    truth = {"speech": [{"start": start, "end": end, "text": TEXTS[0]}], "gaps": []}
    write(out, "speech", audio, truth)


def make_gap(out: Path) -> None:
    """Speech, silence, noise, speech; two whole 30 s windows of Whisper hold no word."""
    first, second = map(speak, TEXTS)
    kind, index = NOISE
    seconds = NOISE_TO - NOISE_FROM
    noise = at_level(clip(kind, index, seconds=(seconds, seconds)).audio, NOISE_DBFS)
    audio = np.zeros(round((SECOND + 0.5) * SAMPLE_RATE) + len(second), np.float32)
    spoken = [place(audio, first, FIRST), place(audio, second, SECOND)]
    place(audio, noise, NOISE_FROM)
    truth = {
        "speech": [
            {"start": start, "end": end, "text": text}
            for (start, end), text in zip(spoken, TEXTS, strict=True)
        ],
        "gaps": [{"start": spoken[0][1], "end": spoken[1][0]}],
        "noise": {
            "start": NOISE_FROM,
            "end": NOISE_TO,
            "kind": kind,
            "index": index,
            "dbfs": NOISE_DBFS,
            "note": "whisper_sae_steer.synthetic; digital silence in the rest of the gap",
        },
    }
    write(out, "gap", audio, truth)


def main() -> int:
    parser = argparse.ArgumentParser(description="make the sample recordings")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="default: samples")
    out: Path = parser.parse_args().out
    if shutil.which("flite") is None:
        print("make_sample.py: flite is missing: apt-get install -y flite", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    make_speech(out)
    make_gap(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
