from pathlib import Path

import pytest

from tests.support.parrots import PIECES
from whisper_sae_steer.audio.clips import Clip, read_folder
from whisper_sae_steer.audio.synthetic import clip as synthetic_clip
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.bench.peers.catalogue import OURS, PEERS, Peer


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    for number in range(4):
        kind, seconds = ("noise", 0.5) if number < 2 else ("voice", 1.0)
        path = tmp_path / kind / f"c{number}" / f"{number}.wav"
        path.parent.mkdir(parents=True)
        write_wav(path, synthetic_clip("pink", number, seconds=(seconds, seconds)).audio)
        if kind == "voice":
            path.with_suffix(".txt").write_text(PIECES)
    return [*read_folder(tmp_path / "noise", "nonspeech"), *read_folder(tmp_path / "voice", "speech", "en")]


@pytest.fixture
def peers() -> list[Peer]:
    by_name = {peer.name: peer for peer in PEERS}
    return [by_name[name] for name in ("faster", "vad-0.5", "vad-0.7", "phrases", OURS)]
