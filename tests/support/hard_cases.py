"""Clean clips that hard cases are made from, and the hard cases of a condition."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.audio.clips import read_manifest
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.bench.hard.conditions import jobs
from whisper_sae_steer.bench.hard.material import HUMAN, HardRecording, material

Audio = NDArray[np.float32]
RATE = 16000
COLUMNS = "path\tsplit\tkind\tclass\tlanguage\ttext\tgroup\tsource\tlicence"


def voice(number: int) -> Audio:
    """0.5 s of silence, 1.6 s of a warbling tone, 0.3 s of silence."""
    time = np.arange(round(1.6 * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 35 * number) * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return np.concatenate([np.zeros(8000), 0.1 * tone, np.zeros(4800)]).astype(np.float32)


class CleanClips:
    """Clips below a folder, of the split `dev`, and their manifest."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lines = [COLUMNS]

    def add(self, audio: Audio, kind: str, class_: str, number: int, text: str = "", group: str = "") -> None:
        path = f"{kind}/dev/made/{class_}-{number}.wav"
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        write_wav(self._root / path, audio)
        language = "en" if kind == "speech" else ""
        cells = (path, "dev", kind, class_, language, text, group, f"deb:{class_}", "CC0")
        self._lines.append("\t".join(cells))

    def write(self) -> Path:
        """The manifest's path."""
        (self._root / "manifest.tsv").write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        return self._root / "manifest.tsv"


def write_clean(root: Path) -> Path:
    """Write speech of ten voices, noise, human sounds and music below a folder; returns their manifest."""
    clips = CleanClips(root)
    for number in range(10):
        text = f"word {number} " + "and on " * number
        clips.add(voice(number), "speech", "tone", number, text, f"s{number}")
    for number in range(4):
        noise = synthetic.clip("pink", number, seconds=(2, 4)).audio
        late = np.concatenate([np.zeros(RATE), noise]).astype(np.float32)
        clips.add(late, "nonspeech", "rain", number)
        clips.add(synthetic.clip("siren", number, seconds=(2, 2)).audio, "nonspeech", HUMAN, number)
        clips.add(synthetic.clip("melody", number, seconds=(9, 9)).audio, "music", "song", number)
    return clips.write()


def write_talk(root: Path) -> Path:
    """Write 20 sentences of one speaker, four single words, barks and noise; returns their manifest."""
    clips = CleanClips(root)
    for number in range(20):
        clips.add(voice(number), "speech", "sentence", number, f"so he said number {number}", "talker")
    for number, text in enumerate(("yes", "yes", "no", "stop")):
        clips.add(voice(number)[: 20 * 800], "speech", "word", number, text, f"s{number}")
    for number in range(3):
        clips.add(synthetic.clip("siren", number, seconds=(2, 2)).audio, "nonspeech", "dog-bark", number)
        clips.add(synthetic.clip("pink", number, seconds=(4, 4)).audio, "nonspeech", "rain", number)
    return clips.write()


def made(manifest: Path, condition: str, seed: int = 0, count: int = 3) -> list[HardRecording]:
    given = material(read_manifest(manifest), seed=seed)
    return [job.make() for job in jobs(condition, given, count)]


def decibels(ratio: float | np.floating) -> float:
    return 10 * float(np.log10(ratio))
