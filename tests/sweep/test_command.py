"""The command `sweep` on real weights."""

import json
from pathlib import Path

import pytest

from tests.support.paths import SAMPLES
from tests.support.real_models import truth
from tests.support.training_parts import small_recordings, write_wav
from whisper_sae_steer.cli import main
from whisper_sae_steer.sae.formats import load_sae

SMALL = [
    *("--model", "tiny.en", "--steps", "4", "--batch_size", "64", "--k", "2", "4", "--seeds", "0", "7"),
    *("--expansion", "1", "--buffer_frames", "1000"),
]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return small_recordings(tmp_path)


def test_sweep_writes_saes_figures_and_a_page(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    options = ["--taps", "encoder_output", "block.2", "--architecture", "topk", "jumprelu"]
    assert main(["sweep", *folders, "--out", str(out), *SMALL, *options]) == 0
    printed = capsys.readouterr().out
    assert "16 SAEs (4 settings, 2 seeds, 2 taps), side by side. This takes about a minute" in printed
    saved = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    assert saved["verdict"] in printed
    assert [(one["label"], one["tap"]) for one in saved["settings"]] == [
        (f"{name} k{k}", tap)
        for tap in ("encoder_output", "block.2")
        for name in ("topk", "jumprelu")
        for k in (2, 4)
    ]
    for setting in saved["settings"]:
        for sae in setting["saes"]:
            config = load_sae(out / sae["folder"]).config
            assert (config.tap, config.k) == (setting["tap"], setting["config"]["k"])
    assert "8 settings of SAEs for tiny.en" in (out / "report.html").read_text(encoding="utf-8")
    assert main(["sweep", *folders, "--out", str(out), *SMALL, *options]) == 0
    assert "train:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "4", "4"], "two settings are one training, batchtopk-k4-x1"),
        (["--bandwidth", "0.5", "1"], "two settings are one training"),
        (["--seeds", "1", "1"], "seed 1 is given twice"),
        (["--k", "4", "400"], "384 features are fewer than k = 400"),
        (["--lr", "1e-3", "-1"], "lr must be above 0"),
        (["--memory_gb", "0.5"], "more than 0.5"),
        (["--other_audio", "speech=1.0"], "audio with speech1 is the same"),
        (["--other_audio", "noise_share=2"], "share of noise from 0 to 1"),
        (["--other_audio", "audio_share=0"], "audio_share must be above 0"),
    ],
)
def test_sweep_refuses_nonsense_before_it_encodes(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
):
    assert main(["sweep", *folders, "--out", str(tmp_path / "out"), *SMALL, *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_audio_is_a_setting_of_its_own_measured_on_the_same_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for kind, lengths in {"voice": (5, 6, 7), "noise": (6, 7, 8)}.items():
        for i, seconds in enumerate(lengths):
            write_wav(tmp_path / kind / f"{i}.wav", seconds, 10 * seconds + i)
    given = [f"speech={tmp_path / 'voice'}", f"sound={tmp_path / 'noise'}"]
    few = ["--model", "tiny.en", "--steps", "4", "--batch_size", "64", "--k", "4", "--expansion", "1"]
    seeds = ["--seeds", "0", "1", "--noise_share", "1"]
    options = [*few, *seeds, "--other_audio", "noise_share=0", "sound=0,noise_share=0", "audio_share=0.5"]
    out = tmp_path / "out"
    assert main(["sweep", *given, "--out", str(out), *options]) == 0
    saved = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    first, *others = saved["settings"]
    assert [one["audio"] for one in others] == ["noise_share0", "sound0-noise_share0", "audio_share0.5"]
    assert first["from_first"] == {}
    held = saved["conditions"]["domain_frames"]["encoder_output"]
    assert sorted(held) == ["sound", "speech"]
    weights = set[bytes]()
    for setting in saved["settings"]:
        for sae in setting["saes"]:
            assert sae["domains"].keys() == held.keys()
            weights.add((out / sae["folder"] / "sae_weights.safetensors").read_bytes())
    assert len(weights) == 4 * 2
    for setting in others:
        told = setting["from_first"]["fvu_speech"]
        assert told["value"] == pytest.approx(
            setting["mean"]["fvu_of"]["speech"] - first["mean"]["fvu_of"]["speech"]
        )
        assert told["n"] == 2
    assert "Differences from the first setting" in (out / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["sweep", *given, "--out", str(out), *options[:-1]]) == 0  # less audio is less to show
    assert "train:" not in capsys.readouterr().err
    again = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    assert json.dumps(again["settings"]) == json.dumps(saved["settings"][:-1])  # in the same order, too


def test_what_each_reconstruction_costs_downstream(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    manifest, noise = tmp_path / "judged.tsv", write_wav(tmp_path / "hiss.wav", 2, 7)
    (said,) = truth("speech")["speech"]
    rows = [("path", "split", "kind", "text"), (str(SAMPLES / "speech.ogg"), "dev", "speech", said["text"])]
    rows += [(str(noise), "dev", "nonspeech", ""), (str(tmp_path / "missing.wav"), "calib", "music", "")]
    manifest.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "out"
    given = ["sweep", *folders, "--out", str(out), *SMALL, "--downstream", str(manifest)]
    assert main(given) == 0
    saved = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    for setting in saved["settings"]:
        for sae in setting["saes"]:
            cost = sae["downstream"]
            assert (cost["speech"], cost["nonspeech"], cost["failed"]) == (1, 1, 0)
            words = cost["wer"]["untouched"]["words"]
            assert words == len(said["text"].split())
            assert cost["wer"]["untouched"]["substitutions"] < 3
            assert cost["wer"]["change"]["value"] > 0.3  # four steps make no SAE
    printed = capsys.readouterr()
    assert "WER" in printed.out
    rows_before = {file: file.read_bytes() for file in (out / "work" / "downstream").rglob("*.jsonl")}
    assert rows_before
    assert main(given) == 0
    assert {file: file.read_bytes() for file in rows_before} == rows_before
    assert json.loads((out / "sweep.json").read_text(encoding="utf-8")) == saved
