"""openai-whisper with steering: ``load_model(name).transcribe(audio, steer_alpha=1.0)``."""

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import whisper
from torch import Tensor, nn
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.model import ModelDimensions, Whisper
from whisper.timing import find_alignment
from whisper.tokenizer import Tokenizer, get_tokenizer

from .audio.ffmpeg import AudioSource, load_as_whisper
from .audio.units import (
    MEL_FRAME_SECONDS,
    MEL_FRAMES_PER_ENCODER_FRAME,
    SAMPLES_PER_ENCODER_FRAME,
    WINDOW_SAMPLES,
)
from .models.convert import load_torch
from .models.rules import SilenceRule
from .models.taps import block_index
from .models.weights import resolve
from .steering.batch import SteeredBatch, WindowTemperature
from .steering.calls import Call, CallOptions, active, current, shows_options_of
from .steering.cuts import (
    WindowCut,
    WindowPlan,
    content_of,
    plan_window,
)
from .steering.doubt import Answer, resolve_doubt
from .steering.filtering import check_filter_risk, filter_result
from .steering.language import detect_at_speech, language_call
from .steering.left_out import ReadAgain, ends_of_words, read_again
from .steering.openai_library import Transcription, library_transcribe
from .steering.operator import check_alpha
from .steering.pack import SteeringPack, load_pack
from .steering.risk import REMEMBERED_WORDS, written_segment
from .steering.steerer import Steerer
from .steering.unread import read_on


def load_model(
    name: str,
    device: str | torch.device | None = None,
    download_root: str | None = None,
    in_memory: bool = False,
    pack: str | Path | None = "auto",
) -> "SteeredWhisper":
    """Load a Whisper model for the torch back end, with its steering pack.

    ``name`` is one of ``whisper.available_models()``, an openai checkpoint, a folder of CTranslate2 or
    transformers, or the hub's id of one; weights from an installed package are found without a network.
    ``pack`` is "auto" for the installed or shipped pack of these weights, the path of one, "hub:owner/name"
    or "hub:owner/name@revision" for one on the Hugging Face hub, or None for the plain model. ``in_memory``
    is accepted for openai-whisper's sake. Raises WeightsError or PackError before anything is computed.
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
        filter_risk: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """``whisper.transcribe`` with steering; all its options and its result.

        ``audio`` is a path or float32 samples [n] at 16 kHz. Files are read by the ffmpeg program, as whisper
        does, where it is on the PATH; without it too. ``steer_alpha``, from 0 to 100: 1.0 is the calibrated
        strength, 0 exactly the plain library. ``skip_gaps`` starts windows at speech and ends them before
        a long gap, as the gate hears it. The language is detected from the window as it is unless
        ``steer_language_detection``. Segments gain ``speech_prob`` and ``hallucination_risk``
        (0…1) when steered, and words their risk (``docs/risk.md``); from α = 1 on ``no_speech_prob`` is 1
        in windows in which nobody speaks. ``filter_risk`` leaves out words of that risk and more, or segments
        where words have no times; they are in ``result["filtered"]``.
        Raises AudioError, AlphaError and RiskError before decoding.
        """
        steering = CallOptions(check_alpha(steer_alpha), steer_language_detection, skip_gaps, in_doubt="ask")
        steers = bool(steering.alpha) and self.steerer is not None
        check_filter_risk(filter_risk, steers)
        samples = load_as_whisper(audio)
        thresholds = {name: options[name] for name in SilenceRule._fields if name in options}
        call = Transcription(
            steering,
            samples=samples,
            silence_rule=SilenceRule(**thresholds),
            skips_silence_seconds=options.get("hallucination_silence_threshold"),
        )
        options.setdefault("fp16", self.device.type != "cpu")  # as whisper does, which warns of it
        with active(self.steerer, call):
            result: dict[str, Any] = library_transcribe(cast(Whisper, self), samples, **options)
        if steers:
            result["segments"] = list(self._labelled(result["segments"]))
        return result if filter_risk is None else filter_result(result, filter_risk)

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
            call = Call(CallOptions(check_alpha(steer_alpha), steer_language_detection=True))
        if not isinstance(call, Transcription) or not call.options.alpha or self.steerer is None:
            return self._decode_all(call, mel, options, **kwargs)
        batch = _batch_of(mel) or self._encode_window(call, mel.half() if options.fp16 else mel)
        asked: list[_DecodedWindow] = []

        def ask(_rows: Sequence[int]) -> list[Answer]:
            asked.append(self._decode_window(call, batch, options, **kwargs))
            return [self._answer(asked[0].result, options, kwargs)]

        def edit_refused(refused: SteeredBatch, _rows: Sequence[int]) -> SteeredBatch:
            heard = _without_gap(mel.half() if options.fp16 else mel, refused.cut)
            # encoded again: the tap may lie before the encoder's end
            edited = self._encode(Call(replace(call.options, in_doubt="edit")), heard)
            return edited._replace(cut=refused.cut, begins_at=refused.begins_at, content=refused.content)

        resolved = resolve_doubt(batch, self.steerer.pack.metadata, ask, edit_refused)
        _keep_batch(mel, resolved)
        if asked and not resolved.window().is_silence():
            decoded = asked[0]
        else:
            decoded = self._decode_window(call, resolved, options, **kwargs)
        if decoded.again is not None and decoded.again.cut is None:
            return self.decode(mel, replace(options, **{**kwargs, "prompt": None}))
        if decoded.again is not None:
            plan = WindowPlan(decoded.again.cut, resolved.begins_at, resolved.content)
            _keep_batch(mel, self._encode_planned(call, mel.half() if options.fp16 else mel, plan))
            return self.decode(mel, options, **kwargs)
        window, result = resolved.window()._replace(cut=decoded.cut), decoded.result
        return replace(result, temperature=WindowTemperature(result.temperature, window))

    def _answer(self, result: DecodingResult, options: DecodingOptions, kwargs: Mapping[str, Any]) -> Answer:
        """A result with the text before, which may be given as tokens."""
        prompt = kwargs.get("prompt", options.prompt) or ""
        if not isinstance(prompt, str):
            prompt = self._tokenizer().decode(prompt)
        return Answer(result.text, result.avg_logprob, result.no_speech_prob, prompt)

    def _decode_all(
        self, call: Call, mel: Tensor, options: DecodingOptions, **kwargs: Any
    ) -> DecodingResult | list[DecodingResult]:
        """``whisper.decode`` outside of transcribe, of one window or several; features stay as they are."""
        with active(self.steerer, Call(call.options)) as own:
            results = whisper.decode(self, mel, options, **kwargs)
        if own is None or not own.results:
            return results

        def told(result: DecodingResult, row: int = 0) -> DecodingResult:
            return replace(result, no_speech_prob=own.last.no_speech_prob(row, result.no_speech_prob))

        if isinstance(results, DecodingResult):
            return told(results)
        return [told(result, row) for row, result in enumerate(results)]

    def _encode_window(self, call: Transcription, mel: Tensor) -> SteeredBatch:
        """Encode a window [n_mels, 3000] of transcribe without its gap."""
        assert self.steerer is not None
        behind_gap = call.leads_past_gap()
        batch = self._encode(call, mel)
        if not call.options.skip_gaps:
            return batch
        scores, levels = batch.scores[0].cpu().numpy(), self.steerer.pack.metadata.levels
        plan = plan_window(scores, content_of(mel.float().cpu().numpy()), levels, behind_gap)
        if plan.cut is not None and not plan.cut.seeks_only():
            return self._encode_planned(call, mel, plan)
        return _planned(batch, plan, call)

    def _encode_planned(self, call: Transcription, mel: Tensor, plan: WindowPlan) -> SteeredBatch:
        """A window [n_mels, 3000], encoded as if the audio ended where it is cut."""
        return _planned(self._encode(call, _without_gap(mel, plan.cut)), plan, call)

    @torch.no_grad()  # as whisper.decode; a gradient's graph would hold on to mel, which holds the batch
    def _encode(self, call: Call, mel: Tensor) -> SteeredBatch:
        """Encode a window as ``call`` says; its frames are [1, 1500, d]."""
        assert self.steerer is not None
        frames = call.explored.pop(_key(mel), None) if call.explored else None
        with active(self.steerer, call):
            if frames is None:
                frames = self.embed_audio(mel[None])
            else:
                self.steerer(frames)
        return call.last._replace(frames=frames)

    def _decode_window(
        self, call: Transcription, batch: SteeredBatch, options: DecodingOptions, **kwargs: Any
    ) -> "_DecodedWindow":
        """``whisper.decode``; the tokens then lead to speech that they leave out, and past a gap."""
        begin = self._tokenizer().timestamp_begin
        cut, frames = batch.cut, batch.frames[0]
        if cut is not None and cut.seeks_only():
            seeks = DecodingResult(
                frames, options.language or "en", tokens=[begin + cut.skip_to] * 2,
                avg_logprob=0.0, no_speech_prob=0.0, temperature=0.0, compression_ratio=0.0,
            )  # fmt: skip
            return _DecodedWindow(seeks, cut)
        if batch.ends_at_once():
            empty = DecodingResult(
                frames, options.language or "en",
                avg_logprob=0.0, no_speech_prob=1.0, temperature=0.0, compression_ratio=0.0,
            )  # fmt: skip
            return _DecodedWindow(empty, cut)
        if batch.window().is_silence():  # an empty transcript is right
            # without a length penalty whisper divides by the length
            penalty = 1.0 if options.length_penalty is None else options.length_penalty
            options = replace(options, suppress_blank=False, length_penalty=penalty)
        result = whisper.decode(self, frames, options, **kwargs)
        assert isinstance(result, DecodingResult)  # transcribe decodes one window at a time
        result = replace(result, no_speech_prob=batch.no_speech_prob(0, result.no_speech_prob))
        dropped = call.silence_rule(result.no_speech_prob, result.avg_logprob)
        if cut is not None and dropped:
            result = replace(result, tokens=[], no_speech_prob=0.0)  # or the whole window would be skipped
        if not call.options.skip_gaps or self.steerer is None:
            return _DecodedWindow(result, cut)
        window, levels = batch.window(), self.steerer.pack.metadata.levels
        word_ends = partial(self._word_ends, result, frames, batch.content, options)
        answer = self._answer(result, options, kwargs)
        kept = [] if dropped else result.tokens
        again = read_again(kept, answer, window, levels, begin, word_ends)
        if again is not None:
            return _DecodedWindow(result, cut, again)
        tokens, cut = read_on(result.tokens, window, levels, begin)
        return _DecodedWindow(replace(result, tokens=tokens), cut)

    def _word_ends(
        self, result: DecodingResult, frames: Tensor, content: int, options: DecodingOptions
    ) -> list[float]:
        """Frames at which a result's words end, as attention to encoder frames [1500, d] aligns them."""
        tokenizer = self._tokenizer(options)
        text = [token for token in result.tokens if token < tokenizer.eot]
        model, mel_frames = cast(Whisper, _ReadsFrames(self)), MEL_FRAMES_PER_ENCODER_FRAME * content
        words = find_alignment(model, tokenizer, text, frames, mel_frames)
        return ends_of_words((word.word, word.end) for word in words)

    def _tokenizer(self, options: DecodingOptions = DecodingOptions()) -> Tokenizer:  # noqa: B008 (frozen)
        return get_tokenizer(
            self.is_multilingual,
            num_languages=self.num_languages,
            language=options.language,
            task=options.task,
        )

    def detect_language(self, mel: Tensor, tokenizer: Any = None) -> Any:
        """``whisper.detect_language``; inside ``transcribe`` of the first speech, steered if asked to."""
        call = current(self.steerer)
        if not isinstance(call, Transcription) or self.steerer is None:
            with active(self.steerer, language_call(call) if call else None):
                return whisper.detect_language(self, mel, tokenizer)

        def detect(frame: int) -> Any:
            if not frame:
                return whisper.detect_language(self, self._explore(mel), tokenizer)
            rest = torch.from_numpy(call.samples[SAMPLES_PER_ENCODER_FRAME * frame :][:WINDOW_SAMPLES])
            window: Any = whisper.pad_or_trim(whisper.log_mel_spectrogram(rest, len(mel)), mel.shape[-1])
            return whisper.detect_language(self, window.to(mel), tokenizer)

        return detect_at_speech(self.steerer, call, detect, len(call.samples) // SAMPLES_PER_ENCODER_FRAME)

    @torch.no_grad()
    def _explore(self, mel: Tensor) -> Tensor:
        """Encoder output [1500, d] of the first window, for its language; kept until it is transcribed.

        A recording shorter than the window is encoded again all the same: whisper reads the language from
        its mel followed by that of digital silence, and transcribes it followed by zeros.
        """
        assert self.steerer is not None
        frames, reading = self.embed_audio(mel[None]), current(self.steerer)
        whole = self.steerer.pack.metadata.tap == "encoder_output"  # an edit before that is not yet in it
        if reading is not None and reading.options.scores_only and whole:
            reading.explored[_key(mel)] = frames
        return frames[0]

    @contextmanager
    def steering(self, alpha: float = 1.0) -> Generator[Call | None]:
        """Steer every encode of this thread inside the block; for code that drives the model itself."""
        options = CallOptions(check_alpha(alpha), steer_language_detection=True)
        with active(self.steerer, Call(options)) as call:
            yield call

    def _labelled(self, segments: Iterable[dict[str, Any]]) -> Generator[dict[str, Any]]:
        """Segments with their labels, without the empty ones of silent windows and of gaps."""
        assert self.steerer is not None
        number, said = 0, deque[str](maxlen=REMEMBERED_WORDS)
        for segment in segments:
            carrier = segment["temperature"]
            assert isinstance(carrier, WindowTemperature)
            window = carrier.window
            is_ours = window.is_silence() or window.cut is not None
            if is_ours and not segment["tokens"]:
                continue
            written = written_segment(segment, segment["seek"] * MEL_FRAME_SECONDS)
            labels = self.steerer.label_segment(written, window.scores, list(said))
            for word, risk in zip(segment.get("words", ()), labels.word_risks, strict=True):
                word["hallucination_risk"] = risk
            yield {**segment, "id": number, "temperature": carrier.given, **labels.segment._asdict()}
            number += 1
            said.extend(segment["text"].split())


class _DecodedWindow(NamedTuple):
    """What the decoder made of a window, and where the library is led to after it."""

    result: DecodingResult
    cut: WindowCut | None
    again: ReadAgain | None = None
    """how the window is to be decoded once more, if it is; then nothing here counts"""


class _ReadsFrames:
    """A model as whisper's alignment uses it, but that it is given encoder frames in place of mel."""

    def __init__(self, model: Whisper):
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, frames: Tensor, tokens: Tensor) -> Tensor:
        return self._model.decoder(tokens, frames)


# Whisper decodes the same mel at one temperature after the other: what was encoded of it stays with it.
_BATCH = "_steered_batch"


def _key(mel: Tensor) -> bytes:
    """What a window's mel is told from another by."""
    return mel.cpu().numpy().tobytes()


def _batch_of(mel: Tensor) -> SteeredBatch | None:
    return getattr(mel, _BATCH, None)


def _keep_batch(mel: Tensor, batch: SteeredBatch) -> None:
    setattr(mel, _BATCH, batch)


def _planned(batch: SteeredBatch, plan: WindowPlan, call: Transcription) -> SteeredBatch:
    """An encoded window with its plan."""
    batch = batch._replace(**plan._asdict())
    call.results.append(batch._replace(frames=None))
    return batch


def _without_gap(mel: Tensor, cut: WindowCut | None) -> Tensor:
    """The window's mel [n_mels, 3000] as if the audio ended where the gap begins."""
    if cut is None or cut.seeks_only():
        return mel
    mel = mel.clone()
    mel[:, MEL_FRAMES_PER_ENCODER_FRAME * cut.decode_until :] = 0  # as the library pads what ends here
    return mel
