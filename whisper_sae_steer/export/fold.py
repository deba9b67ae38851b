"""Steering as weights: a Whisper model that steers by itself, for runtimes that know nothing of it.

An ungated edit is a constant and goes into ``ln_post.bias``. A gated one becomes two more encoder blocks, in
which next to all is zero, and which pass notes along three spare directions of the residual stream:

1. Attention heads pool the window with softmax(key · frame) for weights, and so mostly see what sounds most
   like speech. What that is worth, about 0 for speech and −1 or less without, is noted along the first
   direction in all frames. The MLP reads it, and notes along the second where nobody speaks: a ReLU from a
   GELU of large numbers, a ramp from the difference of two.
2. Attention takes the first note back, so that speech leaves as it came. One more head takes the mean of the
   second note, and puts it down along the third, where the same head of the first block has put, negative,
   what there was before it. The MLP reads that, wipes the notes and writes the edit.

The edit is written before ``ln_post``, where it must be as large as a frame's standard deviation to count. A
few frames in a hundred have ten or more times the usual one; they hold one huge entry and little else, and
the decoder listens to them more than to all others. They get an edit of their own size.
"""

import copy
import math
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from whisper import Whisper
from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim
from whisper.model import ResidualAttentionBlock

from ..audio.synthetic import generate
from ..errors import PackError
from ..steering.operator import Steering, check_alpha
from ..steering.pack import PooledGate, SteeringPack
from .recordings import recording

WORTH, SILENT, MEAN = 12.0, 20.0, 30.0
"""sizes of the notes in standard deviations of a frame: of −1, of nobody speaking, of the mean of that"""
SHARPNESS = 100.0
"""of the GELUs that stand for ReLUs"""
SOUNDS = 16
"""synthetic ones in which frames are looked at, beside some speech"""
HUGE = 3.0
"""times the usual standard deviation from which on a frame gets an edit of its own size"""
SURENESS = 5.0
"""how much louder than the note the missing indicator is"""
STRETCH = 2.0
"""that size, in the median one of these frames: the larger of them must get enough"""


def fold(model: Whisper, pack: SteeringPack, alpha: float = 1.0) -> Whisper:
    """A copy of ``model`` that is steered by ``pack`` at α, without hooks.

    Raises PackError for packs that can't be folded: edits that follow active features (``suppress``), frame
    gates, taps inside the encoder; AlphaError.
    """
    alpha, metadata = check_alpha(alpha), pack.metadata
    if metadata.tap != "encoder_output" or metadata.strategy == "suppress" or metadata.gate == "frame":
        raise PackError(
            f"only edits by a constant at the encoder_output with a window's gate or none become weights, not"
            f" {metadata.strategy} at {metadata.tap} with gate {metadata.gate}; attach() applies any"
        )
    folded = copy.deepcopy(model).float()
    edit = alpha * Steering(pack).vector
    if metadata.gate == "none":
        folded.encoder.ln_post.bias.data += edit
        return folded
    if pack.pooled is None:
        raise PackError(f"{pack.path} was calibrated before export was what it is; calibrate it again")
    plain = edit / folded.encoder.ln_post.weight.detach()
    frames = _look(folded)
    added = _blocks(folded, pack.pooled, frames, plain - plain.mean())
    cast(nn.ModuleList, folded.encoder.blocks).extend(added)
    folded.dims.n_audio_layer += len(added)
    return folded


class _Frames(NamedTuple):
    """What frames are like before ``ln_post``."""

    usual: float
    """median standard deviation"""
    huge: float
    """median of those far above it; 0 if there are none"""
    is_huge: Tensor
    """[d] and then an offset: about 1 for normalised frames of that kind, 0 for the others"""


@torch.no_grad()
def _look(model: Whisper) -> _Frames:
    seen: list[Tensor] = []
    hook = model.encoder.ln_post.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    try:
        for audio in [*(made.audio for made in generate(SOUNDS, 0)), *_speech()]:
            # transformers fills windows up with silence, openai-whisper and faster-whisper with zeros of mel
            for padding in (0, N_SAMPLES):
                mel = log_mel_spectrogram(torch.from_numpy(audio), model.dims.n_mels, padding=padding)
                model.embed_audio(cast(Tensor, pad_or_trim(mel, N_FRAMES))[None].to(model.device))
    finally:
        hook.remove()
    frames = torch.cat(seen)
    deviation = frames.std(1, correction=0)
    plain = (frames - frames.mean(1, keepdim=True)) / deviation[:, None]
    usual = deviation.median()
    huge = deviation > HUGE * usual

    return _Frames(
        float(usual),
        float(deviation[huge].median()) if huge.any() else 0.0,
        _indicator(plain, huge),
    )


def _speech() -> list[NDArray[np.float32]]:
    """Windows with speech, from the recordings that come with the package."""
    sentence, gap = (recording(name).audio for name in ("speech", "gap"))
    return [sentence, sentence[: len(sentence) // 3], gap[:N_SAMPLES], gap[-N_SAMPLES:]]


def _indicator(frames: Tensor, wanted: Tensor) -> Tensor:
    """Ridge regression, with an offset, that tells the ``wanted`` [N] among frames [N, d]: [d + 1]."""
    if not wanted.any():
        return torch.zeros(frames.shape[1] + 1)
    rows = torch.cat([frames, torch.ones(len(frames), 1)], 1)
    # each kind is as important
    weight = torch.where(wanted, 0.5 / wanted.float().mean(), 0.5 / (~wanted).float().mean())[:, None]
    ridge = len(rows) * 1e-2 * torch.eye(rows.shape[1])
    return torch.linalg.solve(rows.T @ (weight * rows) + ridge, rows.T @ (weight * wanted[:, None].float()))[
        :, 0
    ]


@torch.no_grad()
def _blocks(model: Whisper, gate: PooledGate, frames: _Frames, edit: Tensor) -> list[ResidualAttentionBlock]:
    """The two blocks that add ``edit`` [d], in units of normalised frames, where nobody speaks."""
    d = model.dims.n_audio_state
    first, second, third = gate.spare
    opening = _pooling(model, gate, WORTH * frames.usual)
    units = _Units(opening)
    units.ramp(-first, -WORTH * gate.shut, -WORTH * gate.full, SILENT * frames.usual * second)

    block = _pooling(model, gate, -WORTH * frames.usual)
    noted = SILENT / math.sqrt(1 + (SILENT**2 + WORTH**2) / d)  # as layer norm passes it on
    passed_on = MEAN * frames.usual / noted * third
    head = len(gate.key) * d // model.dims.n_audio_head
    _mean(opening, head, second, -passed_on)  # what there is before the note doesn't count
    _mean(block, head, second, passed_on)
    units, told = _Units(block), MEAN / math.sqrt(1 + (SILENT**2 + MEAN**2) / d)
    wiped = edit - SILENT * second - MEAN * third
    units.ramp(third, 0.35 * told, 0.5 * told, frames.usual * wiped)
    if frames.huge:
        own = STRETCH * frames.huge * edit
        # in these frames the note is faint; in others what is as loud must not pass for one
        is_huge, other = SURENESS * frames.is_huge, SURENESS * 1.15
        units.ramp(third + is_huge[:-1], other - is_huge[-1], other - is_huge[-1] + 0.2, own)
        units.ramp(third, 0.35 * told, 0.5 * told, -own)
    return [opening, block]


class _Units:
    """The hidden units of a block's MLP, taken one by one. They read frames as layer norm gives them."""

    def __init__(self, block: ResidualAttentionBlock):
        self._weights = dict(block.named_parameters())
        self._weights["mlp_ln.weight"].fill_(1)
        self._used = 0

    def ramp(self, read: Tensor, start: float | Tensor, full: float | Tensor, write: Tensor) -> None:
        """Add ``write`` [d] where ``read`` [d] · frame exceeds ``full``, a share of it from ``start`` on."""
        for edge, sign in ((start, 1), (full, -1)):
            self._weights["mlp.0.weight"][self._used] = SHARPNESS * read
            self._weights["mlp.0.bias"][self._used] = -SHARPNESS * edge
            self._weights["mlp.2.weight"][:, self._used] = sign * write / (SHARPNESS * (full - start))
            self._used += 1


@torch.no_grad()
def _mean(block: ResidualAttentionBlock, head: int, read: Tensor, write: Tensor) -> None:
    """Let a head, given by its first row, add ``write`` [d] times the mean of ``read`` [d] · frame.

    Its query and key stay 0. Frames are read as layer norm gives them, before its weight and bias.
    """
    weights = dict(block.named_parameters())
    plain = read / weights["attn_ln.weight"]
    weights["attn.value.weight"][head] = plain
    weights["attn.value.bias"][head] = -plain @ weights["attn_ln.bias"]
    weights["attn.out.weight"][:, head] = write


@torch.no_grad()
def _pooling(model: Whisper, gate: PooledGate, size: float) -> ResidualAttentionBlock:
    """A block whose first heads write what the window is worth times ``size`` along the gate's direction."""
    dims, norm = model.dims, model.encoder.ln_post
    width = dims.n_audio_state // dims.n_audio_head
    block = ResidualAttentionBlock(dims.n_audio_state, dims.n_audio_head)
    weights = dict(block.named_parameters())
    for parameter in weights.values():
        parameter.zero_()
    # h = norm.weight * n + norm.bias, so z = (h − centre) / scale is an affine map of n as well
    weights["attn_ln.weight"].copy_(norm.weight / gate.scale)
    weights["attn_ln.bias"].copy_((norm.bias - gate.centre) / gate.scale)
    # deaf to the directions of notes, so that both blocks find the same
    spare = torch.linalg.qr((norm.weight / gate.scale * gate.spare).T)[0]
    key, value = (w - w @ spare @ spare.T for w in (gate.key, gate.value))
    first = slice(0, len(key) * width, width)  # of each head
    weights["attn.query.bias"][first] = math.sqrt(width)  # undoes the scaling
    weights["attn.key.weight"][first] = key
    weights["attn.value.weight"][first] = value
    weights["attn.value.bias"][0] = gate.offset
    weights["attn.out.weight"][:, first] = size * gate.spare[0][:, None]
    return block
