"""Analyses of what features of sparse autoencoders mean. Recordings are encoded once, into a store.

Each of ``stability``, ``domains``, ``search``, ``probe``, ``unlearn``, ``mel``, ``describe``,
``hallucination`` and ``eeg`` is a command; the functions behind it take a store or arrays and return typed
results. Every room reads ``store``, and ``browser`` shows what all of them found.
"""

from .store.activations import ActivationStore, Window, open_sae
from .store.encode import add_sae, build_store
from .store.hubert import hubert_activations

__all__ = ["ActivationStore", "Window", "add_sae", "build_store", "hubert_activations", "open_sae"]
