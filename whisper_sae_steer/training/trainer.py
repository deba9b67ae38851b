"""Training of SAEs at several taps and from several seeds, side by side on one pass over the frames.

Adam with a linear decay, unit decoder rows with the parallel gradient removed, b_dec from the geometric
median, AuxK: the recipe is in ``architectures/base.py``, what differs between architectures beside it.
"""

import io
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..errors import CalibrationError, ConfigError
from ..files import write_atomically
from ..sae.autoencoder import SAE, SAEConfig
from .architectures import ARCHITECTURES, Losses, TrainingSAE
from .buffer import BufferState, MixingBuffer, process
from .config import TrainConfig
from .logs import HistoryPoint, TensorBoardLog
from .quality import measure
from .source import FrameSource

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


class Member(NamedTuple):
    """One of the SAEs that are trained together."""

    tap: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.tap}-seed{self.seed}"


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
    for tap in taps:
        if tap not in source.taps:
            raise ConfigError(f"no frames of tap {tap}; these are there: {', '.join(source.taps)}")
    _, world = process()
    if config.batch_size % world:
        raise ConfigError(f"batch_size {config.batch_size} is no multiple of {world} processes")
    if config.max_fvu is not None and any(next(source.held_back_frames(tap), None) is None for tap in taps):
        raise CalibrationError(
            "max_fvu is measured on recordings held back, and there are too few; give more"
        )
    device = torch.device(device)
    members = [Member(tap, seed) for tap in taps for seed in seeds]
    team = {m: Trainee(source.taps[m.tap], config, device) for m in members}
    checkpoint = _Checkpoint(out / CHECKPOINT, _key(source, config, members))
    saved = checkpoint.load(device)
    samples = _samples(source, taps, config)
    if saved is None:
        for member, trainee in team.items():
            generator = torch.Generator().manual_seed(member.seed)
            trainee.model.initialise(samples[member.tap].to(device), generator)
    else:
        for member, trainee in team.items():
            trainee.load_state_dict(saved["members"][member.name])
    state = BufferState(*saved["buffer"]) if saved else BufferState()
    buffer = MixingBuffer(source, taps, config.batch_size, config.buffer_frames, config.seed, device, state)
    progress = Progress(saved["step"], saved["steps"]) if saved else Progress(0, config.steps)

    def finished() -> list[Trained]:
        return [
            Trained(
                member,
                trainee.model.finished(
                    _sae_config(source, member, config), samples[member.tap][:LAST_FRAMES]
                ),
                trainee.history,
            )
            for member, trainee in team.items()
        ]

    def is_good_enough() -> bool:
        return config.max_fvu is not None and held_back_fvu(source, finished()) <= config.max_fvu

    _steps(team, buffer, config, progress, checkpoint, is_good_enough)
    return finished()


class Progress(NamedTuple):
    """How far a training is."""

    step: int
    """steps done"""
    steps: int
    """how many there will be: those of the options, or fewer once the SAEs are good enough"""


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


class Trainee:
    """One SAE with its optimiser and curves, at its start."""

    def __init__(self, d_in: int, config: TrainConfig, device: torch.device):
        self.config = config
        self.model: TrainingSAE = ARCHITECTURES[config.architecture](d_in, config).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
        self.history: list[HistoryPoint] = []
        self._parallel: DistributedDataParallel | None = None

    def step(self, frames: Tensor, step: int, steps: int | None = None) -> Losses:
        """One optimiser step of ``steps``, or the options', on this process's share of a batch, [N, d]."""
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.config.bf16):
            losses: Losses = self._forward(frames, step)
        self.optimizer.zero_grad()
        losses.total.backward()
        self.model.before_step()
        self.optimizer.param_groups[0]["lr"] = self.config.lr_at(step, steps or self.config.steps)
        self.optimizer.step()
        self.model.after_step(self.config.batch_size)
        return losses

    def _forward(self, frames: Tensor, step: int) -> Any:
        if not distributed.is_initialized():
            return self.model(frames, step)
        if self._parallel is None:  # only now: it spreads the first process's parameters
            self._parallel = DistributedDataParallel(self.model)
        return self._parallel(frames, step)

    def add_point(self, losses: Losses, progress: Progress) -> HistoryPoint:
        """Add a point to the curves."""
        done = progress.step
        dead = int((self.model.since_fired > self.config.dead_after).sum())
        point = HistoryPoint(
            done, done * self.config.batch_size, float(losses.fvu), float(losses.l0), dead,
            self.config.lr_at(done - 1, progress.steps), float(self.model.thresholds().detach().mean()),
            float(losses.aux),
        )  # fmt: skip
        self.history.append(point)
        return point

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [list(point) for point in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [HistoryPoint(*point) for point in state["history"]]


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


def _samples(source: FrameSource, taps: Sequence[str], config: TrainConfig) -> dict[str, Tensor]:
    """The first frames of each tap, the same in every process."""
    pool = next(source.pools(None, taps, SAMPLE_FRAMES, config.seed, 0, 1))
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
        names = [member.name for member in team if first]
        logs = [stack.enter_context(TensorBoardLog(folder / name, step)) for name in names]
        while step < steps:
            batch = next(batches)
            losses = {
                member: trainee.step(batch[member.tap], step, steps) for member, trainee in team.items()
            }
            step += 1
            bar.update()
            if step % config.checkpoint_every == 0 and steps == config.steps and is_good_enough():
                steps = bar.total = config.steps_if_falling_from(step)
            done = Progress(step, steps)
            if first and (step % LOG_EVERY_STEPS == 0 or step == steps):
                points = [team[member].add_point(losses[member], done) for member in team]
                for log, point in zip(logs, points, strict=True):
                    log.add(point)
                bar.set_postfix(FVU=f"{points[0].fvu:.4f}", L0=f"{points[0].l0:.1f}", refresh=False)
            stop = _all_stop(interrupted, step)
            if step % config.checkpoint_every == 0 or step == steps or stop:
                checkpoint.save(team, buffer, done)
            if stop:
                raise KeyboardInterrupt


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


def _key(source: FrameSource, config: TrainConfig, members: Sequence[Member]) -> dict[str, Any]:
    """What must be the same to go on."""
    names = [member.name for member in members]
    options = {**asdict(config), "prefixes": list(config.prefixes)}
    return {"source": source.key, "members": names, "processes": process()[1], **options}


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
