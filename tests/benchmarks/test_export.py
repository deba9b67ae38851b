"""Scripts that tell what an exported model does: two runs compared, decoding's noise, both gates."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.export import compare, decoding_noise, gate
from tests.support.real_models import sample, truth
from whisper_sae_steer.audio.clips import write_manifest
from whisper_sae_steer.audio.synthetic import generate
from whisper_sae_steer.audio.writing import write_flac, write_wav


def row(path: str, kind: str, text: str, alpha: float) -> dict[str, Any]:
    return {"path": path, "kind": kind, "language": "en" if kind == "speech" else "", "text": text,
            "reference": "bring the blue box" if kind == "speech" else None, "alpha": alpha, "error": None,
            "model": "base", "backend": "faster", "compute_type": "int8"}  # fmt: skip


def call(module: Any, monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: object) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments), "--out", str(out)])
    module.main()
    return json.loads(out.read_text(encoding="utf-8"))


def test_runs_are_compared_clip_by_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = {
        "attached": [
            row("a", "speech", "nonsense", 0.0),
            row("a", "speech", "Bring the blue box.", 1.0),
            row("b", "speech", "bring the blue box", 1.0),
            row("n", "nonspeech", "", 1.0),
            row("only here", "speech", "", 1.0),
        ],
        "exported": [
            row("a", "speech", "bring the blue", 0.0),
            row("b", "speech", "Bring the blue box!", 0.0),
            row("n", "nonspeech", "You", 0.0),
        ],
    }  # fmt: skip
    for name, rows in runs.items():
        (tmp_path / name).mkdir()
        lines = (json.dumps(row) + "\n" for row in rows)
        (tmp_path / name / "clips.jsonl").write_text("".join(lines), encoding="utf-8")
    found = call(compare, monkeypatch, tmp_path / "out.json", *(tmp_path / name for name in runs))
    assert found["clips"] == 3
    assert found["speech"]["WER"] == [0.0, 1 / 8]
    assert found["speech"]["change"]["value"] == 1 / 8
    assert found["speech"]["transcripts with other words"] == 1
    assert found["speech"]["lost"] == []
    assert [rate["k"] for rate in found["sounds"]["FPR_text"]] == [0, 1]
    assert found["sounds"]["texts after"] == {"n": "You"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    rows: list[dict[str, str]] = []
    for made in generate(2, 3):
        write_wav(folder / f"{made.name}.wav", made.audio)
        rows.append({"path": f"{made.name}.wav", "kind": "nonspeech", "group": made.name})
    write_flac(folder / "speech.flac", sample("speech"))
    text = truth("speech")["speech"][0]["text"]
    rows.append({"path": "speech.flac", "kind": "speech", "language": "en", "text": text})
    write_manifest(folder / "manifest.tsv", [{"split": "dev", **row} for row in rows])
    return folder / "manifest.tsv"


@pytest.mark.parametrize(("size", "differ"), [(0, 0), (3, 1)])
def test_noise_in_encodings_shows_in_transcripts(
    size: float, differ: int, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = ("--source", manifest.parent.name, "--model", "tiny.en", "--seeds", 1, "--size", size)
    found = call(decoding_noise, monkeypatch, tmp_path / "out.json", manifest, *options)
    (run,) = found["with noise"]
    assert found["WER"] == 0
    assert run["transcripts with other words"] == differ
    assert (run["WER"] > 0) == bool(differ)


def test_the_exported_gate_spares_speech_and_edits_sounds(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = (manifest, "--model", "tiny.en", "--work", tmp_path / "windows")
    found = call(gate, monkeypatch, tmp_path / "out.json", *options)
    assert (
        found["sounds"]["windows"] == found["sounds"]["in full"] == found["sounds"]["edited by the hook"] == 2
    )
    for kind in ("utterances", "pieces"):
        assert found[kind]["windows"] == 1
        assert found[kind]["edited by the export"] == found[kind]["edited by the hook"] == 0
    assert found["change of frames"] < 1e-4
