"""Synthetic speech whose phones are known to the sample, for probing of phones.

    pip install espeakng-loader praatio
    python -m benchmarks.analysis.phoneme_speech MANIFEST --out phones
    whisper-sae-steer analyze encode phones/manifest.tsv --model base --sae saes/base --out store
    whisper-sae-steer analyze probe store --alignments phones --out report

eSpeak NG says the English transcripts of a manifest's split, each once, its voices in turn, and tells when
each phone starts. Each voice is a group. It is a formant synthesiser: cleaner and more alike than people
are, so figures on it say how well features carry phones at all, not how well they do on real speech.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import espeakng_loader
import numpy as np
from numpy.typing import NDArray
from praatio import textgrid
from praatio.data_classes.interval_tier import Interval
from scipy.signal import resample_poly
from tqdm import tqdm

from whisper_sae_steer.audio.clips import read_manifest, write_manifest
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.audio.writing import write_wav

from ..arguments import script_parser

VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
VOICES = tuple(f"en-us+{variant}" for variant in VARIANTS)
STRESS_MARKS = "',"
VARIANT_MARKS = "#-2"
"""of the many variants a phone has in eSpeak's rules: I2, I# and I are one"""
RETRIEVAL, PHONEME_EVENTS, UTF8, PHONEME, TERMINATED = 1, 1, 1, 7, 0
"""of espeak-ng's speak_lib.h: AUDIO_OUTPUT_RETRIEVAL, espeakINITIALIZE_PHONEME_EVENTS, espeakCHARS_UTF8,
espeakEVENT_PHONEME, espeakEVENT_LIST_TERMINATED"""


class Phone(NamedTuple):
    """A phone by eSpeak's mnemonic, and when it starts, in seconds; empty for a pause or a mark."""

    start: float
    name: str


class Spoken(NamedTuple):
    audio: NDArray[np.float64]
    """[n] at 16 kHz, within ±1"""
    phones: list[Phone]


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT"""

    _fields_ = (
        *(("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint)),
        *(("text_position", ctypes.c_int), ("length", ctypes.c_int), ("audio_position", ctypes.c_int)),
        *(("sample", ctypes.c_int), ("user_data", ctypes.c_void_p), ("id", _Id)),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Speaker:
    """eSpeak NG, one utterance at a time."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(RETRIEVAL, 0, data, PHONEME_EVENTS)
        if self.rate <= 0:
            raise RuntimeError("eSpeak NG can't be started; install espeakng-loader again")
        self._callback = _CALLBACK(self._take)
        self._library.espeak_SetSynthCallback(self._callback)
        self._samples: list[NDArray[np.int16]] = []
        self._phones: list[Phone] = []

    def say(self, text: str, voice: str) -> Spoken:
        self._samples, self._phones = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {voice}")
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        audio = np.concatenate(self._samples) / 32768
        return Spoken(resample_poly(audio, SAMPLE_RATE, self.rate), self._phones)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type != TERMINATED:
            event = events[number]
            if event.type == PHONEME:
                name = event.id.string.decode().lstrip(STRESS_MARKS).rstrip(VARIANT_MARKS)
                self._phones.append(Phone(event.sample / self.rate, "" if name[:1] in "_;" else name))
            number += 1
        return 0


def main() -> None:
    """Write OUT/*.wav, OUT/*.TextGrid and OUT/manifest.tsv."""
    parser = script_parser(__doc__, "manifest", "--split", "--out")
    parser.add_argument("--count", type=int, default=120, help="utterances, at most")
    parser.add_argument("--words", type=int, default=5, help="words an utterance, at least")
    args = parser.parse_args()
    clips = read_manifest(args.manifest, args.split, "speech")
    texts = sorted({clip.text.lower() for clip in clips if clip.language == "en" and "|" not in clip.text})
    texts = [text for text in texts if len(text.split()) >= args.words]
    chosen = np.random.default_rng(0).permutation(len(texts))[: args.count]
    args.out.mkdir(parents=True, exist_ok=True)
    speaker = Speaker()
    rows: list[dict[str, str]] = []
    for number, place in enumerate(tqdm(chosen, unit="utterance")):
        voice, text = VOICES[number % len(VOICES)], texts[place]
        name = f"espeak-{number:04d}"
        spoken = speaker.say(text, voice)
        write_wav(args.out / f"{name}.wav", spoken.audio)
        write_textgrid(args.out / f"{name}.TextGrid", spoken)
        rows.append(
            {"path": f"{name}.wav", "split": args.split, "kind": "speech", "class": "synthetic",
             "seconds": f"{len(spoken.audio) / SAMPLE_RATE:.2f}", "language": "en", "text": text,
             "group": voice, "source": "generated:espeak-ng", "licence": "CC0-1.0"}
        )  # fmt: skip
    write_manifest(args.out / "manifest.tsv", rows)
    print(f"{args.out}/manifest.tsv: {len(chosen)} utterances of {len(VOICES)} voices")


def write_textgrid(path: Path, spoken: Spoken) -> None:
    """A TextGrid with a tier ``phones``; each phone lasts until the next."""
    end = len(spoken.audio) / SAMPLE_RATE
    grid = textgrid.Textgrid(0, end)
    grid.addTier(textgrid.IntervalTier("phones", _intervals(spoken.phones, end), 0, end))
    grid.save(str(path), "long_textgrid", includeBlankSpaces=True)


def _intervals(phones: Sequence[Phone], end: float) -> list[Interval]:
    ends = [*(phone.start for phone in phones[1:]), end]
    return [
        Interval(phone.start, min(stop, end), phone.name)
        for phone, stop in zip(phones, ends, strict=True)
        if phone.name and phone.start < min(stop, end)
    ]


if __name__ == "__main__":
    main()
