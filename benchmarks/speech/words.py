"""Single words of robotic voices, the speech that is most like noise to the gate: a folder with a manifest.

    python -m benchmarks.speech.words --out words
    whisper-sae-steer bench wer --manifest words/manifest.tsv --model base --compute_type int8 \\
        --alphas 0 1 --out words-base

The FRR of that bench is the share of words that had text unsteered and have none steered. Needs the programs
espeak-ng and flite (Debian packages of these names). No pack was calibrated on them.
"""

import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from whisper_sae_steer.audio.clips import write_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.writing import write_wav

from ..arguments import script_parser

WORDS = {
    "en": ("yes", "no", "stop", "hello", "thanks", "seven", "maybe", "right", "goodbye", "help"),
    "de": ("ja", "nein", "danke", "hallo", "sieben", "vielleicht", "richtig", "hilfe"),
    "fr": ("oui", "non", "merci", "bonjour", "sept", "jamais", "voilà", "attention"),
    "es": ("sí", "no", "gracias", "hola", "siete", "nunca", "adiós", "cuidado"),
}
ESPEAK = {
    "en": ("en-us", "en-gb+f3"),
    "de": ("de", "de+f2"),
    "fr": ("fr", "fr+f4"),
    "es": ("es", "es-419+f1"),
}
FLITE = {"en": ("kal", "slt", "rms")}


class Voice(NamedTuple):
    program: str
    name: str
    language: str

    def command(self, word: str, path: Path) -> list[str]:
        if self.program == "flite":
            return ["flite", "-voice", self.name, "-t", word, "-o", str(path)]
        return ["espeak-ng", "-v", self.name, "-w", str(path), word]


VOICES = [
    Voice(program, name, language)
    for program, voices in (("espeak-ng", ESPEAK), ("flite", FLITE))
    for language, names in voices.items()
    for name in names
]


def main() -> None:
    out: Path = script_parser(__doc__, "--out").parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    spoken = [(voice, word) for language, words in WORDS.items()
              for voice, word in product([v for v in VOICES if v.language == language], words)]  # fmt: skip
    rows: list[dict[str, str]] = []
    for voice, word in tqdm(spoken, unit="word"):
        name = f"{voice.program}-{voice.name}-{word}.wav"
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "word.wav"
            subprocess.run(voice.command(word, made), check=True, stdout=subprocess.DEVNULL)
            audio = load_audio(made)
        write_wav(out / name, audio)
        group = f"{voice.program}-{voice.name}"
        rows.append(
            {"path": name, "split": "dev", "kind": "speech", "class": "word", "language": voice.language,
             "text": word, "group": group, "seconds": f"{len(audio) / 16000:.2f}", "source": group}
        )  # fmt: skip
    write_manifest(out / "manifest.tsv", rows)


if __name__ == "__main__":
    main()
