"""faster-whisper with steering: the same classes, and ``transcribe(audio, steer_alpha=1.0)``."""

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import ctranslate2
import faster_whisper
import numpy as np
from faster_whisper import transcribe as fw

from .audio.mel import FeatureExtractor
from .audio.reading import load_audio
from .audio.units import (
    MEL_FRAME_SECONDS,
    MEL_FRAMES_PER_ENCODER_FRAME,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
)
from .errors import AttachError
from .models.rules import SilenceRule
from .models.weights import resolve
from .steering.batch import Verdict, WindowTokens
from .steering.calls import Call, CallOptions, active, current, shows_options_of, within
from .steering.ctranslate import (
    Decoded,
    EncoderOutput,
    SteeredEncoder,
    SteeredStorage,
    require_encoder_output,
)
from .steering.cuts import (
    WindowCut,
    WindowPlan,
    content_of,
    plan_window,
    protect_seek_from_word_times,
)
from .steering.doubt import Answer
from .steering.faster_results import (
    Segment,
    TranscriptionInfo,
    Word,
    filtered,
    in_recording,
    in_turn,
    with_labels,
)
from .steering.filtering import check_filter_risk
from .steering.language import detect_at_speech
from .steering.left_out import ends_of_words, read_again
from .steering.operator import check_alpha
from .steering.pack import load_pack
from .steering.parts import find_parts
from .steering.risk import written_segment
from .steering.speech_map import find_excerpt
from .steering.steerer import Steerer
from .steering.unread import read_on

__all__ = ["BatchedInferencePipeline", "Segment", "TranscriptionInfo", "WhisperModel", "Word"]

ASKED_SAMPLES, OVERLAP_SAMPLES, PADDING_MEL_FRAMES = 10 * SAMPLE_RATE, SAMPLE_RATE, 100
"""what the gate alone listens to at a time, how much of it twice, and the silence it is padded with (1 s)"""


@contextmanager
def _no_word_of_conversion(compute_type: str) -> Generator[None]:
    """Keeps CTranslate2 from telling that a device which lacks the files' type computes in another.

    That is what "default" asks for.
    """
    level = ctranslate2.get_log_level()
    if compute_type == "default":
        ctranslate2.set_log_level(max(level, logging.ERROR))
    try:
        yield
    finally:
        ctranslate2.set_log_level(level)


class WhisperModel(faster_whisper.WhisperModel):
    """``faster_whisper.WhisperModel`` whose ``transcribe`` takes ``steer_alpha``.

    ``pack`` is "auto" for the installed or shipped pack of these weights, the path of one, "hub:owner/name"
    for one on the Hugging Face hub, or None for none.
    """

    steerer: Steerer | None

    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        device_index: int | list[int] = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        download_root: str | None = None,
        local_files_only: bool = False,
        *,
        pack: str | Path | None = "auto",
        **kwargs: Any,
    ):
        weights = resolve(model_size_or_path, download_root, local_files_only)
        loaded = load_pack(pack, weights) if pack is not None else None
        if loaded is not None:
            require_encoder_output(loaded)
        with _no_word_of_conversion(compute_type):
            super().__init__(
                str(weights.ct2_dir), device, device_index, compute_type, cpu_threads, num_workers,
                **kwargs,
            )  # fmt: skip
        self.feature_extractor = FeatureExtractor(**self.feat_kwargs)
        self.steerer = Steerer(loaded) if loaded is not None else None
        if self.steerer is not None:
            self.model = SteeredEncoder(self.model, self.steerer, self.hf_tokenizer)

    @shows_options_of(faster_whisper.WhisperModel.transcribe)
    def transcribe(
        self,
        audio: str | BinaryIO | np.ndarray,
        *args: Any,
        steer_alpha: float = 1.0,
        steer_language_detection: bool = False,
        skip_gaps: bool = True,
        filter_risk: float | None = None,
        **options: Any,
    ) -> tuple[Iterable[fw.Segment], fw.TranscriptionInfo]:
        """faster-whisper's ``transcribe`` with steering; all its options and its results.

        ``steer_alpha``, from 0 to 100: 1.0 is the calibrated strength, 0 exactly the plain library.
        ``skip_gaps`` starts windows at speech and ends them before a long gap, as the gate hears it. The
        language is detected from the window as it is unless ``steer_language_detection``. Segments are lazy;
        each carries ``speech_prob`` and ``hallucination_risk`` (0…1) when steered, and words carry their risk
        (``docs/risk.md``); from α = 1 on ``no_speech_prob`` is 1 in windows in which nobody speaks. With
        ``multilingual=True`` the language of each window is read from what the decoder sees.
        ``filter_risk`` leaves out words of that risk and more, or segments where words have no times; they
        are in ``info.filtered``. Raises AudioError, AlphaError and RiskError at once, not at the first
        segment.
        """
        steering = CallOptions(check_alpha(steer_alpha), steer_language_detection, skip_gaps, in_doubt="ask")
        call = self.call_with(steering)
        check_filter_risk(filter_risk, call is not None)
        samples = self.samples_of(audio)
        chosen = options.get("vad_filter") or options.get("clip_timestamps", "0") != "0"
        looks = call is not None and skip_gaps and not chosen
        heard = find_excerpt(samples, self.hears_nobody) if looks else None
        if call is not None and heard is not None:
            call = replace(call, in_excerpt=True, parts_apart=_needs_times_of_parts(options))
        if heard is None:
            with active(self.steerer, call):
                return filtered(filter_risk, *super().transcribe(samples, *args, **options))
        duration = len(samples) / SAMPLE_RATE
        if heard.passages or not self._asks_for_language(*args, **options):
            samples = heard.taken_from(samples)  # those of the recording are not held any longer
            duration_heard = len(samples) / SAMPLE_RATE
        else:  # nobody speaks; the language is then that of the first window, as it is
            samples = samples[: WINDOW_SAMPLES * options.get("language_detection_segments", 1)]
            duration_heard = 0.0
        with active(self.steerer, call):
            segments, info = super().transcribe(samples, *args, **options)
        info = replace(info, duration=duration, duration_after_vad=duration_heard)
        return filtered(filter_risk, (in_recording(segment, heard) for segment in segments), info)

    def samples_of(self, audio: str | BinaryIO | np.ndarray) -> np.ndarray:
        """Samples [n] of what ``transcribe`` is given. AudioError."""
        return load_audio(audio)

    def hears_nobody(self, samples: np.ndarray) -> bool:
        """Whether the gate, at its strictest, finds no speech in samples [n].

        It listens to windows that are padded to little more than the audio: they take a fraction of the time.
        """
        nobody_below = self.steerer.pack.metadata.levels.nobody_below if self.steerer is not None else None
        if nobody_below is None:
            return False
        with active(self.steerer, Call(CallOptions(alpha=0, scores_only=True))):
            for start in range(0, max(1, len(samples) - OVERLAP_SAMPLES), ASKED_SAMPLES - OVERLAP_SAMPLES):
                mel = self.feature_extractor(samples[start : start + ASKED_SAMPLES])
                encoded = self.encode(np.pad(mel, ((0, 0), (0, PADDING_MEL_FRAMES))))
                if not isinstance(encoded, SteeredStorage) or encoded.batch.scores.amax() > nobody_below:
                    return False
        return True

    def _asks_for_language(self, language: str | None = None, *_args: Any, **_options: Any) -> bool:
        return language is None and self.model.is_multilingual

    def encode(self, features: np.ndarray) -> EncoderOutput:
        """faster-whisper's; a window with a gap is encoded again without it."""
        call = current(self.steerer)
        behind_gap = call is not None and call.leads_past_gap()
        apart = call is not None and call.parts_apart and features.ndim == 2
        parts = find_parts(features) if apart else []
        if len(parts) > 1:
            features = _ended_at(features, parts[0].end)
        encoded = super().encode(features)
        if not isinstance(encoded, SteeredStorage) or call is None or not call.options.skip_gaps:
            return encoded
        if features.ndim > 2:  # the batched pipeline takes its windows as they come
            return encoded
        assert self.steerer is not None
        scores, levels = encoded.batch.scores[0].cpu().numpy(), self.steerer.pack.metadata.levels
        plan = plan_window(scores, content_of(features), levels, behind_gap, call.shortest_gap)
        if plan.cut is not None and not plan.cut.seeks_only():
            return self._encode_planned(features, plan, call)
        if plan.cut is None and len(parts) > 1:
            plan = plan._replace(cut=WindowCut(0, parts[0].end, parts[1].start))
        return _planned(encoded, features, plan, call)

    def _encode_planned(self, features: np.ndarray, plan: WindowPlan, call: Call) -> EncoderOutput:
        """A window [n_mels, 3000], encoded as if the audio ended where it is cut."""
        assert plan.cut is not None
        encoded = super().encode(_ended_at(features, plan.cut.decode_until))
        assert isinstance(encoded, SteeredStorage)
        return _planned(encoded, features, plan, call)

    def generate_with_fallback(
        self, encoder_output: EncoderOutput, prompt: list[int], tokenizer: Any, options: Any
    ) -> tuple[Any, float, float, float]:
        """faster-whisper's; the tokens then lead to speech that they leave out, and past a gap."""
        if not isinstance(encoder_output, SteeredStorage):
            return super().generate_with_fallback(encoder_output, prompt, tokenizer, options)
        begin, cut = tokenizer.timestamp_begin, encoder_output.batch.cut
        if cut is not None and cut.seeks_only():
            target = begin + cut.skip_to
            tokens = WindowTokens([target, target], encoder_output.batch.window())
            return Decoded([tokens], 0.0), 0.0, 0.0, 0.0
        if encoder_output.batch.ends_at_once():
            result, logprob, temperature, compression = Decoded([[]], 1.0), 0.0, 0.0, 0.0
        else:
            result, logprob, temperature, compression = super().generate_with_fallback(
                encoder_output, prompt, tokenizer, options
            )
        window = encoder_output.batch.window()
        tokens, silence = result.sequences_ids[0], result.no_speech_prob
        dropped = SilenceRule(options.no_speech_threshold, options.log_prob_threshold)(silence, logprob)
        if cut is not None and dropped:
            tokens, silence = [], 0.0  # or the whole window would be skipped
        call = current(self.steerer)
        if self.steerer is not None and call is not None and call.options.skip_gaps:
            levels = self.steerer.pack.metadata.levels
            start = prompt.index(tokenizer.sot)  # behind the text before
            text, before = self.model.text_of(tokens), self.model.text_of(prompt[:start])
            answer = Answer(text, logprob, silence, before)
            word_ends = partial(self._word_ends, tokens, window.content, tokenizer, encoder_output)
            kept = [] if dropped else tokens
            again = read_again(kept, answer, window, levels, begin, word_ends)
            if again is not None and again.cut is None:
                return self.generate_with_fallback(encoder_output, prompt[start:], tokenizer, options)
            if again is not None and encoder_output.mel is not None:
                plan = WindowPlan(again.cut, window.begins_at, window.content)
                encoded = self._encode_planned(encoder_output.mel, plan, call)
                return self.generate_with_fallback(encoded, prompt, tokenizer, options)
            tokens, cut = read_on(tokens, window, levels, begin, call.in_excerpt)
        tokens = WindowTokens(tokens, window._replace(cut=cut))
        return Decoded([tokens], silence, result.scores), logprob, temperature, compression

    def _word_ends(
        self, tokens: list[int], content: int, tokenizer: Any, encoder_output: EncoderOutput
    ) -> list[float]:
        """Frames at which the words of a window's tokens end, as cross-attention aligns them."""
        text = [token for token in tokens if token < tokenizer.eot]
        find_alignment: Any = self.find_alignment  # the library's annotation is of one text; it takes several
        words = find_alignment(tokenizer, [text], encoder_output, MEL_FRAMES_PER_ENCODER_FRAME * content)[0]
        return ends_of_words((word["word"], word["end"]) for word in words)

    def _split_segments_by_timestamps(
        self, tokenizer: Any, tokens: list[int], *args: Any, **kwargs: Any
    ) -> Any:
        """faster-whisper's; segments keep the window that they were read from."""
        split: Any = super()._split_segments_by_timestamps(tokenizer, tokens, *args, **kwargs)
        if isinstance(tokens, WindowTokens):
            for segment in split[0]:
                segment["tokens"] = WindowTokens(segment["tokens"], tokens.window)
        return split

    def add_word_timestamps(self, segments: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
        """faster-whisper's; a seek to the end of a gap stays."""
        result = super().add_word_timestamps(segments, tokenizer, *args, **kwargs)
        for window_segments in segments:
            tokens = window_segments[-1]["tokens"] if window_segments else None
            if isinstance(tokens, WindowTokens) and (cut := tokens.window.cut) is not None:
                protect_seek_from_word_times(window_segments, cut, tokenizer.timestamp_begin)
        return result

    def generate_segments(self, *args: Any, **kwargs: Any) -> Iterator[fw.Segment]:
        segments = in_turn(self.labelled, super().generate_segments(*args, **kwargs))
        # also without a call: they may be drawn while another one is active
        return within(self.steerer, current(self.steerer), segments)

    def detect_language(
        self, audio: np.ndarray | None = None, features: np.ndarray | None = None, *args: Any, **kwargs: Any
    ) -> tuple[str, float, Any]:
        """faster-whisper's; inside a call of the first speech, and steered if the call asks for it."""
        plain, call = super().detect_language, current(self.steerer)
        if call is None or features is None:
            with active(self.steerer, None):
                return plain(audio, features, *args, **kwargs)
        assert self.steerer is not None

        # without the frame that the library adds, so that the window is the one it will transcribe
        content = features[..., : max(1, features.shape[-1] - 1)]

        def detect(frame: int) -> tuple[str, float, Any]:
            return plain(audio, content[..., MEL_FRAMES_PER_ENCODER_FRAME * frame :], *args, **kwargs)

        frames = content.shape[-1] // MEL_FRAMES_PER_ENCODER_FRAME
        return detect_at_speech(self.steerer, call, detect, frames)

    @contextmanager
    def steering(self, alpha: float = 1.0) -> Generator[Call | None]:
        """Steer every encode of this thread inside the block; for code that drives the model itself."""
        options = CallOptions(check_alpha(alpha), steer_language_detection=True)
        with active(self.steerer, self.call_with(options)) as call:
            yield call

    def call_with(self, options: CallOptions) -> Call | None:
        """A call with these options, or None where nothing would be steered."""
        return Call(options) if options.alpha and self.steerer is not None else None

    def labelled(self, segment: fw.Segment, said: Iterable[str] = ()) -> fw.Segment:
        """The segment with its labels, if its window was steered by this model; behind the words ``said``."""
        tokens = segment.tokens
        if not isinstance(tokens, WindowTokens):
            return segment
        segment.tokens = list(tokens)
        if not hasattr(self, "steerer") or self.steerer is None:  # detached meanwhile
            return segment
        labels = tokens.labels
        if labels is None:
            written = written_segment(asdict(segment), segment.seek * MEL_FRAME_SECONDS)
            labels = self.steerer.label_segment(written, tokens.window.scores, list(said))
        return with_labels(segment, labels)


def _planned(encoded: SteeredStorage, features: np.ndarray, plan: WindowPlan, call: Call) -> SteeredStorage:
    """An encoded window with its plan, and with the log mel [n_mels, 3000] that it is of."""
    encoded.batch, encoded.mel = encoded.batch._replace(**plan._asdict()), features
    call.results.append(encoded.batch)
    return encoded


def _ended_at(features: np.ndarray, frame: int) -> np.ndarray:
    """A window's log mel [n_mels, 3000] as if the audio ended at an encoder frame: as the library pads it."""
    ended = features.copy()
    ended[:, MEL_FRAMES_PER_ENCODER_FRAME * frame :] = 0
    return ended


def _needs_times_of_parts(options: Mapping[str, Any]) -> bool:
    """Whether text gets its times from its window alone, or is dropped for the silence around it."""
    return (
        bool(options.get("without_timestamps")) or options.get("hallucination_silence_threshold") is not None
    )


class BatchedInferencePipeline(faster_whisper.BatchedInferencePipeline):
    """faster-whisper's batched pipeline over a steered :class:`WhisperModel`."""

    model: WhisperModel  # pyright: ignore[reportIncompatibleVariableOverride]

    @shows_options_of(faster_whisper.BatchedInferencePipeline.transcribe)
    def transcribe(
        self,
        audio: str | BinaryIO | np.ndarray,
        *args: Any,
        steer_alpha: float = 1.0,
        steer_language_detection: bool = False,
        filter_risk: float | None = None,
        **options: Any,
    ) -> tuple[Iterable[fw.Segment], fw.TranscriptionInfo]:
        """See :meth:`WhisperModel.transcribe`."""
        if not hasattr(self.model, "steerer"):
            raise AttachError("the pipeline's model doesn't steer: give it ours, or attach() the pipeline")
        steering = CallOptions(check_alpha(steer_alpha), steer_language_detection, in_doubt="ask")
        call = self.model.call_with(steering)
        check_filter_risk(filter_risk, call is not None)
        samples = load_audio(audio)
        with active(self.model.steerer, call):
            return filtered(filter_risk, *super().transcribe(samples, *args, **options))

    def generate_segment_batched(self, features: Any, tokenizer: Any, options: Any) -> tuple[Any, list[Any]]:
        """faster-whisper's; where nobody speaks, ``no_speech_threshold`` counts here too."""
        encoded, outputs = super().generate_segment_batched(features, tokenizer, options)
        if isinstance(encoded, SteeredStorage):
            silent = encoded.batch.rows(Verdict.SILENCE)
            rule = SilenceRule(options.no_speech_threshold)
            for row, output in enumerate(outputs):
                skips = row in silent and rule.sounds_silent(output["no_speech_prob"])
                tokens = [] if skips else output["tokens"]
                output["tokens"] = WindowTokens(tokens, encoded.batch.window(row))
        return encoded, outputs

    def forward(self, features: Any, tokenizer: Any, chunks_metadata: Any, options: Any) -> Any:
        """faster-whisper's; segments are labelled while their exact times are at hand."""
        outputs = super().forward(features, tokenizer, chunks_metadata, options)
        for chunk, segments in zip(chunks_metadata, outputs, strict=True):
            for segment in segments:
                tokens = segment["tokens"]
                if isinstance(tokens, WindowTokens) and self.model.steerer is not None:
                    written = written_segment(segment, chunk["offset"])
                    tokens.labels = self.model.steerer.label_segment(written, tokens.window.scores)
        return outputs

    def _batched_segments_generator(self, *args: Any, **kwargs: Any) -> Generator[fw.Segment]:
        segments = self._with_text(super()._batched_segments_generator(*args, **kwargs))
        return within(self.model.steerer, current(self.model.steerer), segments)

    def _with_text(self, segments: Iterable[fw.Segment]) -> Iterator[fw.Segment]:
        """Segments with their labels, without the empty ones of windows in which nobody speaks."""
        left_out = 0
        for segment in segments:
            tokens = segment.tokens
            if isinstance(tokens, WindowTokens) and tokens.window.is_silence() and not segment.text.strip():
                left_out += 1
                continue
            segment.id -= left_out
            yield self.model.labelled(segment)
