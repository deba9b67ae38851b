"""The feature browser: its data against independent implementations, its folder, its pages in Chromium."""

import base64
import json
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import jaccard_score, mutual_info_score
from sklearn.metrics.pairwise import cosine_similarity

from tests.support.analysis_parts import make_sae, make_store, sparse_features
from tests.support.pages import CHROMIUM, faults, in_browser
from whisper_sae_steer import cli
from whisper_sae_steer.analysis.browser import writing as browser_module
from whisper_sae_steer.analysis.browser.excerpts import (
    curve,
    find_pieces,
    mean_picture,
    most_informative,
    picture,
)
from whisper_sae_steer.analysis.browser.figures import figures, fires_together, points_alike
from whisper_sae_steer.analysis.browser.results import JoinedResults, read_results
from whisper_sae_steer.analysis.browser.writing import BrowserConfig, choose, write_folder
from whisper_sae_steer.analysis.hallucination.causes import FeatureEffect, HallucinationResult
from whisper_sae_steer.analysis.hallucination.effects import Effect, SpeechEffect
from whisper_sae_steer.analysis.labels.association import LabelDetector, LabelFeatures, Search
from whisper_sae_steer.analysis.labels.search import SearchResult
from whisper_sae_steer.analysis.likeness.stability import stability
from whisper_sae_steer.analysis.meaning.describe import Described, DescribeResult, ScoreSummary
from whisper_sae_steer.analysis.results import plain
from whisper_sae_steer.analysis.store.activations import ActivationStore
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.errors import AnalysisError

EVIL = "<script>alert(1)</script>"
LABELS = ("speech-en", "speech-de", "music", "music", EVIL, "rain")
WIDTH, FRAMES, DEAD = 150, 160, 7
BARE, MEASURED = "bare", "measured"
CONFIG = BrowserConfig(features=20, excerpts=3, seconds=2.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """Six recordings of 3.2 s, 150 features, 5 a frame; feature 7 is dead and 0 fires for rain alone."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    for i in range(6):
        tone = 0.3 * np.sin(2 * np.pi * 200 * (i + 1) * np.arange(FRAMES * 320) / 16_000)
        write_wav(folder / f"{i}.wav", (tone + 0.01 * rng.normal(size=len(tone))).astype(np.float32))
    features = sparse_features(6 * FRAMES, WIDTH, 5).tolil()
    features[:, DEAD] = 0
    features[:, 0] = 0
    features[5 * FRAMES + 40 : 5 * FRAMES + 60, 0] = 3
    texts = ("the train", "", "", "", "", "")
    paths = [str(folder / f"{i}.wav") for i in range(6)]
    matrix = csr_matrix(features)
    matrix.eliminate_zeros()
    store = make_store(folder / "store", matrix, labels=LABELS, lengths=FRAMES, paths=paths, texts=texts)
    Path(paths[3]).unlink()
    return store


@pytest.fixture(scope="module")
def results(store: ActivationStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the other analyses write, about some features."""
    folder = tmp_path_factory.mktemp("results")
    found = [LabelDetector(f, 0.5, 0.9 - f / 10, 0.9, 0.9, 0.8, 0.9, 0.01, 0.04) for f in range(3)]
    rain = LabelFeatures("rain", 4, 4, 0.2, 3, True, tuple(found))
    evil = LabelFeatures(EVIL, 4, 4, 0.2, 3, True, (found[1]._replace(f1=0.95),))
    search = Search((rain, evil), (), 6, 6, WIDTH, WIDTH - 1, 300, 0.05, 3)
    write(folder, "search", SearchResult("sae", "label", "window", search))
    none = ScoreSummary(0, None, None, None)
    described = [
        Described(0, f"drops {EVIL}", 0.91, 0.5, 0.6, 0.5, 20, 20),
        Described(1, "x", None, None, None, None, 0, 0),
    ]
    write(folder, "describe", DescribeResult("sae", "listener", 4, 2, none, none, none, none, described))
    removed, added = Effect(-0.5, 0.0, 0, 0, 2, 8), Effect(0.25, 0.125, 3, 1, 5, 8)
    effect = FeatureEffect(0, ["fisher"], 0.02, 0, 0, 0, removed, 1.5, added, SpeechEffect(1, 4, 3, 90))
    write(
        folder,
        "hallucination",
        HallucinationResult("sae", "small", "t", 8, 6, 4, 0.3, 0.1, [], [], [], [effect]),
    )
    (folder / "report.html").write_text("<!doctype html><title>all of them</title>")
    return folder


def write(folder: Path, name: str, result: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(plain(result)))


@pytest.fixture(scope="module")
def folders(store: ActivationStore, results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Browsers of the store alone, and with results."""
    out = tmp_path_factory.mktemp("browsers")
    write_folder(store, "sae", JoinedResults(), out / BARE, CONFIG)
    write_folder(store, "sae", read_results(results, "store", "sae"), out / MEASURED, CONFIG)
    return out


def index_of(folder: Path) -> Any:
    text = (folder / "data" / "index.js").read_text()
    return json.loads(text.removeprefix("browser.takeIndex(").removesuffix(");\n"))


def chunk_of(folder: Path, number: int) -> Any:
    text = (folder / "data" / f"features-{number:04d}.js").read_text()
    return json.loads(text.removeprefix(f"browser.takeChunk({number}, ").removesuffix(");\n"))


# ---- data


def test_figures_equal_those_of_scikit_learn(store: ActivationStore):
    features = store.features()
    counted, fires = figures(store, features), features.toarray() > 0
    label, domain = store.labels(lambda w: w.label), store.labels(lambda w: w.domain)
    for f in (0, 1, DEAD, 149):
        bits = mutual_info_score(label, fires[:, f]) / np.log(2)
        assert counted.information[:, f].sum() == pytest.approx(bits, abs=1e-9)
        for row, name in enumerate(counted.domains):
            assert counted.domain_rates[row, f] == pytest.approx(fires[domain == name, f].mean())
        for row, name in enumerate(counted.labels):
            assert counted.label_rates[row, f] == pytest.approx(fires[label == name, f].mean())
    assert counted.alive.tolist() == [f for f in range(WIDTH) if f != DEAD]
    assert counted.most[0] == 3
    assert counted.mean[0] == 3
    assert counted.mean[DEAD] == 0


def test_related_features_equal_those_of_scikit_learn(
    store: ActivationStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("whisper_sae_steer.analysis.browser.figures.AT_ONCE", 40)
    features, alive = store.features(), figures(store, store.features()).alive
    fires = features.toarray() > 0
    together = fires_together(features, alive, 4)
    near = points_alike(store.sae(), alive, 4)
    cosines = cosine_similarity(store.sae().W_dec.detach().numpy())
    for place in (0, 45, len(alive) - 1):
        f = alive[place]
        ious = {int(g): jaccard_score(fires[:, f], fires[:, g]) for g in alive if g != f}
        assert [v for _, v in together[place]] == pytest.approx(sorted(ious.values())[:-5:-1], abs=1e-4)
        assert all(value == pytest.approx(ious[g], abs=1e-4) for g, value in together[place])
        others = {int(g): cosines[f, g] for g in alive if g != f}
        assert [v for _, v in near[place]] == pytest.approx(sorted(others.values())[:-5:-1], abs=1e-4)
        assert all(value == pytest.approx(others[g], abs=1e-4) for g, value in near[place])


def test_pieces_hold_the_strongest_frame_and_are_shared(store: ActivationStore):
    features = store.features()
    found = find_pieces(store, features, [0, 1, 2], 3, 2.0)
    column = features[:, [1]].toarray().ravel()
    assert column[found[1][0].rows].max() == column.max()
    assert {piece.window.label for piece in found[0]} == {"rain"}
    for piece in [piece for some in found.values() for piece in some]:
        assert piece.frames == 100
        assert 0 <= piece.first <= FRAMES - 100
        assert piece.first % 25 == 0 or piece.first == FRAMES - 100
    every = [
        piece.name("key")
        for some in find_pieces(store, features, range(7), 6, 2.0).values()
        for piece in some
    ]
    assert len(set(every)) <= 6 * 4 < len(every)  # four places a recording


def test_pictures_are_bytes():
    mel = np.full((3, 80), -1.5, np.float16)
    assert set(base64.b64decode(picture(mel, -1.5))) == {0}
    mel[1, :2] = 0.5
    values = np.frombuffer(base64.b64decode(picture(mel, -1.5)), np.uint8).reshape(3, 40)
    assert values[1, 0] == 255
    assert values.sum() == 255
    assert set(base64.b64decode(mean_picture(np.zeros((5, 80), np.float32)))) == {128}
    assert list(base64.b64decode(curve(np.array([0.0, 2.0, 4.0]), 4.0))) == [0, 128, 255]


def test_the_most_informative_come_from_every_ranking_in_turn():
    rankings = [np.array([5.0, 4, 3, 2, 1]), np.array([np.nan, np.nan, np.nan, 1, 9])]
    alive = np.array([0, 1, 3, 4])
    assert most_informative(rankings, alive, 3) == [0, 1, 4]
    assert most_informative(rankings, alive, 9) == [0, 1, 3, 4]


def test_chosen_are_those_that_tell_labels_apart_and_those_asked_for(store: ActivationStore):
    counted = figures(store, store.features())
    assert choose(counted, JoinedResults(), BrowserConfig(features=1, also=(30,))) == [0, 30]
    assert choose(counted, JoinedResults(), BrowserConfig(features=0, also=(30,))) == [30]
    with pytest.raises(AnalysisError, match="feature 7 never fires"):
        choose(counted, JoinedResults(), BrowserConfig(also=(DEAD,)))


# ---- results of other analyses


def test_results_are_joined(results: Path):
    joined = read_results(results, "store", "sae")
    assert joined.ran == {"search", "describe", "hallucination"}
    assert [one["label"] for one in joined.labels[1]] == [EVIL, "rain"]
    assert joined.title(0) == f"drops {EVIL}"
    assert joined.title(2) == "rain"
    assert joined.values()["effect"](0) == 0.25
    assert joined.steering[0]["rows"][0]["values"] == [-0.5, 0]
    assert joined.steering[0]["rows"][1]["text"] == "5 of 8 changed (3 emptied, 1 filled)"
    assert "3 of 90 words" in joined.steering[0]["note"]
    assert [ranking[0] for ranking in joined.rankings(WIDTH)] == pytest.approx([0.9, 0.91, 0.25])
    missing = {column["key"]: column["missing"] for column in joined.columns()}
    assert missing == {
        **dict.fromkeys(("bits", "rate", "max", "f1", "score", "effect", "id")), "iou": "stability",
    }  # fmt: skip


def test_stability_of_real_results_is_joined(store: ActivationStore, tmp_path: Path):
    other = make_store(tmp_path / "other", store.features()[:, ::-1], lengths=FRAMES, labels=LABELS)
    write(tmp_path, "stability", stability([(store, "sae"), (other, "sae")]))
    joined = read_results(tmp_path, "store", "sae")
    assert joined.stability[0]["iou"] == 1
    assert DEAD not in joined.stability


def test_results_of_another_sae_count_as_not_there(results: Path):
    joined = read_results(results, "store", "another")
    assert (joined.labels, joined.descriptions, joined.steering) == ({}, {}, {})


def test_results_that_cannot_be_used_are_refused(tmp_path: Path):
    with pytest.raises(AnalysisError, match="no folder of results"):
        read_results(tmp_path / "none", "store", "sae")
    (tmp_path / "search.json").write_text('{"labels": 3}')
    with pytest.raises(AnalysisError, match="another version"):
        read_results(tmp_path, "store", "sae")


# ---- the folder


def test_the_command_writes_a_folder_and_says_how_large(
    store: ActivationStore, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["--results", str(results), "--out", str(tmp_path / "out"), "--most", "3", "--features", "30"]
    assert cli.main(["analyze", "report", str(store.path), *options]) == 0
    told = capsys.readouterr().out
    assert re.search(
        r"index\.html: 149 features, 4 with excerpts \(\d+ sounds, \d+ without sound\), 0\.\d MB", told
    )
    assert (tmp_path / "out" / "report.html").read_text() == (results / "report.html").read_text()
    assert 30 in index_of(tmp_path / "out")["features"]["id"]


def test_a_stopped_run_leaves_no_page_and_goes_on(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    write_folder(store, "sae", JoinedResults(), tmp_path, CONFIG)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "audio").iterdir()}
    (tmp_path / "audio" / "0123456789ab-000000-100.ogg").write_bytes(b"of an earlier run")
    with monkeypatch.context() as patch:
        patch.setattr(browser_module, "_index", stop)
        with pytest.raises(KeyboardInterrupt):
            write_folder(store, "sae", JoinedResults(), tmp_path, CONFIG)
    assert not (tmp_path / "index.html").exists()
    written = write_folder(store, "sae", JoinedResults(), tmp_path, CONFIG)
    assert written.page.exists()
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "audio").iterdir()}
    assert written.sounds == len(before)
    assert written.silent > 0  # one recording is gone


def test_what_cannot_be_browsed_is_refused(store: ActivationStore, tmp_path: Path):
    (tmp_path / "index.html").write_text("somebody's page")
    with pytest.raises(AnalysisError, match="another page"):
        write_folder(store, "sae", JoinedResults(), tmp_path, CONFIG)
    assert (tmp_path / "index.html").read_text() == "somebody's page"
    dead = make_store(tmp_path / "dead", np.zeros((300, 4)), sae=make_sae(d_sae=4))
    with pytest.raises(AnalysisError, match="no feature of this SAE fires"):
        write_folder(dead, "sae", JoinedResults(), tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()


def test_one_recording_without_labels_is_enough(tmp_path: Path):
    store = make_store(tmp_path / "store", sparse_features(20, 6, 2), domains="sound", labels="", lengths=20)
    write_folder(store, "sae", JoinedResults(), tmp_path / "out")
    index = index_of(tmp_path / "out")
    assert index["alive"] == index["shown"] == 6
    assert set(index["features"]["bits"]) == {0}


SCRIPTS = ("browser.js", "feature.js", "overview.js", "pictures.js")
PAGE_FILES = ("index.html", "look.css", "browser.css", *SCRIPTS)


def test_the_folder_holds_the_page_its_data_and_its_sounds(folders: Path):
    assert {path.name for path in (folders / BARE).iterdir()} == {*PAGE_FILES, "data", "audio"}


def test_the_files_load_nothing_else(folders: Path):
    page = (folders / BARE / "index.html").read_text()
    assert "default-src 'none'" in page
    for name in PAGE_FILES:
        text = (folders / BARE / name).read_text()
        assert "http" not in text.replace("http-equiv", "")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


# ---- in Chromium


@pytest.fixture(scope="module")
def chromium() -> Generator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@contextmanager
def opened(chromium: Any, folder: Path, where: str = "", **options: Any) -> Generator[Any]:
    """A new page of a folder, which may neither fail nor complain nor ask for anything elsewhere."""
    context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
    page, errors, asked = context.new_page(), list[str](), list[str]()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{(folder / 'index.html').as_uri()}{where}")
    page.wait_for_selector("article")
    yield page
    context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith((folder.as_uri(), "data:"))] == []


def colours(page: Any, selector: str) -> int:
    """Distinct colours of a canvas."""
    return page.locator(selector).first.evaluate(
        """(canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )


def feature(page: Any, number: int) -> Any:
    return page.locator(f"article[data-feature='{number}']")


@in_browser
def test_a_feature_is_found_and_opened(chromium: Any, folders: Path):
    with opened(chromium, folders / MEASURED) as page:
        assert page.locator("#overview").count() == 1
        assert page.locator("#count").inner_text() == "149 features"
        assert page.locator("#overview a[href='report.html']").count() == 1
        page.keyboard.press("/")
        page.keyboard.type("drops")
        assert page.locator("#count").inner_text() == "1 of 149 features"
        page.locator("#list [role=option]").click()
        feature(page, 0).wait_for()
        assert page.url.endswith("#feature=0")
        assert page.locator("h2").inner_text() == f"Feature 0 drops {EVIL}"
        assert page.locator("script", has_text="alert").count() == 0
        text = page.locator("article").inner_text()
        for part in ("0.250", "−0.500", "5 of 8 changed (3 emptied, 1 filled)", "0.91", "3 of 90 words"):
            assert part in text, part
        assert "not measured: run whisper-sae-steer analyze stability" in text
        page.locator("#search").fill("#30")
        assert page.locator("#list [role=option]").all_inner_texts()[0].startswith("#30")
        page.locator("#search").fill("no such words")
        assert page.locator("#count").inner_text() == "0 of 149 features"


@in_browser
def test_excerpts_are_seen_and_heard(chromium: Any, folders: Path):
    with opened(chromium, folders / BARE, "#feature=0") as page:
        assert colours(page, ".excerpts canvas") > 100
        assert colours(page, "canvas.mean") > 20
        player = page.locator("audio").first
        page.wait_for_function("() => document.querySelector('audio').readyState >= 1")
        assert player.evaluate("(audio) => audio.duration") == pytest.approx(2, abs=0.05)
        page.locator(".excerpts .play").first.click()
        page.wait_for_function("() => document.querySelector('audio').currentTime > 0.2")
        slider = page.locator(".excerpts [role=slider]").first
        assert float(slider.get_attribute("aria-valuenow")) > 0
        page.locator(".excerpts .play").first.click()
        assert player.evaluate("(audio) => audio.paused")
        slider.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert player.evaluate("(audio) => audio.currentTime") == pytest.approx(0.1, abs=0.01)
        box = slider.bounding_box()
        page.keyboard.press("Home")
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
        page.wait_for_function("() => document.querySelector('audio').currentTime >= 1")


@in_browser
def test_a_lost_recording_has_a_picture_and_no_sound(chromium: Any, folders: Path):
    with opened(chromium, folders / BARE) as page:
        chunks = [chunk_of(folders / BARE, number) for number in range(3)]
        features = [one for chunk in chunks for one in chunk["features"] if one["excerpts"]]
        lost = next(f["id"] for f in features if any(e["clip"] == "3.wav" for e in f["excerpts"]))
        page.evaluate(f"location.hash = '#feature={lost}'")
        feature(page, lost).wait_for()
        silent = page.locator(".excerpts li", has_text="3.wav")
        assert silent.locator("button").is_disabled()
        assert "No audio" in silent.locator("button").get_attribute("aria-label")


@in_browser
def test_links_keys_and_the_back_button_lead_through_features(chromium: Any, folders: Path):
    with opened(chromium, folders / BARE) as page:
        page.locator("#sort").select_option("id")
        page.locator("#direction").click()
        page.locator("#list [role=option]").first.click()
        feature(page, 0).wait_for()
        page.keyboard.press("ArrowDown")
        feature(page, 1).wait_for()
        page.keyboard.press("End")
        feature(page, 149).wait_for()
        assert page.locator("#list").get_attribute("aria-activedescendant") == "row-149"
        assert page.locator("#row-149").get_attribute("aria-selected") == "true"
        assert page.locator("#row-149").get_attribute("aria-posinset") == "149"
        link = page.locator(".related a").first
        other = int(link.inner_text()[1:])
        link.click()
        feature(page, other).wait_for()
        page.go_back()
        feature(page, 149).wait_for()
        page.go_back()
        page.wait_for_selector("#overview")
        page.go_forward()
        feature(page, 149).wait_for()
        page.evaluate("location.hash = '#feature=7'")
        page.wait_for_selector("[role=alert]")
        assert "never fires" in page.locator("[role=alert]").inner_text()


@in_browser
@pytest.mark.parametrize("which", [BARE, MEASURED])
def test_every_feature_is_shown_without_gaps(chromium: Any, folders: Path, which: str):
    with opened(chromium, folders / which) as page:
        texts = [page.locator("body").inner_text()]
        for number in (0, 1, 2, 30, 148, 149):
            page.evaluate(f"location.hash = '#feature={number}'")
            feature(page, number).wait_for()
            texts.append(page.locator("body").inner_text())
        for text in texts:
            assert not re.search(r"NaN|undefined|null|Infinity|\[object", text), text
        assert ("not measured: run whisper-sae-steer analyze search" in texts[1]) == (which == BARE)
        assert ("not among the best features of any label" in texts[-1]) == (which == MEASURED)


@in_browser
def test_sorting_puts_what_is_not_known_last(chromium: Any, folders: Path):
    with opened(chromium, folders / MEASURED) as page:
        page.locator("#sort").select_option("f1")
        rows = page.locator("#list [role=option]").all_inner_texts()
        assert [row.split()[0] for row in rows[:3]] == ["#1", "#0", "#2"]
        assert rows[3].split()[-1] == "–"
        page.locator("#direction").click()
        rows = page.locator("#list [role=option]").all_inner_texts()
        assert [row.split()[0] for row in rows[:3]] == ["#2", "#0", "#1"]
        assert page.locator("#sort option[value=iou]").is_disabled()


@in_browser
def test_a_lost_data_file_is_told(chromium: Any, folders: Path, tmp_path: Path):
    broken = shutil.copytree(folders / BARE, tmp_path / "broken")
    os.remove(broken / "data" / "features-0001.js")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{(broken / 'index.html').as_uri()}#feature=100")
    page.wait_for_selector("[role=alert]")
    assert "data/features-0001.js is missing" in page.locator("[role=alert]").inner_text()
    context.close()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(chromium: Any, folders: Path, scheme: str):
    options: dict[str, Any] = {
        "viewport": {"width": 390, "height": 800},
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    with opened(chromium, folders / MEASURED, **options) as page:
        assert faults(page) == {}
        page.locator("#list [role=option]").first.click()
        page.wait_for_selector("article[data-feature]")
        assert faults(page) == {}
        assert not page.locator("#finder").is_visible()
        background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) > 3 * 128) == (scheme == "light")
        page.locator(".back").click()
        page.wait_for_selector("#overview")
        assert page.locator("#finder").is_visible()
