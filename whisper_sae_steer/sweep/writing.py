"""A sweep's figures as JSON."""

import json
from pathlib import Path

from ..analysis.results import plain
from ..files import write_text
from .differences import differences
from .features import SharedFeatures
from .results import Sweep, verdict


def write_json(result: Sweep, path: Path) -> None:
    """All figures, their means, differences from the first setting, and the conditions."""
    best = result.best
    changes = {(setting.tap, setting.name): told for setting, told in differences(result)}
    settings = [
        {
            **plain(setting),
            "mean": {
                "fvu": setting.fvu,
                "l0": setting.l0,
                **{f"{name}_share": setting.share(name) for name in ("dead", "dense", "twins")},
                **{name: setting.shared(name) for name in SharedFeatures._fields},
                **{name: getattr(setting, name) for name in ("gate_auc", "wer_change", "fpr_change")},
                "fvu_of": {domain: setting.domain_fvu(domain) for domain in setting.saes[0].domains},
            },
            "from_first": plain(changes.get((setting.tap, setting.name), {})),
            "on_frontier": setting in best,
        }
        for setting in result.settings
    ]
    found = {"verdict": verdict(result), "conditions": plain(result.conditions), "settings": settings}
    write_text(path, json.dumps(found, indent=1, allow_nan=False) + "\n")
