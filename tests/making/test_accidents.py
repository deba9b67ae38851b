"""``make-pack`` given nonsense, or stopped anywhere: one clear line, nothing half written, and it goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants as hub_constants

from tests.support.calibration_parts import names, random_sae, spoken_pieces, write_noise, write_speech
from tests.support.hard_files import write_unreadable
from tests.support.hub_whisper import to_transformers
from tests.support.making_parts import (
    ROWS,
    make_pack,
    make_pack_apart,
    make_quick,
    write_model,
    write_recordings,
)
from tests.support.small_hub import Fault, Hub, closed_port, small_hub, use
from tests.support.small_whisper import small_whisper
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.making import autoencoder
from whisper_sae_steer.sae.formats import save_sae
from whisper_sae_steer.steering import pack
from whisper_sae_steer.steering.pack import read_pack, stored_digest

STEPS = {
    "frames to train on": "frames/*.safetensors",
    "training": "training/checkpoint.pt",
    "the SAE": "encoder_output/cfg.json",
    "windows": "windows/*.npz",
    "decoded windows": "windows/decoded-*.json",
    "the pack": "pack.safetensors",
    "judging": ROWS,
    "the page": "pack.html",
    "installing": "packs/*.html",
    "the installed pack": "packs/*.safetensors",
}
"""what is being written, in this order, and the pattern of its files"""


class Bench:
    """A cache of its own, a model and recordings; ``refused`` runs the command and gives its one line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.cache, self.work = folder, folder / "cache", folder / "work"
        self.model = write_model(folder / "small.pt")
        self._capsys = capsys

    def noise(self, fitted: int = 2, held: int = 1) -> Path:
        return write_noise(self.folder / "noise", fitted, held, seconds=1.0)

    def speech(self, fitted: int = 2, held: int = 1) -> Path:
        return write_speech(self.folder / "speech", fitted, held)

    def refused(self, noise: Path, speech: Path, *more: object) -> str:
        """The line that it ends with; nothing is written, not even the model's conversion."""
        model = ("--model", self.model, "--work", self.work)
        assert make_pack(*model, "--nonspeech", noise, "--speech", speech, *more) == 2
        error = last_line(self._capsys.readouterr().err)
        assert error.startswith("whisper-sae-steer: error: ")
        assert not self.cache.exists()
        assert not self.work.exists()
        return error


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_quick(monkeypatch)
    return Bench(tmp_path, capsys)


# --- bad input


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def of_texts(folder: Path) -> Path:
    (empty(folder) / "notes.txt").write_text("hello")
    return folder


def header_only(folder: Path) -> Path:
    manifest = folder.with_suffix(".tsv")
    manifest.write_text("path\tkind\n")
    return manifest


def unreadable(folder: Path) -> Path:
    write_unreadable(folder)
    return folder


def silence(folder: Path) -> Path:
    empty(folder)
    for number in range(8):
        write_wav(folder / f"{number}.wav", np.zeros(16_000, dtype=np.float32))
    return folder


NO_AUDIO = [
    (empty, "no audio files in"),
    (of_texts, "no audio files in"),
    (lambda folder: folder, "no such folder"),
    (header_only, "an empty manifest"),
    (unreadable, "can be read"),
]


@pytest.mark.parametrize(("make", "says"), NO_AUDIO)
def test_no_audio(bench: Bench, tmp_path: Path, make: Callable[[Path], Path], says: str):
    assert says in bench.refused(make(tmp_path / "nothing"), bench.speech())


@pytest.mark.parametrize(("make", "says"), NO_AUDIO)
def test_no_speech_audio(bench: Bench, tmp_path: Path, make: Callable[[Path], Path], says: str):
    assert says in bench.refused(bench.noise(), make(tmp_path / "nothing"))


def test_one_recording_of_speech(bench: Bench):
    error = bench.refused(bench.noise(2, 0), bench.speech(1, 0))
    assert "too few recordings with speech (1): a quarter is held back" in error
    assert "give more" in error


def test_silence(bench: Bench, tmp_path: Path):
    quiet = silence(tmp_path / "quiet")
    speech = bench.speech()
    assert "nothing but digital silence" in bench.refused(quiet, speech)
    assert "no voice is heard in any of 8 recordings with speech" in bench.refused(bench.noise(), quiet)


def test_the_folders_swapped(bench: Bench):
    assert "no voice is heard in any of 3 recordings" in bench.refused(bench.speech(), bench.noise())


def test_odd_recordings_are_named_before_the_work_and_on_the_page(
    bench: Bench, capsys: pytest.CaptureFixture[str]
):
    """Speech and unreadable files among the sounds, and too few of all."""
    noise, speech = bench.noise(), bench.speech()
    talk = [*names("noise/talk", False, 2), *names("noise/talk", True, 1)]
    for name, audio in zip(talk, spoken_pieces(), strict=False):
        write_wav(bench.folder / f"{name}.wav", audio)
    write_unreadable(noise / "bad")
    arguments = "--model", bench.model, "--nonspeech", noise, "--speech", speech, "--work", bench.work
    assert make_pack(*arguments) == 0
    printed = capsys.readouterr().out
    before, _, after = printed.partition("This takes about")
    assert before.count("skipped: ") == printed.count("skipped: ") == 4
    assert "6 recordings without speech, 3 with" in before
    warning = "A voice is heard in a good part of 3 of 6 recordings without speech"
    assert warning in before
    assert all(f"{name}.wav (" in before for name in talk)
    assert "2 sounds held back are too few" in before
    assert "3 speakers are too few" in before
    assert "made, but not installed" in before
    assert warning in after
    assert warning in (bench.work / "pack.html").read_text(encoding="utf-8")


# --- accidents, in processes of their own


class Workshop:
    """One set of recordings and a pack made of them without an accident; ``run`` makes it elsewhere."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.arguments = ("--model", write_model(folder / "small.pt"), *write_recordings(folder))
        self.digest = self.made(empty(folder / "calm"))

    def made(self, home: Path) -> str:
        """The digest of the pack that the command installs in the end, with no trace of its work left."""
        ended = make_pack_apart(home, self.arguments)
        assert ended.code == 0, ended.said
        (installed,) = [path for path in packs(home) if not path.name.startswith(".")]
        assert installed.with_suffix(".html").is_file()
        assert not list((home / "cache" / "make-pack").iterdir())
        read_pack(installed)
        return stored_digest(installed)


def packs(home: Path) -> list[Path]:
    return list((home / "cache" / "packs").glob("*.safetensors"))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.slow
def test_killed_at_every_step_it_makes_the_same_pack(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for step, pattern in STEPS.items():
        assert make_pack_apart(tmp_path, workshop.arguments, "killed", pattern).code == -9, step
    (half,) = packs(tmp_path)
    monkeypatch.undo()  # of the fixture that hides installed packs
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    assert half.name.startswith(".")
    assert pack.installed_packs() == []
    assert workshop.made(tmp_path) == workshop.digest


@pytest.mark.slow
def test_on_a_disk_that_is_full_at_every_step_it_makes_the_same_pack(workshop: Workshop, tmp_path: Path):
    for step, pattern in STEPS.items():
        ended = make_pack_apart(tmp_path, workshop.arguments, "full", pattern)
        assert ended.code == 2, (step, ended.said)
        assert last_line(ended.said).startswith(
            f"whisper-sae-steer: error: no room in {tmp_path / 'cache'}/"
        ), step
        assert last_line(ended.said).endswith(
            "(No space left on device); make some, and the same command goes on"
        )
        assert not list(tmp_path.rglob(".*")), step
    assert not packs(tmp_path)
    assert workshop.made(tmp_path) == workshop.digest


def test_stopped_with_ctrl_c(workshop: Workshop, tmp_path: Path):
    for step in ("frames to train on", "training", "windows", "judging"):
        ended = make_pack_apart(tmp_path, workshop.arguments, "Ctrl-C", STEPS[step])
        assert ended.code == 130, (step, ended.said)
        assert last_line(ended.said) == "stopped; the same command goes on where it was"
        assert not list(tmp_path.rglob(".*")), step
    assert workshop.made(tmp_path) == workshop.digest


def last_line(said: str) -> str:
    """Below the bars."""
    return said.replace("\r", "\n").strip().rpartition("\n")[2]


# --- a hub that answers nonsense


@pytest.fixture
def hub(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a model, and an SAE of other weights."""
    with small_hub(bench.folder, monkeypatch) as server:
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(bench.folder / "hub-cache"))
        for name in ("owner/small", "owner/sae"):
            server.folder(name).mkdir(parents=True)
        to_transformers(small_whisper()).half().save_pretrained(server.folder("owner/small"))
        save_sae(random_sae(), server.folder("owner/sae"))
        yield server


FAULTS: dict[Fault, str] = {
    "html": "it answers with something else than a hub does",
    "down": "Service Unavailable",
    "short": "Consistency check failed",
}


class Reached(Exception):
    """What was to be downloaded is there, and the work would begin."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ["--model", "--sae"])
def test_nonsense_from_the_hub(
    bench: Bench,
    hub: Hub,
    fault: Fault,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    named = {"--model": ("--model", "owner/small"), "--sae": ("--model", bench.model, "--sae", "owner/sae")}
    arguments = (*named[what], "--nonspeech", bench.noise(), "--speech", bench.speech())
    hub.fault = fault
    assert make_pack(*arguments) == 2
    error = capsys.readouterr().err.rstrip().rpartition("\n")[2]
    assert FAULTS[fault] in error
    assert "owner/" in error
    assert not list((bench.folder / "hub-cache").rglob("*.safetensors"))
    assert not (bench.cache / "make-pack").exists()

    def reached(*_given: object) -> None:
        raise Reached

    hub.fault = ""
    monkeypatch.setattr(autoencoder, "existing" if what == "--model" else "load_sae", reached)
    with pytest.raises(Reached):
        make_pack(*arguments)


def test_a_repository_that_is_damaged_and_then_mended(
    bench: Bench, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What was downloaded damaged doesn't stay in the way of what is whole."""
    file = hub.folder("owner/small") / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    arguments = "--model", "owner/small", "--nonspeech", bench.noise(), "--speech", bench.speech()
    for _ in range(2):
        assert make_pack(*arguments) == 2
        assert "model.safetensors is truncated" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        use(closed_port(), patch)
        assert make_pack(*arguments) == 2
        error = capsys.readouterr().err
        assert "model.safetensors is truncated" in error
        assert "Connection refused" in error
    file.write_bytes(whole)
    hub.commits["owner/small", "main"] = "b" * 40

    def reached(*_given: object) -> None:
        raise Reached

    monkeypatch.setattr(autoencoder, "existing", reached)
    with pytest.raises(Reached):
        make_pack(*arguments)
