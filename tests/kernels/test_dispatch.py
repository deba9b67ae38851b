"""Which of an op's two functions runs, and what is said about it."""

import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from whisper_sae_steer import kernels
from whisper_sae_steer.kernels import dispatch
from whisper_sae_steer.kernels.dispatch import dispatched, use_triton


class OnGPU(Tensor):
    """A CPU tensor that says it lies on a GPU."""

    is_cuda = True  # pyright: ignore


def on_gpu(*shape: int) -> Tensor:
    return torch.ones(*shape).as_subclass(OnGPU)


@pytest.fixture(autouse=True)
def _as_if_just_started(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_refused", set())
    monkeypatch.setattr(dispatch, "_has_triton", lambda: True)
    said: tuple[Any, ...] = dispatch._log_once, dispatch._warn_once
    for cached in said:
        cached.cache_clear()
    yield
    for cached in said:
        cached.cache_clear()


def double(x: Tensor) -> Tensor:
    """Twice x."""
    return 2 * x


def op_with(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    module = types.ModuleType("whisper_sae_steer.kernels.made_up")
    module.__dict__["double"] = kernel
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return dispatched(double, "made_up")


def test_cpu_tensors_take_the_reference_without_a_word(monkeypatch: pytest.MonkeyPatch):
    def kernel(x: Tensor) -> Tensor:
        raise AssertionError

    op = op_with(monkeypatch, kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert op(torch.ones(2)).tolist() == [2, 2]
    assert op.__doc__ == "Twice x."


def test_cuda_tensors_take_the_kernel(monkeypatch: pytest.MonkeyPatch):
    assert op_with(monkeypatch, lambda x: 4 * x)(on_gpu(2)).tolist() == [4, 4]


def test_the_path_is_logged_once_an_op(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    op = op_with(monkeypatch, lambda x: 4 * x)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            op(torch.ones(2))
        for _ in range(3):
            use_triton("another", torch.ones(2))
    assert [record.getMessage() for record in caplog.records] == [
        "double runs in PyTorch on cpu",
        "another runs in PyTorch on cpu",
    ]


def test_without_triton_a_gpu_falls_back_with_one_warning(monkeypatch: pytest.MonkeyPatch):
    op = op_with(monkeypatch, lambda x: 4 * x)
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    with pytest.warns(RuntimeWarning, match="triton is not installed: double runs in PyTorch") as caught:
        assert [op(on_gpu(1)).item() for _ in range(3)] == [2, 2, 2]
    assert len(caught) == 1


def test_a_kernel_that_does_not_compile_leaves_its_dtype_to_the_reference(monkeypatch: pytest.MonkeyPatch):
    tried: list[torch.dtype] = []

    def kernel(x: Tensor) -> Tensor:
        tried.append(x.dtype)
        if x.dtype == torch.float32:
            raise RuntimeError("no C compiler\nand more")
        return 4 * x

    op = op_with(monkeypatch, kernel)
    with pytest.warns(
        RuntimeWarning, match="can't compile double for torch.float32.*: no C compiler$"
    ) as caught:
        assert [op(on_gpu(1)).item() for _ in range(3)] == [2, 2, 2]
    assert len(caught) == 1
    assert op(on_gpu(1).half()).item() == 4
    assert tried == [torch.float32, torch.float16]


@pytest.mark.parametrize("error", [ValueError, TypeError, torch.cuda.OutOfMemoryError])
def test_a_callers_mistake_is_not_hidden(monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    def kernel(x: Tensor) -> Tensor:
        raise error("yours")

    with pytest.raises(error, match="yours"):
        op_with(monkeypatch, kernel)(on_gpu(1))


@pytest.mark.parametrize(("dtype", "taken"), [(torch.float16, True), (torch.bfloat16, False)], ids=str)
def test_the_interpreter_takes_what_it_gets_right(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, taken: bool
):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert use_triton("double", torch.ones(1, dtype=dtype)) is taken


def test_every_op_has_a_kernel_of_its_name_and_arguments():
    """Without importing triton, which a machine without a GPU may lack."""
    import ast
    from pathlib import Path

    folder = Path(kernels.__file__).parent
    for reference in folder.glob("*_reference.py"):
        written = ast.parse(reference.read_text(encoding="utf-8"))
        twin = ast.parse((folder / reference.name.replace("_reference", "")).read_text(encoding="utf-8"))
        found = {node.name: ast.dump(node.args) for node in twin.body if isinstance(node, ast.FunctionDef)}
        for node in written.body:
            if isinstance(node, ast.FunctionDef) and node.name in kernels.__all__:
                assert found[node.name] == ast.dump(node.args)
