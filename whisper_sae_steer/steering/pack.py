"""Steering packs: all the operator needs, in one safetensors file that can't be misapplied."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import PackError
from ..files import write_atomically
from ..kernels import GateKind
from ..models.cache import cache_dir
from ..models.marks import differ
from ..models.registry import entries_for
from ..models.repository import PREFIX, Repository, fetch
from ..models.weights import Weights

Strategy = Literal["suppress", "additive", "direction"]
T = TypeVar("T", "Features", "ExportGate")
FORMAT = 2
"""what is written; format 1 is read too, see :func:`_metadata`"""
PACK_FILE = "pack.safetensors"
"""what a pack is called in a repository on the hub"""


@dataclass(frozen=True)
class GateLevels:
    """Where smoothed speech scores (logits) part noise from speech, and the gate between them."""

    noise_ceiling: float = -2.0
    """sound without speech hardly exceeds this"""
    full_edit_below: float = -1.0
    """from here down the edit is whole"""
    threshold: float = 0.0
    """from here up nothing is edited"""
    speech_floor: float = 2.0
    """hardly any speech stays below this"""
    gap_below: float | None = None
    """a long stretch below is a gap (see ``cuts.py``); None to look for none"""

    @property
    def ramp(self) -> float:
        """Logits below the threshold over which the edit grows to full strength."""
        return self.threshold - self.full_edit_below

    @property
    def nobody_below(self) -> float | None:
        """A moment all of which stays below holds no speech, whatever is around it.

        It is as far below a gap as noise is below the threshold.
        """
        return None if self.gap_below is None else self.gap_below - (self.threshold - self.noise_ceiling)

    @classmethod
    def spaced(cls, threshold: float, ramp: float, gap_below: float | None = None) -> "GateLevels":
        """Levels as calibration places them: noise and speech two ramps to either side of the threshold."""
        return cls(threshold - 2 * ramp, threshold - ramp, threshold, threshold + 2 * ramp, gap_below)

    def lowered_to(self, threshold: float) -> "GateLevels":
        """The gate moved to another threshold, its ramp with it; noise and speech are where they were."""
        return replace(self, threshold=threshold, full_edit_below=threshold - self.ramp)


@dataclass(frozen=True)
class PackMetadata:
    """Where a pack comes from and what it may be applied to."""

    model: str
    """name of the Whisper model"""
    fingerprint: str
    """of the Whisper weights, see :func:`whisper_sae_steer.models.marks.fingerprint`"""
    d_in: int
    """width of the tapped activation"""
    strategy: Strategy
    selection: str
    """what chose features or direction: attribution, logistic, fisher, gradient or contrast"""
    gate: GateKind
    alpha_unit: float
    """length of the edit at α = 1, in the units of the strategy"""
    gate_smoothing: int = 1
    """frames of the moving average over speech scores"""
    levels: GateLevels = GateLevels()
    speech_calibration: tuple[float, float] = (1.0, 0.0)
    """slope and offset that turn a segment's highest score into the logit of speech_prob"""
    risk_calibration: tuple[float, float, float] = (-1.0, 0.0, 0.0)
    """weights of a stretch's highest and mean score, and offset: logit of the gate's own risk of text"""
    stock_texts: tuple[str, ...] = ()
    """what the unsteered model often writes for noise; not believed where the gate is in doubt"""
    no_speech_works: bool = True
    """whether the model's no-speech token tells noise from speech; large-v3-turbo's is about 1e-10 always"""
    tap: str = "encoder_output"
    encoder_mark: str | None = None
    decoder_mark: str | None = None
    """of all of each half, see :func:`whisper_sae_steer.models.marks.marks`; older packs have none"""
    decoder_fingerprint: str | None = None
    """of the decoder's vectors, which quantised files have too; older packs have none"""
    compute_types: tuple[str, ...] = ()
    """compute types it was checked with"""
    sae: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    """sources, licences, counts and the hash of the list of calibration clips"""
    guarantee: Mapping[str, Any] = field(default_factory=dict)
    """bound on the share of speech that is touched, see ``calibrate/guarantee.py``"""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """held-back figures at α = 1 with their definitions"""
    created_with: str = ""


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
    """Write a pack atomically, with a hash over its tensors and metadata."""
    tensors = _flatten(pack)
    metadata = json.dumps(asdict(pack.metadata), sort_keys=True)
    header = {
        "format": str(FORMAT),
        "metadata": metadata,
        "sha256": _digest(tensors, metadata),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def read_pack(path: Path) -> SteeringPack:
    """Read and verify a pack: PackError if missing, truncated, altered or of another format."""
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

    def group(name: str, kind: type[T]) -> T:
        return kind(*(tensors[f"{name}.{part}"] for part in kind._fields))

    keys = tensors.get("pooled.key")
    metadata = _metadata(json.loads(header["metadata"]))
    return SteeringPack(
        metadata, group("gate", Features), tensors["gate_weight"], tensors["gate_bias"],
        group("steer", Features), tensors["directions"], tensors["coefficients"], tensors.get("probe"),
        group("pooled", ExportGate) if keys is not None and keys.ndim == 2 else None, path,
    )  # fmt: skip


def _metadata(saved: Mapping[str, Any]) -> PackMetadata:
    """Metadata as a pack holds it. Format 1 had no levels, only the gate's threshold and ramp."""
    known = {f.name: saved[f.name] for f in fields(PackMetadata) if f.name in saved}
    if "levels" in saved:
        known["levels"] = GateLevels(**saved["levels"])
    else:
        known["levels"] = GateLevels.spaced(
            saved.get("gate_threshold", 0.0), saved.get("gate_ramp", 1.0), saved.get("gap_threshold")
        )
    for name in ("speech_calibration", "risk_calibration", "stock_texts", "compute_types"):
        if name in known:
            known[name] = tuple(known[name])
    return PackMetadata(**known)


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
            return _metadata(json.loads((file.metadata() or {})["metadata"]))
    except (SafetensorError, OSError, ValueError, LookupError, TypeError):
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
