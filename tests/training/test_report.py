"""Training curves in TensorBoard, and the one-page report."""

import base64
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import escape

from whisper_sae_steer.reports import metrics
from whisper_sae_steer.reports.metrics import Difference, WordErrors, wilson
from whisper_sae_steer.sae.autoencoder import SAEConfig
from whisper_sae_steer.training import logs
from whisper_sae_steer.training.downstream import Downstream, RateChange, WordChange
from whisper_sae_steer.training.logs import HistoryPoint, TensorBoardLog
from whisper_sae_steer.training.quality import COSINE_EDGES, FREQUENCY_EDGES, Histogram, Quality
from whisper_sae_steer.training.report import TrainedSAE, text_report, write_html


def point(step: int, fvu: float = 0.5) -> HistoryPoint:
    return HistoryPoint(step, 2048 * step, fvu, 50.0, 7, 2e-4, 0.25, 0.9)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself shows of a run."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = module.EventAccumulator(str(folder))
    shown.Reload()
    return {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def test_tensorboard_shows_every_field_at_its_step(tmp_path: Path):
    with TensorBoardLog(tmp_path / "run") as log:
        log.add(point(50, 0.75))
        log.add(point(100))
    found = curves(tmp_path / "run")
    assert set(found) == {*HistoryPoint._fields} - {"step"}
    assert found["fvu"] == [(50, 0.75), (100, 0.5)]
    assert found["frames"] == [(50, 102400), (100, 204800)]


@pytest.mark.parametrize(("resumed_at", "kept"), [(100, [(50, 1), (100, 1)]), (0, [])])
def test_resuming_leaves_no_point_twice(tmp_path: Path, resumed_at: int, kept: list[tuple[int, float]]):
    with TensorBoardLog(tmp_path) as log:
        for step in (50, 100, 150, 200):
            log.add(point(step, 1))
    time.sleep(1)  # TensorBoard sorts a run's files by the second in their name
    steps = range(resumed_at + 50, 251, 50)
    with TensorBoardLog(tmp_path, resumed_at) as log:
        for step in steps:
            log.add(point(step, 2))
    assert curves(tmp_path)["fvu"] == [*kept, *((step, 2) for step in steps)]


def test_without_tensorboard_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    logs._say_missing.cache_clear()
    for _ in range(2):
        with TensorBoardLog(tmp_path / "run") as log:
            log.add(point(50))
    printed = capsys.readouterr()
    assert (printed.out + printed.err).splitlines() == [
        "no curves for TensorBoard: it isn't installed (pip install tensorboard)"
    ]
    assert not (tmp_path / "run").exists()


QUALITY = Quality(
    frames=57934,
    fvu=0.0786,
    l0=60.0,
    k=50,
    rule_fvu=0.0818,
    rule_l0=50.0,
    features=400,
    dead=4,
    dense=10,
    dense_above=0.1,
    twins=2,
    frequency=Histogram(FREQUENCY_EDGES, (0,) * 20 + (100, 200, 96) + (0,) * 5),
    cosine=Histogram(COSINE_EDGES, (0,) * 60 + (150, 250) + (0,) * 38),
)
COST = Downstream(
    wer=WordChange(WordErrors(4, 1, 0, 100), WordErrors(5, 1, 1, 100), Difference(0.02, 0.0, 0.0909, 6)),
    frr=wilson(1, 6),
    fpr_text=RateChange(wilson(2, 4), wilson(1, 4), Difference(-0.25, -0.75, 0.0, 4)),
    fpr_raw=RateChange(wilson(4, 4), wilson(4, 4), Difference(0.0, 0.0, 0.0, 4)),
    speech=6,
    nonspeech=4,
    failed=1,
)


def trained(name: str, downstream: Downstream | None = COST, history: int = 3) -> TrainedSAE:
    config = SAEConfig(
        384, 400, k=50, tap="block.3", model="tiny.en",
        metadata={"training": {"lr": 2e-4, "name": name}, "source": "a" * 64, "clips": [1, 2]},
    )  # fmt: skip
    return TrainedSAE(name, config, QUALITY, downstream, [point(50 * i + 50) for i in range(history)])


class Page(HTMLParser):
    """Tables as rows of cells, plots as SVG, and every address that the page names."""

    def __init__(self, path: Path):
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.plots: list[str] = []
        self.addresses: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        for name, value in attrs:
            if name in ("src", "href"):
                head, _, data = str(value).partition("base64,")
                self.addresses.append(head)
                self.plots.append(base64.b64decode(data).decode())

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and self.tags[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_the_page_of_one_sae_says_whether_it_is_good(tmp_path: Path):
    write_html([trained("block.3")], tmp_path / "sae.html")
    page = Page(tmp_path / "sae.html")
    assert "<h1>Sparse autoencoder for tiny.en</h1>" in page.text
    assert page.rows[1] == [
        *("block.3", "0.0786", "60.0", "1.20", "1.0%", "2.5%", "0.5%", "+2.00 pp", "-25.0 pp", "+0.0 pp")
    ]
    assert ["WER", "5.00% of 100 words", "7.00% of 100 words", "+2.00 pp [+0.00, +9.09]"] in page.rows
    assert ["FRR", "–", "1/6 = 16.7% [3.0, 56.4]", "–"] in page.rows
    text = ["FPR_text", "2/4 = 50.0% [15.0, 85.0]", "1/4 = 25.0% [4.6, 69.9]", "-25.0 pp [-75.0, +0.0]"]
    assert text in page.rows
    assert "FVU 0.0818 at L0 50.0; at the threshold 0.0786 at 60.0" in page.text
    assert "6 speech and 4 non-speech clips; 1 more could not be transcribed" in page.text
    assert "explained variance 0.9214" in page.text
    facts = dict(row for row in page.rows if len(row) == 2)
    assert (facts["training.lr"], facts["tap"], facts["k"]) == ("0.0002", "block.3", "50")
    assert facts["source"] == "a" * 31 + "…"
    assert escape(metrics.DEFINITIONS["FPR_text"]) in page.text
    assert list(tmp_path.iterdir()) == [tmp_path / "sae.html"]


def test_the_page_needs_no_network_and_its_plots_are_whole(tmp_path: Path):
    write_html([trained("<b>one"), trained("two", history=2)], tmp_path / "both.html")
    page = Page(tmp_path / "both.html")
    assert page.addresses == ["data:image/svg+xml;"] * 2
    assert not {"script", "link", "iframe", "b"} & {*page.tags}
    curves, histograms = page.plots
    for plot, axes in ((curves, 6), (histograms, 2)):
        assert ElementTree.fromstring(plot).tag.endswith("svg")
        assert len(re.findall(r'id="axes_\d+"', plot)) == axes
        for name in ("&lt;b&gt;one", "two"):
            assert f"<!-- {name} -->" in plot  # text is drawn as paths, and said in a comment
    assert [row[0] for row in page.rows[1:3]] == ["<b>one", "two"]
    assert ["training.name", "<b>one", "two"] in page.rows


def test_what_was_not_measured_is_left_out(tmp_path: Path):
    bare = trained("bare", downstream=None, history=0)
    write_html([bare], tmp_path / "bare.html")
    page = Page(tmp_path / "bare.html")
    assert len(page.plots) == 1
    assert "Downstream cost: not measured." in page.text
    assert "<h2>Definitions</h2>" not in page.text
    assert page.rows[1][-3:] == ["–"] * 3


def test_text_report_is_one_line_an_sae():
    lines = text_report([trained("one"), trained("another", downstream=None)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split("  ")[-1].strip() == "FPR_raw"
    assert lines[1].split()[:4] == ["one", "0.0786", "60.0", "1.20"]
    assert lines[2].split()[-1] == "–"
