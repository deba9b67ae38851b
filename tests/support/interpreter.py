"""Where kernel tests run: PyTorch here, an NVIDIA GPU if there is one, and Triton's interpreter.

TRITON_INTERPRET must be set before triton is imported, so a second pytest runs the files again with it.
"""

import os
import subprocess
import sys

import pytest
import torch

from tests.support.paths import ROOT

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HALVES = [torch.float16, *([] if INTERPRETED else [torch.bfloat16])]  # it gets bfloat16 wrong
needs_gpu = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
every_device = pytest.mark.parametrize(
    "device", ["cpu"] if INTERPRETED else ["cpu", pytest.param("cuda", marks=needs_gpu)]
)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)


def run_interpreted(*files: str, only: str = "") -> None:
    """Run test files in the interpreter, where falling back to the reference is an error."""
    pytest.importorskip("triton")
    if INTERPRETED:
        pytest.skip("this is that run")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error:Triton:RuntimeWarning"]
    run = subprocess.run(
        [*command, *(str(ROOT / "tests" / name) for name in files), "-k", only], cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
