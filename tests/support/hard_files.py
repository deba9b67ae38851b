"""Audio files that can't be read, of every kind that turns up in folders."""

from pathlib import Path

import numpy as np

from whisper_sae_steer.audio.writing import write_flac


def write_unreadable(folder: Path) -> list[Path]:
    """Empty, a text, cut off within its header, and with NaN samples."""
    folder.mkdir(parents=True)
    paths = [folder / name for name in ("empty.wav", "text.mp3", "cut.flac", "nan.wav")]
    paths[0].touch()
    paths[1].write_text("this is no audio")
    write_flac(paths[2], np.zeros(16_000, dtype=np.float32))
    paths[2].write_bytes(paths[2].read_bytes()[:20])
    samples = np.full(1600, np.nan, dtype="<f4").tobytes()
    size = len(samples)
    paths[3].write_bytes(
        b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
        + (3).to_bytes(2, "little") + (1).to_bytes(2, "little") + (16_000).to_bytes(4, "little")
        + (64_000).to_bytes(4, "little") + (4).to_bytes(2, "little") + (32).to_bytes(2, "little")
        + b"data" + size.to_bytes(4, "little") + samples
    )  # fmt: skip
    return paths
