"""What a GPU can do, measured on it, and how close a kernel comes."""

import statistics
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

REPEATS = 50
FLUSH_BYTES = 256 << 20
"""several times the L2 cache of any card"""


class Case(NamedTuple):
    """One op at one size, done in several ways."""

    op: str
    width: int
    """d, of an encoder frame"""
    windows: int
    """of 1500 frames"""
    traffic: int
    """bytes that must be read from or written to memory, each once"""
    work: int
    """floating point operations that the result needs"""
    ways: Mapping[str, Callable[[], object]]
    """by name; `ours` is this package's"""


class Roofline(NamedTuple):
    """Ceilings of a card."""

    bandwidth: float
    """bytes a second, read and written by a device-to-device copy"""
    compute: float
    """floating point operations a second of a large bfloat16 product"""

    def share(self, case: Case, seconds: float) -> float:
        """Least time by these ceilings over the time it took."""
        return max(case.traffic / self.bandwidth, case.work / self.compute) / seconds


def measure_roofline() -> Roofline:
    """Copy 2 GiB and multiply 8192³ on the current card."""
    source = torch.empty(1 << 30, dtype=torch.float16, device="cuda")
    target = torch.empty_like(source)
    copying = gpu_seconds(lambda: target.copy_(source), 20)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    multiplying = gpu_seconds(lambda: torch.mm(a, b, out=out), 20)
    return Roofline(2 * source.nbytes / copying, 2 * 8192**3 / multiplying)


def gpu_seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median time on the GPU, from events, with a warm-up and nothing of the last run left in L2.

    Writing the flush buffer also keeps the GPU busy while the host queues what is timed.
    """
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(5):
        run()
    spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    for _ in range(repeats):
        span = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        span[0].record()
        run()
        span[1].record()
        spans.append(span)
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in spans) / 1000


def graphed(run: Callable[[], object]) -> Callable[[], object]:
    """``run`` captured in a CUDA graph: replays without the host's part of each launch."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, and fills the allocator
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def describe_card() -> dict[str, str]:
    """Names and versions that a figure depends on."""
    import triton

    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    ).stdout.partition("\n")[0]  # fmt: skip
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver.strip() or "unknown",
        "cuda": torch.version.cuda or "unknown",
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
