"""For mkdocs: pages that lie outside docs/ are on the site, too, at their paths in the repository."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/*.md",
    "benchmarks/*/results/*.md",
    "benchmarks/*/results/*.svg",
    "calibration/README.md",
    "calibration/audio/ATTRIBUTION.md",
)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages from outside, and what they show."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between docs/ and the rest of the repository, as they are on the site."""
    if page.file.generated_by is None:
        return re.sub(r"\]\(\.\./(?=[\w./-]+)", "](", markdown)
    return re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", markdown)
