"""faster-whisper with steering: the same classes, and ``transcribe(audio, steer_alpha=1.0)``."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import faster_whisper
import numpy as np
from ctranslate2 import StorageView
from faster_whisper import transcribe as fw

from .audio.reading import load_audio
from .audio.units import MEL_FRAME_SECONDS, MEL_FRAMES_PER_ENCODER_FRAME
from .errors import AttachError, PackError
from .models.weights import resolve
from .steering.calls import Call, Steerer, active, current, shows_options_of, within
from .steering.ctranslate import Decoded, SteeredEncoder
from .steering.language import detect_at_speech
from .steering.operator import Labels, check_alpha
from .steering.pack import load_pack
from .steering.seek import SilenceRule, content_of, hold_seek, plan_window, seek_to


@dataclass
class Segment(fw.Segment):
    """faster-whisper's segment with what the gate says of it."""

    speech_prob: float
    hallucination_risk: float


class WhisperModel(faster_whisper.WhisperModel):
    """``faster_whisper.WhisperModel`` whose ``transcribe`` takes ``steer_alpha``.

    ``pack`` is "auto" for the shipped pack of these weights, the path of one, or None for none.
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
        if loaded is not None and loaded.metadata.tap != "encoder_output":
            raise PackError(
                f"{loaded.path} edits {loaded.metadata.tap}, which CTranslate2 doesn't give out;"
                " use whisper_sae_steer.load_model (torch), or an encoder_output pack"
            )
        super().__init__(
            str(weights.ct2_dir), device, device_index, compute_type, cpu_threads, num_workers,
            **kwargs,
        )  # fmt: skip
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
        **options: Any,
    ) -> tuple[Iterable[fw.Segment], fw.TranscriptionInfo]:
        """faster-whisper's ``transcribe`` with steering; all its options and its results.

        ``steer_alpha`` 1.0 is the calibrated strength, 0 exactly the plain library. ``skip_gaps`` starts
        windows at speech and ends them before a long gap, as the gate hears it. The language is detected from
        the window as it is unless ``steer_language_detection``. Segments are lazy;
        each carries ``speech_prob`` and ``hallucination_risk`` (0…1) when steered. With
        ``multilingual=True`` the language of each window is read from what the decoder sees.
        Raises AudioError and AlphaError at once, not at the first segment.
        """
        alpha = check_alpha(steer_alpha)
        samples = load_audio(audio)
        steered = alpha != 0 and self.steerer is not None
        call = Call(alpha, steer_language_detection, skip_gaps, asks_decoder=True)
        with active(self.steerer, call if steered else None):
            return super().transcribe(samples, *args, **options)

    def encode(self, features: np.ndarray) -> StorageView:
        """faster-whisper's; a window with a gap is encoded again without it."""
        encoded = super().encode(features)
        call = current(self.steerer)
        if call is None or not call.skip_gaps or features.ndim > 2:
            return encoded
        assert self.steerer is not None
        assert call.scores is not None
        scores = call.scores[0].cpu().numpy()
        call.plan = plan_window(scores, content_of(features), self.steerer.pack.metadata)
        if call.plan is None or call.plan.start:
            return encoded
        cut = features.copy()
        cut[:, MEL_FRAMES_PER_ENCODER_FRAME * call.plan.end :] = 0  # as the library pads what ends here
        return super().encode(cut)

    def generate_with_fallback(
        self, encoder_output: StorageView, prompt: list[int], tokenizer: Any, options: Any
    ) -> tuple[Any, float, float, float]:
        """faster-whisper's; where the window has a gap, its tokens then lead to the end of that."""
        call = current(self.steerer)
        plan = call.plan if call else None
        if plan is None:
            return super().generate_with_fallback(encoder_output, prompt, tokenizer, options)
        begin = tokenizer.timestamp_begin
        if plan.start:
            target = begin + plan.start
            return Decoded([[target, target]], 0.0), 0.0, 0.0, 0.0
        result, logprob, temperature, compression = super().generate_with_fallback(
            encoder_output, prompt, tokenizer, options
        )
        tokens, silence = result.sequences_ids[0], result.no_speech_prob
        if SilenceRule(options.no_speech_threshold, options.log_prob_threshold)(silence, logprob):
            tokens, silence = [], 0.0  # or the whole window would be skipped
        return Decoded([seek_to(tokens, plan, begin)], silence), logprob, temperature, compression

    def add_word_timestamps(self, segments: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
        """faster-whisper's; a seek to the end of a gap stays."""
        result = super().add_word_timestamps(segments, tokenizer, *args, **kwargs)
        call = current(self.steerer)
        if call is not None and call.plan is not None:
            hold_seek(segments[0], call.plan, tokenizer.timestamp_begin)
        return result

    def generate_segments(self, *args: Any, **kwargs: Any) -> Iterator[fw.Segment]:
        call = current(self.steerer)
        segments = iter(super().generate_segments(*args, **kwargs))
        # also without a call: they may be drawn while another one is active
        return within(self.steerer, call, self._labelled(segments, call) if call else segments)

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

        return detect_at_speech(self.steerer, call, detect, content.shape[-1] // MEL_FRAMES_PER_ENCODER_FRAME)

    @contextmanager
    def steering(self, alpha: float = 1.0) -> Generator[Call | None]:
        """Steer every encode of this thread inside the block; for code that drives the model itself."""
        alpha = check_alpha(alpha)
        call = Call(alpha, steer_language_detection=True) if alpha and self.steerer else None
        with active(self.steerer, call):
            yield call

    def label(self, call: Call, row: int, start: float, end: float) -> Labels:
        """Labels of a segment ``start``…``end`` seconds into window ``row`` of the last encode."""
        assert self.steerer is not None
        assert call.scores is not None
        return self.steerer.labels(call.scores[row], start, end)

    def _labelled(self, segments: Iterator[fw.Segment], call: Call) -> Iterator[fw.Segment]:
        # a window's segments come before the next window is encoded, so the scores are its own
        for segment in segments:
            if not hasattr(self, "steerer"):  # detached meanwhile
                yield segment
                continue
            offset = segment.seek * MEL_FRAME_SECONDS
            labels = self.label(call, 0, segment.start - offset, segment.end - offset)
            yield Segment(**vars(segment), **labels._asdict())


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
        **options: Any,
    ) -> tuple[Iterable[fw.Segment], fw.TranscriptionInfo]:
        """See :meth:`WhisperModel.transcribe`."""
        if not hasattr(self.model, "steerer"):
            raise AttachError("the pipeline's model doesn't steer: give it ours, or attach() the pipeline")
        alpha = check_alpha(steer_alpha)
        samples = load_audio(audio)
        steered = alpha != 0 and self.model.steerer is not None
        call = _BatchedCall(alpha, steer_language_detection, asks_decoder=True)
        with active(self.model.steerer, call if steered else None):
            return super().transcribe(samples, *args, **options)

    def generate_segment_batched(self, features: Any, tokenizer: Any, options: Any) -> tuple[Any, list[Any]]:
        """faster-whisper's; where nobody speaks, ``no_speech_threshold`` counts here too."""
        encoded, outputs = super().generate_segment_batched(features, tokenizer, options)
        call = current(self.model.steerer)
        if call is not None and options.no_speech_threshold is not None:
            assert self.model.steerer is not None
            for output, silent in zip(outputs, self.model.steerer.nobody_speaks(call), strict=True):
                if silent and output["no_speech_prob"] > options.no_speech_threshold:
                    output["tokens"] = []
        return encoded, outputs

    def forward(self, features: Any, tokenizer: Any, chunks_metadata: Any, options: Any) -> Any:
        outputs = super().forward(features, tokenizer, chunks_metadata, options)
        call = current(self.model.steerer)
        if isinstance(call, _BatchedCall):
            for row, (chunk, segments) in enumerate(zip(chunks_metadata, outputs, strict=True)):
                for segment in segments:
                    start, end = (segment[edge] - chunk["offset"] for edge in ("start", "end"))
                    call.labels.append(self.model.label(call, row, start, end))
        return outputs

    def _batched_segments_generator(self, *args: Any, **kwargs: Any) -> Generator[fw.Segment]:
        segments = super()._batched_segments_generator(*args, **kwargs)
        call = current(self.model.steerer)
        labelled = self._labelled(segments, call) if isinstance(call, _BatchedCall) else segments
        return within(self.model.steerer, call, labelled)

    def _labelled(self, segments: Iterator[fw.Segment], call: "_BatchedCall") -> Iterator[fw.Segment]:
        for segment in segments:
            if not hasattr(self.model, "steerer"):  # detached meanwhile
                yield segment
                continue
            yield Segment(**vars(segment), **call.labels.popleft()._asdict())


class _BatchedCall(Call):
    """Also queues the labels of a batch's segments, in the order they will be yielded."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.labels: deque[Labels] = deque()
