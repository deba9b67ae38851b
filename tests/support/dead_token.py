"""Whisper weights whose no-speech token is dead, as large-v3-turbo's is."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from whisper.tokenizer import get_tokenizer

from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights

LOGIT = -30.0
"""of the dead token at the start of any transcript; the likeliest tokens lie above 0"""


def without_no_speech_token(
    weights: Weights, recordings: Sequence[NDArray[np.float32]], path: Path
) -> torch.Tensor:
    """Write a checkpoint of ``weights`` whose no-speech token can't win; its logit for each recording.

    The token's row, which the output shares with the input, is turned against what the decoder's last
    states have in common.
    """
    model = load_torch(weights)
    tokenizer = get_tokenizer(
        model.is_multilingual, num_languages=model.num_languages, language="en", task="transcribe"
    )
    states: list[torch.Tensor] = []
    hook = model.decoder.ln.register_forward_hook(lambda _ln, _inputs, output: states.append(output[:, 0]))
    with torch.no_grad():
        frames = WindowEncoder(weights, threads=1)(recordings)
        model.decoder(torch.tensor([tokenizer.sot_sequence] * len(frames)), frames)
    hook.remove()
    mean = states[0].mean(0)
    with torch.no_grad():
        model.decoder.token_embedding.weight[tokenizer.no_speech] = LOGIT * mean / mean.square().sum()
    torch.save({"dims": asdict(model.dims), "model_state_dict": model.state_dict()}, path)
    return states[0] @ model.decoder.token_embedding.weight[tokenizer.no_speech].detach()
