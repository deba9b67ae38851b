"""transformers' Whisper from openai's weights, without a hub."""

from typing import Any

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from whisper.tokenizer import get_tokenizer

from whisper_sae_steer.convert import load_torch
from whisper_sae_steer.weights import resolve

PARTS = {
    "encoder.": "model.encoder.", "decoder.": "model.decoder.", "blocks.": "layers.",
    "cross_attn_ln": "encoder_attn_layer_norm", "attn_ln": "self_attn_layer_norm",
    "cross_attn": "encoder_attn", ".attn.": ".self_attn.", ".query": ".q_proj", ".key": ".k_proj",
    ".value": ".v_proj", ".out.": ".out_proj.", "mlp.0": "fc1", "mlp.2": "fc2", "mlp_ln": "final_layer_norm",
    "encoder.ln_post": "encoder.layer_norm", "decoder.ln.": "decoder.layer_norm.",
    "token_embedding": "embed_tokens",
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
}  # fmt: skip


def hub_whisper(name: str, attention: str = "sdpa") -> WhisperForConditionalGeneration:
    """The model as ``from_pretrained`` would give it, with the generation settings of its hub page."""
    plain = load_torch(resolve(name))
    dims = plain.dims
    tokenizer: Any = get_tokenizer(plain.is_multilingual, num_languages=plain.num_languages)
    config = WhisperConfig(
        vocab_size=dims.n_vocab, num_mel_bins=dims.n_mels, d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer, encoder_attention_heads=dims.n_audio_head,
        decoder_layers=dims.n_text_layer, decoder_attention_heads=dims.n_text_head,
        encoder_ffn_dim=4 * dims.n_audio_state, decoder_ffn_dim=4 * dims.n_text_state,
        decoder_start_token_id=tokenizer.sot, bos_token_id=tokenizer.eot, eos_token_id=tokenizer.eot,
        pad_token_id=tokenizer.eot,
    )  # fmt: skip
    config._attn_implementation = attention  # pyright: ignore[reportPrivateUsage]
    model = WhisperForConditionalGeneration(config)
    state: dict[str, torch.Tensor] = {}
    for key, tensor in plain.state_dict().items():
        for ours, theirs in PARTS.items():
            key = key.replace(ours, theirs)
        state[key] = tensor
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing, missing
    assert not unexpected, unexpected
    model.generation_config = GenerationConfig(
        decoder_start_token_id=tokenizer.sot, eos_token_id=tokenizer.eot, pad_token_id=tokenizer.eot,
        no_timestamps_token_id=tokenizer.no_timestamps, prev_sot_token_id=tokenizer.sot_prev,
        begin_suppress_tokens=[*tokenizer.encode(" "), tokenizer.eot], is_multilingual=plain.is_multilingual,
        suppress_tokens=list(tokenizer.non_speech_tokens), max_length=dims.n_text_ctx,
        return_timestamps=False, max_initial_timestamp_index=50,
    )  # fmt: skip
    return model.eval()
