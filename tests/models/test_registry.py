"""The registry of repositories: what ships in it, and what of it fits some weights."""

from typing import Any

import pytest

from whisper_sae_steer.models import registry
from whisper_sae_steer.models.registry import Entry, entries, entries_for, parse_entry

MINE = Entry("owner/mine", "pack", "openai/whisper-base", "encoder_output", "a" * 32, {"fpr_raw": 0.01})
UNKNOWN = Entry("owner/saes", "sae", "openai/whisper-base", "every block")


def test_audiosae_is_listed_for_the_models_that_it_has():
    assert {entry.repo: entry.model for entry in entries()} == {
        f"Egorgij21/Audio-SAE-Whisper-{name}": f"openai/whisper-{name}"
        for name in ("small", "large-v3", "large-v3-turbo")
    }
    for model in ("small", "openai/whisper-small"):
        assert [entry.repo for entry in entries_for(model)] == ["Egorgij21/Audio-SAE-Whisper-small"]
    for model, name in {"turbo": "large-v3-turbo", "large": "large-v3", "large-v3": "large-v3"}.items():
        assert [entry.repo for entry in entries_for(model)] == [f"Egorgij21/Audio-SAE-Whisper-{name}"]
    assert entries_for("base") == entries_for("medium") == entries_for("my folder") == []


def test_fingerprints_decide_where_both_are_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "entries", lambda: (MINE, UNKNOWN))
    assert entries_for("base") == [MINE, UNKNOWN]
    assert entries_for("base", "a" * 32) == [MINE, UNKNOWN]
    assert entries_for("base", "b" * 32) == [UNKNOWN]  # fine-tuned, but an SAE may still be of use
    assert entries_for("a copy", "a" * 32) == [MINE]
    assert entries_for("a copy") == []


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "model"}, {"repo": "mine"}, {"model": "base"}, {"tap": None}, {"fingerprint": 1},
        {"figures": {"fpr_raw": "low"}}, {"licence": "mit"},
    ],
)  # fmt: skip
def test_an_entry_of_no_use_is_named(change: dict[str, Any]):
    assert parse_entry(MINE._asdict()) == MINE
    with pytest.raises(ValueError, match=r"registry\.json, .*mine"):
        parse_entry({**MINE._asdict(), **change})
    with pytest.raises(ValueError, match=r"missing .*argument"):
        parse_entry({"repo": "owner/mine"})
