"""What transformers' Whisper needs to be steered: leave to write nothing."""

from typing import Any

import torch

from .batch import Verdict
from .calls import current
from .steerer import Steerer


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
        """Forward pre-hook: remember whether these are the first tokens."""
        past = kwargs.get("past_key_values")
        self._begins = past is None or past.get_seq_length() == 0

    def after(self, model: Any, _inputs: tuple[Any, ...], output: Any) -> None:
        """Forward hook: take the tokens from the last position's logits [B, n, V]."""
        if not self._begins or model.training or not self._suppressed:
            return
        logits = output.logits[:, -1]
        call, rows = current(self._steerer), torch.ones(len(logits), dtype=torch.bool)
        if call is not None and call.results and len(logits) % len(call.last.verdict) == 0:
            speech = call.last.verdict.cpu() != Verdict.SILENCE
            rows = speech.repeat_interleave(len(logits) // len(speech))  # beams of a window are neighbours
        for token in self._suppressed:
            logits[rows.to(logits.device), token] = float("-inf")
