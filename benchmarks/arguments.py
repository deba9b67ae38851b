"""The command line of a benchmark script: an option that several scripts have is declared here once."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHARED: Mapping[str, dict[str, Any]] = {
    "manifest": {"type": Path, "help": "tab-separated list of clips"},
    "--split": {"default": "dev", "help": "of the manifest (default: %(default)s)"},
    "--source": {"nargs": "+", "default": None, "help": "only speech of these sources"},
    "--model": {"default": "base", "help": "name or path of a Whisper model (default: %(default)s)"},
    "--pack": {"default": "auto", "help": "steering pack: auto, or a path"},
    "--sae": {"default": "auto", "help": "autoencoder: auto, or a path"},
    "--compute_type": {"default": "int8", "help": "of CTranslate2 (default: %(default)s)"},
    "--per_class": {"type": int, "help": "clips of each source and class, at most (default: %(default)s)"},
    "--threads": {"type": int, "default": 1, "help": "CPU threads (default: %(default)s)"},
    "--work": {"type": Path, "help": "folder for encoded windows (OUT/work where it may be left out)"},
    "--out": {"type": Path, "help": "where the result is written"},
}


def script_parser(description: str | None, *shared: str, **defaults: object) -> argparse.ArgumentParser:
    """A parser with the ``shared`` options, and with those whose default is the script's own.

    ``script_parser(__doc__, "manifest", "--split", "--out", per_class=4)`` has the options manifest,
    --split, --out and --per_class. A shared option without any default must be given.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    for name in shared:
        option = dict(SHARED[name])
        if name.startswith("-") and "default" not in option:
            option["required"] = True
        parser.add_argument(name, **option)
    for name, default in defaults.items():
        option = dict(SHARED[f"--{name}"])
        option["default"] = default
        parser.add_argument(f"--{name}", **option)
    return parser
