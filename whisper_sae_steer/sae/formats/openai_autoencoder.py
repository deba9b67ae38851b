"""OpenAI's sparse_autoencoder: the state dict of its ``Autoencoder`` in a .pt file, read.

github.com/openai/sparse_autoencoder, ``model.py``: ``latents = activation(encoder(x - pre_bias) +
latent_bias)``. Its loader switches LayerNorm of the input on for every TopK, so only ReLU files
(its v1 and v4) are linear up to the activation.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from ...errors import SAEFormatError
from ..autoencoder import SAE, SAEConfig
from .checks import build, dense, rename

_NAMES = {
    "encoder.weight": "W_enc", "latent_bias": "b_enc", "decoder.weight": "W_dec", "pre_bias": "b_dec",
}  # fmt: skip
_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def read(weights: Path, state: Mapping[str, object], tap: str | None) -> SAE:
    """The SAE with this state dict; arguments and errors as :func:`load_sae`."""
    content = dict(state)
    # Without a name it is ReLU, but train.py's FastAutoencoder, a TopK, stores neither name nor k.
    unnamed = "ReLU" if _STATISTICS[-1] in content else "not named"
    activation = content.pop("activation", unnamed)
    if activation == "TopK":
        raise SAEFormatError(
            f"{weights} is a TopK of OpenAI's, which scales each frame by LayerNorm before encoding;"
            " that can't be folded into weights, so only its ReLU files can be read"
        )
    if activation != "ReLU":
        line = " ".join(str(activation).split())  # a tensor has several
        raise SAEFormatError(f"{weights}: the activation is {line:.60}; only ReLU can be read")
    content.pop("activation_state_dict", None)
    tensors = rename(dense(content, weights), _NAMES, weights)
    for name in _STATISTICS:
        tensors.pop(name, None)
    d_in, d_sae = tensors["W_enc"].shape
    tensors["threshold"] = torch.zeros(d_sae)
    config = SAEConfig(d_in=d_in, d_sae=d_sae, tap=tap or "")
    return build(config, tensors, weights)
