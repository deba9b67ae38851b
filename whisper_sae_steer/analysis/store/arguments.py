"""Arguments of commands that read stores, and the stores and SAEs that they name."""

import argparse
from pathlib import Path

from .activations import ActivationStore, open_sae


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a command that reads one SAE of one store, as :func:`chosen_sae` takes them."""
    parser.add_argument("store", type=Path, help="folder that `analyze encode` made")
    parser.add_argument("--sae", metavar="NAME", help="SAE of the store (default: the only one)")


def chosen_sae(args: argparse.Namespace) -> tuple[ActivationStore, str]:
    """The store and the SAE's name that the arguments ask for; errors as of :func:`open_sae`."""
    store = ActivationStore.open(args.store)
    return store, store.choose(args.sae)


def add_stores_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """The argument of a command that reads SAEs of several stores, as :func:`chosen_saes` takes it."""
    parser.add_argument("stores", nargs="+", metavar="STORE[:SAE]", help=what)


def chosen_saes(args: argparse.Namespace) -> list[tuple[ActivationStore, str]]:
    """The stores and the SAEs' names that the arguments ask for; errors as of :func:`open_sae`."""
    return [open_sae(source) for source in args.stores]
