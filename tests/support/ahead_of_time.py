"""Compile a Triton kernel for an H100 on a machine without a GPU, from the arguments of a real launch."""

from typing import Any

import torch
from torch import Tensor

TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
    int: "i32",
    float: "fp32",
}


def compiled(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> int:
    """Machine code for compute capability 9.0; returns the shared memory it uses, in bytes.

    Specialised as at a launch: a stride of 1 is a constant, aligned pointers and multiples of 16 are known.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given = dict(zip(kernel.arg_names, args, strict=False))
    signature = {name: TYPES[getattr(value, "dtype", type(value))] for name, value in given.items()}
    constants = {name: value for name, value in options.items() if name in kernel.arg_names}
    constants |= {name: 1 for name, value in given.items() if isinstance(value, int) and value == 1}
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {
        (kernel.arg_names.index(name),): [["tt.divisibility", 16]]
        for name, value in given.items()
        if name not in constants and (isinstance(value, Tensor) or value % 16 == 0)
    }
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constants, aligned)
    settings = {"enable_fp_fusion": True}  # as real launches say
    settings |= {name: value for name, value in options.items() if name not in kernel.arg_names}
    result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=settings)
    assert result.asm["cubin"]
    return result.metadata.shared
