"""``pull``: the same bytes as were pushed, what it says of them, and the list of what is known."""

from pathlib import Path

import pytest

from tests.support.small_hub import COMMIT, Hub, closed_port, use
from tests.support.small_saes import audiosae, make_sae
from whisper_sae_steer.cli import main
from whisper_sae_steer.hub import pull as command
from whisper_sae_steer.models import registry
from whisper_sae_steer.models.registry import Entry
from whisper_sae_steer.sae.formats import load_sae, save_sae
from whisper_sae_steer.steering.pack import read_pack, stored_digest

REPO = "owner/packs"


def pull(*argv: str | Path) -> int:
    return main(["pull", *map(str, argv)])


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    capsys.readouterr()
    assert pull(*argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture
def shared(hub: Hub, pack_file: Path) -> Hub:
    """A hub with the pack."""
    assert main(["push", str(pack_file), REPO]) == 0
    return hub


def test_a_pack_comes_back_as_it_was(
    shared: Hub, pack_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "deep" / "copy.safetensors"
    capsys.readouterr()
    assert pull(REPO, "--out", out) == 0
    assert out.read_bytes() == pack_file.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    said = capsys.readouterr().out
    for part in (
        "steering pack for Whisper tiny.en: direction at encoder_output",
        read_pack(pack_file).metadata.fingerprint,
        stored_digest(pack_file),
        "  steered.fpr_raw 0.0125",
        "  guarantee.touched_at_most 0.0067",
        f"in {out}",
        'load_model("tiny.en", pack="hub:owner/packs")',
    ):
        assert part in said
    assert shared.given == ["pack.safetensors"]


def test_revisions_and_the_cache(
    shared: Hub, pack_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    assert "has no revision 'v9'" in refused(capsys, REPO, "--revision", "v9")
    assert "not in the cache" in refused(capsys, REPO, "--local_files_only")
    assert pull(f"hub:{REPO}", "--revision", shared.commit(REPO)) == 0
    assert pull(REPO) == 0
    use(closed_port(), monkeypatch)
    out = tmp_path / "copy.safetensors"
    assert pull(REPO, "--local_files_only", "--out", out) == 0
    assert out.read_bytes() == pack_file.read_bytes()
    with pytest.warns(RuntimeWarning, match="used as cached"):
        assert pull(REPO) == 0
    assert shared.given == ["pack.safetensors"]


def test_an_out_that_was_there_stays_until_the_new_one_is_whole(
    shared: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "copy.safetensors"
    out.write_text("before")
    shared.fault = "short"
    assert "can't download pack.safetensors" in refused(capsys, REPO, "--out", out)
    shared.fault = "altered"
    assert "was altered since it was written" in refused(capsys, REPO, "--out", out)
    assert out.read_text() == "before"
    shared.fault = ""
    assert pull(REPO, "--out", out) == 0
    assert read_pack(out)


def test_repositories_without_a_pack(hub: Hub, capsys: pytest.CaptureFixture[str]):
    assert "no repository owner/packs that you may read" in refused(capsys, REPO)
    hub.folder(REPO).mkdir(parents=True)
    (hub.folder(REPO) / "model.bin").write_text("x")
    assert "owner/packs has no pack.safetensors; it has model.bin" in refused(capsys, REPO)


def test_an_sae_comes_back_as_it_was(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_sae(make_sae(), tmp_path / "sae")
    main(["push", str(tmp_path / "sae"), REPO, "--license", "mit"])
    capsys.readouterr()
    assert pull(REPO, "--out", tmp_path / "deep" / "copy") == 0
    said = capsys.readouterr().out
    assert "SAE of base at block.3: jumprelu, 12 to 40 features" in said
    assert "  held_back.l0 49.5" in said
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "deep/copy" / name).read_bytes() == (tmp_path / "sae" / name).read_bytes()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy"]
    assert "exists: choose another --out" in refused(capsys, REPO, "--out", tmp_path / "deep" / "copy")
    assert pull(REPO, "--local_files_only") == 0


def test_one_layer_of_several(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for layer in (1, 2):
        audiosae(hub.folder(REPO) / f"layer_{layer}")
    assert "has several SAEs; pass one as layer: layer_1, layer_2" in refused(capsys, REPO)
    for layer in ("2", "layer_2"):
        assert pull(REPO, "--layer", layer, "--out", tmp_path / f"out {layer}") == 0
        assert load_sae(tmp_path / f"out {layer}").config.d_sae == 40


def test_what_is_known_for_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert pull("--model", "small") == 0
    known = "hub:Egorgij21/Audio-SAE-Whisper-small  SAE for openai/whisper-small at every block\n"
    assert capsys.readouterr().out == known
    mark = command.resolve("tiny.en").fingerprint
    pack = Entry("owner/p", "pack", "openai/whisper-tiny.en", "encoder_output", mark, {"fpr_raw": 0.0125})
    other = pack._replace(repo="owner/q", fingerprint="0" * 32)
    monkeypatch.setattr(registry, "entries", lambda: (pack, other))
    assert pull("--model", "tiny.en") == 0
    line = "hub:owner/p  pack for openai/whisper-tiny.en at encoder_output, fpr_raw 0.0125\n"
    assert capsys.readouterr().out == line
    assert pull("--model", "medium") == 0
    assert capsys.readouterr().out == "no pack or SAE on the hub is known for medium\n"


@pytest.mark.parametrize("argv", [[], [REPO, "--model", "base"]])
def test_a_repository_or_a_model(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert "name one repository (owner/name), or a model with --model" in refused(capsys, *argv)


def test_the_first_commit_is_a_revision_too(hub: Hub, pack_file: Path):
    hub.folder(REPO).mkdir(parents=True)
    (hub.folder(REPO) / "pack.safetensors").write_bytes(pack_file.read_bytes())
    assert pull(f"{REPO}@{COMMIT}") == 0
