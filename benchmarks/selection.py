"""Which clips of a manifest a benchmark script takes."""

from collections.abc import Sequence
from pathlib import Path

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, Clip, read_manifest, select
from whisper_sae_steer.audio.units import SAMPLE_RATE, WINDOW_SAMPLES


def select_sounds(manifest: Path, split: str, per_class: int) -> list[Clip]:
    """Clips without speech: at most ``per_class`` of each source and class."""
    return select(read_manifest(manifest, split, NONSPEECH_KINDS), per_class)


def select_speech(
    manifest: Path, split: str, per_class: int, sources: Sequence[str] | None = None, model: str = ""
) -> list[Clip]:
    """Clips of speech, of these sources only, in languages that the model knows."""
    return select(known_to(model, read_manifest(manifest, split, "speech", sources)), per_class)


def known_to(model: str, clips: Sequence[Clip]) -> list[Clip]:
    """The clips without those of speech in a language that an English-only model doesn't know."""
    english_only = model.endswith(".en")
    return [clip for clip in clips if not english_only or clip.kind != "speech" or clip.language == "en"]


def within_a_window(clips: Sequence[Clip]) -> list[Clip]:
    """Clips of at most 30 s, and those whose length the manifest doesn't tell."""
    return [clip for clip in clips if (clip.seconds or 0) <= WINDOW_SAMPLES / SAMPLE_RATE]


def some_of_each(clips: Sequence[Clip], count: int) -> list[Clip]:
    """About ``count`` clips: equally many of each source and class, and of each at least one."""
    return select(clips, max(1, count // len({(clip.source, clip.class_) for clip in clips})))
