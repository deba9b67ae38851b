"""openai-whisper with steering: ``load_model(name).transcribe(audio, steer_alpha=1.0)``."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
import whisper
from torch import Tensor, nn
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.model import ModelDimensions, Whisper

from .audio import load_audio
from .calls import Call, Steerer, active, current, shows_options_of
from .convert import load_torch
from .pack import SteeringPack, load_pack
from .steering import Labels, check_alpha
from .taps import block_index
from .weights import resolve

AudioSource = str | Path | BinaryIO | np.ndarray | Tensor
FRAME_SECONDS = 0.01
"""one mel frame, the unit of a segment's ``seek``"""


def load_model(
    name: str,
    device: str | torch.device | None = None,
    download_root: str | None = None,
    in_memory: bool = False,
    pack: str | Path | None = "auto",
) -> "SteeredWhisper":
    """Load a Whisper model for the torch back end, with its steering pack.

    ``name`` is one of ``whisper.available_models()``, an openai checkpoint or a CTranslate2 directory;
    weights from an installed package are found without a network. ``pack`` is "auto" for the shipped
    pack of these weights, the path of one, or None for the plain model. ``in_memory`` is accepted for
    openai-whisper's sake. Raises WeightsError or PackError before anything is computed.
    """
    del in_memory
    weights = resolve(name, download_root)
    steering_pack = load_pack(pack, weights) if pack is not None else None
    plain = load_torch(weights)
    model = SteeredWhisper.wrap(plain, steering_pack)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


class SteeredWhisper(Whisper):
    """``whisper.Whisper`` whose encoder output is steered inside its own calls.

    A forward hook fires once per encode, so ``transcribe``, temperature fallback, word timestamps and
    language detection are each steered exactly once, and features handed back in are not steered again.
    """

    steerer: Steerer | None

    def __init__(self, dims: ModelDimensions):
        super().__init__(dims)
        self.steerer = None

    @classmethod
    def wrap(cls, model: Whisper, pack: SteeringPack | None) -> "SteeredWhisper":
        """Take over a plain model's modules (shared, not copied) and hook the pack's tap."""
        steered = cls.__new__(cls)
        nn.Module.__init__(steered)  # Whisper's own would allocate a second set of weights
        steered.dims, steered.steerer = model.dims, None
        steered.encoder, steered.decoder = model.encoder, model.decoder
        steered.register_buffer("alignment_heads", model.get_buffer("alignment_heads"), persistent=False)
        if pack is not None:
            steered.steerer = Steerer(pack)
            block = block_index(pack.metadata.tap)
            tapped = model.encoder if block is None else model.encoder.get_submodule(f"blocks.{block}")
            tapped.register_forward_hook(steered.steerer.hook)
        return steered.train(model.training)

    @shows_options_of(whisper.transcribe)
    def transcribe(
        self,
        audio: AudioSource,
        *,
        steer_alpha: float = 1.0,
        steer_language_detection: bool = True,
        **options: Any,
    ) -> dict[str, Any]:
        """``whisper.transcribe`` with steering; all its options and its result.

        ``audio`` is a path or float32 samples [n] at 16 kHz. ``steer_alpha`` 1.0 is the calibrated
        strength, 0 exactly the plain library. Segments gain ``speech_prob`` and ``hallucination_risk``
        (0…1) when steered. Raises AudioError and AlphaError before decoding.
        """
        call = _TorchCall(check_alpha(steer_alpha), steer_language_detection)
        samples = load_audio(audio)
        with active(self.steerer, call):
            result: dict[str, Any] = whisper.transcribe(cast(Whisper, self), samples, **options)
        if call.alpha and self.steerer is not None:
            for segment in result["segments"]:
                segment.update(self._labels(segment, call)._asdict())
        return result

    def decode(
        self,
        mel: Tensor,
        options: DecodingOptions = DecodingOptions(),  # noqa: B008 (frozen; whisper's own default)
        *,
        steer_alpha: float = 1.0,
        **kwargs: Any,
    ) -> DecodingResult | list[DecodingResult]:
        """``whisper.decode`` with steering; inside ``transcribe`` the α of that call counts."""
        call = current(self.steerer)
        if call is None:
            with self.steering(steer_alpha):
                return whisper.decode(self, mel, options, **kwargs)
        result = whisper.decode(self, mel, options, **kwargs)
        if isinstance(call, _TorchCall) and call.scores is not None:
            assert isinstance(result, DecodingResult)  # transcribe decodes one window at a time
            call.windows[_key(vars(result))] = call.scores[0]
        return result

    def detect_language(self, mel: Tensor, tokenizer: Any = None) -> Any:
        """``whisper.detect_language``; steered inside a call unless it switched that off."""
        call = current(self.steerer)
        if call is not None and not call.steer_language_detection:
            call = None
        with active(self.steerer, call):
            return whisper.detect_language(self, mel, tokenizer)

    @contextmanager
    def steering(self, alpha: float = 1.0) -> Generator[Call | None]:
        """Steer every encode of this thread inside the block; for code that drives the model itself."""
        with active(self.steerer, Call(check_alpha(alpha))) as call:
            yield call

    def _labels(self, segment: dict[str, Any], call: "_TorchCall") -> Labels:
        assert self.steerer is not None
        offset = segment["seek"] * FRAME_SECONDS
        scores = call.windows[_key(segment)]
        return self.steerer.labels(scores, segment["start"] - offset, segment["end"] - offset)


class _TorchCall(Call):
    """Also remembers each decoded window's scores, by the figures its segments will carry."""

    def __init__(self, alpha: float, steer_language_detection: bool):
        super().__init__(alpha, steer_language_detection)
        self.windows: dict[tuple[float, ...], Tensor] = {}


def _key(figures: dict[str, Any]) -> tuple[float, ...]:
    names = ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature")
    return tuple(float(figures[name]) for name in names)
