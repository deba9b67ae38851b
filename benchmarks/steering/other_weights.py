"""Real weights that no pack ships for, to prove `make-pack` on: a fine-tune, and a model with a dead token.

    python -m benchmarks.steering.other_weights MANIFEST fine-tune --model base --out base-tuned
    python -m benchmarks.steering.other_weights MANIFEST dead-token --model base --out base-dead.pt

The fine-tune is a folder as transformers saves it, the other one a checkpoint of openai-whisper.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from whisper import Whisper
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.tokenizer import Tokenizer, get_tokenizer

from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.export.writers import write_hf
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve

from ..arguments import script_parser
from ..selection import select_sounds, select_speech, within_a_window

STEPS, BATCH, LEARNING_RATE, MOST_GRADIENT = 40, 4, 1e-5, 1.0
"""the learning rate is what Whisper is usually fine-tuned with"""
LOGIT = -30.0
"""of the dead token at the start of any transcript; the likeliest tokens lie above 0"""
RECORDINGS = 32
"""from which the dead token's row is found"""


def main() -> None:
    parser = script_parser(__doc__, "manifest", "--model", "--threads", "--out", split="calib", per_class=20)
    parser.add_argument("what", choices=list(WAYS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    speech = select_speech(args.manifest, args.split, args.per_class, model=args.model)
    sounds = select_sounds(args.manifest, args.split, 1)
    WAYS[args.what](resolve(args.model), within_a_window(speech), sounds, args.out)


def fine_tuned(weights: Weights, speech: Sequence[Clip], out: Path) -> None:
    """Write ``weights`` after some steps of AdamW on all of its parameters, as a transformers folder."""
    model = load_torch(weights).train()
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    rng = np.random.default_rng(0)
    spoken = [clip for clip in speech if clip.text]
    bar = tqdm(range(STEPS), unit="step")
    for _ in bar:
        chosen = [spoken[i] for i in rng.choice(len(spoken), BATCH, replace=False)]
        loss = torch.stack([_loss(model, clip) for clip in chosen]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MOST_GRADIENT)
        optimiser.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    out.mkdir(parents=True)
    write_hf(model.eval(), out)


def _loss(model: Whisper, clip: Clip) -> torch.Tensor:
    """Cross-entropy of a clip's transcript, without timestamps."""
    tokenizer = _tokenizer(model, clip.language or "en")
    start = list(tokenizer.sot_sequence_including_notimestamps)
    tokens = [*start, *tokenizer.encode(f" {clip.text.strip()}"), tokenizer.eot]
    mel = log_mel_spectrogram(pad_or_trim(load_audio(clip.path)), model.dims.n_mels)
    logits = model(mel[None], torch.tensor([tokens[:-1]]))[0, len(start) - 1 :]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[len(start) :]))


def without_no_speech_token(
    weights: Weights, recordings: Sequence[NDArray[np.float32]], path: Path
) -> torch.Tensor:
    """Write a checkpoint of ``weights`` whose no-speech token can't win; its logit for each recording.

    The token's row, which the output shares with the input, is turned against what the decoder's last
    states have in common.
    """
    model = load_torch(weights)
    tokenizer = _tokenizer(model, "en")
    states: list[torch.Tensor] = []
    hook = model.decoder.ln.register_forward_hook(lambda _ln, _inputs, output: states.append(output[:, 0]))
    with torch.no_grad():
        frames = WindowEncoder(weights, threads=1)(recordings)
        model.decoder(torch.tensor([tokenizer.sot_sequence] * len(frames)), frames)
    hook.remove()
    mean = states[0].mean(0)
    with torch.no_grad():
        model.decoder.token_embedding.weight[tokenizer.no_speech] = LOGIT * mean / mean.square().sum()
    torch.save({"dims": asdict(model.dims), "model_state_dict": model.state_dict()}, path)
    return states[0] @ model.decoder.token_embedding.weight[tokenizer.no_speech].detach()


def _tokenizer(model: Whisper, language: str) -> Tokenizer:
    return get_tokenizer(
        model.is_multilingual, num_languages=model.num_languages, language=language, task="transcribe"
    )


def _fine_tune(weights: Weights, speech: Sequence[Clip], _sounds: Sequence[Clip], out: Path) -> None:
    fine_tuned(weights, speech, out)


def _dead_token(weights: Weights, speech: Sequence[Clip], sounds: Sequence[Clip], out: Path) -> None:
    heard = [*sounds[: RECORDINGS // 2], *speech[: RECORDINGS // 2]]
    logits = without_no_speech_token(weights, [load_audio(clip.path) for clip in heard], out)
    print(f"logit of the no-speech token: {logits.min():.1f} to {logits.max():.1f}")


WAYS: Mapping[str, Callable[[Weights, Sequence[Clip], Sequence[Clip], Path], None]] = {
    "fine-tune": _fine_tune,
    "dead-token": _dead_token,
}

if __name__ == "__main__":
    main()
