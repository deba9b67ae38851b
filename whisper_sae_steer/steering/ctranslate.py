"""CTranslate2's model object, steered: a stand-in that edits what it encodes and asks what it generates."""

from typing import Any, NamedTuple

import numpy as np
import torch
from ctranslate2 import DataType, StorageView
from tokenizers import Tokenizer

from .calls import Call, Listener, Steerer, current
from .doubt import Answer
from .seek import NO_SPEECH_THRESHOLD


class Decoded(NamedTuple):
    """What is read of a ``ctranslate2.models.WhisperGenerationResult``."""

    sequences_ids: list[list[int]]
    no_speech_prob: float
    scores: tuple[float, ...] = (0.0,)


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

    def encode(self, features: StorageView, to_cpu: bool = False) -> StorageView:
        call = current(self._steerer)
        if call is None:
            return self._inner.encode(features, to_cpu=to_cpu)
        mel = np.asarray(features).tobytes() if call.listened or isinstance(call, Listener) else b""
        output = call.listened.pop(mel, None)
        if output is None:
            output = self._inner.encode(features, to_cpu=to_cpu)
        output = call.encoded = call.decided = steer_storage(output, self._steerer)
        if isinstance(call, Listener):
            call.keep(mel, output)
        return output

    def generate(self, features: StorageView, prompts: Any, **kwargs: Any) -> Any:
        features = self._encoded(features)
        call = current(self._steerer)
        if call is None or call.strength is None or features is not call.encoded:
            return self._inner.generate(features, prompts, **kwargs)
        results = self._ask(call, prompts, kwargs)
        silent = self._steerer.nobody_speaks(call)
        rows = [row for row in range(len(prompts)) if row not in results]
        results |= self._generate(call.decided, [row for row in rows if not silent[row]], prompts, kwargs)
        results |= self._generate_silent(call.decided, [row for row in rows if silent[row]], prompts, kwargs)
        return [results[row] for row in range(len(prompts))]

    def align(self, features: StorageView, *args: Any, **kwargs: Any) -> Any:
        features, call = self._encoded(features), current(self._steerer)
        if call is not None and features is call.encoded:
            features = call.decided
        return self._inner.align(features, *args, **kwargs)

    def detect_language(self, features: StorageView) -> Any:
        return self._inner.detect_language(self._encoded(features))

    def _encoded(self, features: StorageView) -> StorageView:
        if features.shape[1] != self._inner.n_mels or current(self._steerer) is None:
            return features
        # of several GPUs, who knows which one takes the next job
        return self.encode(features, to_cpu=len(self._inner.device_index) > 1)

    def _ask(self, call: Call, prompts: Any, kwargs: dict[str, Any]) -> dict[int, Any]:
        """Decode windows in doubt as they are, once: the results believed, by row. Others get steered."""
        rows = [row for row, in_doubt in enumerate(self._steerer.in_doubt(call)) if in_doubt]
        options = {**kwargs, "return_scores": True, "return_no_speech_prob": True}
        results = self._generate(call.encoded, rows, prompts, options)
        answers = {row: self._answer(results[row], kwargs.get("length_penalty", 1)) for row in rows}
        refused = [row for row in rows if not self._steerer.believes(call, row, answers[row])]
        call.asked = True
        if refused:
            frames = _tensor(call.encoded).clone()
            frames[refused] = self._steerer.steer_in_full(call, refused, frames[refused])
            call.decided = _storage(frames, call.encoded.dtype)
        return {row: results[row] for row in rows if row not in refused}

    def _answer(self, result: Any, length_penalty: float) -> Answer:
        tokens = result.sequences_ids[0]
        logprob = result.scores[0] * len(tokens) ** length_penalty / (len(tokens) + 1)
        end_of_text = self._tokenizer.token_to_id("<|endoftext|>")
        text = self._tokenizer.decode([token for token in tokens if token < end_of_text])
        return Answer(text, logprob, result.no_speech_prob)

    def _generate_silent(
        self, features: StorageView, rows: list[int], prompts: Any, kwargs: dict[str, Any]
    ) -> dict[int, Any]:
        """Where nobody speaks an empty transcript is right: without timestamps ``suppress_blank`` forbids it.

        A caller that doesn't ask for no_speech_prob has no rule of its own for it: Whisper's is applied.
        """
        options = {**kwargs, "suppress_blank": False, "return_no_speech_prob": True}
        results = self._generate(features, rows, prompts, options)
        if not kwargs.get("return_no_speech_prob"):
            for row, result in results.items():
                if result.no_speech_prob > NO_SPEECH_THRESHOLD:
                    results[row] = Decoded([[]], result.no_speech_prob)
        return results

    def _generate(
        self, features: StorageView, rows: list[int], prompts: Any, options: dict[str, Any]
    ) -> dict[int, Any]:
        """Results of some windows of a batch, by row."""
        if not rows:
            return {}
        if len(rows) < len(prompts):
            features = _storage(_tensor(features)[rows], features.dtype)
        answers = self._inner.generate(features, [prompts[row] for row in rows], **options)
        return dict(zip(rows, answers, strict=True))


def steer_storage(output: StorageView, steerer: Steerer) -> StorageView:
    """Steer CTranslate2's encoder output, in its own memory unless that is bfloat16."""
    frames = _tensor(output)
    steerer(frames)
    if frames.is_cuda:
        torch.cuda.synchronize(frames.device)  # generate() runs on CTranslate2's own stream
    return _storage(frames, output.dtype) if output.dtype == DataType.bfloat16 else output


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
