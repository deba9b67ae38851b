from typing import Any

import pytest

from whisper_sae_steer.bench.peers.summary import best


def entry(fpr: float, change: float) -> dict[str, Any]:
    return {"nonspeech": {"FPR_text": {"rate": fpr}}, "speech": {"WER_change": {"value": change}}}


@pytest.mark.parametrize(
    ("settings", "index"),
    [
        ([(0.3, 0.0), (0.1, 0.005), (0.0, 0.0051)], 1),  # the last one costs too much
        ([(0.1, 0.004), (0.1, -0.01), (0.2, -0.02)], 1),  # equal FPR_text: the lower WER
        ([(0.0, 0.3), (0.5, 0.1)], 1),  # all cost too much: the lowest WER
    ],
)
def test_best_setting(settings: list[tuple[float, float]], index: int) -> None:
    entries = [entry(*figures) for figures in settings]
    assert best(entries) is entries[index]
    without_speech = [{**e, "speech": None} for e in entries]
    assert best(without_speech)["nonspeech"]["FPR_text"]["rate"] == min(fpr for fpr, _ in settings)
