"""CTranslate2's model object, steered: a stand-in that edits what it encodes and asks what it generates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ctranslate2 import DataType, StorageView
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..errors import PackError
from ..models.rules import SilenceRule, average_logprob
from .batch import SteeredBatch, Verdict
from .calls import EXPLORED_WINDOWS, Call, current
from .doubt import Answer, resolve_doubt
from .pack import SteeringPack
from .steerer import Steerer


def require_encoder_output(pack: SteeringPack) -> None:
    """PackError for a pack that edits inside the encoder."""
    if pack.metadata.tap != "encoder_output":
        raise PackError(
            f"{pack.path} edits {pack.metadata.tap}, which CTranslate2 doesn't give out; use a torch model"
            " (whisper_sae_steer.load_model, or --backend openai), or an encoder_output pack"
        )


class Decoded(NamedTuple):
    """What is read of a ``ctranslate2.models.WhisperGenerationResult``."""

    sequences_ids: list[list[int]]
    no_speech_prob: float
    scores: Sequence[float] = (0.0,)
    sequences: Sequence[Sequence[str]] = ((),)
    logits: Sequence[Sequence[StorageView]] = ()


class SteeredStorage:
    """Encoder output as its users hold it: CTranslate2's, with what steering made of it.

    It has all the attributes of the ``StorageView`` and its array interface. Generating from it may resolve
    doubt, so the batch is that of the moment.
    """

    mel: NDArray[np.float32] | None = None
    """[n_mels, 3000] of a single window, for those who may want it encoded again"""

    def __init__(self, batch: SteeredBatch):
        self.batch = batch

    def __getattr__(self, name: str) -> Any:
        if name == "batch":  # asked for by copy and pickle before there is one
            raise AttributeError(name)
        return getattr(self.batch.frames, name)


EncoderOutput = StorageView | SteeredStorage
"""what an encode returns: bare where nothing was steered"""


class SteeredEncoder:
    """Stands in for a ``ctranslate2.models.Whisper`` and steers what it encodes, once.

    Whatever takes features encodes raw mel itself, out of sight; so mel is encoded here first.
    """

    def __init__(self, inner: Any, steerer: Steerer, tokenizer: Tokenizer):
        self._inner = inner
        self._steerer = steerer
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # asked for by copy and pickle before there is one
            raise AttributeError(name)
        return getattr(self._inner, name)

    def encode(self, features: StorageView, to_cpu: bool = False) -> EncoderOutput:
        call = current(self._steerer)
        if call is None:
            return self._inner.encode(features, to_cpu=to_cpu)
        return steer_storage(self._encode_once(call, features, to_cpu), self._steerer)

    def generate(self, features: EncoderOutput, prompts: Any, **kwargs: Any) -> Any:
        features, call = self._encoded(features), current(self._steerer)
        if call is None or not isinstance(features, SteeredStorage):
            return self._inner.generate(_storage_of(features), prompts, **kwargs)
        results = self._ask(call, features, prompts, kwargs)
        batch, rows = features.batch, [row for row in range(len(prompts)) if row not in results]
        silent = [row for row in batch.rows(Verdict.SILENCE) if row in rows]
        results |= self._generate(batch.frames, [r for r in rows if r not in silent], prompts, kwargs)
        results |= self._generate_silent(batch, silent, prompts, kwargs)
        return [results[row] for row in range(len(prompts))]

    def align(self, features: EncoderOutput, *args: Any, **kwargs: Any) -> Any:
        return self._inner.align(_storage_of(self._encoded(features)), *args, **kwargs)

    def detect_language(self, features: EncoderOutput) -> Any:
        return self._inner.detect_language(_storage_of(self._encoded(features)))

    def text_of(self, tokens: Sequence[int | str]) -> str:
        """The text of token ids; CTranslate2 takes prompts of strings too, which count as none."""
        end_of_text = self._tokenizer.token_to_id("<|endoftext|>")
        assert end_of_text is not None
        return self._tokenizer.decode([t for t in tokens if isinstance(t, int) and t < end_of_text])

    def _encoded(self, features: EncoderOutput) -> EncoderOutput:
        if features.shape[1] != self._inner.n_mels or current(self._steerer) is None:
            return features
        # of several GPUs, who knows which one takes the next job
        return self.encode(_storage_of(features), to_cpu=len(self._inner.device_index) > 1)

    def _encode_once(self, call: Call, features: StorageView, to_cpu: bool) -> StorageView:
        """Encoder output, unedited; windows that the language was read from are not encoded again."""
        reads_language = call.options.scores_only
        mel = np.asarray(features).tobytes() if call.explored or reads_language else b""
        output = call.explored.pop(mel, None)
        if output is None:
            output = self._inner.encode(features, to_cpu=to_cpu)
        if reads_language and len(call.explored) < EXPLORED_WINDOWS:
            call.explored[mel] = output
        return output

    def _ask(
        self, call: Call, features: SteeredStorage, prompts: Any, kwargs: dict[str, Any]
    ) -> dict[int, Any]:
        """Decode windows in doubt as they are, once: the results believed, by row. Others get edited."""
        options = {**kwargs, "return_scores": True, "return_no_speech_prob": True}
        results: dict[int, Any] = {}

        def ask(rows: Sequence[int]) -> list[Answer]:
            results.update(self._generate(features.batch.frames, rows, prompts, options))
            length_penalty = kwargs.get("length_penalty", 1)
            return [self._answer(results[row], prompts[row], length_penalty) for row in rows]

        def edit_refused(batch: SteeredBatch, rows: Sequence[int]) -> SteeredBatch:
            frames = self._steerer.edit_refused_windows(_tensor(batch.frames), rows, call.options)
            strength = batch.strength.clone()
            strength[list(rows)] = call.options.alpha
            return batch._replace(frames=_storage(frames, batch.frames.dtype), strength=strength)

        metadata = self._steerer.pack.metadata
        batch = features.batch = resolve_doubt(features.batch, metadata, ask, edit_refused)
        return {row: result for row, result in results.items() if not batch.window(row).is_silence()}

    def _answer(self, result: Any, prompt: Sequence[int | str], length_penalty: float) -> Answer:
        tokens = result.sequences_ids[0]
        logprob = average_logprob(result.scores[0], len(tokens), length_penalty)
        return Answer(self.text_of(tokens), logprob, result.no_speech_prob, self.text_of(prompt))

    def _generate_silent(
        self, batch: SteeredBatch, rows: Sequence[int], prompts: Any, kwargs: dict[str, Any]
    ) -> dict[int, Any]:
        """Where nobody speaks an empty transcript is right: without timestamps ``suppress_blank`` forbids it.

        A caller that doesn't ask for no_speech_prob has no rule of its own for it: Whisper's is applied.
        """
        options = {**kwargs, "suppress_blank": False, "return_no_speech_prob": True}
        results = self._generate(batch.frames, rows, prompts, options)
        for row, result in results.items():
            no_speech_prob = batch.no_speech_prob(row, result.no_speech_prob)
            if not kwargs.get("return_no_speech_prob") and SilenceRule().sounds_silent(no_speech_prob):
                results[row] = Decoded([[]], no_speech_prob)
            else:
                results[row] = Decoded(
                    result.sequences_ids, no_speech_prob, result.scores, result.sequences, result.logits
                )
        return results

    def _generate(
        self, features: StorageView, rows: Sequence[int], prompts: Any, options: dict[str, Any]
    ) -> dict[int, Any]:
        """Results of some windows of a batch, by row."""
        if not rows:
            return {}
        if len(rows) < len(prompts):
            features = _storage(_tensor(features)[list(rows)], features.dtype)
        answers = self._inner.generate(features, [prompts[row] for row in rows], **options)
        return dict(zip(rows, answers, strict=True))


def steer_storage(output: StorageView, steerer: Steerer) -> EncoderOutput:
    """Steer CTranslate2's encoder output, in its own memory unless that is bfloat16."""
    frames = _tensor(output)
    batch = steerer(frames)
    if frames.is_cuda:
        torch.cuda.synchronize(frames.device)  # generate() runs on CTranslate2's own stream
    steered = _storage(frames, output.dtype) if output.dtype == DataType.bfloat16 else output
    return steered if batch is None else SteeredStorage(batch._replace(frames=steered))


def _storage_of(features: EncoderOutput) -> StorageView:
    """CTranslate2's own object."""
    return features.batch.frames if isinstance(features, SteeredStorage) else features


def _tensor(view: StorageView) -> torch.Tensor:
    """Frames in CTranslate2's own memory; of bfloat16, which has no array interface, a float32 copy."""
    if view.dtype == DataType.bfloat16:
        view = view.to(DataType.float32)
    if view.device == "cuda":
        return torch.as_tensor(view, device=torch.device("cuda", view.device_index))  # any other would copy
    return torch.from_numpy(np.asarray(view))


def _storage(frames: torch.Tensor, dtype: DataType) -> StorageView:
    """The way back."""
    frames = frames.contiguous()
    view = StorageView.from_array(frames if frames.is_cuda else frames.numpy())
    return view if view.dtype == dtype else view.to(dtype)
