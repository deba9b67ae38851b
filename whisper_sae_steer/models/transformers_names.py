"""The names that transformers and openai-whisper have for the same weights of Whisper."""

from typing import Any

from torch import Tensor

TRANSFORMERS_NAMES = {
    "encoder.": "model.encoder.", "decoder.": "model.decoder.", "blocks.": "layers.",
    "cross_attn_ln": "encoder_attn_layer_norm", "attn_ln": "self_attn_layer_norm",
    "cross_attn": "encoder_attn", ".attn.": ".self_attn.", ".query": ".q_proj", ".key": ".k_proj",
    ".value": ".v_proj", ".out.": ".out_proj.", "mlp.0": "fc1", "mlp.2": "fc2", "mlp_ln": "final_layer_norm",
    "encoder.ln_post": "encoder.layer_norm", "decoder.ln.": "decoder.layer_norm.",
    "token_embedding": "embed_tokens",
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
}  # fmt: skip
"""Parts of openai's names and of transformers', to be replaced in this order."""


def transformers_name(name: str) -> str:
    """What transformers calls the weight that openai-whisper calls ``name``."""
    for ours, theirs in TRANSFORMERS_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def is_transformers(model: Any) -> bool:
    """Whether ``model`` is transformers' Whisper for text; asked without importing transformers."""
    return any(cls.__name__ == "WhisperForConditionalGeneration" for cls in type(model).__mro__)


def encoder_state(model: Any) -> dict[str, Tensor]:
    """The encoder's weights of a model of transformers, under openai's names."""
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.encoder."):
            for ours, theirs in TRANSFORMERS_NAMES.items():
                name = name.replace(theirs, ours)
            state[name] = tensor
    return state
