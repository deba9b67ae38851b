import argparse
import json
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whisper import Whisper

from tests.support.paths import SAMPLES
from whisper_sae_steer import bench, cli
from whisper_sae_steer.audio.clips import Clip, read_folder
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.synthetic import clip as synthetic_clip
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.bench import command as bench_cli
from whisper_sae_steer.bench.backends import FasterBackend, OpenAIBackend, RawWindow, Transcript
from whisper_sae_steer.bench.report import summarise, write_report
from whisper_sae_steer.errors import AlphaError, ManifestError, SteerError, WeightsError
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.openai import load_model
from whisper_sae_steer.steering.metadata import PackMetadata
from whisper_sae_steer.steering.pack import Features, SteeringPack, save_pack

Audio = NDArray[np.float32]


class Parrot:
    """A backend that says how long the audio is, and less of it with growing α."""

    name = "faster"
    model_name = "parrot"
    compute_type = "int8"

    def __init__(self, pack: str | None = "pack 1", stop_after: int | None = None) -> None:
        self.pack = pack
        self.stop_after = stop_after
        self.calls: list[tuple[int, float, str | None]] = []

    def transcribe(self, audio: Audio, alpha: float, language: str | None) -> Transcript:
        if self.stop_after == len(self.calls):
            raise KeyboardInterrupt
        self.calls.append((len(audio), alpha, language))
        text = "" if alpha else f"it lasts {len(audio)} samples"
        segment: dict[str, Any] = {
            "text": text,
            "speech_prob": 0.1 if alpha else None,
            "hallucination_risk": 0.9 if alpha else None,
        }
        return Transcript(text, [segment])

    def first_window(self, audio: Audio, alpha: float, language: str | None) -> RawWindow:
        return RawWindow(text="you", no_speech_prob=0.55 + alpha / 10, avg_logprob=-1.5)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    for number in range(3):
        length = 0.5 + number / 10
        path = tmp_path / "mine" / f"class{number % 2}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, synthetic_clip("white", number, seconds=(length, length)).audio)
    return read_folder(tmp_path / "mine", "nonspeech")


def test_run_writes_a_row_a_clip_and_alpha(clips: list[Clip], tmp_path: Path) -> None:
    backend = Parrot()
    rows = bench.run(backend, clips, [0, 1, 1.0], tmp_path / "out", progress=False)
    lines = (tmp_path / "out" / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert [row["alpha"] for row in rows] == [0, 1, 1, 0, 0, 1]
    assert set(rows[0]) == set(bench.Row.__annotations__)
    assert rows[0]["text"] == f"it lasts {round(16000 * (rows[0]['seconds'] or 0))} samples"
    assert (rows[0]["pack"], rows[1]["pack"]) == (None, "pack 1")
    assert rows[0]["raw"] == {"text": "you", "no_speech_prob": 0.55, "avg_logprob": -1.5}
    assert backend.calls[0] == (16000, 0.0, "en"), "one warm-up call before the clock starts"
    assert {language for _, _, language in backend.calls[1:]} == {None}


def test_run_resumes_and_drops_a_half_written_line(clips: list[Clip], tmp_path: Path) -> None:
    file = tmp_path / "clips.jsonl"
    with pytest.raises(KeyboardInterrupt):
        bench.run(Parrot(stop_after=4), clips, [0, 1], tmp_path, progress=False)
    assert len(file.read_text().splitlines()) == 3
    file.write_bytes(file.read_bytes()[:-40] + "ä".encode()[:1])
    backend = Parrot()
    rows = bench.run(backend, clips, [0, 1], tmp_path, progress=False)
    assert len(backend.calls) == 1 + 4
    assert {(row["path"], row["alpha"]) for row in rows} == {
        (clip.key, alpha) for clip in clips for alpha in (0, 1)
    }
    assert bench.read_rows(file) == rows
    backend = Parrot()
    assert bench.run(backend, clips, [0, 1], tmp_path, progress=False) == rows
    assert backend.calls == []


def test_a_bad_file_gives_an_error_row_and_is_tried_again(clips: list[Clip], tmp_path: Path) -> None:
    good = clips[1].path.read_bytes()
    clips[1].path.write_text("not audio")
    rows = bench.run(Parrot(), clips, [0, 1], tmp_path, progress=False)
    failed = [row for row in rows if row["error"]]
    assert [(row["path"], row["text"], row["wall"]) for row in failed] == [(clips[1].key, None, None)] * 2
    assert "AudioError" in str(failed[0]["error"])
    assert len(summarise(rows)["errors"]) == 2
    assert summarise(rows)["nonspeech"]["clips"] == 2
    clips[1].path.write_bytes(good)
    rows = bench.run(Parrot(), clips, [0, 1], tmp_path, progress=False)
    assert len(rows) == 6
    assert not any(row["error"] for row in rows)


def test_run_refuses_what_would_mix_or_mislead(clips: list[Clip], tmp_path: Path) -> None:
    bench.run(Parrot(pack=None), clips, [0], tmp_path, progress=False)
    bench.run(Parrot(), clips, [0, 1], tmp_path, progress=False)  # a plain α = 0 may go on
    with pytest.raises(ManifestError, match="choose another output folder"):
        bench.run(Parrot(pack="pack 2"), clips, [1], tmp_path, progress=False)
    with pytest.raises(SteerError, match="without a steering pack"):
        bench.run(Parrot(pack=None), clips, [1], tmp_path, progress=False)
    for alpha in (float("nan"), -1.0, 1e38):
        with pytest.raises(AlphaError, match="from 0 to 100"):
            bench.run(Parrot(), clips, [0, alpha], tmp_path, progress=False)
    with pytest.raises(ManifestError, match="same path"):
        bench.run(Parrot(), clips * 2, [0], tmp_path, progress=False)
    (tmp_path / "clips.jsonl").write_text("{\n{}\n")
    with pytest.raises(ManifestError, match="line 1: not JSON"):
        bench.run(Parrot(), clips, [0], tmp_path, progress=False)


def row(path: str, alpha: float, text: str, **fields: Any) -> bench.Row:
    base: dict[str, Any] = {
        "path": path,
        "source": path.split("/")[0],
        "kind": "speech",
        "class": "speech-en",
        "language": "en",
        "seconds": 6.0,
        "model": "base",
        "backend": "faster",
        "compute_type": "int8",
        "pack": "pack 1" if alpha else None,
        "alpha": alpha,
        "text": text,
        "segments": [],
        "wall": 2.0 - alpha,
        "raw": None,
        "reference": None,
        "error": None,
    }
    return bench.Row(**(base | fields))


def test_summary_of_speech() -> None:
    rows = [
        row("a/1", 0, "The cat sat.", reference="THE CAT SAT ON"),
        row("a/1", 1, "The cat.", reference="THE CAT SAT ON"),
        row("a/2", 0, "Good morning all"),
        row("a/2", 1, ""),
        row("b/3", 0, "Gott grüß dich", reference="Grüß Gott", language="de"),
        row("b/3", 1, "Grüß Gott!", reference="Grüß Gott", language="de"),
        row("b/4", 0, "only unsteered"),
    ]
    speech = summarise(rows)["speech"]
    before, after = speech["total"]["0"], speech["total"]["1"]
    assert (before["words"], before["deletions"], before["clips"]) == (4 + 3 + 2 + 2, 1, 4)
    assert (after["words"], after["deletions"], after["own_reference"]) == (9, 5, 1)
    assert after["WER"] == pytest.approx(5 / 9)
    assert after["WER_change"]["n"] == 3
    assert after["WER_change"]["value"] == pytest.approx(5 / 9 - 3 / 9)
    assert (after["FRR"]["k"], after["FRR"]["n"]) == (1, 3)
    assert after["wall_ratio"] == 0.5
    assert speech["by_language"]["de"]["1"]["WER"] == 0
    assert list(speech["by_source"]) == ["a", "b"]


def test_summary_of_nonspeech() -> None:
    loud = RawWindow(text="you", no_speech_prob=0.55, avg_logprob=-2)
    quiet = RawWindow(text="", no_speech_prob=0.9, avg_logprob=-2)
    rows = [
        row("esc/1", 0, " Thank you", kind="nonspeech", raw=loud, **{"class": "rain"}),
        row("esc/1", 1, "", kind="nonspeech", raw=quiet, **{"class": "rain"}),
        row("moh/2", 0, "you", kind="music", raw=loud, **{"class": "music"}),
        row("moh/2", 1, "you", kind="music", raw=loud, **{"class": "music"}),
        row("moh/3", 0, "[Music]", kind="music", raw=quiet, **{"class": "music"}),
        row("moh/3", 1, "...", kind="music", **{"class": "music"}),
    ]
    section = summarise(rows)["nonspeech"]
    before, after = section["total"]["0"], section["total"]["1"]
    shares = ("FPR_text", "FPR_raw", "FPR_nsp", "HR_keep")
    assert [(before[name]["k"], before[name]["n"]) for name in shares] == [
        (2, 3),
        (2, 3),
        (0, 3),
        (2, 3),
    ]
    assert [(after[name]["k"], after[name]["n"]) for name in shares] == [
        (1, 3),
        (1, 2),
        (0, 2),
        (1, 2),
    ]
    assert before["chars_per_minute"] == pytest.approx(len("thankyouyou") / 0.3)
    assert after["FPR_text_change"]["value"] == pytest.approx(-1 / 3)
    assert after["FPR_text_reduction"] == 0.5
    assert section["by_source"]["esc"]["1"]["FPR_text"]["k"] == 0
    assert section["by_class"]["music"]["1"]["FPR_text"]["n"] == 2


def test_summary_of_recordings_with_gaps(tmp_path: Path) -> None:
    def said(path: str, alpha: float, *segments: tuple[float, float, str]) -> bench.Row:
        made: list[dict[str, Any]] = [
            {"start": start, "end": end, "text": text, "speech_prob": None, "hallucination_risk": None}
            for start, end, text in segments
        ]
        text = " ".join(text for _, _, text in segments)
        fields = {"reference": "good day | to you all |", "gaps": [[2.0, 8.0], [10.0, 16.0]], "seconds": 16.0}
        return row(path, alpha, text, segments=made, **fields)

    rows = [
        said("gaps/1", 0, (0, 2, "Good day."), (4, 6, "Thanks for watching."), (8, 10, "To you all.")),
        said("gaps/1", 1, (0, 2, "Good day."), (8.5, 10, "to you.")),
        row("clean/2", 0, "The cat", reference="THE CAT"),
        row("clean/2", 1, "The", reference="THE CAT"),
    ]
    speech = summarise(rows)["speech"]
    before, after = speech["total"]["0"], speech["total"]["1"]
    assert (before["gap_words"], after["gap_words"]) == (3, 0)
    assert after["gap_words_per_minute_change"]["value"] == pytest.approx(-3 / 0.2)
    assert (before["boundary_errors"], after["boundary_errors"], after["boundary_words"]) == (0, 1, 5)
    assert after["deletions_change"]["value"] == pytest.approx(2 / 7)
    assert "gap_words" not in speech["by_source"]["clean"]["0"]
    write_report(tmp_path, rows)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| **gap_words** | 3 in 0.2 min | 0 in 0.2 min |" in table
    assert "| gap_words_per_minute, change to α = 0 | – | -15.00 a minute [-15.00, -15.00] |" in table
    assert "| **boundary_errors** | 0 of 5 words | 1 of 5 words |" in table
    assert "| timestamp_shift | 0.00 s, 95%: 0.00 s | 0.00 s, 95%: 0.45 s |" in table
    assert "| clean | 0 | 1, +50.00 pp [+50.00, +50.00] |" in table
    assert "Gaps of gaps" in table
    assert "Gaps of clean" not in table


def test_classes_that_are_the_sources_are_shown_once(tmp_path: Path) -> None:
    """A folder's class is its source; where a source has two classes both tables say something."""
    rows = [
        row("rain/1", 0, "you", kind="nonspeech", source="rain", **{"class": "rain"}),
        row("moh/2", 0, "", kind="nonspeech", source="moh", **{"class": "moh"}),
    ]
    write_report(tmp_path, rows)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "FPR_text by source" in table
    assert "FPR_text by class" not in table
    write_report(
        tmp_path, [*rows, row("moh/3", 0, "", kind="nonspeech", source="moh", **{"class": "strings"})]
    )
    assert "FPR_text by class" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_summary_of_confidence() -> None:
    def scored(speech_prob: float) -> list[dict[str, float]]:
        return [{"speech_prob": speech_prob, "hallucination_risk": 1 - speech_prob}]

    rows = [
        row("a/1", 1, "yes", segments=scored(0.9)),
        row("a/2", 1, "yes", segments=scored(0.4)),
        row("b/3", 1, "you", segments=scored(0.6), kind="nonspeech"),
        row("b/4", 1, "you", segments=scored(0.1), kind="nonspeech"),
    ]
    confidence = summarise(rows)["confidence"]["1"]
    assert confidence == {"segments": 4, "speech_prob_auc": 0.75, "hallucination_risk_auc": 0.75}


def test_summary_refuses_mixed_or_missing_rows() -> None:
    with pytest.raises(ManifestError, match="several models"):
        summarise([row("a/1", 0, "x"), row("a/2", 0, "x", model="tiny.en")])
    with pytest.raises(ManifestError, match="several packs"):
        summarise([row("a/1", 1, "x"), row("a/2", 1, "x", pack="pack 2")])
    with pytest.raises(ManifestError, match="no clip was measured: boom"):
        summarise([row("a/1", 0, "", error="boom")])


def test_report_files(clips: list[Clip], tmp_path: Path) -> None:
    rows = bench.run(Parrot(), clips, [0, 1], tmp_path, progress=False)
    summary = write_report(tmp_path, rows, {"machine": "a small one"})
    saved = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(summary))
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "- machine: a small one" in table
    assert "| **FPR_text** | 3/3 = 100.0% [43.9, 100.0] | 0/3 = 0.0% [0.0, 56.1] |" in table
    assert "| class0 | 2/2 = 100.0% [34.2, 100.0] | 0/2 = 0.0% [0.0, 65.8] |" in table
    assert "-100.0 pp [-100.0, -100.0]" in table
    assert "**HR_keep**: share of non-speech clips" in table
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "clips.jsonl",
        "summary.json",
        "table.md",
    ]


def test_command_line(
    clips: list[Clip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = str(tmp_path / "mine"), str(tmp_path / "out")
    backend = Parrot()

    def load(args: argparse.Namespace) -> Parrot:
        return backend

    monkeypatch.setattr(bench_cli, "_load", load)
    arguments = [folder, "--out", out, "--alphas", "0", "2", "--per_class", "1", "--no_raw"]
    assert cli.main(["bench", "fpr", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "| | α = 0 | α = 2 |".replace("| |", "|  |") in shown
    assert "- pack: pack 1" in shown
    assert len(bench.read_rows(tmp_path / "out" / "clips.jsonl")) == 4
    backend = Parrot(stop_after=2)
    assert cli.main(["bench", "wer", folder, "--out", out + "2", "--language", "en"]) == 130
    assert "goes on from" in capsys.readouterr().err
    assert (tmp_path / "out2" / "table.md").is_file()
    assert cli.main(["bench", "fpr", "--out", out]) == 2
    assert capsys.readouterr().err.startswith("whisper-sae-steer: error: give either folders")


NOISE = synthetic_clip("white", 1, seconds=(3, 3)).audio
# clear enough that no temperature above 0, which samples at random, is ever tried
SPEECH = load_audio(SAMPLES / "speech.ogg")
OFF: dict[str, Any] = {
    "temperature": 0.0,
    "no_speech_threshold": None,
    "compression_ratio_threshold": None,
}


@pytest.fixture(scope="module")
def tiny() -> Path:
    try:
        return resolve("tiny.en", local_files_only=True).ct2_dir
    except WeightsError as error:
        pytest.skip(str(error))


def test_faster_backend_at_zero_is_the_plain_library(tiny: Path) -> None:
    model = faster_whisper.WhisperModel(str(tiny), "cpu", compute_type="int8", cpu_threads=1)
    backend = FasterBackend(model, "tiny.en", "int8")
    assert backend.pack is None
    result = backend.transcribe(SPEECH, 0.0, None)
    plain = list(model.transcribe(SPEECH)[0])
    assert result.text == "".join(segment.text for segment in plain)
    assert "blue boxes" in result.text
    assert result.segments[0]["no_speech_prob"] == round(plain[0].no_speech_prob, 6)
    assert result.segments[0]["speech_prob"] is None
    raw = backend.first_window(SPEECH, 0.0, None)
    (first, *_), _ = model.transcribe(SPEECH, beam_size=1, log_prob_threshold=None, **OFF)
    assert raw["text"].startswith(first.text.strip())
    assert raw["avg_logprob"] == pytest.approx(first.avg_logprob, abs=1e-6)
    assert raw["no_speech_prob"] == pytest.approx(first.no_speech_prob, abs=1e-6)


def test_openai_backend_at_zero_is_the_plain_library(tiny: Path) -> None:
    model: Whisper = load_torch(tiny)
    backend = OpenAIBackend(model, "tiny.en")
    assert (backend.pack, backend.compute_type) == (None, "float32")
    raw = backend.first_window(SPEECH, 0.0, None)
    result: Any = model.transcribe(SPEECH, logprob_threshold=None, fp16=False, **OFF)
    first = result["segments"][0]
    assert raw["text"].startswith(first["text"].strip())
    assert raw["avg_logprob"] == pytest.approx(first["avg_logprob"], abs=1e-6)
    assert raw["no_speech_prob"] == pytest.approx(first["no_speech_prob"], abs=1e-6)
    assert backend.transcribe(SPEECH, 0.0, None).text == model.transcribe(SPEECH, fp16=False)["text"]


def random_pack(folder: Path, path: Path) -> Path:
    """An ungated pack that pushes tiny.en's encoder output far off in a random direction."""
    rng = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4, 384, generator=rng), dim=1)
    gate = Features(torch.arange(4), directions.clone(), torch.zeros(4), torch.zeros(4))
    steer = Features(torch.arange(4), directions.clone(), torch.zeros(4), torch.zeros(4))
    metadata = PackMetadata(
        model="tiny.en",
        fingerprint=resolve(str(folder)).fingerprint,
        d_in=384,
        strategy="direction",
        selection="gradient",
        gate="none",
        alpha_unit=20.0,
    )
    weights, size, bias = torch.ones(4), torch.ones(4), torch.zeros(())
    save_pack(SteeringPack(metadata, gate, weights, bias, steer, directions, size), path)
    return path


@pytest.mark.parametrize("name", ["faster", "openai"])
def test_our_models_are_steered_by_the_alpha_of_the_row(tiny: Path, tmp_path: Path, name: str) -> None:
    pack = str(random_pack(tiny, tmp_path / "off.safetensors"))
    if name == "faster":
        plain_model = faster_whisper.WhisperModel(str(tiny), "cpu", cpu_threads=1)
        plain = FasterBackend(plain_model, "tiny.en", "float32")
        ours = FasterBackend(WhisperModel(str(tiny), "cpu", pack=pack), "tiny.en", "float32")
    else:
        plain = OpenAIBackend(load_torch(tiny), "tiny.en")
        ours = OpenAIBackend(load_model(str(tiny), "cpu", pack=pack), "tiny.en")
    assert str(ours.pack).startswith("off ")
    unsteered = ours.first_window(NOISE, 0.0, None)
    assert unsteered == plain.first_window(NOISE, 0.0, None)
    assert ours.first_window(NOISE, 1.0, None) != unsteered
    # at fallback temperatures too, which sample
    assert ours.transcribe(NOISE, 0.0, None) == plain.transcribe(NOISE, 0.0, None)
    for segment in ours.transcribe(NOISE, 1.0, None).segments:
        assert 0 <= segment["speech_prob"] <= 1


@pytest.mark.parametrize("name", ["faster", "openai"])
def test_raw_figures_are_the_decoders_own(tiny: Path, name: str) -> None:
    """The definitions are of the token's probability; where nobody speaks results report 1 instead."""
    if name == "faster":
        backend = FasterBackend(WhisperModel(str(tiny), "cpu", cpu_threads=1), "tiny.en", "float32")
    else:
        backend = OpenAIBackend(load_model(str(tiny), "cpu"), "tiny.en")
    silence = np.zeros(3 * 16_000, np.float32)
    assert 0.5 < backend.first_window(silence, 1.0, None)["no_speech_prob"] < 0.9999
