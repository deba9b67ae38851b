import shutil
from pathlib import Path

import pytest

from tests.support.hard_cases import RATE, Audio
from whisper_sae_steer import cli
from whisper_sae_steer.audio.clips import read_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.bench.hard import command


def test_command(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["clean", "snr5", "gaps", "dc"]
    line = ["bench", "hard", str(manifest), "--split", "dev", "--per_condition", "2", "--conditions", *names]
    out = tmp_path / "out"
    assert cli.main([*line, "--out", str(out)]) == 0
    assert "manifest.tsv: ready" in capsys.readouterr().out
    clips = read_manifest(out / "manifest.tsv", "dev")
    assert (
        [clip.source for clip in clips]
        == [clip.class_ for clip in clips]
        == sorted(names * 2, key=names.index)
    )
    clean, noisy, _, dialogue, *_, dc = (clips[i] for i in (0, 2, 3, 4, 7))
    assert (clean.text, clean.group, clean.language) == (noisy.text, noisy.group, "en")
    assert (clean.origin, noisy.origin) == ("deb:tone", "deb:rain + deb:tone")
    assert (dc.kind, dc.text, dc.licence) == ("nonspeech", "", "CC0-1.0")
    assert dialogue.text.count("|") == len(dialogue.gaps) > 2
    assert dialogue.gaps[-1][1] == pytest.approx(dialogue.seconds)
    assert len(load_audio(dialogue.path)) == round((dialogue.seconds or 0) * RATE)
    assert cli.main([*line, "--out", str(tmp_path / "again")]) == 0
    for clip in clips:
        assert clip.path.read_bytes() == (tmp_path / "again" / clip.key).read_bytes()
    assert cli.main([*line, "--out", str(out), "--seed", "1"]) == 2
    assert "choose another output folder" in capsys.readouterr().err


def test_folders_and_files_are_taken_as_by_the_other_benches(manifest: Path, tmp_path: Path) -> None:
    listed = read_manifest(manifest)
    speech, sounds = ([clip for clip in listed if clip.kind == kind] for kind in ("speech", "nonspeech"))
    voices = tmp_path / "voices"
    voices.mkdir()
    for number, clip in enumerate(speech[:3]):
        shutil.copy(clip.path, voices / f"{number}{clip.path.suffix}")
        (voices / f"{number}.txt").write_text(clip.text)
    out = tmp_path / "out"
    named = [str(voices), f"sound={sounds[0].path}", "--language", "en"]
    line = ["bench", "hard", *named, "--conditions", "clean", "snr5", "--out", str(out)]
    assert cli.main(line) == 0
    made = read_manifest(out / "manifest.tsv")
    assert [(clip.kind, clip.class_) for clip in made] == [("speech", "clean")] * 3 + [("speech", "snr5")] * 3
    assert {(clip.text, clip.language) for clip in made} == {(clip.text.strip(), "en") for clip in speech[:3]}
    assert cli.main(line) == 0
    assert cli.main([*line[:3], *line[4:]]) == 2


def test_gaps_are_marked_where_they_fall_among_the_words(manifest: Path, tmp_path: Path) -> None:
    names = ["heads", "paragraphs", "joined"]
    line = ["bench", "hard", str(manifest), "--per_condition", "1", "--conditions", *names]
    assert cli.main([*line, "--out", str(tmp_path)]) == 0
    head, paragraphs, joined = read_manifest(tmp_path / "manifest.tsv")
    assert head.text.startswith("| word ")
    assert (head.text.count("|"), len(head.gaps)) == (1, 1)
    assert paragraphs.text.count("|") == len(paragraphs.gaps)
    assert paragraphs.text.count("word") >= len(paragraphs.gaps) > 1
    assert "| |" not in paragraphs.text
    assert (joined.text.count("|"), joined.gaps) == (0, ())


def test_a_stopped_command_goes_on(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["bench", "hard", str(manifest), "--out", str(tmp_path), "--conditions", "clean", "telephone"]
    written: list[str] = []
    write = command.write_flac

    def stopping(path: Path, audio: Audio) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, audio)

    monkeypatch.setattr(command, "write_flac", stopping)
    assert cli.main(line) == 130
    assert "goes on from" in capsys.readouterr().err
    table = tmp_path / "manifest.tsv"
    clips = read_manifest(table)
    assert len(clips) == 7
    clips[0].path.unlink()
    table.write_bytes(table.read_bytes()[:-9])
    written = [""] * 8
    assert cli.main(line) == 0
    assert len(written) == 8 + 20 - 5
    assert len(read_manifest(table)) == 20
