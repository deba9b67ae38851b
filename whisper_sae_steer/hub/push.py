"""The command ``push``: a pack or an SAE to the Hugging Face hub, with a model card, in one commit."""

import argparse
import tempfile
from pathlib import Path

from ..models.repository import Repository
from ..sae.formats import load_sae, save_sae
from ..sae.formats.saelens import CONFIG, WEIGHTS
from ..steering.pack import PACK_FILE, read_pack
from .card import from_pretrained_call, pack_card, sae_card
from .licences import licence_of
from .upload import REPORT, upload

CARD = "README.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add("source", type=Path, metavar="PACK_OR_SAE", help="a pack (.safetensors), or the folder of an SAE")
    add("repository", help="owner/name on the hub; made if there is none")
    add("--private", action="store_true", help="only you may read it")
    add("--revision", metavar="BRANCH", help="branch to commit to, made if there is none; main if left out")
    add("--message", help="of the commit")
    add("--license", help="the hub's name of a licence; by default the most demanding one of the recordings")


def main(args: argparse.Namespace) -> int:
    """Check, upload and say what was written; PackError, SAEFormatError or HubError before or instead."""
    repository = Repository.named(args.repository, args.revision)
    with tempfile.TemporaryDirectory(prefix="whisper-sae-steer-") as scratch:
        if args.source.is_dir():
            files, use = _sae(args.source, repository, args.license, Path(scratch))
        else:
            files, use = _pack(args.source, repository, args.license)
        message = args.message or f"Add {', '.join(files)}"
        done = upload(repository, files, message, args.private)
    print(f"written in one commit, {done.commit[:12]}: {', '.join(files)}\n{done.url}\nto use it: {use}")
    return 0


def _pack(path: Path, repository: Repository, licence: str | None) -> tuple[dict[str, Path | bytes], str]:
    """Files to upload by their names there, and the line that uses them."""
    pack = read_pack(path)
    licence = licence or licence_of(pack.metadata.data, f"the pack {path}")
    report = path.with_suffix(".html")
    card = pack_card(pack, repository, licence, report.is_file())
    files: dict[str, Path | bytes] = {CARD: card.encode(), PACK_FILE: path}
    if report.is_file():
        files[REPORT] = report
    return files, f'load_model("{pack.metadata.model}", pack="{repository.address}")'


def _sae(
    folder: Path, repository: Repository, licence: str | None, scratch: Path
) -> tuple[dict[str, Path | bytes], str]:
    """As :func:`_pack`; an SAE that isn't in SAELens' layout is written so."""
    sae = load_sae(folder)
    licence = licence or licence_of(sae.config.metadata, f"the SAE in {folder}")
    if not (folder / WEIGHTS).is_file():
        save_sae(sae, scratch)
        folder = scratch
    card = sae_card(sae.config, repository, licence)
    files: dict[str, Path | bytes] = {
        CARD: card.encode(), CONFIG: folder / CONFIG, WEIGHTS: folder / WEIGHTS
    }  # fmt: skip
    return files, from_pretrained_call(repository)
