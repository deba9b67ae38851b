"""Back ends that write the same texts whatever they are given, in place of models."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_sae_steer.bench.backends import Backend, RawWindow, Transcript
from whisper_sae_steer.bench.peers.catalogue import Peer

Audio = NDArray[np.float32]
SCORES = {"avg_logprob": -0.3, "no_speech_prob": 0.2, "compression_ratio": 1.0, "temperature": 0.0}
PIECES = "the fox ran"


def segment(text: str, start: float = 0.0, end: float = 2.0, **scores: float) -> dict[str, Any]:
    labels = {"speech_prob": None, "hallucination_risk": None}
    return {"text": text, "start": start, "end": end, **SCORES, **labels, **scores}


class Parrot:
    """Writes its texts by the length of the audio: half seconds are noise, whole ones speech."""

    model_name = "parrot"
    compute_type = "int8"

    def __init__(self, name: str, pack: str | None, noise: str, speech: str) -> None:
        self.name, self.pack = name, pack
        self._texts = {8000: noise, 16000: speech}
        self.calls = 0

    def transcribe(self, audio: Audio, alpha: float, language: str | None) -> Transcript:
        self.calls += 1
        time.sleep(0.002)  # or its time would round to none
        text = self._texts[len(audio)]
        return Transcript(text, [segment(text)] if text else [])

    def first_window(self, audio: Audio, alpha: float, language: str | None) -> RawWindow:
        return RawWindow(text="", no_speech_prob=0.9 if alpha else 0.1, avg_logprob=-0.5)


class Parrots:
    """One parrot a peer: unsteered ones invent a phrase, VAD loses words, ours is right."""

    def __init__(self) -> None:
        self.loaded: dict[str, Parrot] = {}

    def backend(self, peer: Peer) -> Backend:
        pack = "pack 1" if peer.pack else None
        noise = "" if peer.pack or "vad" in peer.name else " Thank you."
        speech = " the fox" if peer.name == "vad-0.7" else f" {PIECES}"
        self.loaded[peer.name] = Parrot(peer.name, pack, noise, speech)
        return self.loaded[peer.name]
