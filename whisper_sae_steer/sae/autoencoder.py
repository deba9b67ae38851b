"""Sparse autoencoders: TopK, BatchTopK and JumpReLU inference in one module.

Conventions follow SAELens v6: ``pre = (x - b_dec) @ W_enc + b_enc``, features are ReLU(pre) kept
where they pass the architecture's rule, and ``decode(f) = f @ W_dec + b_dec`` with unit-norm rows
of W_dec.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import CalibrationError, SAEFormatError

Architecture = Literal["topk", "batchtopk", "jumprelu"]


@dataclass(frozen=True)
class SAEConfig:
    """What an SAE is and where its input comes from."""

    d_in: int
    """width of the tapped activation"""
    d_sae: int
    """number of features"""
    architecture: Architecture = "jumprelu"
    """the rule that picks features; only a jumprelu has thresholds (see calibrate_threshold)"""
    k: int | None = None
    """features a frame, for topk (exact) and batchtopk (on average)"""
    tap: str = "encoder_output"
    """where the activation is read: ``encoder_output`` or ``block.N``; empty if unknown"""
    model: str = ""
    """name of the Whisper (or HuBERT) model"""
    metadata: dict[str, object] = field(default_factory=dict)
    """training data, figures and whatever else travels with the file"""


class SAEOutput(NamedTuple):
    """Result of :meth:`SAE.forward`."""

    features: Tensor
    """[..., d_sae]"""
    reconstruction: Tensor
    """[..., d_in]"""


class SAE(nn.Module):
    """A one-layer sparse autoencoder over encoder frames."""

    threshold: Tensor
    """[d_sae], at least 0; only a jumprelu SAE has this buffer"""

    def __init__(self, config: SAEConfig):
        super().__init__()
        if config.architecture != "jumprelu" and not config.k:
            raise SAEFormatError(f"a {config.architecture} SAE needs k, the features a frame")
        self.config = config
        self.W_enc = nn.Parameter(torch.zeros(config.d_in, config.d_sae))
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.W_dec = nn.Parameter(torch.zeros(config.d_sae, config.d_in))
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))
        if config.architecture == "jumprelu":
            self.register_buffer("threshold", torch.zeros(config.d_sae))

    def preactivations(self, x: Tensor) -> Tensor:
        """``(x - b_dec) @ W_enc + b_enc``: [..., d_in] → [..., d_sae]; SAEFormatError for another width."""
        if x.shape[-1:] != (self.config.d_in,):
            raise SAEFormatError(
                f"this SAE reads activations of width {self.config.d_in}, not of shape {tuple(x.shape)};"
                " load the one trained on this model and tap"
            )
        return (x - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor, use_threshold: bool = True) -> Tensor:
        """Features of frames: [..., d_in] → [..., d_sae], mostly zeros.

        ``use_threshold=True`` applies the JumpReLU threshold, so that a frame's features don't
        depend on its neighbours; an SAE without one refuses with SAEFormatError. With False, topk
        keeps the k largest of each frame and batchtopk the k·N largest of all N frames given (its
        training rule, Bussmann et al. 2024, arXiv 2412.06410); a jumprelu has no rule but its
        threshold.
        """
        acts = torch.relu(self.preactivations(x))
        if self.config.architecture == "jumprelu":
            return acts * (acts > self.threshold)
        if use_threshold:
            raise SAEFormatError(
                f"this {self.config.architecture} SAE has no threshold; set one with"
                " calibrate_threshold(sae, frames), or pass use_threshold=False"
            )
        assert self.config.k is not None
        if self.config.architecture == "topk":
            values, indices = acts.topk(min(self.config.k, acts.shape[-1]), dim=-1)
            return torch.zeros_like(acts).scatter(-1, indices, values)
        keep = min(self.config.k * acts[..., 0].numel(), acts.numel())
        values, indices = acts.flatten().topk(keep)
        return torch.zeros_like(acts).flatten().scatter(0, indices, values).view_as(acts)

    def decode(self, features: Tensor) -> Tensor:
        """[..., d_sae] → [..., d_in]."""
        return features @ self.W_dec + self.b_dec

    def forward(self, x: Tensor, use_threshold: bool = True) -> SAEOutput:
        features = self.encode(x, use_threshold)
        return SAEOutput(features, self.decode(features))

    @torch.no_grad()
    def fold_input_scale(self, scale: float) -> None:
        """Make an SAE trained on ``x * scale`` take raw ``x``; its features shrink by ``scale``.

        Input, biases and thresholds scale together, so the same features fire.
        """
        self.b_enc /= scale
        self.b_dec /= scale
        if self.config.architecture == "jumprelu":
            self.threshold /= scale

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Give every decoder row unit norm, moving the norm into the features.

        A jumprelu keeps its features; topk and batchtopk from now on compare them by new sizes.
        """
        norm = self.W_dec.norm(dim=-1).clamp_min(torch.finfo(self.W_dec.dtype).tiny)
        self.W_dec /= norm[:, None]
        self.W_enc *= norm
        self.b_enc *= norm
        if self.config.architecture == "jumprelu":
            self.threshold *= norm


@torch.no_grad()
def calibrate_threshold(sae: SAE, x: Tensor, k: int | None = None) -> None:
    """Make ``sae`` a jumprelu whose one threshold keeps k features a frame on average over ``x``.

    For checkpoints that store none (AudioSAE's). ``x`` is frames [..., d_in]; the threshold is
    halfway between the k·N-th and the next activation, the value BatchTopK used implicitly on
    them. CalibrationError if there are no frames or they are not finite.
    """
    k = k or sae.config.k
    if not k:
        raise SAEFormatError("k is needed to calibrate a threshold")
    acts = torch.relu(sae.preactivations(x)).reshape(-1, sae.config.d_sae)
    if not len(acts) or not acts.isfinite().all():
        raise CalibrationError("calibrating a threshold needs frames, all of them finite")
    keep = min(k * len(acts), acts.numel() - 1)
    top = acts.flatten().topk(keep + 1).values
    threshold = float((top[-2] + top[-1]) / 2)
    sae.register_buffer("threshold", torch.full_like(sae.b_enc, threshold))
    sae.config = replace(sae.config, architecture="jumprelu", k=k)
