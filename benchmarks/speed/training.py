"""Training throughput and quality beside dictionary_learning's BatchTopK trainer, on the same batches.

    python -m benchmarks.speed.training runs/base/frames --tap encoder_output --steps 1000 --out training.json

Both take a turn of STRIDE steps on the same batches, so that what else the machine does hits both. Frames a
second are of wall time and of CPU time (all threads). Both start at the same learning rate and follow their
own recipe; FVU is measured on the recordings held back, by BatchTopK's rule at the same L0 = k and at each
one's own inference threshold. dictionary_learning is 0.1.0 from PyPI (pip install --no-deps).
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from whisper_sae_steer.models.memory import keep_large_blocks
from whisper_sae_steer.sae.autoencoder import SAE, SAEConfig
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.training import FrameStore, TrainConfig
from whisper_sae_steer.training.buffer import MixingBuffer
from whisper_sae_steer.training.quality import measure
from whisper_sae_steer.training.trainee import Trainee
from whisper_sae_steer.training.trainer import SAMPLE_FRAMES

from ..arguments import script_parser
from ..results import as_json, write_results

STRIDE = 10


class Contender(NamedTuple):
    """A trainer under test."""

    step: Callable[[Tensor, int], object]
    finished: Callable[[], SAE]


def main() -> None:
    """Train both and print one JSON object."""
    parser = script_parser(__doc__, threads=torch.get_num_threads(), out=None)
    parser.add_argument("frames", type=Path, help="activation store")
    parser.add_argument("--tap", default="encoder_output")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    store = FrameStore.open(args.frames)
    config = TrainConfig(steps=args.steps, batch_size=args.batch_size, lr=args.lr)
    device = torch.device(args.device)
    contenders = {
        "dictionary_learning": theirs(store, args.tap, config, device),
        "whisper_sae_steer": ours(store, args.tap, config, device),
    }
    found = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {args.threads} threads",
        "model": store.model, "tap": args.tap, "d_in": store.taps[args.tap],
        **{name: getattr(config, name) for name in ("steps", "batch_size", "lr", "k")},
        **run(store, args.tap, config, contenders, device),
    }  # fmt: skip
    found["speed-up"] = ratio(found, "frames_a_second")
    found["speed-up_cpu_time"] = ratio(found, "frames_a_cpu_second")
    print(as_json(found))
    if args.out:
        write_results(args.out, found)


def run(
    store: FrameStore, tap: str, config: TrainConfig, contenders: dict[str, Contender], device: torch.device
) -> dict[str, Any]:
    """Train in turns; seconds and quality of each."""
    buffer = MixingBuffer(store, [tap], config.batch_size, config.buffer_frames, config.seed, device)
    batches = buffer.draw()
    wall, cpu = dict.fromkeys(contenders, 0.0), dict.fromkeys(contenders, 0.0)
    for first in range(0, config.steps, STRIDE):
        turn = [batch[tap].float() for batch in islice(batches, min(STRIDE, config.steps - first))]
        for name, contender in contenders.items():
            started, worked = time.perf_counter(), time.process_time()
            for number, frames in enumerate(turn, first):
                contender.step(frames, number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if first:  # the first turn warms up
                wall[name] += time.perf_counter() - started
                cpu[name] += time.process_time() - worked
        print(f"\r{first + len(turn)}/{config.steps} steps", end="", file=sys.stderr, flush=True)
    batches.close()
    seen = (config.steps - STRIDE) * config.batch_size
    return {
        name: {
            "frames_a_second": round(seen / wall[name]),
            "frames_a_cpu_second": round(seen / cpu[name]),
            **quality(contender.finished(), store, tap),
        }
        for name, contender in contenders.items()
    }


def quality(sae: SAE, store: FrameStore, tap: str) -> dict[str, Any]:
    found = asdict(measure(sae, store.held_back_frames(tap)))
    return {name: found[name] for name in ("rule_fvu", "rule_l0", "fvu", "l0", "dead", "frames")}


def ratio(found: dict[str, Any], name: str) -> float:
    return round(found["whisper_sae_steer"][name] / found["dictionary_learning"][name], 2)


def ours(store: FrameStore, tap: str, config: TrainConfig, device: torch.device) -> Contender:
    keep_large_blocks()
    width = store.taps[tap]
    trainee = Trainee(width, config, device)
    sample = next(store.pools(None, [tap], SAMPLE_FRAMES, config.seed, 0, 1)).frames[tap][:SAMPLE_FRAMES]
    trainee.model.initialise(sample.to(device), torch.Generator().manual_seed(0))
    saved = SAEConfig(d_in=width, d_sae=config.features(width), k=config.k, tap=tap)
    return Contender(trainee.step, lambda: trainee.model.finished(saved, sample))


def theirs(store: FrameStore, tap: str, config: TrainConfig, device: torch.device) -> Contender:
    nnsight = ModuleType("nnsight")  # imported for a buffer that is not used here
    nnsight.__dict__["LanguageModel"] = object
    sys.modules.setdefault("nnsight", nnsight)
    library: Any = import_module("dictionary_learning.trainers.batch_top_k")
    width = store.taps[tap]
    trainer = library.BatchTopKTrainer(
        steps=config.steps, activation_dim=width, dict_size=config.features(width), k=config.k, layer=0,
        lm_name=store.model, lr=config.lr, warmup_steps=0, decay_start=int(0.8 * config.steps),
        threshold_start_step=min(1000, config.steps // 2), seed=0, device=str(device),
    )  # fmt: skip

    def finished() -> SAE:
        with tempfile.TemporaryDirectory() as folder:
            torch.save(trainer.ae.state_dict(), Path(folder) / "ae.pt")
            (Path(folder) / "config.json").write_text(json.dumps({"trainer": {"dict_class": "BatchTopKSAE"}}))
            return load_sae(Path(folder), tap)

    def step(frames: Tensor, number: int) -> None:
        trainer.update(number, frames)

    return Contender(step, finished)


if __name__ == "__main__":
    main()
