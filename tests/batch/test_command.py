import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.io import wavfile

from tests.support.real_models import SAMPLES, sample
from whisper_sae_steer.audio.clips import read_clips, read_folder, read_manifest
from whisper_sae_steer.batch import parts
from whisper_sae_steer.batch.config import BatchConfig, settings
from whisper_sae_steer.batch.engine import Make, Task
from whisper_sae_steer.batch.job import transcribe_clips
from whisper_sae_steer.batch.local import here
from whisper_sae_steer.batch.parts import BatchResults
from whisper_sae_steer.batch.row import failed
from whisper_sae_steer.batch.worker import BatchRecording, Transcriber
from whisper_sae_steer.cli import main
from whisper_sae_steer.commands.fields import add_fields, from_fields
from whisper_sae_steer.errors import AlphaError, ConfigError, ManifestError, SteerError
from whisper_sae_steer.faster import WhisperModel

CHOSEN = ["--model", "tiny.en", "--compute_type", "int8", "--device", "cpu"]
OPTIONS = BatchConfig(model="tiny.en", compute_type="int8", device="cpu")


def rows(out: Path) -> dict[str, dict[str, Any]]:
    found = pq.read_table(out).to_pylist()
    by_path = {row["path"]: row for row in found}
    assert len(by_path) == len(found), "one row a clip"
    return by_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Speech, and the first seconds of it; a corrupt file, an empty one, one of NaN and one cut short."""
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(SAMPLES / "speech.ogg", folder)
    wavfile.write(folder / "start.wav", 16000, sample("speech")[:40000])
    (folder / "corrupt.wav").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "empty.mp3").touch()
    wavfile.write(folder / "nan.wav", 16000, np.full(16000, np.nan, dtype=np.float32))
    (folder / "cut.ogg").write_bytes((SAMPLES / "speech.ogg").read_bytes()[:50])
    return folder


def test_each_clip_gets_one_row_and_bad_files_only_theirs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.parquet"
    argv = ["batch", str(folder), "--out", str(out), *CHOSEN, "--workers", "2", "--threads", "1"]
    assert main(argv) == 1
    assert "6 clips, 6 of them now, 4 failed" in capsys.readouterr().out
    first = rows(out)
    for name, reason in (
        ("corrupt.wav", "can't be decoded"),
        ("empty.mp3", "0 bytes"),
        ("nan.wav", "NaN"),
        ("cut.ogg", "can't be decoded"),
    ):
        row = first[f"mine/{name}"]
        assert (row["text"], row["segments"]) == (None, [])
        assert row["error"].startswith("AudioError: ")
        assert reason in row["error"]
        assert "\n" not in row["error"]

    model = WhisperModel("tiny.en", device="cpu", compute_type="int8", cpu_threads=1)
    segments, info = model.transcribe(str(folder / "speech.ogg"))
    expected = list(segments)
    row = first["mine/speech.ogg"]
    assert (row["error"], row["language"]) == (None, info.language)
    assert row["seconds"] == pytest.approx(info.duration, abs=1e-3)
    assert row["text"] == "".join(segment.text for segment in expected)
    assert [(s["start"], s["end"], s["text"]) for s in row["segments"]] == [
        (s.start, s.end, s.text) for s in expected
    ]
    assert [s["speech_prob"] for s in row["segments"]] == pytest.approx(
        [getattr(s, "speech_prob", None) for s in expected], abs=1e-4
    )

    shutil.copy(folder / "start.wav", folder / "nan.wav")
    assert main(argv) == 1
    assert "6 clips, 4 of them now, 3 failed" in capsys.readouterr().out
    second = rows(out)
    assert second["mine/nan.wav"]["text"] == first["mine/start.wav"]["text"]
    assert second["mine/speech.ogg"] == row, "what was done is left as it is"
    assert main([*argv, "--steer_alpha", "0"]) == 2
    assert "steer_alpha" in capsys.readouterr().err


def test_control_c_loses_no_row_and_the_same_command_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(4):
        wavfile.write(folder / f"{number}.wav", 16000, sample("speech")[: 48000 + 1000 * number])
    out = tmp_path / "results.parquet"
    argv = [sys.executable, "-m", "whisper_sae_steer", "batch", *map(str, (folder, "--out", out)), *CHOSEN]
    running = subprocess.Popen(
        argv,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # ignored, if these tests run in the background of a shell
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert running.stderr is not None
    shown = ""
    while " 1/4 " not in shown:
        assert running.poll() is None, shown
        shown += running.stderr.read(1)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    said = running.communicate()[1]
    assert running.returncode == 130, said
    assert "the same command goes on" in said
    assert "leaked" not in said
    assert not out.exists()
    parts = sorted((tmp_path / "results.parquet.parts").glob("*.parquet"))
    kept = {path: row for part in parts for path, row in rows(part).items()}
    assert 1 <= len(kept) < 4
    assert subprocess.run([*argv, "--workers", "0"], check=False).returncode == 0
    assert set(rows(out)) == {f"mine/{number}.wav" for number in range(4)}
    assert {path: rows(out)[path] for path in kept} == kept, "rows of the first run, times and all"
    assert not (tmp_path / "results.parquet.parts").exists()


def test_words_own_languages_and_unsteered_rows(tmp_path: Path) -> None:
    options = BatchConfig(
        model="tiny.en",
        steer_alpha=0,
        device="cpu",
        compute_type="int8",
        language="own",
        word_timestamps=True,
    )
    chosen = settings(options)
    assert chosen["pack_sha256"] is None
    worker = Transcriber(options, chosen, 1)
    row = worker(BatchRecording("a", str(SAMPLES / "speech.ogg"), "en"))
    assert row["error"] is None
    words = [word["word"] for segment in row["segments"] for word in segment["words"]]
    assert "".join(words) == row["text"]
    assert {segment["speech_prob"] for segment in row["segments"]} == {None}
    with BatchResults(tmp_path / "out.parquet", chosen) as results:
        results.add(row)
        results.merge()
    assert rows(tmp_path / "out.parquet")["a"] == row
    with pytest.raises(SteerError, match="another than the job's"):
        Transcriber(options, {**chosen, "model_sha256": "0"}, 1)


def test_skipping_gaps_is_no_setting_of_its_own_until_it_is_switched_off() -> None:
    assert "skip_gaps" not in settings(OPTIONS), "files from before the option can be gone on with"
    assert settings(replace(OPTIONS, skip_gaps=False)) == {**settings(OPTIONS), "skip_gaps": False}
    parser = argparse.ArgumentParser()
    add_fields(parser, BatchConfig)
    for argv, expected in (([], True), (["--skip_gaps", "True"], True), (["--skip_gaps", "False"], False)):
        assert from_fields(parser.parse_args(argv), BatchConfig).skip_gaps is expected


def test_the_longest_come_first_and_what_kills_its_worker_gets_a_row(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    manifest = tmp_path / "clips.tsv"
    lines = [f"audio/{name}.wav\tspeech\t{seconds}\n" for name, seconds in (("a", 1), ("b", 3), ("c", 2))]
    manifest.write_text("path\tkind\tseconds\n" + "".join(lines))
    seen: list[list[str]] = []

    def all_but_c(make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        seen.append([task.key for task in tasks])
        yield from here(make, [task for task in tasks if not task.key.endswith("c.wav")], alone)

    clips = read_manifest(manifest)
    outcome = transcribe_clips(clips, tmp_path / "out.parquet", OPTIONS, all_but_c, progress=False)
    assert outcome[:3] == (3, 3, 3)
    assert seen[0] == ["audio/b.wav", "audio/c.wav", "audio/a.wav"]
    made = rows(tmp_path / "out.parquet")
    assert "its worker died at each of 3 tries" in made["audio/c.wav"]["error"]
    assert "no such file" in made["audio/a.wav"]["error"], "missing files are found by the worker"


def test_what_would_fail_every_clip_is_refused_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.parquet"
    argv = ["batch", str(folder), "--out", str(out), *CHOSEN]
    for given, match in (
        (["--language", "klingon"], "klingon"),
        (["--beam_size", "0"], "beam_size"),
        (["--pack", str(tmp_path / "none")], "no steering pack"),
        (["--split", "dev"], "lines of a manifest"),
        ([str(tmp_path / "missing.wav")], "no such file"),
    ):
        assert main([*argv[:2], *given, *argv[2:]] if given[0][0] == "/" else [*argv, *given]) == 2
        assert match in capsys.readouterr().err
    clips = read_folder(folder, "speech")
    with pytest.raises(ManifestError, match="same path"):
        transcribe_clips([*clips, clips[0]], out, OPTIONS, here)
    wrong: tuple[dict[str, Any], ...] = ({"compute_type": "int3"}, {"task": "sing"}, {"beam_size": 10**9})
    for options in wrong:
        with pytest.raises(ConfigError, match=next(iter(options))):
            BatchConfig(**options)
    for alpha in (float("nan"), -1.0, 1e38):
        with pytest.raises(AlphaError):
            transcribe_clips(clips, out, BatchConfig(steer_alpha=alpha), here)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_disk_that_is_full_at_the_end_is_no_failed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each part has room, and all together have not: as on a full disk, writing fails half-way."""
    wavfile.write(tmp_path / "start.wav", 16000, sample("speech")[:16000])
    out = tmp_path / "out.parquet"
    argv = ["batch", str(tmp_path / "start.wav"), "--out", str(out), *CHOSEN, "--workers", "0"]
    rng = np.random.default_rng(0)
    monkeypatch.setattr(parts, "PART_ROWS", 1)
    names = [clip.key for clip in read_clips([argv[1]], None, ("speech",))] + ["1.wav", "2.wav"]
    with BatchResults(out, settings(OPTIONS)) as results:
        for name in names:
            results.add({**failed(name, None), "text": rng.bytes(20_000).hex()})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    try:
        assert main(argv) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "no room" in capsys.readouterr().err
    assert not out.exists()
    assert len(list(results.folder.glob("*.parquet"))) == len(names)
    assert main(argv) == 0
    assert list(rows(out)) == names
