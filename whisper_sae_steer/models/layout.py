"""Which tensors a Whisper model has, in CTranslate2's names and in openai-whisper's.

Both directions of the conversion and the weights' fingerprint read this one table, so they can't
disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NORMS = {"attn_ln": "self_attention", "cross_attn_ln": "attention", "mlp_ln": "ffn"}
_LINEARS = {
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}


VECTORS = ("/bias", "/gamma", "/beta")
"""how the names of CTranslate2's one-dimensional tensors end"""


class Entry(NamedTuple):
    """A CTranslate2 tensor and the openai tensors that, concatenated along axis 0, equal it."""

    ct2: str
    openai: tuple[str, ...]

    @property
    def is_vector(self) -> bool:
        """Whether the tensor has one dimension: a bias, or half of a layer norm."""
        return self.ct2.endswith(VECTORS)


def layout(n_audio_layer: int, n_text_layer: int) -> Iterator[Entry]:
    """Every tensor of a Whisper model in network order, the encoder first.

    A name ending in ".key.bias" means zeros: openai's key projection has no bias, but
    CTranslate2 fuses it with projections that have one.
    """
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            yield Entry(f"encoder/{conv}/{kind}", (f"encoder.{conv}.{kind}",))
    yield Entry("encoder/position_encodings/encodings", ("encoder.positional_embedding",))
    for i in range(n_audio_layer):
        yield from _block(f"encoder/layer_{i}", f"encoder.blocks.{i}", cross=False)
    yield from _norm("encoder", "encoder.ln_post")
    yield Entry("decoder/embeddings/weight", ("decoder.token_embedding.weight",))
    yield Entry("decoder/position_encodings/encodings", ("decoder.positional_embedding",))
    for i in range(n_text_layer):
        yield from _block(f"decoder/layer_{i}", f"decoder.blocks.{i}", cross=True)
    yield from _norm("decoder", "decoder.ln")


def _block(ct2: str, openai: str, cross: bool) -> Iterator[Entry]:
    for norm, scope in _NORMS.items():
        if scope == "attention" and not cross:
            continue
        yield from _norm(f"{ct2}/{scope}", f"{openai}.{norm}")
        for linear, parts in _LINEARS.items():
            if linear.startswith(f"{scope}/"):
                for kind in ("weight", "bias"):
                    names = tuple(f"{openai}.{part}.{kind}" for part in parts)
                    yield Entry(f"{ct2}/{linear}/{kind}", names)


def _norm(ct2: str, openai: str) -> Iterator[Entry]:
    yield Entry(f"{ct2}/layer_norm/gamma", (f"{openai}.weight",))
    yield Entry(f"{ct2}/layer_norm/beta", (f"{openai}.bias",))


def count_layers(names: Iterable[str], side: str) -> int:
    """Number of transformer blocks of `side` ("encoder" or "decoder") among CTranslate2 names."""
    parts = (name.split("/") for name in names)
    return len({p[1] for p in parts if p[0] == side and re.fullmatch(r"layer_\d+", p[1])})
