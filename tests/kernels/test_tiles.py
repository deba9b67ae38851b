"""Sizes of tiles, against Triton's own functions."""

import pytest

from whisper_sae_steer.kernels.tiles import power_of_2_over, tiles_over

triton = pytest.importorskip("triton")


@pytest.mark.parametrize("number", [1, 2, 3, 5, 16, 160, 161, 1023, 1024, 4097])
def test_as_triton_computes_them(number: int):
    assert power_of_2_over(number) == triton.next_power_of_2(number)
    assert tiles_over(number, 16) == triton.cdiv(number, 16)
