"""The command ``pull``: a pack or an SAE from the Hugging Face hub, checked, and what it is."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from ..commands.common import layer
from ..errors import HubError, WeightsError
from ..files import copy_file
from ..models.registry import Entry, entries_for
from ..models.repository import PREFIX, Repository, fetch
from ..models.weights import resolve
from ..reports.figures import flat
from ..sae.formats import CONFIG_FILES, WEIGHT_FILES, load_sae
from ..sae.pretrained import find_pretrained
from ..steering.pack import PACK_FILE, read_pack, stored_digest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add("repository", nargs="?", help="owner/name on the hub, of a pack or an SAE")
    add("--model", help="instead: list the repositories that are known for this Whisper model")
    add("--layer", type=layer, help="which SAE, where a repository has several: a number or a folder")
    add("--revision", help="branch, tag or commit; main if left out")
    add("--out", type=Path, help="where to copy the pack (a file) or the SAE (a folder that doesn't exist)")
    add("--local_files_only", action="store_true", help="only what is in the hub's cache")


def main(args: argparse.Namespace) -> int:
    """Download, check, copy and describe; HubError, PackError or SAEFormatError if one of these fails."""
    if (args.repository is None) == (args.model is None):
        raise HubError(
            "name one repository (owner/name), or a model with --model to list what is known for it"
        )
    if args.model is not None:
        print("\n".join(_known(args.model)))
        return 0
    repository = Repository.named(args.repository, args.revision)
    sae = args.layer is not None or _holds_saes(repository, args.local_files_only)
    print("\n".join((_pull_sae if sae else _pull_pack)(repository, args)))
    return 0


def _holds_saes(repository: Repository, local_files_only: bool) -> bool:
    """Whether there is an SAE and no pack, as far as the hub or else the cache knows."""
    files = None if local_files_only else repository.listed()[0]
    if files is None:
        folder = repository.cached_folder()
        files = [] if folder is None else [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return PACK_FILE not in files and any(PurePosixPath(file).name in WEIGHT_FILES for file in files)


def _pull_pack(repository: Repository, args: argparse.Namespace) -> list[str]:
    pack = fetch(repository, PACK_FILE, read_pack, args.local_files_only)
    assert pack.path is not None
    where = pack.path
    if args.out is not None:
        where = args.out
        where.parent.mkdir(parents=True, exist_ok=True)
        copy_file(pack.path, where)
    metadata = pack.metadata
    figures = flat({**metadata.metrics, "guarantee": metadata.guarantee})
    return [
        f"steering pack for Whisper {metadata.model}: {metadata.strategy} at {metadata.tap}",
        f"for weights with fingerprint {metadata.fingerprint}; the pack's SHA-256 {stored_digest(where)}",
        *(f"  {name} {value:.4g}" for name, value in figures),
        f"in {where}",
        f'to use it: load_model("{metadata.model}", pack="{repository.address}")',
    ]


def _pull_sae(repository: Repository, args: argparse.Namespace) -> list[str]:
    where = find_pretrained(
        repository.name, args.layer, repository.revision, local_files_only=args.local_files_only
    )
    config = load_sae(where).config
    if args.out is not None:
        where = _copy_sae(where, args.out)
    return [
        f"SAE of {config.model or 'an unnamed model'} at {config.tap or 'an unnamed tap'}:"
        f" {config.architecture}, {config.d_in} to {config.d_sae} features",
        f"for weights with fingerprint {config.metadata.get('fingerprint', 'unknown')}",
        *(
            f"  {name} {value:.4g}"
            for name, value in flat({"held_back": config.metadata.get("held_back", {})})
        ),
        f"in {where}",
    ]


def _copy_sae(weights: Path, out: Path) -> Path:
    """The weights in a new folder ``out``, with their settings."""
    if out.exists():
        raise HubError(f"{out} exists: choose another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / "sae"
        folder.mkdir()
        for name in (weights.name, *CONFIG_FILES):
            if (weights.parent / name).is_file():
                shutil.copyfile(weights.parent / name, folder / name)
        os.replace(folder, out)
    return out / weights.name


def _known(model: str) -> list[str]:
    """What the registry has for a model, a line each; by its name if its weights aren't on this machine."""
    try:
        weights = resolve(model, local_files_only=True)
        found = entries_for(weights.name, weights.fingerprint)
    except WeightsError:
        found = entries_for(model)
    return [_line(entry) for entry in found] or [f"no pack or SAE on the hub is known for {model}"]


def _line(entry: Entry) -> str:
    figures = "".join(f", {name} {value:.4g}" for name, value in flat(entry.figures))
    kind = "pack" if entry.kind == "pack" else "SAE"
    return f"{PREFIX}{entry.repo}  {kind} for {entry.model} at {entry.tap}{figures}"
