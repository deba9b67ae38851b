"""Steering as weights: a Whisper model that steers by itself, for runtimes that know nothing of it.

An ungated edit is a constant and goes into ``ln_post.bias``. A gated edit becomes two more encoder blocks in
which nearly all weights are zero. They hand on what they find along three spare directions of the residual
stream, in which frames hold next to nothing:

1. The first block's attention heads pool the frames of a window with the weights softmax(key · frame), and
   so look mostly at what sounds most like speech. They turn the pooled frames into the window's speech
   evidence, about 0 with speech and −1 or less without (``calibrate/export_gate.py``), and add it to every
   frame along the first direction. The MLP reads it there, and where nobody speaks it adds a mark along the
   second direction. A hidden unit acts as a ReLU, because a GELU of large numbers is one, and the difference
   of two is a ramp.
2. The second block's heads find the same evidence and subtract it, so that speech leaves as it came. They
   find the same because keys and values in both blocks ignore the spare directions. One more head averages
   the second direction over the window and adds the mean to every frame along the third. So that it averages
   the mark alone, the same head of the first block has subtracted the mean of what lay there before. The MLP
   reads the mean, removes it and the mark, and adds the edit.

The edit is added before ``ln_post``, where it must be as large as a frame's standard deviation to count. A
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
from tqdm import tqdm
from whisper import Whisper
from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim
from whisper.model import ResidualAttentionBlock

from ..audio.synthetic import generate
from ..errors import PackError
from ..steering.operator import Operator, check_alpha
from ..steering.pack import ExportGate, SteeringPack
from .recordings import recording

EVIDENCE_SIZE, MARK_SIZE, MEAN_SIZE = 12.0, 20.0, 30.0
"""along the three spare directions, in the usual standard deviation of frames: of speech evidence of −1, of
the mark that nobody speaks, and of the mark's mean over the window"""
GELU_INPUT_SCALE = 100.0
"""makes the input of hidden units so large that their GELU acts as a ReLU"""
SYNTHETIC_SOUNDS = 16
"""in which typical frames are looked at, beside some speech"""
HUGE_FROM = 3.0
"""times the usual standard deviation from which on a frame is huge and gets an edit of its own size"""
HUGE_INDICATOR_SIZE = 5.0
"""of the indicator of huge frames, beside the mean, in the sum that decides on their edit"""
HUGE_EDIT_SIZE = 2.0
"""of the edit of huge frames, in their median standard deviation: the largest of them must get enough"""


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
    edit = alpha * Operator(pack).vector
    if metadata.gate == "none":
        folded.encoder.ln_post.bias.data += edit
        return folded
    if pack.pooled is None:
        raise PackError(f"{pack.path} was calibrated before export was what it is; calibrate it again")
    plain = edit / folded.encoder.ln_post.weight.detach()
    frames = frame_sizes(folded)
    added = _blocks(folded, pack.pooled, frames, plain - plain.mean())
    cast(nn.ModuleList, folded.encoder.blocks).extend(added)
    folded.dims.n_audio_layer += len(added)
    return folded


class FrameSizes(NamedTuple):
    """How large frames are before ``ln_post``."""

    usual: float
    """median standard deviation"""
    huge: float
    """median standard deviation of huge frames; 0 if there are none"""
    is_huge: Tensor
    """[d] weights and then an offset: about 1 for huge frames, normalised, and 0 for the others"""


@torch.no_grad()
def frame_sizes(model: Whisper) -> FrameSizes:
    """What a model makes of synthetic sounds and of speech, padded as every runtime pads them."""
    seen: list[Tensor] = []
    hook = model.encoder.ln_post.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    try:
        audios = [*(made.audio for made in generate(SYNTHETIC_SOUNDS, 0)), *_speech()]
        for audio in tqdm(audios, desc="look at frames", unit="sound"):
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
    huge = deviation > HUGE_FROM * usual
    return FrameSizes(
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
def _blocks(
    model: Whisper, gate: ExportGate, frames: FrameSizes, edit: Tensor
) -> list[ResidualAttentionBlock]:
    """The two blocks that add ``edit`` [d], in units of normalised frames, where nobody speaks."""
    d = model.dims.n_audio_state
    first, second, third = gate.spare
    opening = _evidence_block(model, gate, EVIDENCE_SIZE * frames.usual)
    mark = MARK_SIZE * frames.usual * second
    _HiddenUnits(opening).ramp(-first, -EVIDENCE_SIZE * gate.shut, -EVIDENCE_SIZE * gate.full, mark)

    closing = _evidence_block(model, gate, -EVIDENCE_SIZE * frames.usual)
    seen_mark = MARK_SIZE / math.sqrt(1 + (MARK_SIZE**2 + EVIDENCE_SIZE**2) / d)  # after layer norm
    mean = MEAN_SIZE * frames.usual / seen_mark * third
    head = len(gate.key) * d // model.dims.n_audio_head
    _add_mean(opening, head, second, -mean)  # of what lies there before the mark
    _add_mean(closing, head, second, mean)
    units, seen_mean = _HiddenUnits(closing), MEAN_SIZE / math.sqrt(1 + (MARK_SIZE**2 + MEAN_SIZE**2) / d)
    edit_and_removal = edit - MARK_SIZE * second - MEAN_SIZE * third
    units.ramp(third, 0.35 * seen_mean, 0.5 * seen_mean, frames.usual * edit_and_removal)
    if frames.huge:
        own = HUGE_EDIT_SIZE * frames.huge * edit
        # layer norm leaves little of the mean in huge frames: enough with the indicator, not without it
        is_huge, enough = HUGE_INDICATOR_SIZE * frames.is_huge, HUGE_INDICATOR_SIZE * 1.15
        units.ramp(third + is_huge[:-1], enough - is_huge[-1], enough - is_huge[-1] + 0.2, own)
        # in usual frames the mean alone is enough, so there it is taken back
        units.ramp(third, 0.35 * seen_mean, 0.5 * seen_mean, -own)
    return [opening, closing]


class _HiddenUnits:
    """The hidden units of a block's MLP, taken one by one. They read frames as layer norm gives them."""

    def __init__(self, block: ResidualAttentionBlock):
        self._weights = dict(block.named_parameters())
        self._weights["mlp_ln.weight"].fill_(1)
        self._used = 0

    def ramp(self, read: Tensor, start: float | Tensor, full: float | Tensor, write: Tensor) -> None:
        """Add ``write`` [d] where ``read`` [d] · frame exceeds ``full``, a share of it from ``start`` on."""
        for edge, sign in ((start, 1), (full, -1)):
            self._weights["mlp.0.weight"][self._used] = GELU_INPUT_SCALE * read
            self._weights["mlp.0.bias"][self._used] = -GELU_INPUT_SCALE * edge
            self._weights["mlp.2.weight"][:, self._used] = sign * write / (GELU_INPUT_SCALE * (full - start))
            self._used += 1


@torch.no_grad()
def _add_mean(block: ResidualAttentionBlock, head: int, read: Tensor, write: Tensor) -> None:
    """Let a head, given by its first row, add ``write`` [d] times the mean of ``read`` [d] · frame.

    Its query and key stay 0. Frames are read as layer norm gives them, before its weight and bias.
    """
    weights = dict(block.named_parameters())
    plain = read / weights["attn_ln.weight"]
    weights["attn.value.weight"][head] = plain
    weights["attn.value.bias"][head] = -plain @ weights["attn_ln.bias"]
    weights["attn.out.weight"][:, head] = write


@torch.no_grad()
def _evidence_block(model: Whisper, gate: ExportGate, size: float) -> ResidualAttentionBlock:
    """A block whose first heads add ``size`` times the window's speech evidence along the first direction."""
    dims, norm = model.dims, model.encoder.ln_post
    width = dims.n_audio_state // dims.n_audio_head
    block = ResidualAttentionBlock(dims.n_audio_state, dims.n_audio_head)
    weights = dict(block.named_parameters())
    for parameter in weights.values():
        parameter.zero_()
    # h = norm.weight * n + norm.bias, so z = (h − centre) / scale is an affine map of n as well
    weights["attn_ln.weight"].copy_(norm.weight / gate.scale)
    weights["attn_ln.bias"].copy_((norm.bias - gate.centre) / gate.scale)
    # without the spare directions, so that both blocks find the same evidence
    spare = torch.linalg.qr((norm.weight / gate.scale * gate.spare).T)[0]
    key, value = (w - w @ spare @ spare.T for w in (gate.key, gate.value))
    first = slice(0, len(key) * width, width)  # of each head
    weights["attn.query.bias"][first] = math.sqrt(width)  # undoes the scaling
    weights["attn.key.weight"][first] = key
    weights["attn.value.weight"][first] = value
    weights["attn.value.bias"][0] = gate.offset
    weights["attn.out.weight"][:, first] = size * gate.spare[0][:, None]
    return block
