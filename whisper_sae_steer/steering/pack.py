"""Steering packs: all the operator needs, in one safetensors file that can't be misapplied."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import PackError
from ..files import write_atomically
from ..models.cache import cache_dir
from ..models.marks import differ
from ..models.registry import entries_for
from ..models.repository import PREFIX, Repository, fetch
from ..models.weights import Weights
from .metadata import PackMetadata, read_metadata
from .pack_check import check_tensors

T = TypeVar("T", "Features", "ExportGate")
FORMAT = 2
"""what is written; format 1 is read too, see :func:`.metadata.read_metadata`"""
PACK_FILE = "pack.safetensors"
"""what a pack is called in a repository on the hub"""


class Features(NamedTuple):
    """Selected SAE features: a_f(h) = JumpReLU(rows_f · h + bias_f, threshold_f)."""

    ids: Tensor
    """[F] int64, feature numbers in the SAE"""
    rows: Tensor
    """[F, d]"""
    bias: Tensor
    """[F]"""
    threshold: Tensor
    """[F]"""

    def activations(self, h: Tensor) -> Tensor:
        """a_f of frames: [..., d] → [..., F]."""
        pre = torch.nn.functional.linear(h, self.rows, self.bias)
        return pre * (pre > self.threshold)


class ExportGate(NamedTuple):
    """The gate as an encoder block can hold it (``export/fold.py``): linear, and pooled over the window.

    A frame h is standardised, z = (h − centre) / scale. Each of H heads pools frames with weights
    softmax(key · z) over the window; Σ value · z̄ + offset is its speech evidence: about 0 with speech, −1 or
    less without.
    """

    centre: Tensor
    """[d]"""
    scale: Tensor
    """[d]"""
    key: Tensor
    """[H, d] logit of speech in a frame, more or less sharp"""
    value: Tensor
    """[H, d]"""
    offset: Tensor
    """[]"""
    shut: Tensor
    """[] from here up nothing is edited"""
    full: Tensor
    """[] from here down the edit is whole"""
    spare: Tensor
    """[3, d] orthogonal unit directions of frames before ``ln_post``'s weight and bias, with mean 0, in which
    next to nothing happens"""


class SteeringPack(NamedTuple):
    """What to look for (gate), what to write (directions), and the metadata."""

    metadata: PackMetadata
    gate: Features
    gate_weight: Tensor
    """[G] logistic weights over the gate's features"""
    gate_bias: Tensor
    """[] offset of the speech logit"""
    steer: Features
    """features that `suppress` reads; empty for the static strategies"""
    directions: Tensor
    """[F, d] unit decoder directions"""
    coefficients: Tensor
    """[F] signed size of each direction at α · alpha_unit = 1"""
    probe: Tensor | None = None
    """[d] mean frame of an empty window (mel all 0): tells the weights of a model that has no file"""
    pooled: ExportGate | None = None
    """None in packs made before there was one, or when it had one head"""
    path: Path | None = None


def save_pack(pack: SteeringPack, path: Path) -> None:
    """Write a pack atomically, with a hash over tensors and metadata; PackError if it is not usable."""
    tensors = _flatten(pack)
    metadata = json.dumps(asdict(pack.metadata), sort_keys=True)
    header = {
        "format": str(FORMAT),
        "metadata": metadata,
        "sha256": _digest(tensors, metadata),
    }
    _unpacked(header, tensors, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        temporary.write_bytes(_with_sorted_header(save(tensors, metadata=header)))


def _with_sorted_header(file: bytes) -> bytes:
    """The same safetensors file: the library writes metadata in any order, so the same pack in six ways."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)  # tensors are aligned
    return len(written).to_bytes(8, "little") + written + file[8 + size :]


def read_pack(path: Path) -> SteeringPack:
    """Read and verify a pack: PackError if missing, truncated, altered, of another format or unusable."""
    if not path.is_file():
        raise PackError(f"no steering pack at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            # copies: tensors of the open file change when it is overwritten
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        raise PackError(f"{path} is truncated or not a safetensors file; make it again") from None
    if header.get("format") not in ("1", "2"):
        raise PackError(f"{path} is not a steering pack of format 1 or 2")
    if _digest(tensors, header.get("metadata", "")) != header.get("sha256"):
        raise PackError(f"{path} was altered since it was written (hash differs); make it again")
    return _unpacked(header, tensors, path)


def _unpacked(header: Mapping[str, str], tensors: Mapping[str, Tensor], path: Path) -> SteeringPack:
    """The pack that a file holds, or is to hold; PackError unless it is one that can be steered by."""
    try:
        metadata = read_metadata(header)
        if (keys := tensors.get("pooled.key")) is not None and keys.shape == (metadata.d_in,):  # one head
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooled.")}
        check_tensors(tensors, metadata.d_in, metadata.alpha_unit, metadata.strategy == "suppress")
    except PackError as error:
        raise PackError(f"{path} is no usable pack: {error}; make it again") from None

    def group(name: str, kind: type[T]) -> T:
        return kind(*(tensors[f"{name}.{part}"] for part in kind._fields))

    return SteeringPack(
        metadata, group("gate", Features), tensors["gate_weight"], tensors["gate_bias"],
        group("steer", Features), tensors["directions"], tensors["coefficients"], tensors.get("probe"),
        group("pooled", ExportGate) if "pooled.key" in tensors else None, path,
    )  # fmt: skip


def find_pack(source: str | Path) -> SteeringPack:
    """The pack in a file, or on the hub by ``hub:owner/name`` or ``hub:owner/name@revision``.

    PackError as :func:`read_pack`; from the hub HubError, which is one too, see
    :func:`whisper_sae_steer.models.repository.fetch`.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        return fetch(Repository.named(source), PACK_FILE, read_pack)
    return read_pack(Path(source))


def load_pack(source: str | Path, weights: Weights) -> SteeringPack:
    """The pack for these weights: ``auto`` is one installed or shipped, else as `find_pack`. PackError."""
    path = _nearest(weights) if source == "auto" else source
    if path is None:
        known = [entry for entry in entries_for(weights.name, weights.fingerprint) if entry.kind == "pack"]
        packs = ", ".join(f"{PREFIX}{entry.repo}" for entry in known)
        raise PackError(
            f"no pack for {weights.name} is shipped or installed; "
            + (f"packs on the hub for these weights: {packs}; or " if known else "")
            + f"run `{_make_pack(weights)}`, which installs one, or pass pack=None to run unsteered"
        )
    pack = find_pack(path)
    if problem := misfit(pack.metadata, weights):
        raise PackError(f"{path} {problem}")
    return pack


def misfit(metadata: PackMetadata, weights: Weights) -> str | None:
    """Why a pack can't be used with these weights and what to do; None if it can, as far as is known."""
    name, command = weights.name, f"run `{_make_pack(weights)}`"
    if metadata.fingerprint != weights.fingerprint:
        return (
            f"was calibrated for other weights ({metadata.model}, fingerprint {metadata.fingerprint[:8]})"
            f" than {name} ({weights.fingerprint[:8]}); {command}"
        )
    if differ(metadata.encoder_mark, weights.encoder_mark):
        return (
            f"was calibrated for {metadata.model}, but {name} has other matrices in its encoder (a fine-tune"
            f" or merge), so gate, direction and SAE have to be made again; {command}"
        )
    if differ(metadata.decoder_mark, weights.decoder_mark) or differ(
        metadata.decoder_fingerprint, weights.decoder_fingerprint
    ):
        return (
            f"was calibrated for {metadata.model}, but {name} has another decoder; the encoder is the same,"
            " so SAE and gate can be reused, and only direction, stock texts and doubt have to be made again;"
            f" {command}"
        )
    return None


def _make_pack(weights: Weights) -> str:
    return f"whisper-sae-steer make-pack --model {shlex.quote(weights.given or weights.name)}"


def shipped_packs() -> dict[str, Path]:
    """Packs inside the installed package, by model name."""
    folder = Path(str(resources.files("whisper_sae_steer"))) / "packs"
    return {path.name.removesuffix(".safetensors"): path for path in folder.glob("*.safetensors")}


def installed_packs_folder() -> Path:
    """Where ``make-pack`` puts packs."""
    return cache_dir() / "packs"


def installed_packs() -> list[Path]:
    """Packs that ``make-pack`` installed on this machine, the newest first."""
    paths = installed_packs_folder().glob("[!.]*.safetensors")  # no leftovers of a process that was killed
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def known_packs() -> list[Path]:
    """Packs that ``auto`` chooses from: one made on this machine comes before a shipped one."""
    return [*installed_packs(), *shipped_packs().values()]


def fitting_pack(weights: Weights) -> Path | None:
    """By marks rather than name, so that a local copy of the same weights finds its pack."""
    path = _nearest(weights)
    return None if path is None or misfit(_header(path), weights) else path


def _nearest(weights: Weights) -> Path | None:
    """A pack that fits, for every back end if there is one; else one that only marks keep from fitting."""
    near = [
        (path, metadata)
        for path in known_packs()
        if (metadata := _header(path)).fingerprint == weights.fingerprint
    ]
    near.sort(key=lambda pair: (misfit(pair[1], weights) is not None, pair[1].tap != "encoder_output"))
    return near[0][0] if near else None


def _header(path: Path) -> PackMetadata:
    try:
        with safe_open(str(path), framework="pt") as file:
            return read_metadata(file.metadata() or {})
    except PackError as error:
        raise PackError(f"{path} is no usable pack: {error}; delete it, or make it again") from None
    except (SafetensorError, OSError, ValueError):
        raise PackError(f"{path} is damaged; delete it, or make it again") from None


def stored_digest(path: Path) -> str:
    """SHA-256 in a pack's header, over its tensors and metadata as its format has them."""
    with safe_open(str(path), framework="pt") as file:
        return (file.metadata() or {})["sha256"]


def pack_digest(pack: SteeringPack) -> str:
    """SHA-256 over a pack's tensors and metadata, wherever they come from."""
    return _digest(_flatten(pack), json.dumps(asdict(pack.metadata), sort_keys=True))


def _flatten(pack: SteeringPack) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in pack._asdict().items():
        if isinstance(value, Features | ExportGate):
            tensors |= {f"{name}.{part}": t for part, t in value._asdict().items()}
        elif isinstance(value, Tensor):
            tensors[name] = value
    # safetensors takes neither strides nor memory that two tensors share
    return {name: t.clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


def _digest(tensors: Mapping[str, Tensor], metadata: str) -> str:
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy lacks bfloat16
    return digest.hexdigest()
