"""Training curves on disk."""

from pathlib import Path

from whisper_sae_steer.training.logs import HistoryPoint, load_history, save_history

POINTS = [
    HistoryPoint(50, 100, 0.5, 50.0, 3, 1e-3, 0.25, 0.0),
    HistoryPoint(60, 120, 0.4, 49.0, 2, 1e-4, 0.5, 0.1),
]


def test_history_is_read_as_written(tmp_path: Path):
    save_history(POINTS, tmp_path)
    assert load_history(tmp_path) == POINTS


def test_no_history(tmp_path: Path):
    assert load_history(tmp_path) == []
    for content in ("", "[]", '{"step": [1]}', "{"):
        (tmp_path / "history.json").write_text(content, encoding="utf-8")
        assert load_history(tmp_path) == []
