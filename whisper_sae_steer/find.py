"""Finding the SAE that was trained on some weights."""

import json
from pathlib import Path

from .cache import cache_dir
from .errors import SAEFormatError
from .weights import Weights


def find_sae(source: str, weights: Weights) -> Path:
    """The folder of an SAE: a path, or with ``auto`` the one trained on these weights.

    Looked for, by the fingerprint in its cfg.json, in ``saes/`` of the current folder, of the repository
    that this package is installed from in place, and of the cache. SAEFormatError if there is none.
    """
    if source != "auto":
        return Path(source)
    roots = [Path.cwd(), Path(__file__).resolve().parents[1], cache_dir()]
    for root in roots:
        for config in sorted((root / "saes").glob("*/cfg.json")):
            if _fingerprint(config) == weights.fingerprint:
                return config.parent
    raise SAEFormatError(
        f"no SAE for {weights.name} in saes/ of {', '.join(map(str, roots))}; pass --sae DIR, or train"
        f" one: whisper-sae-steer train AUDIO --model {weights.name} --out saes/{weights.name}"
    )


def _fingerprint(config: Path) -> str | None:
    try:
        return json.loads(config.read_text(encoding="utf-8"))["metadata"]["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError):  # another program's cfg.json
        return None
