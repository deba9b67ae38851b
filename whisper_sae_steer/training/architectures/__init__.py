"""The architectures that can be trained, one a file."""

from ..config import ArchitectureName
from .base import Losses, TrainingSAE
from .batchtopk import BatchTopKSAE
from .jumprelu import JumpReLUSAE
from .matryoshka import MatryoshkaSAE
from .topk import TopKSAE

ARCHITECTURES: dict[ArchitectureName, type[TrainingSAE]] = {
    "topk": TopKSAE,
    "batchtopk": BatchTopKSAE,
    "jumprelu": JumpReLUSAE,
    "matryoshka": MatryoshkaSAE,
}

__all__ = ["ARCHITECTURES", "Losses", "TrainingSAE"]
