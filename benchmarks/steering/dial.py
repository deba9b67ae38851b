"""The α dial as a picture: text on non-speech and words lost on speech against the strength.

whisper-sae-steer bench fpr --manifest MANIFEST --model tiny.en --alphas 0 0.5 1 2 4 --out dial/fpr
whisper-sae-steer bench wer --manifest MANIFEST --model tiny.en --alphas 0 0.5 1 2 4 --out dial/wer
python -m benchmarks.steering.dial dial/fpr/summary.json dial/wer/summary.json --out dial.svg
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whisper_sae_steer.files import write_atomically

from ..arguments import script_parser


def main() -> None:
    """Read both summaries and write the picture."""
    parser = script_parser(__doc__)
    parser.add_argument("fpr", type=Path, help="summary.json of `bench fpr`")
    parser.add_argument("wer", type=Path, help="summary.json of `bench wer`")
    parser.add_argument("--out", type=Path, required=True, help="the picture; its suffix says the format")
    args = parser.parse_args()
    fpr, wer = (json.loads(path.read_text(encoding="utf-8")) for path in (args.fpr, args.wer))
    figure = draw(fpr["nonspeech"]["total"], wer["speech"]["total"])
    figure.suptitle(f"{fpr['model']}, {fpr['backend']} {fpr['compute_type']}", fontsize=10)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(args.out) as part:
        figure.savefig(part, format=args.out.suffix[1:], metadata={"Date": None})


def draw(nonspeech: Mapping[str, Any], speech: Mapping[str, Any]) -> Figure:
    """Rates with Wilson intervals on the left, the change of the WER with its interval on the right."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left: Axes
    right: Axes
    left, right = figure.subplots(1, 2)
    alphas = [float(alpha) for alpha in nonspeech]
    for name in ("FPR_raw", "FPR_text"):
        rates = [at[name] for at in nonspeech.values() if at[name]]
        if len(rates) == len(alphas):
            band(left, alphas, [(100 * r["rate"], 100 * r["low"], 100 * r["high"]) for r in rates], name)
    changes = [at.get("WER_change") or {"value": 0.0, "low": 0.0, "high": 0.0} for at in speech.values()]
    points = [(100 * c["value"], 100 * c["low"], 100 * c["high"]) for c in changes]
    band(right, [float(alpha) for alpha in speech], points, "WER, change to α = 0")
    left.set_ylabel("% of clips without speech")
    right.set_ylabel("percentage points")
    right.set_ylim(min(-0.5, *(p[1] for p in points)), max(0.5, *(p[2] for p in points)))
    for axes in (left, right):
        axes.axvline(1, color="0.8", lw=1, zorder=0)
        axes.set_xlabel("steer_alpha")
        axes.legend(frameon=False)
    return figure


def band(axes: Axes, alphas: list[float], points: list[tuple[float, float, float]], label: str) -> None:
    """A line through values with their intervals around it."""
    value, low, high = np.array(points).T
    (line,) = axes.plot(alphas, value, marker="o", ms=3, label=label)
    axes.fill_between(alphas, low, high, alpha=0.2, color=line.get_color(), lw=0)


if __name__ == "__main__":
    main()
