"""A steering pack with random features: real structure, small enough for any test."""

from typing import Any

import torch

from whisper_sae_steer.steering.metadata import GateLevels, PackMetadata
from whisper_sae_steer.steering.pack import Features, SteeringPack

WIDTH = 6


def small_pack(
    strategy: str = "direction",
    gate: str = "window",
    *,
    threshold: float = 0.5,
    ramp: float = 1.5,
    gap_below: float | None = None,
    **metadata: Any,
) -> SteeringPack:
    """Nine gate features, and four steered by `suppress`; decoder directions of unit length."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def features(count: int) -> Features:
        ids = torch.randperm(100, generator=generator)[:count]
        return Features(ids, random(count, WIDTH), random(count), 0.3 * random(count).abs())

    directions = torch.nn.functional.normalize(random(4, WIDTH), dim=-1)
    coefficients = -torch.ones(4) if strategy == "suppress" else random(4)
    options: dict[str, Any] = {
        "model": "tiny.en",
        "fingerprint": "0123456789abcdef" * 2,
        "d_in": WIDTH,
        "strategy": strategy,
        "selection": "attribution",
        "gate": gate,
        "alpha_unit": 1.7,
        "gate_smoothing": 5,
        "levels": GateLevels.spaced(threshold, ramp, gap_below),
        "sae": {"d_sae": 100, "trained on": "Geräusche"},
        "metrics": {"fpr_text": {"1.0": 0.03}},
        "compute_types": ("float32", "int8"),
    }
    return SteeringPack(
        metadata=PackMetadata(**{**options, **metadata}),
        gate=features(9),
        gate_weight=random(9),
        gate_bias=random(1)[0],
        steer=features(4 if strategy == "suppress" else 0),
        directions=directions,
        coefficients=coefficients,
    )
