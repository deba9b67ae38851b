"""What features of sparse autoencoders stand for: activations on disk, and one module an analysis.

Each of ``stability``, ``domains``, ``search``, ``probe``, ``unlearn``, ``mel``, ``describe``,
``hallucination`` and ``eeg`` holds the command of that name; the functions behind them take a store or
arrays and return typed results.
"""

from .store.activations import ActivationStore, Window, open_sae
from .store.encode import add_sae, build_store
from .store.hubert import hubert_activations

__all__ = ["ActivationStore", "Window", "add_sae", "build_store", "hubert_activations", "open_sae"]
