"""openai-whisper with steering: ``load_model(name).transcribe(audio, steer_alpha=1.0)``."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
import whisper
from torch import Tensor, nn
from whisper import timing
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

from .audio.reading import load_audio
from .audio.units import (
    MEL_FRAME_SECONDS,
    MEL_FRAMES_PER_ENCODER_FRAME,
    SAMPLES_PER_ENCODER_FRAME,
    WINDOW_FRAMES,
    WINDOW_SAMPLES,
)
from .models.convert import load_torch
from .models.taps import block_index
from .models.weights import resolve
from .steering.calls import Call, Steerer, active, current, shows_options_of
from .steering.doubt import Answer
from .steering.language import detect_at_speech
from .steering.operator import Labels, check_alpha
from .steering.pack import SteeringPack, load_pack
from .steering.seek import Plan, SilenceRule, content_of, hold_seek, plan_window, seek_to

AudioSource = str | Path | BinaryIO | np.ndarray | Tensor


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
        steer_language_detection: bool = False,
        skip_gaps: bool = True,
        **options: Any,
    ) -> dict[str, Any]:
        """``whisper.transcribe`` with steering; all its options and its result.

        ``audio`` is a path or float32 samples [n] at 16 kHz. ``steer_alpha`` 1.0 is the calibrated
        strength, 0 exactly the plain library. ``skip_gaps`` starts windows at speech and ends them before
        a long gap, as the gate hears it. The language is detected from the window as it is unless
        ``steer_language_detection``. Segments gain ``speech_prob`` and ``hallucination_risk``
        (0…1) when steered. Raises AudioError and AlphaError before decoding.
        """
        call = _TorchCall(check_alpha(steer_alpha), steer_language_detection, skip_gaps, asks_decoder=True)
        thresholds = {name: options[name] for name in SilenceRule._fields if name in options}
        call.is_silence = SilenceRule(**thresholds)
        call.skips_silence_of = options.get("hallucination_silence_threshold")
        samples = call.samples = load_audio(audio)
        with active(self.steerer, call):
            result: dict[str, Any] = _transcribe(cast(Whisper, self), samples, **options)
        if call.alpha and self.steerer is not None:
            result["segments"] = _without_empty(result["segments"], call)
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
        if not isinstance(call, _TorchCall) or not call.alpha or self.steerer is None:
            return whisper.decode(self, mel, options, **kwargs)
        window = self._window(call, mel.half() if options.fp16 else mel)
        result = self._decode_window(call, window, options, **kwargs)
        if window.in_doubt:
            call.window = window = window._replace(in_doubt=False)
            answer = Answer(result.text, result.avg_logprob, result.no_speech_prob)
            if not self.steerer.believes(call, 0, answer):
                with call.steers_in_full():
                    call.window = window = self._encode(call, window)
                result = self._decode_window(call, window, options, **kwargs)
        call.windows[_key(vars(result))] = window
        return result

    def _window(self, call: "_TorchCall", mel: Tensor) -> "_Window":
        """Encode a window [n_mels, 3000] of transcribe, once for all temperatures, without its gap."""
        if call.window is not None and torch.equal(call.window.mel, mel):
            return call.window
        assert self.steerer is not None
        window = self._encode(call, _Window(mel, mel))
        if call.skip_gaps:
            content = content_of(mel.float().cpu().numpy())
            plan = plan_window(window.scores.cpu().numpy(), content, self.steerer.pack.metadata)
            window = window._replace(plan=plan)
            if plan is not None and not plan.start:
                cut = mel.clone()
                cut[:, MEL_FRAMES_PER_ENCODER_FRAME * plan.end :] = 0  # as the library pads what ends here
                window = self._encode(call, window._replace(heard=cut))
        call.window = window
        return window

    def _encode(self, call: "_TorchCall", window: "_Window") -> "_Window":
        """The window with what the encoder and the gate make of it."""
        assert self.steerer is not None
        frames = self.embed_audio(window.heard[None])[0]
        assert call.scores is not None
        (silent,), (in_doubt,) = self.steerer.nobody_speaks(call), self.steerer.in_doubt(call)
        return window._replace(frames=frames, scores=call.scores[0], silent=silent, in_doubt=in_doubt)

    def _decode_window(
        self, call: "_TorchCall", window: "_Window", options: DecodingOptions, **kwargs: Any
    ) -> DecodingResult:
        """``whisper.decode``; where the window has a gap, its tokens then lead to the end of that."""
        begin = get_tokenizer(self.is_multilingual, num_languages=self.num_languages).timestamp_begin
        plan = window.plan
        if plan is not None and plan.start:
            return DecodingResult(
                window.frames, options.language or "en", tokens=[begin + plan.start] * 2,
                avg_logprob=0.0, no_speech_prob=0.0, temperature=0.0, compression_ratio=0.0,
            )  # fmt: skip
        if window.silent:  # an empty transcript is right
            # without a length penalty whisper divides by the length
            penalty = 1.0 if options.length_penalty is None else options.length_penalty
            options = replace(options, suppress_blank=False, length_penalty=penalty)
        result = whisper.decode(self, window.frames, options, **kwargs)
        assert isinstance(result, DecodingResult)  # transcribe decodes one window at a time
        if plan is None:
            return result
        if call.is_silence(result.no_speech_prob, result.avg_logprob):  # the whole window would be skipped
            result = replace(result, tokens=[], no_speech_prob=0.0)
        return replace(result, tokens=seek_to(result.tokens, plan, begin))

    def detect_language(self, mel: Tensor, tokenizer: Any = None) -> Any:
        """``whisper.detect_language``; inside ``transcribe`` of the first speech, steered if asked to."""
        call = current(self.steerer)
        if not isinstance(call, _TorchCall) or self.steerer is None:
            with active(self.steerer, call.for_language() if call else None):
                return whisper.detect_language(self, mel, tokenizer)

        def detect(frame: int) -> Any:
            if not frame:
                return whisper.detect_language(self, mel, tokenizer)
            rest = torch.from_numpy(call.samples[SAMPLES_PER_ENCODER_FRAME * frame :][:WINDOW_SAMPLES])
            window: Any = whisper.pad_or_trim(whisper.log_mel_spectrogram(rest, len(mel)), mel.shape[-1])
            return whisper.detect_language(self, window.to(mel), tokenizer)

        return detect_at_speech(self.steerer, call, detect, len(call.samples) // SAMPLES_PER_ENCODER_FRAME)

    @contextmanager
    def steering(self, alpha: float = 1.0) -> Generator[Call | None]:
        """Steer every encode of this thread inside the block; for code that drives the model itself."""
        with active(self.steerer, Call(check_alpha(alpha), steer_language_detection=True)) as call:
            yield call

    def _labels(self, segment: dict[str, Any], call: "_TorchCall") -> Labels:
        assert self.steerer is not None
        offset = segment["seek"] * MEL_FRAME_SECONDS
        scores = call.windows[_key(segment)].scores
        return self.steerer.labels(scores, segment["start"] - offset, segment["end"] - offset)


class _Window(NamedTuple):
    """A window of transcribe, encoded."""

    mel: Tensor
    """[n_mels, 3000]"""
    heard: Tensor
    """what is encoded of it: the same, without its gap"""
    frames: Tensor = torch.empty(0)
    """[1500, d] steered"""
    scores: Tensor = torch.empty(0)
    """[1500]"""
    silent: bool = False
    """the gate is fully open"""
    in_doubt: bool = False
    """the decoder is to be asked"""
    plan: Plan | None = None


class _TorchCall(Call):
    """Also remembers the window at hand, and each decoded one by the figures its segments will carry."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.samples = np.empty(0, np.float32)
        """[n] of the recording, at 16 kHz"""
        self.is_silence = SilenceRule()
        self.skips_silence_of: float | None = None
        """seconds: a rest of a window as short as this is skipped after its last word"""
        self.window: _Window | None = None
        self.windows: dict[tuple[float, ...], _Window] = {}


def _add_word_timestamps(*, segments: list[dict[str, Any]], model: SteeredWhisper, **options: Any) -> None:
    """whisper's; a seek to the end of a gap stays."""
    timing.add_word_timestamps(segments=segments, model=model, **options)
    call = current(model.steerer)
    if not isinstance(call, _TorchCall) or call.window is None or call.window.plan is None:
        return
    plan = call.window.plan
    rest = MEL_FRAME_SECONDS * MEL_FRAMES_PER_ENCODER_FRAME * (WINDOW_FRAMES - plan.next)
    if call.skips_silence_of is None or rest > call.skips_silence_of:
        hold_seek(segments, plan, options["tokenizer"].timestamp_begin)


def _print(line: str) -> None:
    """Leave out the lines of segments that only move on."""
    if line.split("] ", 1)[-1].strip():
        print(line)


# the library's own code, with two names changed for it alone
_transcribe = FunctionType(
    whisper.transcribe.__code__,
    {**whisper.transcribe.__globals__, "add_word_timestamps": _add_word_timestamps, "print": _print},
    argdefs=whisper.transcribe.__defaults__,
)
_transcribe.__kwdefaults__ = whisper.transcribe.__kwdefaults__


def _without_empty(segments: list[dict[str, Any]], call: _TorchCall) -> list[dict[str, Any]]:
    """Leave out the empty segments of silent windows, and those that only moved on to the end of a gap."""

    def is_ours(window: _Window) -> bool:
        return window.silent or window.plan is not None

    kept = [s for s in segments if s["tokens"] or not is_ours(call.windows[_key(s)])]
    return [{**segment, "id": number} for number, segment in enumerate(kept)]


def _key(figures: dict[str, Any]) -> tuple[float, ...]:
    names = ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature")
    return tuple(float(figures[name]) for name in names)
