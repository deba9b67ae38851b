"""TopK: the k largest features of each frame fire (Gao et al., arXiv 2406.04093)."""

import torch
from torch import Tensor

from ...kernels import topk_encode
from ...kernels.topk_reference import Selection
from ...sae.autoencoder import SAE, SAEConfig, calibrate_threshold
from .base import TrainingSAE


class TopKSAE(TrainingSAE):
    """Exactly k features a frame while training; saved with the threshold that keeps k on average."""

    @torch.no_grad()
    def select(self, centred: Tensor, k: int) -> Selection:
        return topk_encode(centred, self.w_enc, self.b_enc, k, 0.5 * float(self.threshold)).selection()

    def finished(self, config: SAEConfig, sample: Tensor) -> SAE:
        sae = super().finished(config, sample)
        # the smallest activations kept of each frame say little of the frames that would keep more
        calibrate_threshold(sae, sample.float().cpu(), config.k)
        return sae
