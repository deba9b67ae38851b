"""Training of SAEs side by side on one pass over the frames: at several taps, from seeds, with other options.

Adam with a linear decay, unit decoder rows with the parallel gradient removed, b_dec from the geometric
median, AuxK: the recipe is in ``architectures/base.py``, what differs between architectures beside it.
"""

import io
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from tqdm import tqdm

from ..errors import CalibrationError, ConfigError
from ..files import write_atomically
from ..sae.autoencoder import SAE, SAEConfig
from .architectures import Losses
from .buffer import BufferState, MixingBuffer, process
from .config import TrainConfig
from .logs import HistoryPoint, TensorBoardLog
from .quality import measure
from .source import FrameSource
from .trainee import Member, Progress, Trainee

CHECKPOINT = "checkpoint.pt"
SAMPLE_FRAMES = 20_000
"""frames that scale, centre and first thresholds come from"""
LAST_FRAMES = 8192
"""frames that a TopK's threshold comes from"""
PIECE_FRAMES, HELD_BACK_PIECES = 2048, 6
"""held-back frames that tell whether training may end"""
LOG_EVERY_STEPS = 50
AGREE_EVERY_STEPS = 10
"""steps between asking all processes whether to stop"""
SHARED = ("batch_size", "buffer_frames", "seed", "checkpoint_every")
"""options that all SAEs of a team have in common: they make its batches, and say when it is saved"""


class Trained(NamedTuple):
    """A finished SAE."""

    member: Member
    sae: SAE
    """over raw frames, float32, on the CPU"""
    history: list[HistoryPoint]


def train(
    source: FrameSource,
    config: TrainConfig,
    out: Path,
    taps: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "cpu",
) -> list[Trained]:
    """Train an SAE for each of ``taps`` (default: all of the source's) and ``seeds``.

    Goes on from ``out/checkpoint.pt``, to the bit, when the same training was interrupted before; Ctrl-C
    finishes the step and writes one. Curves are logged below ``out/tensorboard``. With torch.distributed
    running, every process calls this; the result is the same in all. ConfigError if a tap is not in the
    source, CalibrationError if the frames don't fill a batch.
    """
    taps = list(taps) or list(source.taps)
    return train_team(source, {Member(tap, seed): config for tap in taps for seed in seeds}, out, device)


def train_team(
    source: FrameSource, configs: Mapping[Member, TrainConfig], out: Path, device: str | torch.device = "cpu"
) -> list[Trained]:
    """As :func:`train`, each SAE with options of its own: all but those in ``SHARED`` may differ.

    Each is the one that it would be alone. ConfigError for options that can't be had side by side.
    """
    check_team(source, configs)
    device = torch.device(device)
    options, taps = next(iter(configs.values())), taps_of(configs)
    team = {m: Trainee(source.taps[m.tap], config, device) for m, config in configs.items()}
    checkpoint = _Checkpoint(out / CHECKPOINT, _key(source, configs))
    saved = checkpoint.load(device)
    samples = _samples(source, taps, options.seed)
    if saved is None:
        for member, trainee in team.items():
            generator = torch.Generator().manual_seed(member.seed)
            trainee.model.initialise(samples[member.tap].to(device), generator)
    else:
        for member, trainee in team.items():
            trainee.load_state_dict(saved["members"][member.name])
    state = BufferState(*saved["buffer"]) if saved else BufferState()
    size = options.batch_size, options.buffer_frames
    buffer = MixingBuffer(source, taps, *size, options.seed, device, state)
    most = max(config.steps for config in configs.values())
    progress = Progress(saved["step"], saved["steps"]) if saved else Progress(0, most)
    del saved  # a third of what the team takes

    def finished() -> list[Trained]:
        return [
            Trained(
                member,
                trainee.model.finished(
                    _sae_config(source, member, trainee.config), samples[member.tap][:LAST_FRAMES]
                ),
                trainee.history,
            )
            for member, trainee in team.items()
        ]

    def is_good_enough() -> bool:
        return options.max_fvu is not None and held_back_fvu(source, finished()) <= options.max_fvu

    _steps(team, buffer, options, progress, checkpoint, is_good_enough)
    return finished()


def check_team(source: FrameSource, configs: Mapping[Member, TrainConfig]) -> None:
    """Errors of :func:`train_team` that can be told before any work."""
    _, world = process()
    options = next(iter(configs.values()))
    for member, config in configs.items():
        if member.tap not in source.taps:
            raise ConfigError(f"no frames of tap {member.tap}; these are there: {', '.join(source.taps)}")
        config.features(source.taps[member.tap])
        for name in SHARED:
            if getattr(config, name) != getattr(options, name):
                raise ConfigError(f"SAEs trained side by side share their batches: give one {name}")
        if config != options and (config.max_fvu, options.max_fvu) != (None, None):
            raise ConfigError("max_fvu ends a training for all SAEs: give them the same options")
    if options.batch_size % world:
        raise ConfigError(f"batch_size {options.batch_size} is no multiple of {world} processes")
    if options.max_fvu is not None and any(
        next(source.held_back_frames(tap), None) is None for tap in taps_of(configs)
    ):
        raise CalibrationError(
            "max_fvu is measured on recordings held back, and there are too few; give more"
        )


def taps_of(members: Iterable[Member]) -> list[str]:
    """The taps of a team, each once."""
    return list(dict.fromkeys(member.tap for member in members))


def held_back_fvu(source: FrameSource, trained: Sequence[Trained]) -> float:
    """The highest fraction of variance unexplained of several SAEs, on some frames held back."""
    found = [
        measure(one.sae, islice(_pieces(source.held_back_frames(one.member.tap)), HELD_BACK_PIECES)).fvu
        for one in trained
    ]
    return max(found)


def _pieces(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield from batch.split(PIECE_FRAMES)


@dataclass(frozen=True)
class _Checkpoint:
    """The state of a training, for one key: another training's is ignored."""

    path: Path
    key: dict[str, Any]

    def load(self, device: torch.device) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location=device, weights_only=True)
            return saved if saved["key"] == self.key else None
        except Exception:  # the file decides what goes wrong while it is read
            raise CalibrationError(f"{self.path} is damaged; delete it to train from the start") from None

    def save(self, team: Mapping[Member, Trainee], buffer: MixingBuffer, progress: Progress) -> None:
        if process()[0] == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            members = {member.name: trainee.state_dict() for member, trainee in team.items()}
            state = {
                "key": self.key,
                **progress._asdict(),
                "buffer": list(buffer.state),
                "members": members,
            }
            file = io.BytesIO()  # written by itself, torch takes a full disk for a bug of its own
            torch.save(state, file)
            with write_atomically(self.path) as temporary:
                temporary.write_bytes(file.getbuffer())
        if distributed.is_initialized():
            distributed.barrier()  # or another process could go on to read it before it is there


def _samples(source: FrameSource, taps: Sequence[str], seed: int) -> dict[str, Tensor]:
    """The first frames of each tap, the same in every process."""
    pool = next(source.pools(None, taps, SAMPLE_FRAMES, seed, 0, 1))
    return {tap: frames[:SAMPLE_FRAMES] for tap, frames in pool.frames.items()}


def _steps(
    team: Mapping[Member, Trainee], buffer: MixingBuffer, config: TrainConfig, progress: Progress,
    checkpoint: _Checkpoint, is_good_enough: Callable[[], bool],
) -> None:  # fmt: skip
    """From where it is to the last step; KeyboardInterrupt after a checkpoint if asked to stop."""
    first = process()[0] == 0
    batches = buffer.draw()
    with ExitStack() as stack:
        interrupted = stack.enter_context(_deferred_interrupt())
        stack.callback(batches.close)
        step, steps = progress
        bar = stack.enter_context(
            tqdm(total=steps, initial=step, desc="train", unit="step", disable=not first)
        )
        folder = checkpoint.path.parent / "tensorboard"
        logs = {
            member: stack.enter_context(TensorBoardLog(folder / member.name, step))
            for member in team
            if first
        }
        while step < steps:
            batch = next(batches)
            losses = {
                member: trainee.step(batch[member.tap], step, min(steps, trainee.config.steps))
                for member, trainee in team.items()
                if step < trainee.config.steps
            }
            step += 1
            bar.update()
            if step % config.checkpoint_every == 0 and steps == config.steps and is_good_enough():
                steps = bar.total = config.steps_if_falling_from(step)
            done = Progress(step, steps)
            if first:
                _log(team, losses, done, logs, bar)
            stop = _all_stop(interrupted, step)
            if step % config.checkpoint_every == 0 or step == steps or stop:
                checkpoint.save(team, buffer, done)
            if stop:
                raise KeyboardInterrupt


def _log(
    team: Mapping[Member, Trainee], losses: Mapping[Member, Losses], done: Progress,
    logs: Mapping[Member, TensorBoardLog], bar: "tqdm[Any]",
) -> None:  # fmt: skip
    """Add what is due to the curves of those that made this step."""
    for member, found in losses.items():
        own = done.of(team[member].config)
        if own.step % LOG_EVERY_STEPS == 0 or own.step == own.steps:
            point = team[member].add_point(found, own)
            logs[member].add(point)
            if member == next(iter(losses)):
                bar.set_postfix(FVU=f"{point.fvu:.4f}", L0=f"{point.l0:.1f}", refresh=False)


def _all_stop(interrupted: threading.Event, step: int) -> bool:
    """Whether to stop: at once alone, all at the same step when there are several processes."""
    if not distributed.is_initialized():
        return interrupted.is_set()
    if step % AGREE_EVERY_STEPS:
        return False
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    asked = torch.tensor(int(interrupted.is_set()), device=device)
    distributed.all_reduce(asked, distributed.ReduceOp.MAX)
    return bool(asked)


@contextmanager
def _deferred_interrupt() -> Generator[threading.Event]:
    """Record Ctrl-C in an event rather than raise it, so that no step is cut in half."""
    seen = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where signals never arrive
        yield seen
        return
    previous = signal.signal(signal.SIGINT, lambda _number, _frame: seen.set())
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, previous)


def _key(source: FrameSource, configs: Mapping[Member, TrainConfig]) -> dict[str, Any]:
    """What must be the same to go on: options of all SAEs, and apart those that they differ in."""
    options = {m.name: {**asdict(config), "prefixes": list(config.prefixes)} for m, config in configs.items()}
    first = next(iter(options.values()))
    common = {k: v for k, v in first.items() if all(one[k] == v for one in options.values())}
    own = {name: {k: v for k, v in one.items() if k not in common} for name, one in options.items()}
    key = {"source": source.key, "members": list(options), "processes": process()[1], **common}
    return key if len(common) == len(first) else {**key, "own": own}


def _sae_config(source: FrameSource, member: Member, config: TrainConfig) -> SAEConfig:
    d_in = source.taps[member.tap]
    return SAEConfig(
        d_in=d_in, d_sae=config.features(d_in), architecture="jumprelu", k=config.k, tap=member.tap,
        model=source.model,
        metadata={
            "fingerprint": source.fingerprint,
            "encoder_mark": source.encoder_mark,
            "source": source.key,
            "training": {**asdict(config), "sae_seed": member.seed},
        },
    )  # fmt: skip
