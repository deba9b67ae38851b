"""Whose call it is: nesting, threads, lazy iterators, copies; and what steering costs."""

import copy
import inspect
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.real_models import OPEN, SHUT, weights
from tests.support.small_pack import WIDTH, small_pack
from whisper_sae_steer.steering.calls import Call, CallOptions, active, current, shows_options_of, within
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import read_pack, shipped_packs
from whisper_sae_steer.steering.steerer import Steerer


def steerer() -> Steerer:
    return Steerer(small_pack(gate="none"))


def frames() -> Tensor:
    return torch.randn(1, 8, WIDTH, generator=torch.Generator().manual_seed(1))


def applied(steer: Steerer) -> float:
    """The α that an encode would be steered with now."""
    h = torch.zeros(1, 2, WIDTH)
    steer(h)
    vector = Operator(steer.pack).vector
    return round(float(h[0, 0] @ vector / (vector @ vector)), 4)


def test_outside_a_call_nothing_changes():
    steer, h = steerer(), frames()
    steer(h)
    assert torch.equal(h, frames())
    assert current(steer) is None


def test_a_call_steers_once_and_keeps_the_scores():
    steer, h, call = steerer(), frames(), Call(CallOptions(0.7))
    with active(steer, call) as entered:
        assert entered is call
        batch = steer(h)
    expected = frames()
    scores, _ = Operator(steer.pack).apply_(expected, 0.7)
    assert torch.equal(h, expected)
    assert batch is not None
    assert call.last is batch
    assert torch.equal(batch.scores, scores)


def test_alpha_zero_touches_nothing_and_sees_nothing():
    steer, h, call = steerer(), frames(), Call(CallOptions(0.0))
    with active(steer, call):
        assert steer(h) is None
    assert torch.equal(h, frames())
    assert not call.results


def test_calls_nest_and_end_with_their_block():
    steer = steerer()
    with active(steer, Call(CallOptions(1.0))):
        with active(steer, Call(CallOptions(2.0))):
            assert applied(steer) == 2
            with active(steer, None):
                assert applied(steer) == 0
        with pytest.raises(KeyError), active(steer, Call(CallOptions(3.0))):
            raise KeyError
        assert applied(steer) == 1
    assert current(steer) is None


def test_a_call_is_for_its_own_model():
    one, other = steerer(), steerer()
    with active(one, Call(CallOptions(1.0))):
        assert applied(other) == 0
        with active(other, Call(CallOptions(2.0))):
            assert (applied(one), applied(other)) == (1, 2)
        assert (applied(one), applied(other)) == (1, 0)


def test_each_thread_has_its_own_call():
    steer, together = steerer(), Barrier(3)

    def work(alpha: float | None) -> float:
        with active(steer, None if alpha is None else Call(CallOptions(alpha))):
            together.wait(20)
            found = applied(steer)
            together.wait(20)
            return found

    with active(steer, Call(CallOptions(9.0))), ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, [1.0, None, 0.5])) == [1, 0, 0.5]


def test_each_device_and_dtype_gets_its_own_copy():
    steer = steerer()
    with active(steer, Call(CallOptions(1.0))):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            h = frames().to(dtype)
            steer(h)
            assert h.dtype == dtype
            expected = frames()
            steer(expected)
            torch.testing.assert_close(h.float(), expected, rtol=0.02, atol=0.1)


# --- lazy iterators ------------------------------------------------------------------------------


def drawn(steer: Steerer, count: int = 3) -> Iterator[float]:
    """Yields the α that its work is done with."""
    for _ in range(count):
        yield applied(steer)


def test_interleaved_iterators_keep_their_calls():
    steer = steerer()
    one, two = (within(steer, Call(CallOptions(alpha)), drawn(steer)) for alpha in (1.0, 2.0))
    none = within(steer, None, drawn(steer))
    with active(steer, Call(CallOptions(7.0))):
        assert list(zip(one, two, none, strict=True)) == [(1, 2, 0)] * 3
        assert applied(steer) == 7


def test_between_items_no_call_is_active():
    steer = steerer()
    for _ in within(steer, Call(CallOptions(1.0)), drawn(steer)):
        assert current(steer) is None
    items = within(steer, Call(CallOptions(1.0)), drawn(steer))
    next(items)
    items.close()
    assert current(steer) is None


def test_an_error_inside_ends_the_call():
    steer = steerer()

    def failing() -> Iterator[float]:
        yield applied(steer)
        raise KeyError("at the second")

    items = within(steer, Call(CallOptions(1.0)), failing())
    assert next(items) == 1
    with pytest.raises(KeyError, match="at the second"):
        next(items)
    assert current(steer) is None


def test_closing_early_closes_the_source():
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    items = within(None, None, source())
    assert next(items) == 1
    items.close()
    assert closed == [True]


# --- modules -------------------------------------------------------------------------------------


class Tapped(nn.Module):
    """Gives out its input, and hooks a steerer as SteeredWhisper does."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Identity()
        self.steerer = steerer()
        self.inner.register_forward_hook(self.steerer.hook)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.clone())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_steer_by_themselves_and_once(duplicate: Any):
    module = Tapped()
    twin = duplicate(module)
    assert twin.steerer is not module.steerer
    once = frames()
    Operator(module.steerer.pack).apply_(once, 1.0)
    with active(module.steerer, Call(CallOptions(1.0))):
        assert torch.equal(module(frames()), once)
        assert torch.equal(twin(frames()), frames())
    with active(twin.steerer, Call(CallOptions(1.0))):
        assert torch.equal(twin(frames()), once)
        assert torch.equal(module(frames()), frames())


def test_a_wrapper_shows_the_arguments_of_what_it_wraps():
    def plain(model: str, audio: str, *, beam: int = 5, **rest: int) -> None: ...

    @shows_options_of(plain)
    def wrapper(self: int, audio: bytes, *args: Any, alpha: float = 1.0, **options: Any) -> int:
        return 0

    assert str(inspect.signature(wrapper)) == (
        "(self: int, audio: str, *, beam: int = 5, alpha: float = 1.0, **rest: int) -> int"
    )


# --- cost ----------------------------------------------------------------------------------------


def fastest(work: Any, times: int) -> float:
    """Seconds of CPU in this process, so that other processes matter little."""
    spent: list[float] = []
    for _ in range(times):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [OPEN, SHUT])
def test_the_shipped_pack_costs_less_than_a_hundredth_of_an_encode(bias: float):
    """[1, 1500, 512] on one thread against base's int8 encoder, the quickest there is on a CPU."""
    model = ctranslate2.models.Whisper(str(weights("base").ct2_dir), compute_type="int8", intra_threads=1)
    mel = ctranslate2.StorageView.from_array(np.zeros((1, 80, 3000), np.float32))
    encode = fastest(lambda: model.encode(mel), 5)
    pack = read_pack(shipped_packs()["base"])
    assert (pack.metadata.strategy, pack.metadata.gate) == ("direction", "window")
    steer, h = Steerer(pack._replace(gate_bias=torch.tensor(bias))), torch.randn(1, 1500, 512)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with active(steer, Call(CallOptions(1.0))):
            step = fastest(lambda: steer(h), 40)
    finally:
        torch.set_num_threads(threads)
    print(f"steering {1000 * step:.2f} ms, encode {1000 * encode:.0f} ms: {step / encode:.2%}")
    assert step < 0.01 * encode
