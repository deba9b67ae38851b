"""Whisper's tokenizer, built from tiktoken's, in the files that CTranslate2 and faster-whisper read."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import tiktoken
import whisper.tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


def is_multilingual(n_vocab: int) -> bool:
    """Whether models with so many tokens know more than English."""
    return n_vocab >= 51865


def get_tokenizer(n_vocab: int) -> whisper.tokenizer.Tokenizer:
    """The tokenizer of the models with so many tokens. Raises ValueError when there is none."""
    multilingual = is_multilingual(n_vocab)
    languages = n_vocab - 51765 - int(multilingual)
    tokenizer = whisper.tokenizer.get_tokenizer(multilingual, num_languages=languages)
    if tokenizer.encoding.n_vocab != n_vocab:
        raise ValueError(f"no Whisper tokenizer has {n_vocab} tokens")
    return tokenizer


def tokens(tokenizer: whisper.tokenizer.Tokenizer) -> list[str]:
    """Every token by id: text as GPT-2's printable bytes, then special tokens, then timestamps."""
    ranks = _ranks(tokenizer.encoding)
    names = [_printable(token) for token in sorted(ranks, key=ranks.__getitem__)]
    special = tokenizer.special_tokens
    return names + sorted(special, key=special.__getitem__)


def suppressed(tokenizer: whisper.tokenizer.Tokenizer) -> list[int]:
    """Ids that are never sampled by default: non-speech symbols and task tokens."""
    special = (
        tokenizer.sot,
        tokenizer.translate,
        tokenizer.transcribe,
        tokenizer.sot_lm,
        tokenizer.sot_prev,
        tokenizer.no_speech,
    )
    return sorted({*tokenizer.non_speech_tokens, *special})


def to_tokenizers(tokenizer: whisper.tokenizer.Tokenizer) -> Tokenizer:
    """The same tokenizer for Hugging Face's tokenizers library (tokenizer.json)."""
    ranks = _ranks(tokenizer.encoding)
    vocabulary = {_printable(token): rank for token, rank in ranks.items()}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(tokenizer.encoding)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    made.add_special_tokens([name for name, id in special if id < tokenizer.timestamp_begin])
    timestamps = [name for name, id in special if id >= tokenizer.timestamp_begin]
    made.add_tokens([AddedToken(name, normalized=True) for name in timestamps])
    return made


def _ranks(encoding: tiktoken.Encoding) -> dict[bytes, int]:
    """Rank of every token that byte pair encoding makes."""
    return encoding._mergeable_ranks  # pyright: ignore[reportPrivateUsage]


@lru_cache
def _merges(encoding: tiktoken.Encoding) -> list[tuple[str, str]]:
    """Byte pair merges in the order they apply; tiktoken keeps only their results (about 1 s)."""
    ranks = _ranks(encoding)
    by_rank = sorted(ranks, key=ranks.__getitem__)
    pairs = (_merge(ranks, token) for token in by_rank if len(token) > 1)
    return [(_printable(left), _printable(right)) for left, right in pairs]


def _merge(ranks: dict[bytes, int], token: bytes) -> tuple[bytes, bytes]:
    """The two tokens whose merge makes `token`: byte pair encoding stopped just before it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = (ranks.get(a + b, len(ranks)) for a, b in pairwise(parts))
        _, i = min((rank, i) for i, rank in enumerate(pairs))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def _printable(token: bytes) -> str:
    return "".join(map(_byte_names().__getitem__, token))


@lru_cache(maxsize=1)
def _byte_names() -> list[str]:
    """GPT-2's printable character for each byte: itself, or one from U+0100 on."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(b) if b in shown else chr(0x100 + hidden.index(b)) for b in range(256)]
