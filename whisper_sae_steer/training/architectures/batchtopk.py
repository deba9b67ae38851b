"""BatchTopK: the k·N largest activations of a batch fire (Bussmann et al., arXiv 2412.06410)."""

import torch
from torch import Tensor

from ...kernels import batch_topk_encode
from ...kernels.topk_reference import Selection
from .base import TrainingSAE


class BatchTopKSAE(TrainingSAE):
    """k features a frame on average; at inference a threshold, so that frames don't depend on their batch."""

    @torch.no_grad()
    def select(self, centred: Tensor, k: int) -> Selection:
        return batch_topk_encode(centred, self.w_enc, self.b_enc, k, 0.9 * float(self.threshold))
