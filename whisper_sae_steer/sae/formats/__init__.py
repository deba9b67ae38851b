"""Sparse autoencoders on disk, one format a module, each named after the library that writes it.

SAELens v6 is read and written; dictionary_learning (and AudioSAE), eai-sparsify and OpenAI's
sparse_autoencoder are read. Whatever a file leaves to its reader (no decoder bias on the input,
ReLU instead of a threshold, unit norms) is folded into the tensors, so that an
:class:`~whisper_sae_steer.sae.autoencoder.SAE` gives the same features as the library that wrote it. What
can't be folded exactly is refused.
"""

from pathlib import Path

from torch import Tensor

from ...errors import SAEFormatError
from ..autoencoder import SAE, calibrate_threshold
from . import dictionary_learning, openai_autoencoder, saelens, sparsify
from .checks import check_finite, read_pickle
from .saelens import save_sae

__all__ = ["CONFIG_FILES", "WEIGHT_FILES", "load_sae", "save_sae"]

_CONFIGS = {
    saelens.WEIGHTS: saelens.CONFIG,
    sparsify.WEIGHTS: sparsify.CONFIG,
    dictionary_learning.WEIGHTS: dictionary_learning.CONFIG,
}
WEIGHT_FILES = tuple(_CONFIGS)
"""names by which an SAE's weights are known; OpenAI's are a .pt file of any name"""
CONFIG_FILES = tuple(dict.fromkeys(_CONFIGS.values()))
"""names of the settings beside them"""


def load_sae(source: str | Path, tap: str | None = None, calibrate_on: Tensor | None = None) -> SAE:
    """Read an SAE from a folder, or from one of its files: float32, on the CPU.

    A folder holds ``cfg.json`` + ``sae_weights.safetensors`` (SAELens v6) or ``sae.safetensors``
    (eai-sparsify), ``config.json`` + ``ae.pt`` (dictionary_learning, AudioSAE), or one other .pt file
    (OpenAI). A .pt file is told by its content. ``tap`` overrides where the activations are read;
    by itself it is SAELens' hook_name, sparsify's hookpoint folder (``layers.5`` is ``block.5``) or
    AudioSAE's (``layer_6`` is ``block.5``), else empty. ``calibrate_on``, frames [..., d_in], gives an
    SAE without thresholds one. SAEFormatError if anything is missing, damaged, unsupported, not
    finite, or if there are several to choose from.
    """
    weights = _weights_file(Path(source))
    if weights.name == saelens.WEIGHTS:
        sae = saelens.read(weights, tap)
    elif weights.name == sparsify.WEIGHTS:
        sae = sparsify.read(weights, tap)
    else:
        state = read_pickle(weights)
        reader = openai_autoencoder if "pre_bias" in state else dictionary_learning
        sae = reader.read(weights, state, tap)
    check_finite(sae.state_dict(), str(weights))  # folding may have left the range of floats
    if calibrate_on is not None and sae.config.architecture != "jumprelu":
        calibrate_threshold(sae, calibrate_on)
    return sae


def _weights_file(source: Path) -> Path:
    """The one file of weights that ``source`` means: a folder, the weights or the settings."""
    if source.name in WEIGHT_FILES or (source.suffix == ".pt" and source.is_file()):
        return source
    if source.name in CONFIG_FILES and source.is_file():
        folder, names = source.parent, [name for name, config in _CONFIGS.items() if config == source.name]
    else:
        folder, names = source, [*WEIGHT_FILES, *sorted(file.name for file in source.glob("*.pt"))]
    found = list(dict.fromkeys(name for name in names if (folder / name).is_file()))
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise SAEFormatError(f"{folder} holds several SAEs; name one file in it: {', '.join(found)}")
    for name, config in _CONFIGS.items():
        if name in names and (folder / config).is_file():
            raise SAEFormatError(f"{folder / name} is missing; copy it beside {config}")
    pairs = ", ".join(f"{name} + {config}" for name, config in _CONFIGS.items())
    raise SAEFormatError(f"no SAE at {source}: it takes {pairs}, or a .pt file of OpenAI's")
