"""Writing a steered Whisper model in the files that each runtime loads."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from whisper import Whisper

from ..commands.extras import require
from ..models.convert import openai_to_ct2
from ..models.transformers_names import transformers_name
from ..models.vocabulary import get_tokenizer, suppressed, to_tokenizers

Format = Literal["openai", "hf", "ct2"]
CHECKPOINT = "model.pt"
"""the file that ``whisper.load_model`` takes, in a folder of format openai"""


def write_openai(model: Whisper, folder: Path) -> None:
    """FOLDER/model.pt, as openai-whisper's own checkpoints are."""
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    torch.save({"dims": vars(model.dims), "model_state_dict": state}, folder / CHECKPOINT)


def write_ct2(model: Whisper, folder: Path) -> None:
    """A CTranslate2 folder; ``compute_type`` quantises it further when it is loaded."""
    for file in openai_to_ct2(model, folder / "made", "float16").iterdir():
        file.rename(folder / file.name)
    (folder / "made").rmdir()


def write_hf(model: Whisper, folder: Path) -> None:
    """A transformers folder: model, generation settings, tokenizer and feature extractor.

    MissingExtraError without transformers.
    """
    require("format hf", "hf")
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    tokenizer = get_tokenizer(model.dims.n_vocab)
    end = "<|endoftext|>"
    theirs = WhisperTokenizer(
        tokenizer_object=to_tokenizers(tokenizer), bos_token=end, eos_token=end, unk_token=end, pad_token=end
    )
    made = to_transformers(model)
    # or no transcript could be empty; transformers fills in None from the model's configuration
    made.config.begin_suppress_tokens = made.generation_config.begin_suppress_tokens = []
    made.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(model.dims.n_mels), theirs).save_pretrained(folder)


def to_transformers(model: Whisper, attention: str = "sdpa") -> Any:
    """transformers' ``WhisperForConditionalGeneration`` of these weights, with the hub's settings."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    dims, tokenizer = model.dims, get_tokenizer(model.dims.n_vocab)
    config = WhisperConfig(
        vocab_size=dims.n_vocab, num_mel_bins=dims.n_mels, d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer, encoder_attention_heads=dims.n_audio_head,
        decoder_layers=dims.n_text_layer, decoder_attention_heads=dims.n_text_head,
        encoder_ffn_dim=4 * dims.n_audio_state, decoder_ffn_dim=4 * dims.n_text_state,
        decoder_start_token_id=tokenizer.sot, bos_token_id=tokenizer.eot, eos_token_id=tokenizer.eot,
        pad_token_id=tokenizer.eot,
    )  # fmt: skip
    config._attn_implementation = attention  # pyright: ignore[reportPrivateUsage]
    theirs = WhisperForConditionalGeneration(config)
    theirs.load_state_dict(_renamed(model.state_dict()))
    languages = {f"<|{code}|>": tokenizer.to_language_token(code) for code in tokenizer.all_language_codes}
    of_many = {
        "lang_to_id": languages,
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
    }
    theirs.generation_config = GenerationConfig(
        decoder_start_token_id=tokenizer.sot, bos_token_id=tokenizer.eot, eos_token_id=tokenizer.eot,
        pad_token_id=tokenizer.eot, no_timestamps_token_id=tokenizer.no_timestamps,
        prev_sot_token_id=tokenizer.sot_prev, begin_suppress_tokens=[*tokenizer.encode(" "), tokenizer.eot],
        suppress_tokens=suppressed(tokenizer), max_length=dims.n_text_ctx, return_timestamps=False,
        max_initial_timestamp_index=50, is_multilingual=model.is_multilingual,
        alignment_heads=model.get_buffer("alignment_heads").indices().T.tolist(),
        **(of_many if model.is_multilingual else {}),
    )  # fmt: skip
    return theirs.eval()


def _renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with transformers' names, the output projection tied."""
    renamed = {transformers_name(name): tensor.clone() for name, tensor in state.items()}
    renamed["proj_out.weight"] = renamed["model.decoder.embed_tokens.weight"]
    return renamed


WRITERS: Mapping[Format, Callable[[Whisper, Path], None]] = {
    "openai": write_openai,
    "hf": write_hf,
    "ct2": write_ct2,
}
