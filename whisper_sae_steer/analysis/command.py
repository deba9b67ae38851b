"""`whisper-sae-steer analyze NAME`: runs one analysis and writes its files."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import cast

from .results import REPORT, Analysis, write_result

MODULES = {
    "stability": ".likeness.stability",
    "domains": ".likeness.domains",
    "search": ".labels.search",
    "probe": ".labels.probe",
    "unlearn": ".labels.unlearn",
    "mel": ".meaning.mel",
    "describe": ".meaning.describe",
    "hallucination": ".hallucination.analysis",
    "eeg": ".eeg.analysis",
}
"""where each analysis lies, by the name of its command"""


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    _analysis(name).add_arguments(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help=f"folder for results; its {REPORT} shows all that lie there"
    )
    parser.set_defaults(analysis=name)


def main(args: argparse.Namespace) -> int:
    analysis = _analysis(args.analysis)
    result = analysis.run(args)
    write_result(analysis, args.analysis, result, args.out)
    print("\n".join(analysis.text(result)))
    print(f"{args.out / args.analysis}.json, .svg, and its section of {args.out / REPORT}")
    return 0


def _analysis(name: str) -> Analysis:
    return cast(Analysis, import_module(MODULES[name], __package__))
