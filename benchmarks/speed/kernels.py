"""Time of the kernels against this card's roofline and PyTorch, and of steering against the encoder.

    python -m benchmarks.speed.kernels --out benchmarks/speed/results/kernels.json

The CPU section needs no GPU: it steers CTranslate2's output with the shipped base pack, encode and edit in
turn. Run it with OMP_NUM_THREADS set to --threads, on a quiet machine.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import load_pack

from ..arguments import script_parser
from ..results import write_results
from .roofline import Case, Roofline, describe_card, gpu_seconds, measure_roofline

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "speech.ogg"
WIDTHS = {384: "tiny", 512: "base", 768: "small", 1280: "large"}
WINDOWS = (1, 8, 64)
Row = dict[str, Any]


def main() -> None:
    """Measure what this machine allows, print it, and write it as JSON."""
    parser = script_parser(__doc__, threads=2, out=None)
    parser.add_argument("--repeats", type=int, default=20, help="of the CPU section and of transcribe")
    args = parser.parse_args()
    found: dict[str, object] = {"cpu": cpu_section(args.threads, args.repeats)}
    if torch.cuda.is_available():
        found |= gpu_section(args.repeats)
    else:
        print("no NVIDIA GPU here: kernels are not measured")
    if args.out:
        write_results(args.out, found)


def cpu_section(threads: int, repeats: int) -> list[Row]:
    """The whole step over the encode it follows, base, one window."""
    torch.set_num_threads(threads)
    weights = resolve("base")
    operator = Operator(load_pack("auto", weights))
    mel = WindowEncoder(weights, threads=threads).mel
    noise = 0.02 * np.random.default_rng(0).standard_normal(480_000, np.float32)
    rows: list[Row] = []
    for compute_type in ("float32", "int8"):
        model = ctranslate2.models.Whisper(
            str(weights.ct2_dir), device="cpu", compute_type=compute_type, intra_threads=threads
        )
        for name, audio in (("speech", load_audio(SAMPLE)), ("noise", noise)):
            row = cpu_row(model, operator, mel(audio), repeats)
            rows.append({"compute_type": compute_type, "audio": name, "threads": threads, **row})
            print(
                "cpu  base {compute_type:<8} {audio:<7} encode {encode_ms:7.1f} ms  steer {steer_ms:6.2f} ms"
                "  ratio {ratio:.2%}  gate {gate}".format(**rows[-1])
            )
    return rows


def cpu_row(model: Any, operator: Operator, mel: NDArray[np.float32], repeats: int) -> Row:
    """Medians of encode and edit in turn; both see the other's traces in the caches."""
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel.reshape(1, *mel.shape[-2:])))
    encode, steer = np.zeros((2, repeats + 2))
    strongest = 0.0
    for i in range(repeats + 2):
        started = time.perf_counter()
        h = torch.from_numpy(np.asarray(model.encode(view)))
        encoded = time.perf_counter()
        strongest = float(operator.apply_(h, 1.0).scores.max())
        encode[i], steer[i] = encoded - started, time.perf_counter() - encoded
    encode_ms, steer_ms = (1000 * float(np.median(times[2:])) for times in (encode, steer))
    gate = "shut" if strongest >= operator.metadata.levels.threshold else "open"
    return {"encode_ms": encode_ms, "steer_ms": steer_ms, "ratio": steer_ms / encode_ms, "gate": gate}


def gpu_section(repeats: int) -> dict[str, object]:
    """Every case of every op, then the encoder and a whole transcribe."""
    card, roofline = describe_card(), measure_roofline()
    print(json.dumps(card))
    print(
        f"copy {roofline.bandwidth / 1e12:.2f} TB/s, bfloat16 product {roofline.compute / 1e12:.0f} TFLOP/s"
    )
    rows: list[Row] = []
    for case in all_cases():
        for row in case_rows(case, roofline):
            print(describe(row))
            rows.append(row)
    whole = {"encoder": encoder_rows(), "transcribe": transcribe_row(repeats)}
    for row in [*whole["encoder"], whole["transcribe"]]:
        print(json.dumps(row))
    return {"card": card, "roofline": roofline._asdict(), "ops": rows, **whole}


def all_cases() -> Iterator[Case]:
    from . import kernel_cases_sae, kernel_cases_steering

    for width in WIDTHS:
        for windows in WINDOWS:
            yield from kernel_cases_steering.cases(width, windows)
            yield from kernel_cases_sae.cases(width, windows)
            gc.collect()
            torch.cuda.empty_cache()


def case_rows(case: Case, roofline: Roofline) -> Iterator[Row]:
    """A row for each way; one that fails says why, and the others go on."""
    for way, run in case.ways.items():
        row: Row = {"op": case.op, "width": case.width, "windows": case.windows, "way": way}
        try:
            seconds = gpu_seconds(run)
        except Exception as error:  # a peer that doesn't know the shape, memory, no C compiler
            yield {**row, "error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
            continue
        yield {
            **row,
            "us": 1e6 * seconds,
            "gb_s": case.traffic / seconds / 1e9,
            "tflop_s": case.work / seconds / 1e12,
            "roofline": roofline.share(case, seconds),
        }


def describe(row: Row) -> str:
    head = "{op:<16} d={width:<4} {windows:>2} windows  {way:<14}".format(**row)
    if "error" in row:
        return f"{head} {row['error']}"
    figures = "{us:9.1f} µs {gb_s:7.0f} GB/s {tflop_s:6.1f} TFLOP/s {roofline:6.1%} of the roofline"
    return head + figures.format(**row)


def encoder_rows() -> list[Row]:
    """The steering step of the base pack beside CTranslate2's float16 encode of the same windows."""
    weights = resolve("base")
    model = ctranslate2.models.Whisper(str(weights.ct2_dir), device="cuda", compute_type="float16")
    operator = Operator(load_pack("auto", weights), "cuda", torch.float16)
    noise = 0.02 * np.random.default_rng(0).standard_normal(480_000, np.float32)
    mel = WindowEncoder(weights).mel(noise)
    rows: list[Row] = []
    for windows in WINDOWS:
        batch = np.repeat(mel.reshape(1, *mel.shape[-2:]), windows, axis=0)
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(batch))
        encode = wall_seconds(partial(model.encode, view))
        h: Tensor = torch.as_tensor(model.encode(view), device="cuda").clone()
        step = gpu_seconds(partial(operator.apply_, h, 1.0))
        row = {"windows": windows, "encode_ms": 1e3 * encode, "step_us": 1e6 * step, "share": step / encode}
        rows.append(row)
    return rows


def wall_seconds(run: Callable[[], object], repeats: int = 10) -> float:
    """Median wall time of something that ends when the GPU is done, or is made to here."""
    times: list[float] = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def transcribe_row(repeats: int) -> Row:
    """α = 1 over α = 0 in turn: the speech sample, repeated to five minutes."""
    model = WhisperModel("base", device="cuda", compute_type="float16")
    sample = load_audio(SAMPLE)
    audio = np.tile(sample, max(1, 300 * 16_000 // len(sample)))
    times = np.zeros((2, repeats + 1))
    for i in range(repeats + 1):
        for alpha in (1, 0) if i % 2 else (0, 1):
            started = time.perf_counter()
            list(model.transcribe(audio, language="en", steer_alpha=float(alpha))[0])
            times[alpha, i] = time.perf_counter() - started
    plain, steered = (float(np.median(t[1:])) for t in times)
    return {"op": "transcribe", "plain_s": plain, "steered_s": steered, "ratio": steered / plain}


if __name__ == "__main__":
    main()
