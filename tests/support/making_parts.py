"""``make-pack`` in seconds: a small random Whisper, few steps, in a process that can be killed."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from tqdm import tqdm

from tests.support.calibration_parts import write_noise, write_speech
from tests.support.small_whisper import save_checkpoint, small_whisper
from whisper_sae_steer.bench import runner
from whisper_sae_steer.calibrate import measure, strength
from whisper_sae_steer.calibrate.config import CalibrationConfig
from whisper_sae_steer.cli import main
from whisper_sae_steer.making import audio, autoencoder, command, estimate, judge
from whisper_sae_steer.models.vocabulary import get_tokenizer
from whisper_sae_steer.training.config import TrainConfig

OPTIONS = TrainConfig(
    d_sae=64, k=8, steps=60, batch_size=256, buffer_frames=4000, checkpoint_every=20, max_fvu=0.9
)
FORKING = multiprocessing.get_context("forkserver")
ROWS = "clips.jsonl"
Accident = Literal["killed", "full", "Ctrl-C"]


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """its exit code; −9 if it was killed"""
    said: str
    """what it printed to either stream"""


def write_recordings(folder: Path) -> tuple[str, ...]:
    """Few sounds and voices, some of each held back, as arguments."""
    noise, speech = folder / "noise", folder / "speech"
    write_noise(noise, 3, 2, seconds=1.0)
    write_speech(speech, 3, 2)
    return "--nonspeech", str(noise), "--speech", str(speech)


def write_model(path: Path) -> Path:
    """A random Whisper, as OpenAI's checkpoints are, that soon comes to the end of its text."""
    model = small_whisper().float()
    end = model.decoder.token_embedding.weight[get_tokenizer(51864).eot]
    with torch.no_grad():
        model.decoder.ln.bias.add_(5 * end / end.norm())
    return save_checkpoint(model.half(), path)


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Let ``make-pack`` do little of everything, and take whatever it makes for good."""
    patch.setattr(autoencoder, "OPTIONS", OPTIONS)
    patch.setattr(estimate, "OPTIONS", OPTIONS)
    patch.setattr(audio, "SYNTHETIC_SOUNDS", 8)
    patch.setattr(command, "CalibrationConfig", lambda: CalibrationConfig(synthetic=8))
    patch.setattr(strength, "GRIDS", {"direction": (0.09, 0.18)})
    patch.setattr(strength, "NEW_TOKENS", 8)
    patch.setattr(measure, "ALPHAS", (0.0, 1.0))
    patch.setattr(judge, "JUDGED_CLIPS", 1)
    choose, verdict = judge.choose, command.verdict

    def short(names: list[str], packs: Path | None) -> Any:
        peers, missing = choose(names, packs)
        brief = {"temperature": 0.0, "max_new_tokens": 8}
        return [replace(peer, options={**peer.options, **brief}) for peer in peers], missing

    patch.setattr(judge, "choose", short)
    patch.setattr(command, "verdict", lambda *given: verdict(*given)._replace(passed=True))  # pyright: ignore


def make_pack(*arguments: object) -> int:
    """The command on one thread, without the bundle."""
    return main(["make-pack", "--threads", "1", "--no_bundle", *map(str, arguments)])


def make_pack_apart(
    home: Path, arguments: Sequence[object], accident: Accident | None = None, at: str = ""
) -> Ended:
    """The same, quick, in a process of its own with its cache in ``home``.

    It meets with an accident when the first file whose path matches ``at`` is written, but not yet in its
    place; for ``clips.jsonl`` at a row of the second way of transcribing.
    """
    log = home.with_suffix(".said")
    FORKING.set_forkserver_preload([__name__])
    process = FORKING.Process(target=_run, args=(home, log, arguments, accident, at))
    process.start()
    process.join(300)
    assert process.exitcode is not None
    return Ended(process.exitcode, log.read_text(encoding="utf-8"))


def _run(home: Path, log: Path, arguments: Sequence[object], accident: Accident | None, at: str) -> None:
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ["WHISPER_SAE_STEER_CACHE"] = str(home / "cache")
    os.chdir(home)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    make_quick(pytest.MonkeyPatch())
    if accident is not None:
        _before_writing(at, ACCIDENTS[accident])
    sys.exit(make_pack(*arguments))


def _before_writing(at: str, act: Callable[[], object]) -> None:
    replace, line = os.replace, runner._line

    def replaced(source: Any, target: Any) -> None:
        if Path(target).match(at) and at != ROWS:
            act()
        replace(source, target)

    def row(one: Any) -> str:
        if at == ROWS and one["backend"] == "vad-0.5":
            act()
        return line(one)

    os.replace, runner._line = replaced, row


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill() -> None:
    raise OSError(28, "No space left on device")


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


ACCIDENTS = {"killed": _kill, "full": _fill, "Ctrl-C": _interrupt}
