"""A hub on this machine, and something to share on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from tests.support.small_hub import TOKEN, Hub, small_hub
from tests.support.small_pack import small_pack
from whisper_sae_steer.steering.pack import save_pack


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub that knows the user, with an empty cache."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    disable_progress_bars()
    with small_hub(tmp_path, monkeypatch) as server:
        yield server
    enable_progress_bars()


@pytest.fixture
def pack_file(tmp_path: Path) -> Path:
    """A small pack whose recordings have licences, with a report beside it."""
    data = {
        "clips": 5, "synthetic": 60, "sources": {"sound/fans": 2, "speech/readers": 3},
        "licences": ["fans: CC0 1.0", "readers: CC BY 4.0 (LibriSpeech)"], "built_on": None,
    }  # fmt: skip
    metrics = {
        "definition": "held-back windows, greedy",
        "unsteered": {"alpha": 0.0, "fpr_raw": 0.93, "wer": None},
        "steered": {"alpha": 1.0, "fpr_raw": 0.0125, "wer": None},
    }
    guarantee = {"recordings": 162, "touched": 0.0005, "touched_at_most": 0.0067}
    path = tmp_path / "mine" / "call centre.safetensors"
    save_pack(small_pack(data=data, metrics=metrics, guarantee=guarantee), path)
    path.with_suffix(".html").write_text("<p>plots</p>")
    return path
