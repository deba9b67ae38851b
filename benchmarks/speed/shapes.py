"""What each step of make-pack takes on a model of a given shape: time and peak memory, random weights.

    python -m benchmarks.speed.shapes small medium large-v3 large-v3-turbo distil-large-v3 --out shapes.json

Times and memory don't depend on what the weights are; transcripts would, so none is judged. Each step runs
in a process of its own, on two windows of noise.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctranslate2 import StorageView
from whisper.model import ModelDimensions, Whisper

from whisper_sae_steer.calibrate.attribution import SilenceObjective, path_gradient
from whisper_sae_steer.calibrate.strength import NEW_TOKENS, plain_model
from whisper_sae_steer.making.autoencoder import OPTIONS
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.greedy import decode_windows
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.training.trainee import Trainee

from ..arguments import script_parser
from ..results import as_json, read_results, write_results

LARGE = {"n_mels": 128, "width": 1280, "heads": 20, "blocks": 32, "vocabulary": 51866}
SHAPES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"n_mels": 80, "width": 384, "heads": 6, "blocks": 4, "decoder": 4, "vocabulary": 51865},
    "base": {"n_mels": 80, "width": 512, "heads": 8, "blocks": 6, "decoder": 6, "vocabulary": 51865},
    "small": {"n_mels": 80, "width": 768, "heads": 12, "blocks": 12, "decoder": 12, "vocabulary": 51865},
    "medium": {"n_mels": 80, "width": 1024, "heads": 16, "blocks": 24, "decoder": 24, "vocabulary": 51865},
    "large-v3": {**LARGE, "decoder": 32},
    "large-v3-turbo": {**LARGE, "decoder": 4},
    "distil-large-v3": {**LARGE, "decoder": 2},
}
WINDOWS = 2


def main() -> None:
    parser = script_parser(__doc__, "--threads", "--out")
    parser.add_argument("shapes", nargs="+", choices=list(SHAPES))
    parser.add_argument("--step", choices=list(STEPS), help="run this one here, on the weights in --weights")
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    if args.step:
        torch.set_num_threads(args.threads)
        print(json.dumps(measured(args.step, args.weights, args.threads)))
        return
    found = read_results(args.out)
    for shape in args.shapes:
        with tempfile.TemporaryDirectory() as folder:
            weights = random_weights(shape, Path(folder))
            found[shape] = {step: in_process(step, shape, weights, args) for step in STEPS}
        write_results(args.out, found)
        print(as_json({shape: found[shape]}))


def random_weights(shape: str, folder: Path) -> Path:
    """A checkpoint as openai-whisper's, in float16."""
    wanted = SHAPES[shape]
    width, heads = wanted["width"], wanted["heads"]
    torch.manual_seed(0)
    model = Whisper(
        ModelDimensions(
            wanted["n_mels"], 1500, width, heads, wanted["blocks"],
            wanted["vocabulary"], 448, width, heads, wanted["decoder"],
        )
    )  # fmt: skip
    path = folder / f"{shape}.pt"
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    torch.save({"dims": model.dims.__dict__, "model_state_dict": state}, path)
    return path


def in_process(step: str, shape: str, weights: Path, args: Any) -> dict[str, float]:
    """Run a step in a process of its own and return its figures."""
    command = [
        sys.executable, "-m", "benchmarks.speed.shapes", shape, "--step", step, "--weights", str(weights),
        "--threads", str(args.threads), "--out", str(args.out),
    ]  # fmt: skip
    cache = {"WHISPER_SAE_STEER_CACHE": str(weights.parent / "cache")}  # conversions go with the folder
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | cache)
    return json.loads(run.stdout.splitlines()[-1])


def measured(step: str, path: Path, threads: int) -> dict[str, float]:
    """Seconds of processor and clock that a step takes once it is set up, and the process's peak memory."""
    work = STEPS[step](path, threads)
    processor, clock = time.process_time(), time.perf_counter()
    work()
    return {
        "cpu_seconds": round(time.process_time() - processor, 2),
        "wall_seconds": round(time.perf_counter() - clock, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def noise() -> list[np.ndarray]:
    """Windows of 30 s."""
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(480_000).astype(np.float32) for _ in range(WINDOWS)]


def frames(weights: Weights) -> torch.Tensor:
    """What stands for their encodings [B, 1500, d]: numbers of the same shape."""
    width = load_torch(weights).dims.n_audio_state
    return torch.randn(WINDOWS, 1500, width, generator=torch.Generator().manual_seed(0))


def convert(path: Path, threads: int) -> Callable[[], object]:
    """From the checkpoint to CTranslate2's folder, with the marks of both."""
    return lambda: resolve(path)


def encode(path: Path, threads: int) -> Callable[[], object]:
    """Two windows to activations at encoder_output."""
    encoder = WindowEncoder(resolve(path), threads=threads)
    return lambda: encoder(noise())


def train(path: Path, threads: int) -> Callable[[], object]:
    """One step of the SAE's training, after a first one."""
    rows = frames(resolve(path)).reshape(-1, SHAPES[path.stem]["width"])
    rows = rows.repeat(1 + OPTIONS.batch_size // len(rows), 1)[: OPTIONS.batch_size]
    trainee = Trainee(rows.shape[1], OPTIONS, torch.device("cpu"))
    trainee.model.initialise(rows, torch.Generator().manual_seed(0))
    trainee.step(rows, 0)
    return lambda: trainee.step(rows, 1)


def direction(path: Path, threads: int) -> Callable[[], object]:
    """The gradient of one step along the path, of two windows; the model that decodes is loaded beside it."""
    weights = resolve(path)
    decoding = plain_model(str(weights.ct2_dir))
    windows = list(frames(weights))
    objective = SilenceObjective(load_torch(weights))
    return lambda: (path_gradient(objective, windows, 1.0, steps=1), decoding)


def decode(path: Path, threads: int) -> Callable[[], object]:
    """Greedy decoding of two windows' frames, up to the tokens that the search for a strength waits for."""
    weights = resolve(path)
    model, encoded = plain_model(str(weights.ct2_dir)), StorageView.from_array(frames(weights).numpy())
    return lambda: decode_windows(model, encoded, ["en"] * WINDOWS, NEW_TOKENS)


STEPS: Mapping[str, Callable[[Path, int], Callable[[], object]]] = {
    "convert": convert,
    "encode": encode,
    "train": train,
    "direction": direction,
    "decode": decode,
}

if __name__ == "__main__":
    main()
