"""Attach: a live Whisper model of any library steers, its users' code unchanged, until it is detached.

    handle = attach(model)          # whisper, faster-whisper, whisperX, transformers, stable-ts, …
    model.transcribe("call.wav")    # steered
    handle.alpha = 0.5
    handle.detach()

A model that is exactly of openai's or faster-whisper's class becomes this package's, so that gaps are cut out
and segments labelled. Any other keeps its class and is steered where it encodes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import faster_whisper
import numpy as np
import whisper
from ctranslate2 import DataType, StorageView
from torch.utils.hooks import RemovableHandle

from .errors import AttachError, PackError
from .faster import BatchedInferencePipeline, WhisperModel
from .models.marks import fingerprint
from .models.taps import block_index, empty_mel
from .models.transformers_names import encoder_state, is_transformers
from .openai import SteeredWhisper
from .steering.attached import AttachedSteerer, Stats
from .steering.ctranslate import SteeredEncoder, require_encoder_output
from .steering.operator import check_alpha
from .steering.pack import SteeringPack, find_pack, known_packs, read_pack
from .steering.transformers import BlankWhereSilent

HANDLE = "_steering_handle"
"""the attribute under which a model keeps its handle"""
SAME_WEIGHTS = 0.1
"""relative distance of two probes: int8 makes 0.03 of it, other weights about 1"""


class Handle:
    """Controls an attached model: change α, read statistics, detach. As a context manager it detaches."""

    def __init__(self, model: Any, steerer: AttachedSteerer):
        self._model = model
        self.steerer = steerer
        # data rather than functions, so that a copied model's handle holds the copy
        self.hooks: list[RemovableHandle] = []
        self.inner: Handle | None = None
        """of the model inside a pipeline"""
        self.outer: Handle | None = None
        """of the pipeline around a model; neither steers without the other"""
        self._class: type | None = None
        self._attributes: list[tuple[Any, str, Any]] = []
        setattr(model, HANDLE, self)

    def __repr__(self) -> str:
        kind, pack = self._class or type(self._model), self.steerer.pack
        state = f"alpha={self.alpha:g}" if self._model.__dict__.get(HANDLE) is self else "detached"
        name = pack.path or pack.metadata.model
        return f"<Handle of {kind.__module__}.{kind.__qualname__}, pack {name}, {state}>"

    @property
    def alpha(self) -> float:
        """Strength of whatever is encoded from now on, 0 to 100; 0 is the plain model. AlphaError."""
        return self.steerer.options.alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self.steerer.options = replace(self.steerer.options, alpha=check_alpha(value))

    def stats(self) -> Stats:
        """Windows encoded and steered since the model was attached or copied."""
        return self.steerer.stats()

    def detach(self) -> None:
        """Leave the model as it was found; once more does nothing."""
        if self._model.__dict__.get(HANDLE) is not self:
            return
        delattr(self._model, HANDLE)
        for hook in self.hooks:
            hook.remove()
        if self._class is not None:
            self._model.__class__ = self._class
            self._model.__dict__.pop("steerer", None)
        for owner, name, value in self._attributes:
            setattr(owner, name, value)
        for handle in (self.inner, self.outer):
            if handle is not None:
                handle.detach()

    def __enter__(self) -> "Handle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def become(self, cls: type) -> None:
        """Let the model be of another class until it is detached."""
        self._class, self._model.__class__ = type(self._model), cls
        self._model.steerer = self.steerer

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Let an attribute have another value until the model is detached."""
        self._attributes.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)


class AttachedWhisper(SteeredWhisper):
    """An attached ``whisper.Whisper``: steers at its handle's α unless a call says otherwise."""

    def transcribe(self, audio: Any, **options: Any) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See :meth:`SteeredWhisper.transcribe`."""
        assert isinstance(self.steerer, AttachedSteerer)
        options = {"steer_alpha": self.steerer.options.alpha, **options}
        return super().transcribe(audio, **options)

    def decode(self, mel: Any, *args: Any, **options: Any) -> Any:
        """See :meth:`SteeredWhisper.decode`."""
        assert isinstance(self.steerer, AttachedSteerer)
        if "steer_alpha" in options:  # counts for more than the handle's
            with self.steering(options.pop("steer_alpha")):
                return super().decode(mel, *args, **options)
        return super().decode(mel, *args, steer_alpha=self.steerer.options.alpha, **options)


class AttachedModel(WhisperModel):
    """An attached ``faster_whisper.WhisperModel``."""

    def transcribe(self, audio: Any, *args: Any, **options: Any) -> Any:
        """See :meth:`WhisperModel.transcribe`."""
        assert isinstance(self.steerer, AttachedSteerer)
        options = {"steer_alpha": self.steerer.options.alpha, **options}
        return super().transcribe(audio, *args, **options)


class AttachedPipeline(BatchedInferencePipeline):
    """An attached ``faster_whisper.BatchedInferencePipeline``."""

    def transcribe(self, audio: Any, *args: Any, **options: Any) -> Any:
        """See :meth:`BatchedInferencePipeline.transcribe`."""
        assert isinstance(self.model.steerer, AttachedSteerer)
        options = {"steer_alpha": self.model.steerer.options.alpha, **options}
        return super().transcribe(audio, *args, **options)


def attach(model: Any, pack: str | Path = "auto", alpha: float = 1.0) -> Handle:
    """Steer a live model until ``detach()``, whatever code drives it.

    ``model`` is a ``whisper.Whisper`` (stable-ts's and whisper-timestamped's are such), a
    ``faster_whisper.WhisperModel`` or ``BatchedInferencePipeline``, a whisperX pipeline, or a transformers
    ``WhisperForConditionalGeneration`` or speech recognition pipeline. ``pack`` is "auto" for the installed
    or shipped pack of its weights, the path of one, or "hub:owner/name" for one on the Hugging Face hub.
    ``alpha`` is the strength, as ``steer_alpha`` of ``transcribe``.
    Attached again, a model gets the new pack and α. Threads may share it; copies and pickles stay attached.
    Raises AttachError for any other model, PackError where no pack fits its weights, AlphaError.
    """
    alpha = check_alpha(alpha)
    held = getattr(model, "__dict__", {}).get(HANDLE)
    if isinstance(held, Handle):
        held.detach()
    if isinstance(model, SteeredWhisper | WhisperModel):
        raise AttachError("this model steers already: give its transcribe() steer_alpha")
    if isinstance(model, faster_whisper.BatchedInferencePipeline):
        return _attach_pipeline(model, pack, alpha)
    if isinstance(model, faster_whisper.WhisperModel):
        return _attach_faster(model, pack, alpha)
    if isinstance(model, whisper.Whisper):
        return _attach_openai(model, pack, alpha)
    if is_transformers(model):
        return _attach_transformers(model, pack, alpha)
    inner = getattr(model, "model", None)
    if isinstance(inner, faster_whisper.WhisperModel) or is_transformers(inner):
        return attach(inner, pack, alpha)
    raise AttachError(
        f"{type(model).__module__}.{type(model).__name__} is no Whisper model that can be attached"
    )


def _attach_openai(model: whisper.Whisper, pack: str | Path, alpha: float) -> Handle:
    mark = fingerprint(model.state_dict())
    found = _find(pack, lambda candidate: candidate.metadata.fingerprint == mark)
    handle = Handle(model, AttachedSteerer(found, alpha, in_doubt="ramp"))
    block = block_index(found.metadata.tap)
    tapped = model.encoder if block is None else model.encoder.get_submodule(f"blocks.{block}")
    handle.hooks.append(tapped.register_forward_hook(handle.steerer.hook))
    if type(model) is whisper.Whisper:
        handle.become(AttachedWhisper)
    return handle


def _attach_faster(model: faster_whisper.WhisperModel, pack: str | Path, alpha: float) -> Handle:
    mel = StorageView.from_array(empty_mel(model.model.n_mels))
    frames = np.asarray(model.model.encode(mel, to_cpu=True).to(DataType.float32))[0]
    probe = frames.mean(axis=0)

    def fits(candidate: SteeringPack) -> bool:
        if pack != "auto":  # others are passed over
            require_encoder_output(candidate)
        theirs = candidate.probe
        if candidate.metadata.tap != "encoder_output" or theirs is None or len(theirs) != len(probe):
            return False
        distance = float(np.linalg.norm(theirs.numpy() - probe) / np.linalg.norm(probe))
        return distance < SAME_WEIGHTS

    handle = Handle(model, AttachedSteerer(_find(pack, fits), alpha, in_doubt="ask"))
    handle.replace(model, "model", SteeredEncoder(model.model, handle.steerer, model.hf_tokenizer))
    if type(model) is faster_whisper.WhisperModel:
        handle.become(AttachedModel)
    return handle


def _attach_pipeline(
    pipeline: faster_whisper.BatchedInferencePipeline, pack: str | Path, alpha: float
) -> Handle:
    inner = attach(pipeline.model, pack, alpha)
    handle = Handle(pipeline, inner.steerer)
    handle.inner, inner.outer = inner, handle
    if type(pipeline) is faster_whisper.BatchedInferencePipeline and isinstance(
        pipeline.model, AttachedModel
    ):
        handle.become(AttachedPipeline)
    return handle


def _attach_transformers(model: Any, pack: str | Path, alpha: float) -> Handle:
    mark = fingerprint(encoder_state(model))
    found = _find(pack, lambda candidate: candidate.metadata.fingerprint == mark)
    handle = Handle(model, AttachedSteerer(found, alpha, in_doubt="ramp"))
    encoder, block = model.get_encoder(), block_index(found.metadata.tap)
    tapped = encoder if block is None else encoder.get_submodule(f"layers.{block}")
    blank = BlankWhereSilent(handle.steerer, model.generation_config.begin_suppress_tokens)
    handle.replace(model.generation_config, "begin_suppress_tokens", None)
    handle.hooks += [
        tapped.register_forward_hook(handle.steerer.hook),
        model.register_forward_pre_hook(blank.before, with_kwargs=True),
        model.register_forward_hook(blank.after),
    ]
    return handle


def _find(source: str | Path, fits: Callable[[SteeringPack], bool]) -> SteeringPack:
    """The pack of a live model: one installed or shipped that fits it, or one that is named and must."""
    if source != "auto":
        pack = find_pack(source)
        if fits(pack):
            return pack
        raise PackError(
            f"{source} was calibrated for other weights ({pack.metadata.model}) than this model's"
        )
    for path in known_packs():
        if fits(pack := read_pack(path)):
            return pack
    raise PackError(
        "no pack for this model's weights is shipped or installed; run `whisper-sae-steer make-pack --model"
        " NAME`, which installs one"
    )
