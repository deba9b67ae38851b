"""What transformers' Whisper needs to be steered: its names for the weights, and leave to write nothing."""

from typing import Any

import torch
from torch import Tensor

from .calls import Steerer, current

NAMES = {
    "encoder.": "model.encoder.", "decoder.": "model.decoder.", "blocks.": "layers.",
    "cross_attn_ln": "encoder_attn_layer_norm", "attn_ln": "self_attn_layer_norm",
    "cross_attn": "encoder_attn", ".attn.": ".self_attn.", ".query": ".q_proj", ".key": ".k_proj",
    ".value": ".v_proj", ".out.": ".out_proj.", "mlp.0": "fc1", "mlp.2": "fc2", "mlp_ln": "final_layer_norm",
    "encoder.ln_post": "encoder.layer_norm", "decoder.ln.": "decoder.layer_norm.",
    "token_embedding": "embed_tokens",
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
}  # fmt: skip
"""parts of openai's names and transformers', to be replaced in this order"""


def is_transformers(model: Any) -> bool:
    """Whether it is transformers' Whisper for text; asked without importing transformers."""
    return any(cls.__name__ == "WhisperForConditionalGeneration" for cls in type(model).__mro__)


def encoder_state(model: Any) -> dict[str, Tensor]:
    """The encoder's weights under openai's names."""
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.encoder."):
            for ours, theirs in NAMES.items():
                name = name.replace(theirs, ours)
            state[name] = tensor
    return state


class BlankWhereSilent:
    """Suppresses blanks and end of text as first token, as generate() would, but not where nobody speaks.

    transformers forbids an empty transcript through ``begin_suppress_tokens``. That is lifted while a model
    is attached, and done here instead, for the windows with speech.
    """

    def __init__(self, steerer: Steerer, suppressed: list[int] | None):
        self._steerer = steerer
        self._suppressed = list(suppressed or ())
        self._begins = False

    def before(self, _model: Any, _inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook: note whether these are the first tokens."""
        past = kwargs.get("past_key_values")
        self._begins = past is None or past.get_seq_length() == 0

    def after(self, model: Any, _inputs: tuple[Any, ...], output: Any) -> None:
        """Forward hook: take the tokens from the last position's logits [B, n, V]."""
        if not self._begins or model.training or not self._suppressed:
            return
        logits = output.logits[:, -1]
        call, rows = current(self._steerer), torch.ones(len(logits), dtype=torch.bool)
        if call is not None and call.strength is not None and len(logits) % len(call.strength) == 0:
            silent = torch.tensor(self._steerer.nobody_speaks(call))
            rows = ~silent.repeat_interleave(len(logits) // len(silent))  # beams of a window are neighbours
        for token in self._suppressed:
            logits[rows.to(logits.device), token] = float("-inf")
