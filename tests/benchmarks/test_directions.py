"""Ways to add a direction, and which kind of sound a class is."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.steering import directions

FRAMES = torch.randn(1500, 8, generator=torch.Generator().manual_seed(0))
EDIT = torch.tensor([2.0, 0, 0, 0, 0, 0, 0, 0])


def test_ways_to_add_a_direction():
    everywhere = directions.added(FRAMES, 500, EDIT)
    assert torch.equal(everywhere, FRAMES + EDIT)
    part = directions.not_to_padding(FRAMES, 500, EDIT)
    assert torch.equal(part[:500], everywhere[:500])
    assert torch.equal(part[500:], FRAMES[500:])
    turned = directions.turned(FRAMES, 500, EDIT)
    torch.testing.assert_close(turned.norm(dim=1), FRAMES.norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(turned, everywhere), torch.ones(1500))
    raised = directions.raised(FRAMES, 500, EDIT)
    torch.testing.assert_close(raised[:, 0], FRAMES[:, 0].clamp_min(2))
    assert torch.equal(raised[:, 1:], FRAMES[:, 1:])
    torch.testing.assert_close(directions.raised(raised, 500, EDIT), raised)


def window(clip: Any) -> Any:
    return SimpleNamespace(clip=clip)


@pytest.mark.parametrize(
    ("class_", "kind"),
    [("rooster", "animals"), ("music-on-hold", "music"), ("human-nonverbal", "voices"), ("rain", "noise")],
)
def test_kinds_of_sounds(class_: str, kind: str):
    assert directions.kind_of(window(SimpleNamespace(class_=class_))) == kind
    assert directions.kind_of(window(None)) == "noise"
