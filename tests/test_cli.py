import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import pytest
import torch
import whisper.utils
from faster_whisper.transcribe import Word

from tests.support.paths import SAMPLES
from whisper_sae_steer import cli, faster
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.cli import main
from whisper_sae_steer.commands import transcribe as command
from whisper_sae_steer.commands import values
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.steering import pack as packs
from whisper_sae_steer.steering.metadata import PackMetadata
from whisper_sae_steer.steering.pack import Features, SteeringPack, save_pack

SPEECH = SAMPLES / "speech.ogg"
ENDINGS = ("json", "srt", "tsv", "txt", "vtt")
OURS = {
    *("steer_alpha", "pack", "backend", "compute_type", "steer_language_detection", "skip_gaps"),
    *("highlight_risk", "filter_risk"),
}


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(argv)


def whisper_parser(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser inside openai's command, caught where it would read the command line."""
    caught: list[argparse.ArgumentParser] = []

    def catch(self: argparse.ArgumentParser, *_: Any) -> None:
        caught.append(self)
        raise InterruptedError

    module = import_module("whisper.transcribe")  # a function of that name hides it
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", catch)
        with pytest.raises(InterruptedError):
            module.cli()
    return caught[0]


def test_every_option_of_openai_whisper_has_its_name_and_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = argparse.ArgumentParser()
    command.add_arguments(ours)
    mine = {action.dest: action for action in ours._actions}
    theirs = {action.dest: action for action in whisper_parser(monkeypatch)._actions}
    assert set(mine) - set(theirs) == OURS
    assert set(theirs) <= set(mine)
    for name, action in theirs.items():
        assert mine[name].option_strings == action.option_strings
        assert mine[name].nargs == action.nargs
        if name == "model":  # theirs, turbo, has no pack that ships with us
            assert mine[name].default == "base"
        elif name != "device":  # ours is looked up later: the help needs no torch
            assert mine[name].default == action.default, name
        if name not in ("language", "help"):
            assert mine[name].choices == action.choices or set(mine[name].choices or ()) == set(
                action.choices or ()
            )


def test_values_are_read_as_openai_whisper_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [
        *("a.wav", "-o", "out", "-f", "srt", "--model", "tiny.en", "--language", "German"),
        *(
            "--beam_size",
            "None",
            "--best_of",
            "3",
            "--logprob_threshold",
            "None",
            "--fp16",
            "False",
        ),
        *("--patience", "2", "--clip_timestamps", "1,2", "--suppress_tokens", "1,2,3"),
        *("--temperature_increment_on_fallback", "None", "--word_timestamps", "True"),
    ]
    theirs = vars(whisper_parser(monkeypatch).parse_args(argv))
    mine = vars(parsed(*argv))
    assert {name: mine[name] for name in theirs if name != "device"} == {
        name: value for name, value in theirs.items() if name != "device"
    }


def test_languages_are_openai_whispers(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {action.dest: action for action in whisper_parser(monkeypatch)._actions}
    for name in theirs["language"].choices or ():
        assert values.language(name) == name
    for name in ("english", "EN", "Klingon", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            values.language(name)


def test_options_in_faster_whispers_terms() -> None:
    args = parsed("a.wav", "--language", "German", "--beam_size", "None", "--verbose", "False")
    given = command.faster_options(args)
    assert given["language"] == "de"
    assert given["beam_size"] == 1
    assert given["suppress_tokens"] == [-1]
    assert given["temperature"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert given["log_progress"] is True
    assert given["skip_gaps"] is True
    assert command.faster_options(parsed("a.wav", "--skip_gaps", "False"))["skip_gaps"] is False
    single = parsed("a.wav", "--temperature_increment_on_fallback", "None", "--temperature", "0.3")
    assert command.faster_options(single)["temperature"] == [0.3]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required"),
        (["listen"], "invalid choice"),
        (["bench", "latency"], "invalid choice"),
        (["transcribe"], "required"),
        (["transcribe", "a.wav", "--fp16", "yes"], "neither True nor False"),
        (["transcribe", "a.wav", "--steer_alpha", "nan"], "no finite number"),
        (["transcribe", "a.wav", "--suppress_tokens", "a"], "token ids"),
        (["transcribe", "a.wav", "--language", "xx"], "no language"),
        (["transcribe", "a.wav", "--highlight_words", "True"], "requires --word_timestamps True"),
        (["transcribe", "a.wav", "--filter_risk", "0"], "above 0 and at most 1"),
        (["transcribe", "a.wav", "--filter_risk", "0.9", "--pack", "none"], "needs the risk"),
        (["transcribe", "a.wav", "--highlight_risk", "0.5"], "requires --word_timestamps True"),
        (
            ["transcribe", "a.wav", "--word_timestamps", "True", "--highlight_risk", "2"],
            "above 0 and at most 1",
        ),
        (["transcribe", "a.wav", "--compute_type", "int8"], "--backend faster"),
        (
            ["transcribe", "a.wav", "--backend", "faster", "--carry_initial_prompt", "True"],
            "no --carry_initial_prompt",
        ),
        (["transcribe", "a.wav", "--temperature_increment_on_fallback", "1e-9"], "0.01 or more"),
        (["transcribe", "a.wav", "--max_words_per_line", "-1"], "whole number of 1 or more; None"),
        (["transcribe", "a.wav", "--max_line_count", "0"], "whole number of 1 or more; None"),
        (["transcribe", "a.wav", "--threads", "-1"], "from 0 to 1024"),
        (["transcribe", "a.wav", "--beam_size", "0"], "from 1 to 100"),
        (["transcribe", "a.wav", "--best_of", "-1"], "from 1 to 100"),
        (["transcribe", "a.wav", "--temperature", "-1"], "0 or more"),
        (["transcribe", "a.wav", "--patience", "0"], "above 0"),
        (["transcribe", "a.wav", "--patience", "1", "--beam_size", "None"], "--patience needs --beam_size"),
        (["transcribe", "a.wav", "--patience", "0.05"], "less than one beam"),
        (["transcribe", "a.wav", "--length_penalty", "-5"], "from 0 to 1"),
        (["transcribe", "a.wav", "--clip_timestamps", "5,1"], "each end after its start"),
        (["transcribe", "a.wav", "--suppress_tokens", "999999"], "from 0 to 51863"),
        (["transcribe", "a.wav", "--device", "abacus"], "no device"),
        (["transcribe", "a.wav", "--backend", "faster", "--compute_type", "int3"], "'bfloat16'"),
        (["transcribe", "a.wav", "-o", "/proc/below"], "can't be written to"),
        (["bench", "fpr", "a.wav", "--out", "o", "--threads", "-1"], "from 0 to 1024"),
        (["bench", "hard", "a.wav", "--out", "o", "--per_condition", "0"], "1 or more"),
        (["calibrate", "--out", "o", "--threads", "-1"], "from 0 to 1024"),
        (["calibrate", "--out", "o", "--per_class", "0"], "1 or more"),
        (["batch", "a.wav", "--out", "o", "--threads", "-1"], "from 0 to 1024"),
        (["batch", "a.wav", "--out", "o", "--workers", "-1"], "0 or more"),
        (["batch", "a.wav", "--out", "o", "--device", "abacus"], "'cuda'"),
        (["export", "--format", "ct2", "--out", "o", "--compute_type", "int3"], "'bfloat16'"),
        (["train", "a.wav", "--out", "o", "--device", "abacus"], "no device"),
        (["transcribe", "a.wav", "--model", "no-such-model"], "no-such-model"),
        (["transcribe", "a.wav", "-o", str(SPEECH / "below")], "can't be written to"),
        (["transcribe", "a.wav", "--model", "tiny.en", "--pack", "none.safetensors"], "none.safe"),
        (["info", "--model", "tiny.en", "--pack", "none.safetensors"], "none.safe"),
        (["info", "--model", "no-such-model"], "no-such-model"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    argv: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert said in last
    assert last.startswith("whisper-sae-steer")


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU lacks")
def test_device_and_compute_type_that_the_machine_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["transcribe", "a.wav", "--model", "tiny.en", "--pack", "none", "--backend", "faster"]
    assert main([*base, "--device", "cuda"]) == 2
    assert main([*base, "--compute_type", "float16"]) == 2
    assert main(["bench", "fpr", str(SAMPLES), "--out", "o", "--compute_type", "float16"]) == 2
    for argv in (["make-pack"], ["export", "--format", "ct2", "--out", "o"], ["serve"]):
        assert main([*argv, "--model", "no-such-model", "--compute_type", "float16"]) == 2
    assert main(["transcribe", "a.wav", "--model", "tiny.en", "--device", "cuda"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "--device cuda: CUDA" in lines[0]
    for line in lines[1:-1]:
        assert "--compute_type float16: cpu here takes default, float32, int8" in line
    assert "can't load tiny.en on cuda" in lines[-1]
    assert len(lines) == 7


@pytest.mark.parametrize("group", ["bench", "analyze"])
def test_a_group_of_commands_says_what_it_is(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([group, "--help"])
    shown = capsys.readouterr().out
    assert cli.COMMANDS[group].summary in " ".join(shown.split())
    assert cli.SUMMARY not in shown


def test_control_c_is_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_load", stop)
    assert main(["transcribe", "a.wav"]) == 130
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"), [("transcribe", "--steer_alpha"), ("serve", "--max_audio_seconds")]
)
def test_help_imports_no_torch(command: str, option: str) -> None:
    code = (
        "import sys; from whisper_sae_steer.cli import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "finally: sys.stderr.write(str('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "False"
    assert option in done.stdout


def test_module_is_the_command() -> None:
    asked = [sys.executable, "-m", "whisper_sae_steer", "--help"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert all(name in shown for name in cli.COMMANDS)


@pytest.mark.parametrize("name", ["info", "calibrate", "train", "bench fpr", "bench wer"])
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: whisper-sae-steer {name}" in capsys.readouterr().out


def a_pack(folder: Path) -> Path:
    """A pack for tiny.en whose gate is always shut: it labels, and edits nothing."""
    weights = resolve("tiny.en")
    one = torch.zeros(1, 384)
    features = Features(torch.zeros(1, dtype=torch.long), one, torch.zeros(1), torch.zeros(1))
    metadata = PackMetadata(
        *("tiny.en", weights.fingerprint, 384, "additive", "attribution", "window"),
        alpha_unit=1.0,
        metrics={"FPR_text": 0.25},
    )
    one[0, 0] = 1
    path = folder / "my.safetensors"
    tensors = (features, torch.zeros(1), torch.tensor(9.0), features, one, torch.ones(1))
    save_pack(SteeringPack(metadata, *tensors), path)
    return path


def test_faster_back_end_writes_what_whispers_writers_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    argv = ["transcribe", str(SPEECH), str(tmp_path / "missing.wav"), "-o", str(out)]
    chosen = ["--model", "tiny.en", "--backend", "faster", "--steer_alpha", "0"]
    assert main([*argv, *chosen, "--word_timestamps", "True", "--max_words_per_line", "4"]) == 1
    assert f"skipping {tmp_path / 'missing.wav'}: no such file\n" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == [f"speech.{end}" for end in ENDINGS]

    plain = faster_whisper.WhisperModel(str(resolve("tiny.en").ct2_dir), device="cpu")
    segments, _ = plain.transcribe(str(SPEECH), language="en", word_timestamps=True)
    expected = [command.segment_dict(segment, i) for i, segment in enumerate(segments)]
    result = json.loads((out / "speech.json").read_text())
    assert result["segments"] == expected
    assert result["language"] == "en"
    assert "the train to the coast" in result["text"].lower()
    reference = tmp_path / "reference"
    reference.mkdir()
    writer: Any = whisper.utils.get_writer("srt", str(reference))
    writer(result, str(SPEECH), {"max_words_per_line": 4})
    assert (out / "speech.srt").read_text() == (reference / "speech.srt").read_text()


def test_openai_back_end_equals_openai_whisper(tmp_path: Path) -> None:
    argv = ["transcribe", str(SPEECH), "-o", str(tmp_path), "-f", "json", "--model", "tiny.en"]
    pack = a_pack(tmp_path)
    assert main([*argv, "--pack", str(pack), "--temperature", "0", "--beam_size", "2"]) == 0
    steered = json.loads((tmp_path / "speech.json").read_text())
    labels = [
        {name: segment.pop(name) for name in ("speech_prob", "hallucination_risk")}
        for segment in steered["segments"]
    ]
    assert labels
    assert all(0 <= value <= 1 for label in labels for value in label.values())
    assert main([*argv, "--pack", "none", "--beam_size", "2"]) == 0
    assert json.loads((tmp_path / "speech.json").read_text()) == steered


def test_segment_keeps_labels_and_openais_fields() -> None:
    end: Any = np.float32(1)
    word = Word(start=0.5, end=end, word=" hi", probability=0.5)
    segment = faster.Segment(
        *(7, 0, 0.5, end, " hi", [1], -0.1, 1.0, 0.1, [word], 0.0),
        speech_prob=0.9,
        hallucination_risk=0.1,
    )
    made = command.segment_dict(segment, 0)
    assert json.loads(json.dumps(made)) == made
    assert made["id"] == 0
    assert made["words"] == [{"start": 0.5, "end": 1.0, "word": " hi", "probability": 0.5}]
    assert (made["speech_prob"], made["hallucination_risk"]) == (0.9, 0.1)
    assert segment.id == 7  # the caller's segment is left as it was


def test_info_says_what_will_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = a_pack(tmp_path)
    assert main(["info", "--model", "tiny.en", "--pack", str(pack), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    weights = resolve("tiny.en")
    assert facts["ct2_dir"] == str(weights.ct2_dir)
    assert facts["sha256"] == weights.sha256
    assert facts["fingerprint"] == weights.fingerprint
    assert (facts["pack"], facts["tap"]) == (str(pack), "encoder_output")
    assert facts["pack_metadata"]["strategy"] == "additive"
    assert main(["info", "--model", "tiny.en", "--pack", str(pack)]) == 0
    shown = capsys.readouterr().out
    for part in (str(pack), weights.sha256, str(weights.ct2_dir), "additive", "FPR_text", "0.25"):
        assert part in shown


def test_info_is_a_page_of_figures_with_their_sets_and_of_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["info", "--model", "tiny.en"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ +70\.00% +0\.83%  share of windows of 30 s without speech", shown, re.MULTILINE)
    assert re.search(r"^ +0\.85%  bound on the share of a new recording's speech", shown, re.MULTILINE)
    assert re.search(r"^ +797  windows with speech that were held back", shown, re.MULTILINE)
    assert "speech: asterisk-en 48, " in shown
    assert "synthetic sounds: 60" in shown
    assert 'serve needs uvicorn: pip install "whisper-sae-steer[serve]"' in shown
    assert "fpr_raw" not in shown


def test_info_names_the_command_that_makes_a_missing_pack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packs, "known_packs", list[Path])
    assert main(["info", "--model", "tiny.en"]) == 0
    shown = capsys.readouterr().out
    assert "make-pack --model tiny.en" in shown
    assert "--pack none" in shown


@pytest.mark.parametrize(
    "command",
    [
        "bench fpr {folder} --out {file} --model tiny.en --alphas 1 --no_raw --threads 1 --compute_type int8",
        "calibrate --model tiny.en --out {folder}",
        "calibrate --model tiny.en --out {file}/my.safetensors",
    ],
)
def test_a_place_that_cannot_be_written_to_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, file = tmp_path / "sounds", tmp_path / "file"
    folder.mkdir()
    write_wav(folder / "a.wav", np.zeros(1600, np.float32))
    file.touch()
    assert cli.main(command.format(folder=folder, file=file).split()) == 2
    assert re.fullmatch(r"whisper-sae-steer: error: .+\n", capsys.readouterr().err)


def test_errors_speak_of_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packs, "known_packs", list[Path])
    command_line = ["transcribe", str(SPEECH), "--model", "tiny.en", "--output_dir", str(tmp_path)]
    assert main(command_line) == 2
    error = capsys.readouterr().err
    assert "make-pack --model tiny.en" in error
    assert "--pack none" in error
    assert "pack=None" not in error
