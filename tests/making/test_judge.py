"""What rows of transcripts say about a pack."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.calibration_parts import clip
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.making import judge as judging
from whisper_sae_steer.making.audio import Recordings
from whisper_sae_steer.making.judge import judge

WORD, SENTENCE, MUTE = (
    clip("word", "speech", text="Stop."),
    clip("sentence", "speech", text="We found both boxes under the window"),
    clip("mute", "speech", text="no"),
)
BARK, RAIN, BROKEN = clip("bark"), clip("rain"), clip("broken")
TEXTS = {
    "faster": {"word": "stop", "sentence": "We found both foxes", "mute": "", "bark": "Woof", "rain": "you"},
    "vad-0.5": {"word": "", "sentence": "We found both boxes under the window", "mute": "", "bark": "Woof",
                "rain": ""},
    "ours": {"word": "", "sentence": "We found both foxes", "mute": "", "bark": "Woof!", "rain": " ..."},
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transcripts without a model."""

    def write(
        peers: Sequence[Any], clips: Sequence[Clip], _models: Any, out: Path, _language: str, with_raw: Any
    ) -> None:
        assert not with_raw
        for peer in peers:
            (out / peer.name).mkdir(parents=True)
            rows = [
                {"path": c.key, "alpha": peer.alpha, "wall": 2.0, "seconds": 30.0, "error": None,
                 "text": TEXTS[peer.name].get(c.key), "kind": c.kind, "language": c.language}
                | ({"error": "AudioError", "text": None} if c is BROKEN else {})
                for c in clips
            ]  # fmt: skip
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (out / peer.name / "clips.jsonl").write_text(text)

    monkeypatch.setattr(judging, "run", write)
    monkeypatch.setattr(judging, "Models", lambda *_: None)


@pytest.mark.usefixtures("measured")
def test_outcomes(tmp_path: Path):
    recordings = Recordings([BARK, RAIN, BROKEN], [WORD, SENTENCE, MUTE])
    found = judge("any", tmp_path / "pack", recordings, tmp_path, "int8", "cpu", 1, "faster")
    assert (found.sounds, found.utterances) == (2, 3)
    before, vad, ours = (found.outcomes[name] for name in ("unsteered", "vad", "ours"))
    assert [(o.texts.k, o.texts.n) for o in (before, vad, ours)] == [(2, 2), (1, 2), (1, 2)]
    assert [(o.lost.k, o.lost.n) for o in (before, vad, ours)] == [(0, 2), (1, 2), (1, 2)]
    assert [(o.short_lost.k, o.short_lost.n) for o in (before, vad, ours)] == [(0, 1), (1, 1), (1, 1)]
    assert (ours.words.deletions, ours.words.substitutions, ours.words.words) == (5, 1, 9)
    assert ours.wer_change.value == pytest.approx(1 / 9)
    assert ours.seconds_a_minute == 4.0
    failed = {failure.clip.key: failure.what for failure in found.failures}
    assert failed == {"bark": "text where nobody speaks", "word": "an utterance is lost"}


def test_at_most_so_many_clips_of_all_classes():
    clips = [clip(f"{kind}{i}", source=kind) for kind in ("a", "b", "c") for i in range(60)]
    some = judging._some(clips)
    assert 60 < len(some) <= judging.JUDGED_CLIPS
    assert {c.source for c in some} == {"a", "b", "c"}
    many = [clip(f"{i}", source=str(i)) for i in range(200)]
    assert len(judging._some(many)) == judging.JUDGED_CLIPS
