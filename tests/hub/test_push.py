"""``push``: what lands on the hub, what is refused before anything is sent, and nothing is half there."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.support.small_hub import Hub, closed_port, use
from tests.support.small_pack import small_pack
from tests.support.small_saes import audiosae, make_frames, make_sae
from whisper_sae_steer.cli import main
from whisper_sae_steer.sae.formats import load_sae, save_sae
from whisper_sae_steer.sae.pretrained import from_pretrained
from whisper_sae_steer.steering.pack import read_pack, save_pack, stored_digest

REPO = "owner/packs"


def files(hub: Hub, branch: str = "main") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in hub.folder(REPO, branch).iterdir()}


def card(hub: Hub) -> ModelCard:
    return ModelCard(files(hub)["README.md"].decode())


def push(*argv: str | Path) -> int:
    return main(["push", *map(str, argv)])


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    assert push(*argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_pack_its_report_and_its_card(hub: Hub, pack_file: Path, capsys: pytest.CaptureFixture[str]):
    assert push(pack_file, REPO) == 0
    there = files(hub)
    assert sorted(there) == ["README.md", "pack.safetensors", "report.html"]
    assert there["pack.safetensors"] == pack_file.read_bytes()
    assert there["report.html"] == b"<p>plots</p>"
    said = capsys.readouterr().out
    assert "README.md, pack.safetensors, report.html" in said
    assert hub.commit(REPO)[:12] in said
    assert said.endswith('to use it: load_model("tiny.en", pack="hub:owner/packs")\n')
    assert REPO not in hub.private


def test_the_card_of_a_pack(hub: Hub, pack_file: Path):
    push(pack_file, REPO)
    facts = card(hub).data.to_dict()
    assert facts["library_name"] == "whisper-sae-steer"
    assert facts["license"] == "cc-by-4.0"
    assert facts["base_model"] == "openai/whisper-tiny.en"
    assert {"whisper-sae-steer", "steering-pack", "whisper"} <= set(facts["tags"])
    text = card(hub).text
    for part in (
        'load_model("tiny.en", pack="hub:owner/packs")',
        "whisper-sae-steer transcribe call.wav --model tiny.en --pack hub:owner/packs",
        f"`{stored_digest(pack_file)}`",
        "(held-back windows, greedy)",
        "| unsteered.fpr_raw | 0.93 | share of windows of 30 s without speech that get a letter or digit",
        "| steered.fpr_raw | 0.0125 |",
        "| guarantee.touched_at_most | 0.0067 | bound on the share",
        "[report.html](report.html)",
        "- readers: CC BY 4.0 (LibriSpeech)",
        "- 2 recordings of sound/fans",
        "- 60 synthetic sounds",
    ):
        assert part in text
    assert "None" not in text


def test_an_unknown_model_is_no_base(hub: Hub, tmp_path: Path):
    pack = small_pack(model="mine", data={"clips": 0, "licences": []})
    save_pack(pack, tmp_path / "p.safetensors")
    push(tmp_path / "p.safetensors", REPO)
    facts = card(hub).data.to_dict()
    assert "base_model" not in facts
    assert facts["license"] == "cc0-1.0"


def test_options(hub: Hub, pack_file: Path, capsys: pytest.CaptureFixture[str]):
    argv = ("--private", "--revision", "next", "--message", "Better", "--license", "cc-by-sa-4.0")
    assert push(pack_file, REPO, *argv) == 0
    assert files(hub) == {}
    assert sorted(files(hub, "next")) == ["README.md", "pack.safetensors", "report.html"]
    assert REPO in hub.private
    assert 'pack="hub:owner/packs@next"' in capsys.readouterr().out
    assert b'license: "cc-by-sa-4.0"' in files(hub, "next")["README.md"]
    assert push(pack_file, f"hub:{REPO}@next", "--private") == 0  # once more is no harm


def test_an_old_report_goes_with_its_pack(hub: Hub, pack_file: Path):
    push(pack_file, REPO)
    save_pack(small_pack(alpha_unit=9.0, data={"clips": 0}), pack_file)
    pack_file.with_suffix(".html").unlink()
    push(pack_file, REPO)
    assert sorted(files(hub)) == ["README.md", "pack.safetensors"]
    assert files(hub)["pack.safetensors"] == pack_file.read_bytes()


@pytest.mark.parametrize("change", ["cut", "flip", "absent", "other"])
def test_a_damaged_pack_is_refused_before_anything_is_sent(
    hub: Hub, pack_file: Path, change: str, capsys: pytest.CaptureFixture[str]
):
    content = pack_file.read_bytes()
    if change == "cut":
        pack_file.write_bytes(content[:-9])
    elif change == "flip":
        pack_file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif change == "absent":
        pack_file.unlink()
    else:
        pack_file.write_text("no pack")
    reasons = {
        "cut": "truncated",
        "flip": "was altered",
        "absent": "no steering pack at",
        "other": "truncated",
    }
    assert reasons[change] in refused(capsys, pack_file, REPO)
    assert hub.asked == 0


def test_licences_that_forbid_it_need_a_word(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "p.safetensors"
    save_pack(small_pack(data={"clips": 1, "licences": ["zoo: CC BY-NC 4.0"]}), path)
    assert "zoo: CC BY-NC 4.0, which can't be passed on freely; pass --license" in refused(capsys, path, REPO)
    assert hub.asked == 0
    assert push(path, REPO, "--license", "cc-by-nc-4.0") == 0
    assert card(hub).data.to_dict()["license"] == "cc-by-nc-4.0"


def test_a_private_pack_never_lands_in_a_public_repository(
    hub: Hub, pack_file: Path, capsys: pytest.CaptureFixture[str]
):
    push(pack_file, REPO)
    before = files(hub)
    pack_file.with_suffix(".html").write_text("secret")
    assert "owner/packs exists and is public" in refused(capsys, pack_file, REPO, "--private")
    assert files(hub) == before


def test_hubs_that_take_nothing(
    hub: Hub, pack_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    hub.fault = "no commit"
    assert "the hub took nothing for owner/packs: " in refused(capsys, pack_file, REPO)
    assert files(hub) == {}
    hub.fault = "html"
    assert "the hub took nothing for owner/packs: " in refused(capsys, pack_file, REPO)
    hub.fault = ""
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    error = refused(capsys, pack_file, "owner/others")
    assert "401" in error
    assert "log in with a token that may write (HF_TOKEN)" in error
    use(closed_port(), monkeypatch)
    assert "the hub can't be reached, nothing was sent: " in refused(capsys, pack_file, REPO)
    assert "'packs' is no repository" in refused(capsys, pack_file, "packs")


def sae_folder(folder: Path) -> Path:
    sae = make_sae()
    sae.config.metadata["licences"] = ["readers: CC BY 4.0"]
    save_sae(sae, folder)
    return folder


def test_an_sae_as_it_is(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = sae_folder(tmp_path / "sae")
    (folder / "history.json").write_text("{}")
    assert push(folder, REPO) == 0
    there = files(hub)
    assert sorted(there) == ["README.md", "cfg.json", "sae_weights.safetensors"]
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert there[name] == (folder / name).read_bytes()
    assert capsys.readouterr().out.endswith('to use it: from_pretrained("owner/packs")\n')
    facts, text = card(hub).data.to_dict(), card(hub).text
    assert (facts["license"], facts["base_model"]) == ("cc-by-4.0", "openai/whisper-base")
    assert "`block.3`, width 12" in text
    assert "| l0 | 49.5 | features that are active in a frame, on average |" in text
    x = make_frames(20)
    assert from_pretrained(REPO).encode(x).equal(load_sae(folder).encode(x))


def test_an_sae_of_another_layout_goes_up_as_saelens(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    state: dict[str, Any] = {"threshold": make_sae().threshold.detach()}
    folder = audiosae(tmp_path / "layer_4", **state)
    assert "doesn't say which licences its recordings have: pass --license" in refused(capsys, folder, REPO)
    assert push(folder, REPO, "--license", "mit") == 0
    assert sorted(files(hub)) == ["README.md", "cfg.json", "sae_weights.safetensors"]
    x = make_frames(20)
    assert from_pretrained(REPO).encode(x).equal(load_sae(folder).encode(x))


def test_saes_that_are_refused_before_anything_is_sent(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = sae_folder(tmp_path / "sae")
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert "sae_weights.safetensors" in refused(capsys, folder, REPO)
    shutil.rmtree(folder)
    folder.mkdir()
    assert "no SAE at" in refused(capsys, folder, REPO)
    assert "without a threshold" in refused(capsys, audiosae(tmp_path / "raw"), REPO, "--license", "mit")
    assert hub.asked == 0


def test_the_pack_on_the_hub_is_a_pack(hub: Hub, pack_file: Path):
    push(pack_file, REPO)
    assert read_pack(hub.folder(REPO) / "pack.safetensors").metadata == read_pack(pack_file).metadata
