"""The steering ops at Whisper's sizes, beside PyTorch's own ways to do the same."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from whisper_sae_steer import kernels
from whisper_sae_steer.steering.metadata import GateLevels, PackMetadata
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import Features, SteeringPack

from .roofline import Case, graphed

FRAMES = 1500
GATE_FEATURES, STEER_FEATURES = 160, 100  # the shipped base pack's


def cases(width: int, windows: int, dtype: torch.dtype = torch.float16) -> list[Case]:
    """Scores, both edits and the whole step for so many windows of frames of this width."""
    generator = torch.Generator("cuda").manual_seed(0)
    h = torch.randn(windows, FRAMES, width, generator=generator, device="cuda", dtype=dtype)
    pack = made_up_pack(width, generator)
    opened = torch.ones(windows, 1, device="cuda")
    found = [scores_case(h, pack), selected_case(h, pack, opened), static_case(h, pack, opened)]
    for strategy in ("suppress", "direction"):
        metadata = replace(pack.metadata, strategy=strategy)
        found.append(step_case(h, pack._replace(metadata=metadata)))
    return found


def made_up_pack(width: int, generator: torch.Generator) -> SteeringPack:
    """Random features that fire as often as an SAE's, and a gate that is open."""

    def features(count: int) -> Features:
        rows = torch.randn(count, width, generator=generator, device="cuda") / width**0.5
        zeros = torch.zeros(count, device="cuda")
        return Features(torch.arange(count), rows, zeros, zeros + 2)

    return SteeringPack(
        PackMetadata("", "", width, "suppress", "", "window", 1.0, 11, GateLevels.spaced(1000.0, 1.0)),
        features(GATE_FEATURES), torch.ones(GATE_FEATURES), torch.tensor(0.0),
        features(STEER_FEATURES), features(STEER_FEATURES).rows, torch.full((STEER_FEATURES,), -1e-3),
    )  # fmt: skip


def scores_case(h: Tensor, pack: SteeringPack) -> Case:
    operator = Operator(pack, "cuda", h.dtype)
    parts = *operator.gate_features[1:], operator.gate_weight, operator.gate_bias
    ways = beside(lambda: kernels.feature_scores(h, *parts), lambda: plain_scores(h, *parts), len(h))
    return case("feature_scores", h, h.nbytes, products=GATE_FEATURES, ways=ways)


def selected_case(h: Tensor, pack: SteeringPack, strength: Tensor) -> Case:
    operator = Operator(pack, "cuda", h.dtype)
    parts = *operator.steer_features[1:], operator.directions, strength
    ways = beside(lambda: kernels.steer_selected(h, *parts), lambda: plain_selected(h, *parts), len(h))
    return case("steer_selected", h, 2 * h.nbytes, products=2 * STEER_FEATURES, ways=ways)


def static_case(h: Tensor, pack: SteeringPack, strength: Tensor) -> Case:
    vector = Operator(pack, "cuda", h.dtype).vector
    ways = beside(
        lambda: kernels.steer_static(h, vector, strength), lambda: plain_static(h, vector, strength), len(h)
    )
    return case("steer_static", h, 2 * h.nbytes, products=1, ways=ways)


def step_case(h: Tensor, pack: SteeringPack) -> Case:
    """All of Operator.apply_: the gate needs a whole window before its first frame can be edited."""
    operator = Operator(pack, "cuda", h.dtype)
    suppress = pack.metadata.strategy == "suppress"
    products = GATE_FEATURES + (2 * STEER_FEATURES if suppress else 1)
    ways = beside(lambda: operator.apply_(h, 1.0), lambda: plain_step(operator, h), len(h))
    return case(f"step, {pack.metadata.strategy}", h, 3 * h.nbytes, products, ways)


def case(op: str, h: Tensor, traffic: int, products: int, ways: dict[str, Callable[[], object]]) -> Case:
    """``products`` multiply-adds for each number of h."""
    return Case(op, h.shape[-1], len(h), traffic, 2 * products * h.numel(), ways)


def beside(
    ours: Callable[[], object], plain: Callable[[], object], windows: int
) -> dict[str, Callable[[], object]]:
    """Ours, eager and compiled PyTorch; of one window, where the host is slower than the GPU, graphs too."""
    ways = {"ours": ours, "eager": plain, "compile": torch.compile(plain)}
    if windows == 1:
        ways |= {"ours, graph": lazily_graphed(ours), "eager, graph": lazily_graphed(plain)}
    return ways


def lazily_graphed(run: Callable[[], object]) -> Callable[[], object]:
    """A graph captured at the first call, so that building a case costs nothing."""
    replay: list[Callable[[], object]] = []

    def replayed() -> object:
        if not replay:
            replay.append(graphed(run))
        return replay[0]()

    return replayed


def plain_activations(h: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor) -> Tensor:
    pre = F.linear(h, rows, bias)
    return torch.where(pre > threshold, pre, 0)


def plain_scores(h: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor, weight: Tensor, gate_bias: Tensor):
    return (plain_activations(h, rows, bias, threshold) @ weight + gate_bias).float()


def plain_selected(
    h: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor, directions: Tensor, strength: Tensor
) -> Tensor:
    acts = plain_activations(h, rows, bias, threshold) * strength.to(h.dtype)[..., None]
    return h.view(-1, h.shape[-1]).addmm_(acts.view(-1, len(rows)), directions)


def plain_static(h: Tensor, vector: Tensor, strength: Tensor) -> Tensor:
    return h.addcmul_(strength.to(h.dtype)[..., None], vector)


@torch.no_grad()
def plain_step(operator: Operator, h: Tensor) -> Tensor:
    logits = plain_scores(h, *operator.gate_features[1:], operator.gate_weight, operator.gate_bias)
    metadata = operator.metadata
    scores = kernels.smooth(logits, metadata.gate_smoothing)
    strength = kernels.openness(scores, metadata.gate, metadata.levels.threshold, metadata.levels.ramp)
    if operator.metadata.strategy == "suppress":
        plain_selected(h, *operator.steer_features[1:], operator.directions, strength)
    else:
        plain_static(h, operator.vector, strength)
    return scores
