from pathlib import Path

import pytest

from whisper_sae_steer.bench.peers.catalogue import PEERS, choose
from whisper_sae_steer.errors import SteerError


def test_choose_adds_what_a_peer_is_compared_with_and_says_what_is_missing(tmp_path: Path) -> None:
    chosen, lacking = choose(["vad-0.5", "ours-openai"], None)
    assert [peer.name for peer in chosen] == ["faster", "openai", "vad-0.5", "ours-openai"]
    assert lacking == {}
    with pytest.raises(SteerError, match="no peer is called vad"):
        choose(["vad"], None)
    with pytest.raises(SteerError, match=r"contrast-speech-0\.1 needs --packs"):
        choose(["contrast-speech-0.1"], None)
    (tmp_path / "contrast-speech.safetensors").touch()
    everything, lacking = choose(None, tmp_path)
    names = [peer.name for peer in everything]
    assert len(set(names)) == len(names)
    assert {"contrast-speech-0.1", "contrast-speech-0.35"} <= set(names)
    assert lacking["audiosae-invented-1"] == "needs audiosae-invented.safetensors in --packs"
    assert set(names) | set(lacking) == {peer.name for peer in PEERS}
