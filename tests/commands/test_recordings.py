"""Every command that takes recordings takes them in the same words."""

import argparse
from pathlib import Path

import pytest

from whisper_sae_steer.audio.clips import KINDS
from whisper_sae_steer.commands import recordings
from whisper_sae_steer.commands.recordings import read_both_kinds, read_recordings
from whisper_sae_steer.errors import ManifestError

LINES = (
    "path\tkind\tsplit\n"
    "m/dev/a/x.wav\tspeech\tdev\n"
    "m/dev/b/y.wav\tnonspeech\tdev\n"
    "m/dev/b/z.wav\tspeech\ttest\n"
)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = tmp_path / "clips.tsv"
    path.write_text(LINES)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "mine").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "mine" / name).touch()
    return str(tmp_path / "mine")


def parsed(add: str, *argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    getattr(recordings, add)(parser, *(["audio"] if add == "add_recordings" else ["noise", "speech"]))
    return parser.parse_args(argv)


def test_a_list_mixes_manifests_folders_and_files_and_is_thinned_out_as_a_whole(manifest: str, folder: str):
    args = parsed("add_recordings", manifest, f"speech={folder}", f"{folder}/a.wav", "--split", "dev")
    clips = read_recordings(args, KINDS, "en")
    assert [(clip.path.name, clip.kind, clip.language) for clip in clips] == [
        ("x.wav", "speech", ""), ("y.wav", "nonspeech", ""),
        ("a.wav", "speech", "en"), ("b.wav", "speech", "en"), ("a.wav", "nonspeech", "en"),
    ]  # fmt: skip
    thinned = parsed("add_recordings", manifest, f"speech={folder}", "--per_class", "1", "--source", "b")
    assert len(read_recordings(thinned, KINDS)) == 3, "y and z, and one of the folder's two"


def test_both_kinds_may_come_from_one_manifest(manifest: str, folder: str):
    args = parsed("add_both_kinds", "--nonspeech", manifest, folder, "--speech", manifest, "--split", "dev")
    nonspeech, speech = read_both_kinds(args)
    assert [clip.path.name for clip in nonspeech] == ["y.wav", "a.wav", "b.wav"]
    assert [clip.path.name for clip in speech] == ["x.wav"]
    assert read_both_kinds(parsed("add_both_kinds")) == ([], [])


def test_choosing_lines_without_a_manifest_is_an_error_and_not_ignored(folder: str):
    for chosen in (["--split", "dev"], ["--source", "a"]):
        with pytest.raises(ManifestError, match="choose lines of a manifest"):
            read_recordings(parsed("add_recordings", folder, *chosen), KINDS)
        with pytest.raises(ManifestError, match="choose lines of a manifest"):
            read_both_kinds(parsed("add_both_kinds", "--speech", folder, *chosen))
