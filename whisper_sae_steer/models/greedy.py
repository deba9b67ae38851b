"""Decodes windows greedily, with no threshold that could drop their text: the raw behaviour."""

from collections.abc import Sequence
from typing import Any, TypedDict

from ctranslate2 import StorageView
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from .rules import average_logprob


class RawWindow(TypedDict):
    """What greedy decoding gave."""

    text: str
    no_speech_prob: float
    avg_logprob: float


def decode_windows(
    model: Any, encoded: StorageView, languages: Sequence[str | None], max_new_tokens: int = 224
) -> list[RawWindow]:
    """Decode encoded windows [B, 1500, d] with a ``faster_whisper.WhisperModel``, greedily.

    Prompt and suppressed tokens are those of faster-whisper's defaults. A language of None is detected.
    """
    multilingual = bool(model.model.is_multilingual)
    if not multilingual:
        languages = ["en"] * len(languages)
    elif None in languages:
        detected = [found[0][0][2:-2] for found in model.model.detect_language(encoded)]
        languages = [given or own for given, own in zip(languages, detected, strict=True)]
    tokenizers = [
        Tokenizer(model.hf_tokenizer, multilingual, task="transcribe", language=language)
        for language in languages
    ]
    prompts = [model.get_prompt(tokenizer, []) for tokenizer in tokenizers]
    results = model.model.generate(
        encoded,
        prompts,
        beam_size=1,
        max_length=min(model.max_length, len(prompts[0]) + max_new_tokens),
        return_scores=True,
        return_no_speech_prob=True,
        suppress_blank=True,
        suppress_tokens=get_suppressed_tokens(tokenizers[0], (-1,)),
        max_initial_timestamp_index=round(1.0 / model.time_precision),
    )
    windows: list[RawWindow] = []
    for result, tokenizer in zip(results, tokenizers, strict=True):
        tokens = result.sequences_ids[0]
        windows.append(
            RawWindow(
                text=tokenizer.decode(tokens).strip(),
                no_speech_prob=round(result.no_speech_prob, 6),
                avg_logprob=round(average_logprob(result.scores[0], len(tokens)), 6),
            )
        )
    return windows
