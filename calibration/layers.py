"""SAEs of every layer and of several seeds: calibration/layers.py MANIFEST... --model base --out DIR

Audio and options are those of the shipped SAEs (base.sh, tiny.en.sh); one pass encodes all layers. The
shipped tap is trained as long as the shipped SAE is, from another seed; the layers for fewer steps.
Stopped, the same command goes on where it was.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from whisper_sae_steer.audio.clips import read_clips
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.sae.formats import save_sae
from whisper_sae_steer.training import (
    FrameRecipe,
    StreamConfig,
    TrainConfig,
    Trained,
    WhisperFrames,
    build_store,
    train,
)

SHIPPED_TAP, SHIPPED_STEPS = "encoder_output", 3000
KINDS = ("nonspeech", "music", "speech")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", nargs="+", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1], help="of the shipped tap; 0 is the shipped SAE"
    )
    parser.add_argument("--layer_seeds", nargs="*", type=int, default=[0, 1], help="none: no layers")
    parser.add_argument("--layer_steps", type=int, default=600)
    args = parser.parse_args()
    stream = StreamConfig(speech=2, noise_share=0.5)
    recipe = FrameRecipe(padding_share=0.05)
    encoder = WhisperFrames(resolve(args.model), ["all"] if args.layer_seeds else [SHIPPED_TAP])
    store = build_store(encoder, read_clips(args.audio, "calib", KINDS), args.out / "frames", stream, recipe)
    shipped = TrainConfig(steps=SHIPPED_STEPS, lr=2e-3)
    save(train(store, shipped, args.out / "work-shipped", [SHIPPED_TAP], args.seeds), args.out)
    layers = [tap for tap in store.taps if tap != SHIPPED_TAP]
    brief = TrainConfig(steps=args.layer_steps, lr=2e-3)
    for tap in layers:
        save(train(store, brief, args.out / f"work-{tap}", [tap], args.layer_seeds), args.out)


def save(trained: Sequence[Trained], out: Path) -> None:
    for member, sae, _ in trained:
        folder = out / member.tap / f"seed{member.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        save_sae(sae, folder, dtype=torch.float16)


if __name__ == "__main__":
    main()
