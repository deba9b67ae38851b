import json
import re
from base64 import b64decode
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.support.pages import faults, in_browser, looked_at
from tests.support.parrots import Parrots
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.bench.peers.catalogue import Peer
from whisper_sae_steer.bench.peers.examples import pick
from whisper_sae_steer.bench.peers.report import _group_tables, write_html, write_table
from whisper_sae_steer.bench.peers.run import collect, run
from whisper_sae_steer.bench.peers.summary import compare


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_reports(clips: list[Clip], peers: list[Peer], tmp_path: Path) -> None:
    run(peers, clips, Parrots(), tmp_path, progress=False)
    rows = collect(peers, clips, tmp_path)
    entries = compare(peers, rows)
    conditions: Mapping[str, str] = {"model": "<parrot>"}
    write_table(tmp_path / "table.md", entries, conditions)
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    first, others = markdown.split("## Other settings")
    assert "| Silero VAD | threshold 0.5 | 0/2 = 0.0% [0.0, 65.8] | 0.00% | +0.00 pp" in first
    assert "| Silero VAD | threshold 0.7 |" in others
    assert "threshold 0.7" not in first
    write_html(tmp_path / "report.html", entries, rows, clips, conditions)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    sources = [attributes["src"] or "" for tag in ("img", "audio") for attributes in page.all(tag)]
    assert all(source.startswith("data:") for source in sources)
    assert not page.all("script")
    assert not page.all("link")
    assert [len(a["alt"] or "") > 20 for a in page.all("img")] == [True] * 4, (
        "Pareto, classes, histograms, speed"
    )
    assert [m.get("content") for m in page.all("meta") if m.get("name") == "viewport"]
    assert len(page.all("audio")) == 4, "peers differ on every clip"
    assert "<parrot>" in page.text
    assert "Thank you." in page.text
    assert "Spoken: the fox ran" in page.text
    for clip in clips:
        assert clip.key in page.text
    assert " by source" not in page.text, "there is one of each, which the totals show"
    pictures = [b64decode((a["src"] or "").partition(",")[2]).decode() for a in page.all("img")]
    assert ">Silero VAD<" in re.sub(r"<!-- (.*?) -->", r">\1<", pictures[0]), "points have names"


def test_classes_that_are_the_sources_are_shown_once() -> None:
    path = Path("benchmarks/peers/results/tiny.en-int8-peers.json")
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["peers"]
    titles = ["FPR_text by source", "FPR_text by class", "WER by source"]
    assert [title for title, _, _ in _group_tables(entries)] == titles
    for entry in entries:
        groups = entry["nonspeech"]["by_source"].items()
        entry["nonspeech"]["by_class"] = {f"class of {name}": cell for name, cell in groups}
    assert [title for title, _, _ in _group_tables(entries)] == [titles[0], titles[2]]


@in_browser
def test_the_page_fits_a_telephone_and_leads_with_the_outcome(
    clips: list[Clip], peers: list[Peer], tmp_path: Path
) -> None:
    run(peers, clips, Parrots(), tmp_path, progress=False)
    rows = collect(peers, clips, tmp_path)
    write_html(tmp_path / "report.html", compare(peers, rows), rows, clips, {})
    with looked_at(tmp_path / "report.html") as page:
        assert faults(page) == {}
        assert page.locator("h1 + p").inner_text() == (
            "Ours writes text for 0 of 2 clips without speech, WER 0.00% on speech; Silero VAD writes text"
            " for 0 of 2 clips without speech, WER 0.00% on speech; faster-whisper writes text for 2 of 2"
            " clips without speech, WER 0.00% on speech."
        )


def test_a_page_of_one_kind_of_clips(clips: list[Clip], peers: list[Peer], tmp_path: Path) -> None:
    speech = [clip for clip in clips if clip.kind == "speech"]
    run(peers, speech, Parrots(), tmp_path, progress=False)
    rows = collect(peers, speech, tmp_path)
    entries = compare(peers, rows)
    assert all(e["nonspeech"] is None and e["RTFx"]["nonspeech"] is None for e in entries)
    write_html(tmp_path / "report.html", entries, rows, speech, {})
    write_table(tmp_path / "table.md", entries, {})
    assert "one against the other" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_examples_take_every_class_before_any_twice() -> None:
    def row(path: str, class_: str, text: str) -> Any:
        return {"path": path, "class": class_, "source": "s", "kind": "nonspeech", "text": text}

    def clip(class_: str, path: str, wrote: int) -> dict[str, Any]:
        return {f"p{i}": row(path, class_, "you" if i < wrote else "") for i in range(6)}

    # closest to half: a/1, then a/2; of b and c the only ones; all agree on d
    by_clip = {
        "a/1": clip("a", "a/1", 3), "a/2": clip("a", "a/2", 2), "b": clip("b", "b", 5),
        "c": clip("c", "c", 4), "d": clip("d", "d", 6),
    }  # fmt: skip
    assert pick(by_clip) == ["a/1", "c", "b", "a/2"]
