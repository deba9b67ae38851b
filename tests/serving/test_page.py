"""The page in headless Chromium: from a file or the microphone to transcripts."""

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from whisper.utils import WriteSRT, WriteTXT, WriteVTT

from tests.support.pages import CHROMIUM, faults, in_browser
from tests.support.real_models import sample, truth
from tests.support.serving_parts import ModelAsTold, Serving, post, serving, tiny, until, wav
from whisper_sae_steer.faster import Word
from whisper_sae_steer.serving import page as page_files
from whisper_sae_steer.serving.config import ServeConfig

api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
expect = api.expect
LONG = 60_000
"""milliseconds for what a model works on"""
AUDIO = np.concatenate([sample("gap")[20 * 16_000 : 28 * 16_000], sample("speech")])
"""8 s of noise, then speech"""
UNSTEERED = [(0.0, 8.0, " You"), (9.0, 15.4, f" {truth('speech')['speech'][0]['text']}")]
"""what tiny.en writes for it more often than not: it falls back to random sampling"""


@pytest.fixture(scope="module")
def server() -> Generator[Serving]:
    model, steered = tiny(), tiny().transcribe

    def transcribe(upload: Any, **options: Any) -> tuple[Any, Any]:
        if options["steer_alpha"]:
            return steered(upload, **options)
        segments = (SimpleNamespace(start=a, end=b, text=text, words=None) for a, b, text in UNSTEERED)
        return segments, SimpleNamespace(duration=len(model.samples_of(upload)) / 16_000, language="en")

    with pytest.MonkeyPatch.context() as patch, serving(ServeConfig(model="tiny.en")) as running:
        patch.setattr(model, "transcribe", transcribe)
        yield running


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "noise and speech.wav"
    path.write_bytes(wav(samples=(AUDIO * 32767).astype(np.int16)))
    return path


@pytest.fixture(scope="module")
def browser(recording: Path) -> Generator[Any]:
    options = [
        "--no-sandbox",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    ]
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@contextmanager
def opened(browser: Any, server: Serving) -> Generator[Any]:
    """A new page, which may neither fail nor ask anybody else."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page, errors, asked = context.new_page(), list[str](), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    yield page
    context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith((server.url, "blob:", "data:"))] == []


@pytest.fixture
def page(browser: Any, server: Serving) -> Generator[Any]:
    with opened(browser, server) as page:
        yield page


@pytest.fixture(scope="module")
def shown(browser: Any, server: Serving, recording: Path) -> Generator[Any]:
    """A page with the recording transcribed at α = 1."""
    with opened(browser, server) as page:
        page.set_input_files("#file", recording)
        done(page)
        yield page


def done(page: Any) -> None:
    expect(page.locator("#status")).to_have_text("Done.", timeout=LONG)


def position(page: Any) -> float:
    return float(page.locator("#chart").get_attribute("aria-valuenow"))


def painted(page: Any, name: str, canvas: str = "canvas") -> int:
    """Pixels of a picture that have a colour of the style sheet, opaque or not."""
    return page.evaluate(
        """([name, id]) => {
            const canvas = document.getElementById(id);
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
            const wanted = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
                if (data[i + 3] && wanted.every((value, j) => Math.abs(data[i + j] - value) < 5)) count++;
            return count;
        }""",
        [name, canvas],
    )


def downloaded(page: Any, group: str, form: str) -> tuple[str, str]:
    """Name and content of what a button of a group downloads."""
    with page.expect_download() as started:
        page.locator(group).get_by_text(form, exact=True).click()
    return started.value.suggested_filename, Path(started.value.path()).read_text(encoding="utf-8")


@in_browser
def test_a_file_is_shown_and_transcribed_both_ways(shown: Any):
    assert shown.locator("#plain .words").all_inner_texts()[0] == "You"
    steered = shown.locator("#steered .words").all_inner_texts()
    assert steered[0].startswith("The train to the coast")
    assert steered == shown.locator("#plain .words").all_inner_texts()[1:]
    assert re.fullmatch(r"0:0\d–0:1\d", shown.locator("#steered time").first.inner_text())
    expect(shown.locator("#plain button").first).to_have_class(re.compile("high"))
    expect(shown.locator("#plain .risk").first).to_have_text(re.compile(r"risk (9\d|100)%"))
    expect(shown.locator("#steered button").first).to_have_class(re.compile("low"))
    expect(shown.locator("#name")).to_contain_text("noise and speech.wav")
    for part in ("--wave", "--speech", "--risk", "--head", "--high", "--low"):
        assert painted(shown, part) > 50, part


@in_browser
def test_words_that_may_be_made_up_are_underlined(browser: Any, recording: Path):
    risks = {" The": 0.01, " blue": 0.93, " boxes,": 0.3, " The ": 0.02}
    words = [Word(i, i + 1.0, word, 0.9, risk) for i, (word, risk) in enumerate(risks.items())]
    segment = SimpleNamespace(start=0.0, end=4.0, text="".join(risks), words=words, hallucination_risk=0.3)
    model = ModelAsTold()
    with pytest.MonkeyPatch.context() as patch, serving(ServeConfig(), model) as server:
        patch.setattr(model, "_segments", lambda _: iter([segment]))
        with opened(browser, server) as page:
            page.set_input_files("#file", recording)
            done(page)
            marked = page.locator("#steered .words u")
            assert marked.all_inner_texts() == ["blue", "boxes,"]
            expect(marked.first).to_have_class("high")
            expect(marked.first).to_have_attribute("title", "93% likely made up")
            expect(marked.last).to_have_class("middle")
            expect(page.locator("#steered .words")).to_have_text("The blue boxes, The")
            assert model.calls[0]["word_timestamps"] != model.calls[1]["word_timestamps"]


@in_browser
def test_the_length_is_shown_as_soon_as_it_is_known(browser: Any, recording: Path):
    with serving(ServeConfig(), ModelAsTold()) as server, opened(browser, server) as page:
        page.set_input_files("#file", recording)
        done(page)
        assert page.locator("#clock").inner_text() == "0:00.0 / 0:18.0"


@in_browser
def test_clicks_and_keys_move_the_position(shown: Any):
    box = shown.locator("#canvas").bounding_box()
    seconds = len(AUDIO) / 16_000
    shown.mouse.click(box["x"] + 68 + (box["width"] - 68) / 2, box["y"] + 20)
    assert position(shown) == pytest.approx(seconds / 2, abs=0.1)
    shown.locator("#chart").focus()
    for key, expected in (
        ("Home", 0),
        ("ArrowRight", 1),
        ("PageUp", 11),
        ("ArrowLeft", 10),
        ("End", seconds),
    ):
        shown.keyboard.press(key)
        assert position(shown) == pytest.approx(expected, abs=0.1), key
    shown.keyboard.press("Home")
    expect(shown.locator("#readout")).to_have_text(re.compile(r"^speech [0-4]% · risk (9\d|100)%$"))
    shown.keyboard.press(" ")
    expect(shown.locator("#play")).to_have_attribute("aria-label", "Pause")
    shown.keyboard.press(" ")
    expect(shown.locator("#play")).to_have_attribute("aria-label", "Play")
    line = shown.locator("#steered button").first
    line.focus()
    shown.keyboard.press("Enter")
    assert position(shown) == pytest.approx(float(line.get_attribute("data-start")), abs=0.5)
    expect(line).to_have_class(re.compile("now"))


@in_browser
def test_the_slider_steers_anew(browser: Any, recording: Path):
    model = ModelAsTold()
    with serving(ServeConfig(), model) as server, opened(browser, server) as page:
        page.set_input_files("#file", recording)
        done(page)
        assert sorted(call["steer_alpha"] for call in model.calls) == [0, 1]
        page.locator("#alpha").fill("1.4")
        expect(page.locator("#steered-alpha")).to_have_text("α = 1.4")
        until(lambda: len(model.calls) == 3)
        assert model.calls[-1]["steer_alpha"] == 1.4
        done(page)


@in_browser
def test_transcripts_are_downloaded_as_whisper_writes_them(shown: Any, server: Serving, recording: Path):
    name, text = downloaded(shown, "#steered-downloads", "json")
    assert name == "noise and speech.json"
    answer = json.loads(text)
    posted = post(server, recording.read_bytes(), response_format="verbose_json").json()
    assert answer["text"] == posted["text"]
    assert len(answer["segments"]) > 0
    for form, writer in {"txt": WriteTXT, "srt": WriteSRT, "vtt": WriteVTT}.items():
        written = StringIO()
        writer("").write_result(answer, written)
        name, text = downloaded(shown, "#steered-downloads", form)
        assert (name, text) == (f"noise and speech.{form}", written.getvalue())
    name, text = downloaded(shown, "#plain-downloads", "txt")
    assert (name, text.splitlines()[0]) == ("noise and speech-unsteered.txt", "You")


@in_browser
def test_cues_of_long_recordings_are_whisper_s(shown: Any):
    segments = [
        {"start": 0.0, "end": 59.9996, "text": " a --> b"},
        {"start": 3599.9994, "end": 3661.5, "text": " c "},
    ]
    for form, writer in {"srt": WriteSRT, "vtt": WriteVTT}.items():
        written = StringIO()
        writer("").write_result({"segments": segments}, written)
        found = shown.evaluate(
            """async ([form, segments]) => {
                const { WRITERS } = await import("/page/downloads.js");
                return WRITERS[form]({ segments });
            }""",
            [form, segments],
        )
        assert found == written.getvalue()


@in_browser
def test_a_sample_is_one_click_away(browser: Any):
    with serving(ServeConfig(), ModelAsTold()) as server, opened(browser, server) as page:
        page.get_by_role("button", name="Try a sample").click()
        done(page)
        expect(page.locator("#name")).to_contain_text("sample.ogg")
        expect(page.locator("#clock")).to_have_text("0:00.0 / 1:37.2")
        assert painted(page, "--wave") > 1000


@in_browser
def test_an_english_only_model_leaves_nothing_to_choose(page: Any):
    expect(page.locator("#model option")).to_have_text(["tiny.en"])
    expect(page.locator("#model-choice")).to_be_hidden()
    expect(page.locator("#language-choice")).to_be_hidden()


@in_browser
def test_model_and_language_are_chosen_where_there_are_several(browser: Any, recording: Path):
    """Models as a server of several lists them; an alias is none of them."""
    listed = [
        {"id": "tiny.en", "root": "tiny.en", "languages": ["en"], "loaded": True},
        {"id": "whisper-1", "root": "base", "languages": ["en", "de", "fr"], "loaded": False},
        {"id": "base", "root": "base", "languages": ["en", "de", "fr"], "loaded": False},
    ]
    with serving(ServeConfig(aliases=("base",)), ModelAsTold()) as server, opened(browser, server) as page:
        page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": listed}))
        page.reload()
        expect(page.get_by_label("Model")).to_be_visible()
        expect(page.get_by_label("Language")).to_be_hidden()
        expect(page.locator("#model option")).to_have_text(["tiny.en", "base (loads first)"])
        asked = list[str]()
        page.on("request", lambda request: asked.append(str(request.post_data_buffer or b"")))
        page.get_by_label("Model").select_option("base")
        expect(page.locator("#language option")).to_have_text(["detect it", "English", "French", "German"])
        page.get_by_label("Language").select_option("German")
        listed[2]["loaded"] = True
        page.set_input_files("#file", recording)
        done(page)
        expect(page.locator("#model option")).to_have_text(["tiny.en", "base"])
        forms = [body for body in asked if "wav" in body]
        assert len(forms) == 3  # the timeline and two transcripts
        for field, value in (("model", "base"), ("language", "de")):
            assert all(f'name="{field}"\\r\\n\\r\\n{value}\\r' in body for body in forms)


@in_browser
def test_the_microphone_is_heard_live(page: Any):
    """The fake microphone plays 8 s of noise, then a sentence, again and again."""
    page.get_by_role("button", name="Listen live").click()
    expect(page.locator("#live")).to_be_visible()
    expect(page.locator("#listen")).to_have_text("Stop")
    expect(page.locator("#live-partial")).to_be_visible(timeout=LONG)
    expect(page.locator("#live-partial")).to_contain_text("may still change")
    expect(page.locator("#live-partial-text")).to_have_css("font-style", "italic")
    expect(page.locator("#live-lines")).to_contain_text("boxes", timeout=LONG)
    expect(page.locator("#live-lines .words").first).to_have_css("font-style", "normal")
    assert painted(page, "--speech", "live-canvas") > 50
    page.get_by_role("button", name="Stop").click()
    done(page)
    expect(page.locator("#listen")).to_have_text("Listen live")
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#live-partial")).to_be_hidden()
    lines = page.locator("#live-lines .words").all_inner_texts()
    assert "train to the coast leaves at noon" in " ".join(lines)
    name, text = downloaded(page, "#live-downloads", "txt")
    assert (name, text) == ("live.txt", "".join(f"{line}\n" for line in lines))


@in_browser
def test_a_live_session_that_the_server_ends_says_why(
    page: Any, server: Serving, monkeypatch: pytest.MonkeyPatch
):
    engine = server.app.state.engine
    monkeypatch.setattr(engine, "config", replace(engine.config, max_audio_seconds=1))
    page.locator("#listen").click()
    expect(page.locator("#error")).to_contain_text("longer than 1 s", timeout=LONG)
    expect(page.locator("#listen")).to_have_attribute("aria-pressed", "false")


@in_browser
def test_everything_that_takes_a_key_or_a_click_has_a_name(shown: Any):
    kinds = (
        "button, input:not([hidden]), select, canvas:not([role=slider] canvas), [role=slider], [role=group]"
    )
    unnamed = """(kinds) => [...document.querySelectorAll(kinds)]
        .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.[0]?.textContent.trim()))
        .map((one) => one.outerHTML)"""
    assert shown.evaluate(unnamed, kinds) == []


@in_browser
def test_the_microphone_is_recorded(page: Any):
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_text("Stop (0:01)", timeout=5000)
    page.locator("#record").click()
    expect(page.locator("#name")).to_contain_text("recording.wav")
    done(page)
    expect(page.locator("#clock")).to_have_text(re.compile(r"/ 0:0[1-4]\.\d"))
    expect(page.locator("#error")).to_be_hidden()
    assert painted(page, "--wave") > 100


@in_browser
def test_a_dropped_file_that_is_no_audio_is_refused_in_words(page: Any):
    page.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["no audio"], "letter.txt"));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        }"""
    )
    expect(page.locator("#error")).to_contain_text("not audio", timeout=LONG)
    expect(page.locator("#plain")).to_have_text("No transcript.")
    expect(page.locator("#name")).to_contain_text("letter.txt")


@in_browser
def test_a_server_that_is_gone_is_told(page: Any, recording: Path):
    page.route("**/v1/**", lambda route: route.abort())
    page.set_input_files("#file", recording)
    expect(page.locator("#error")).to_contain_text("can't be reached")


@in_browser
def test_the_key_is_asked_for(browser: Any, recording: Path):
    with serving(ServeConfig(api_key="sesame"), ModelAsTold()) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.set_input_files("#file", recording)
        page.locator("#key").fill("sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#plain .words").first).to_have_text("word0", timeout=LONG)
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator("#error")).to_contain_text("without a steering pack")
        page.close()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(browser: Any, server: Serving, recording: Path, scheme: str):
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.goto(server.url)
    page.set_input_files("#file", recording)
    expect(page.locator("#result")).to_be_visible()
    done(page)
    assert faults(page) == {}
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", background))) > 3 * 128
    assert light == (scheme == "light")
    page.close()


def test_the_page_is_plain_files_that_load_nothing_else(server: Serving):
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    files = {f"/page/{name}": kinds.get(path.suffix) for name, path in page_files.FILES.items()}
    assert len(files) > 10
    for path, kind in {"/": "text/html", **files}.items():
        answer = httpx.get(server.url + path)
        if kind is None:
            assert answer.headers["content-type"] == "audio/ogg"
            continue
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http" not in re.sub(r"on https or|replace\(\"http\"", "", answer.text)
        assert answer.text.count("\n") <= 250
    assert httpx.get(server.url + "/page/../app.py").status_code == 404
