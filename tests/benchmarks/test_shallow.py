"""What is written for SHALLOW's scorer, read again as it does."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.steering import shallow
from tests.support.real_models import sample, truth
from whisper_sae_steer.audio.clips import Clip, read_folder, write_manifest
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.errors import ManifestError
from whisper_sae_steer.reports import metrics


def read_as_shallow(path: Path) -> dict[str, str]:
    """By its rules: a name ends at the first colon and space; without a text, at the only colon."""
    texts: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, colon, text = line.strip().partition(": ")
        if not colon:
            name, text = line.strip().split(":")
        texts[name] = text
    return texts


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    (tmp_path / "clips").mkdir()
    write_wav(tmp_path / "clips" / "speech.wav", sample("speech")[: 5 * 16_000])
    (found,) = read_folder(tmp_path / "clips", "speech", "en")
    return replace(found, text="Some words")


def test_lines_keep_names_and_texts_apart(clip: Clip, tmp_path: Path) -> None:
    clips = [replace(clip, key="a:b.wav"), replace(clip, key="c.wav"), replace(clip, key="d.wav")]
    (tmp_path / "a.txt").write_text(
        shallow.as_lines(clips, [" At noon: \n two  words", "", "x"]), encoding="utf-8"
    )
    assert read_as_shallow(tmp_path / "a.txt") == {"a_b.wav": "At noon: two words", "c.wav": "", "d.wav": "x"}


def test_clips_that_can_not_be_scored_are_left_out(clip: Clip) -> None:
    unscorable = [replace(clip, text=""), replace(clip, text="[music]"), replace(clip, language="de")]
    assert shallow.scorable([*unscorable, clip]) == [clip]
    with pytest.raises(ManifestError, match="SHALLOW"):
        shallow.scorable(unscorable)


def test_a_manifest_becomes_files_and_commands(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "clips" / "manifest.tsv"
    text = truth("speech")["speech"][0]["text"]
    row = {"path": clip.path.name, "split": "dev", "kind": "speech", "language": "en", "text": text}
    write_manifest(manifest, [row])
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["script", str(manifest), "--model", "tiny.en", "--out", str(out)])
    shallow.main()
    commands = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in out.iterdir()) == [
        "filtered.txt", "references.txt", "steered.txt", "unsteered.txt",
    ]  # fmt: skip
    said = metrics.normalise(text, "en").split()
    assert read_as_shallow(out / "references.txt") == {"speech.wav": text}
    for name, command in zip(shallow.SETTINGS, commands, strict=True):
        ((key, written),) = read_as_shallow(out / f"{name}.txt").items()
        words = metrics.normalise(written, "en").split()
        assert key == "speech.wav"
        assert words[:4] == said[:4]
        assert f"--predictions_path {out / name}.txt --output_dir {out}" in command
