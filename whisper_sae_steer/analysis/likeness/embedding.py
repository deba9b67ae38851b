"""Maps of features: t-SNE (van der Maaten and Hinton 2008) of the directions that an SAE reads."""

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from ...errors import AnalysisError
from ...sae.autoencoder import SAE

PERPLEXITY = 30


def embed(sae: SAE, alive: NDArray[np.bool_], seed: int = 0) -> NDArray[np.float32]:
    """Two coordinates of each feature by the cosine of encoder rows: [F, 2], NaN for dead ones.

    The same for the same seed. AnalysisError for 30 live features or fewer.
    """
    if alive.sum() <= PERPLEXITY:
        raise AnalysisError(f"{alive.sum()} live features are too few for a map; leave --map out")
    rows = sae.W_enc.detach().numpy().T[alive]
    tsne = TSNE(metric="cosine", init="pca", perplexity=PERPLEXITY, random_state=seed)
    found = np.full((len(alive), 2), np.nan, np.float32)
    found[alive] = tsne.fit_transform(rows)
    return found
