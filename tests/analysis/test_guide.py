"""docs/features.md names all there is; ``tests/test_documents.py`` runs its blocks."""

from tests.support.paths import ROOT
from whisper_sae_steer.cli import ANALYSES


def test_every_analysis_is_named() -> None:
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    assert [name for name in ANALYSES if f"analyze {name} " not in page] == []
