"""The script for machines with a GPU: without one it says so and writes no figures."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run for 8 minutes")
def test_without_a_gpu_it_ends_with_a_line(tmp_path: Path) -> None:
    run = subprocess.run(
        [SCRIPT, tmp_path / "out", sys.executable], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "no torch that sees an NVIDIA GPU" in run.stderr
    assert list((tmp_path / "out").iterdir()) == []
