import json
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import pytest

from tests.support.parrots import PIECES, Parrots
from tests.support.real_models import sample
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.bench import read_rows
from whisper_sae_steer.bench.backends import Backend
from whisper_sae_steer.bench.peers.catalogue import OURS, PEERS, Peer
from whisper_sae_steer.bench.peers.run import Models, collect, run
from whisper_sae_steer.bench.peers.summary import compare
from whisper_sae_steer.models.weights import resolve

BY_NAME = {peer.name: peer for peer in PEERS}


def test_run_collect_and_compare(clips: list[Clip], peers: list[Peer], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(peers, clips, Parrots(), out, progress=False)
    again = Parrots()
    run(peers, clips, again, out, progress=False)
    assert sum(parrot.calls for parrot in again.loaded.values()) == 0, "all rows are there"
    rows = collect(peers, clips, out)
    assert {name: len(found) for name, found in rows.items()} == {peer.name: 4 for peer in peers}
    assert read_rows(out / "phrases" / "clips.jsonl") == rows["phrases"]
    assert [row["text"] for row in rows["phrases"]] == ["", "", f" {PIECES}", f" {PIECES}"]
    assert [row["raw"] is None for row in rows["vad-0.5"]] == [True] * 4
    assert rows[OURS][0]["pack"] == "pack 1"
    entries = {e["name"]: e for e in compare(peers, rows)}
    rates = {name: e["nonspeech"]["FPR_text"] for name, e in entries.items()}
    assert {name: (rate["k"], rate["n"]) for name, rate in rates.items()} == {
        "faster": (2, 2), "vad-0.5": (0, 2), "vad-0.7": (0, 2), "phrases": (0, 2), OURS: (0, 2),
    }  # fmt: skip
    lossy = entries["vad-0.7"]["speech"]
    assert (lossy["WER"], lossy["deletions"], lossy["insertions"]) == (pytest.approx(1 / 3), 2, 0)
    assert lossy["WER_change"]["value"] == pytest.approx(1 / 3)
    assert entries["vad-0.5"]["speech"]["FRR"]["k"] == 0
    assert [name for name, e in entries.items() if not e["chosen"]] == ["vad-0.7"]
    assert entries[OURS]["nonspeech"]["by_class"]["c0"]["FPR_text"]["n"] == 1
    wall = sum(row["wall"] or 0 for row in rows["faster"][2:])
    assert entries["faster"]["RTFx"]["speech"] == pytest.approx(2 / wall)
    json.dumps(list(entries.values()), allow_nan=False)


def test_a_stopped_run_is_compared_on_what_there_is(
    clips: list[Clip], peers: list[Peer], tmp_path: Path
) -> None:
    class Stopping(Parrots):
        def backend(self, peer: Peer) -> Backend:
            if peer.name == "vad-0.5":
                raise KeyboardInterrupt
            return super().backend(peer)

    with pytest.raises(KeyboardInterrupt):
        run(peers, clips, Stopping(), tmp_path, progress=False)
    rows = collect(peers, clips[1:], tmp_path)
    assert list(rows) == ["faster", "phrases"]
    assert [row["path"] for row in rows["faster"]] == [clip.key for clip in clips[1:]], "no other clips"
    assert [e["name"] for e in compare(peers, rows)] == ["faster", "phrases"]


@pytest.fixture(scope="module")
def models() -> Models:
    return Models("tiny.en", "int8", threads=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vad-0.5", {"vad_filter": True, "vad_parameters": {"threshold": 0.5}}),
        ("nsp-0.2-alone", {"no_speech_threshold": 0.2, "log_prob_threshold": None}),
    ],
)
def test_peers_are_the_unmodified_library_with_their_options(
    models: Models, name: str, options: dict[str, Any]
) -> None:
    backend: Any = models.backend(BY_NAME[name])
    plain = faster_whisper.WhisperModel(str(resolve("tiny.en").ct2_dir), compute_type="int8", cpu_threads=1)
    audio = sample("speech")[: 16000 * 12]
    expected, info = plain.transcribe(audio, language="en", **options)
    assert backend.transcribe(audio, 0.0, "en").text == "".join(s.text for s in expected)
    assert info.transcription_options.log_prob_threshold == options.get("log_prob_threshold", -1.0)
    assert (backend.name, backend.pack, backend.compute_type) == (name, None, "int8")
    assert type(backend.model.model) is type(plain.model), "no proxy in between"


def test_the_batched_pipeline_without_vad_hears_everything(models: Models) -> None:
    backend = models.backend(BY_NAME["batched-all"])
    speech = sample("speech")[: 16000 * 12]
    # longer than a window, where the pipeline refuses to run without being told where to cut
    audio = np.concatenate([speech, np.zeros(16000 * 20, dtype=np.float32), speech])
    segments = backend.transcribe(audio, 0.0, "en").segments
    assert segments[0]["start"] < 12
    assert segments[-1]["end"] > 32
    silence = np.zeros(16000 * 5, dtype=np.float32)
    assert models.backend(BY_NAME["batched"]).transcribe(silence, 0.0, "en").segments == []
