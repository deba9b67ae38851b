"""The operator's and the SAE's inner loops: one Triton kernel and one torch reference each.

Every op here is the torch reference until a CUDA tensor comes (see :mod:`.dispatch`); triton is imported
only then, so the package works without it. No steering op waits for the GPU, so a step made of
them can be captured in a CUDA graph; the top-k ops wait once, to learn how much they found. This is the
ground floor: tensors and numbers in, tensors out, and nothing of the rest of the package is imported.
"""

from . import steer_reference, topk_reference
from .autoencode import sparse_autoencode, sparse_decode
from .dispatch import dispatched
from .gate import GateKind, openness, smooth
from .steer_reference import GateReading
from .topk_reference import Selection, TopK

feature_scores = dispatched(steer_reference.feature_scores, "steer")
gate_strength = dispatched(steer_reference.gate_strength, "steer")
steer_selected = dispatched(steer_reference.steer_selected, "steer")
steer_static = dispatched(steer_reference.steer_static, "steer")
topk_encode = dispatched(topk_reference.topk_encode, "topk")
batch_topk = dispatched(topk_reference.batch_topk, "topk")
batch_topk_encode = dispatched(topk_reference.batch_topk_encode, "topk")

__all__ = [
    "GateKind",
    "GateReading",
    "Selection",
    "TopK",
    "batch_topk",
    "batch_topk_encode",
    "feature_scores",
    "gate_strength",
    "openness",
    "smooth",
    "sparse_autoencode",
    "sparse_decode",
    "steer_selected",
    "steer_static",
    "topk_encode",
]
