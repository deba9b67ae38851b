"""The comparison with peers: filters, choice, rows, summary and the page."""

import json
import re
import time
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.real_models import sample
from whisper_sae_steer import cli
from whisper_sae_steer.audio.clips import Clip, read_folder
from whisper_sae_steer.audio.synthetic import clip as synthetic_clip
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.bench import read_rows
from whisper_sae_steer.bench.backends import Backend, RawWindow, Transcript
from whisper_sae_steer.bench.peers.catalogue import OURS, PEERS, Peer, choose
from whisper_sae_steer.bench.peers.examples import pick
from whisper_sae_steer.bench.peers.filters import PHRASES, drop_phrases, guard
from whisper_sae_steer.bench.peers.report import write_html, write_table
from whisper_sae_steer.bench.peers.run import Models, collect, run
from whisper_sae_steer.bench.peers.summary import best, compare
from whisper_sae_steer.errors import SteerError
from whisper_sae_steer.models.weights import resolve

Audio = NDArray[np.float32]
BY_NAME = {peer.name: peer for peer in PEERS}
SCORES = {"avg_logprob": -0.3, "no_speech_prob": 0.2, "compression_ratio": 1.0, "temperature": 0.0}
PIECES = "the fox ran"


def segment(text: str, start: float = 0.0, end: float = 2.0, **scores: float) -> dict[str, Any]:
    labels = {"speech_prob": None, "hallucination_risk": None}
    return {"text": text, "start": start, "end": end, **SCORES, **labels, **scores}


class Parrot:
    """Writes its texts by the length of the audio: half seconds are noise, whole ones speech."""

    model_name = "parrot"
    compute_type = "int8"

    def __init__(self, name: str, pack: str | None, noise: str, speech: str) -> None:
        self.name, self.pack = name, pack
        self._texts = {8000: noise, 16000: speech}
        self.calls = 0

    def transcribe(self, audio: Audio, alpha: float, language: str | None) -> Transcript:
        self.calls += 1
        time.sleep(0.002)  # or its time would round to none
        text = self._texts[len(audio)]
        return Transcript(text, [segment(text)] if text else [])

    def first_window(self, audio: Audio, alpha: float, language: str | None) -> RawWindow:
        return RawWindow(text="", no_speech_prob=0.9 if alpha else 0.1, avg_logprob=-0.5)


class Parrots:
    """One parrot a peer: unsteered ones invent a phrase, VAD loses words, ours is right."""

    def __init__(self) -> None:
        self.loaded: dict[str, Parrot] = {}

    def backend(self, peer: Peer) -> Backend:
        pack = "pack 1" if peer.pack else None
        noise = "" if peer.pack or "vad" in peer.name else " Thank you."
        speech = " the fox" if peer.name == "vad-0.7" else f" {PIECES}"
        self.loaded[peer.name] = Parrot(peer.name, pack, noise, speech)
        return self.loaded[peer.name]


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
    return [BY_NAME[name] for name in ("faster", "vad-0.5", "vad-0.7", "phrases", OURS)]


def test_phrases_go_only_where_they_are_the_whole_segment() -> None:
    texts = [" Thank you.", " Thank you. Thank you! THANK YOU", " Thank you, Mr. Smith.", " I'm sorry…", ""]
    kept = drop_phrases([segment(text) for text in texts])
    assert [s["text"] for s in kept] == [" Thank you, Mr. Smith.", ""]
    assert all(re.fullmatch(r"[^\W_]+( [^\W_]+)*", phrase) for phrase in PHRASES)


def test_whisper_guard_drops_what_looks_silent_and_keeps_speech() -> None:
    pytest.importorskip("whisper_guard")
    speech = segment(" The stale smell of old beer lingers.")
    assert [s["text"] for s in guard([speech])] == [speech["text"]]
    assert guard([segment(" Thank you.", no_speech_prob=0.9)]) == []
    assert guard([]) == []


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
    assert set(names) | set(lacking) == set(BY_NAME)


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


def test_run_collect_and_compare(clips: list[Clip], peers: list[Peer], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(peers, clips, Parrots(), out, progress=False)
    again = Parrots()
    run(peers, clips, again, out, progress=False)
    assert sum(parrot.calls for parrot in again.loaded.values()) == 0, "all rows are there"
    rows = collect(peers, clips, out)
    assert {name: len(found) for name, found in rows.items()} == {peer.name: 4 for peer in peers}
    assert read_rows(out / "phrases" / "clips.jsonl") == rows["phrases"]
    assert [row["text"] for row in rows["phrases"]] == ["", "", f" {PIECES}", f" {PIECES}"]
    assert [row["raw"] is None for row in rows["vad-0.5"]] == [True] * 4
    assert rows[OURS][0]["pack"] == "pack 1"
    entries = {e["name"]: e for e in compare(peers, rows)}
    rates = {name: e["nonspeech"]["FPR_text"] for name, e in entries.items()}
    assert {name: (rate["k"], rate["n"]) for name, rate in rates.items()} == {
        "faster": (2, 2), "vad-0.5": (0, 2), "vad-0.7": (0, 2), "phrases": (0, 2), OURS: (0, 2),
    }  # fmt: skip
    lossy = entries["vad-0.7"]["speech"]
    assert (lossy["WER"], lossy["deletions"], lossy["insertions"]) == (pytest.approx(1 / 3), 2, 0)
    assert lossy["WER_change"]["value"] == pytest.approx(1 / 3)
    assert entries["vad-0.5"]["speech"]["FRR"]["k"] == 0
    assert [name for name, e in entries.items() if not e["chosen"]] == ["vad-0.7"]
    assert entries[OURS]["nonspeech"]["by_class"]["c0"]["FPR_text"]["n"] == 1
    wall = sum(row["wall"] or 0 for row in rows["faster"][2:])
    assert entries["faster"]["RTFx"]["speech"] == pytest.approx(2 / wall)
    json.dumps(list(entries.values()), allow_nan=False)


def test_a_stopped_run_is_compared_on_what_there_is(
    clips: list[Clip], peers: list[Peer], tmp_path: Path
) -> None:
    class Stopping(Parrots):
        def backend(self, peer: Peer) -> Backend:
            if peer.name == "vad-0.5":
                raise KeyboardInterrupt
            return super().backend(peer)

    with pytest.raises(KeyboardInterrupt):
        run(peers, clips, Stopping(), tmp_path, progress=False)
    rows = collect(peers, clips[1:], tmp_path)
    assert list(rows) == ["faster", "phrases"]
    assert [row["path"] for row in rows["faster"]] == [clip.key for clip in clips[1:]], "no other clips"
    assert [e["name"] for e in compare(peers, rows)] == ["faster", "phrases"]


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
    assert "| 2. Silero VAD | threshold 0.5 | 0/2 = 0.0% [0.0, 65.8] | 0.00% | +0.00 pp" in first
    assert "| 3. Silero VAD | threshold 0.7 |" in others
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


@pytest.fixture(scope="module")
def models() -> Models:
    return Models("tiny.en", "int8", threads=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vad-0.5", {"vad_filter": True, "vad_parameters": {"threshold": 0.5}}),
        ("nsp-0.2-alone", {"no_speech_threshold": 0.2, "log_prob_threshold": None}),
    ],
)
def test_peers_are_the_unmodified_library_with_their_options(
    models: Models, name: str, options: dict[str, Any]
) -> None:
    backend: Any = models.backend(BY_NAME[name])
    plain = faster_whisper.WhisperModel(str(resolve("tiny.en").ct2_dir), compute_type="int8", cpu_threads=1)
    audio = sample("speech")[: 16000 * 12]
    expected, info = plain.transcribe(audio, language="en", **options)
    assert backend.transcribe(audio, 0.0, "en").text == "".join(s.text for s in expected)
    assert info.transcription_options.log_prob_threshold == options.get("log_prob_threshold", -1.0)
    assert (backend.name, backend.pack, backend.compute_type) == (name, None, "int8")
    assert type(backend.model.model) is type(plain.model), "no proxy in between"


def test_the_batched_pipeline_without_vad_hears_everything(models: Models) -> None:
    backend = models.backend(BY_NAME["batched-all"])
    speech = sample("speech")[: 16000 * 12]
    # longer than a window, where the pipeline refuses to run without being told where to cut
    audio = np.concatenate([speech, np.zeros(16000 * 20, dtype=np.float32), speech])
    segments = backend.transcribe(audio, 0.0, "en").segments
    assert segments[0]["start"] < 12
    assert segments[-1]["end"] > 32
    silence = np.zeros(16000 * 5, dtype=np.float32)
    assert models.backend(BY_NAME["batched"]).transcribe(silence, 0.0, "en").segments == []


def test_command(clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "peers", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^{peer.name} ", listed, re.MULTILINE) for peer in PEERS)
    assert cli.main(["bench", "peers", "--peers", "vad-0.5"]) == 2
    assert "give --manifest" in capsys.readouterr().err
    noise = clips[0].path.parents[1]
    out = tmp_path / "out"
    arguments = ["--nonspeech", str(noise), "--peers", "vad-0.5", "--model", "tiny.en", "--out", str(out)]
    assert cli.main(["bench", "peers", *arguments, "--compute_type", "int8", "--threads", "1"]) == 0
    assert "Silero VAD" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert [e["name"] for e in summary["peers"]] == ["faster", "vad-0.5"]
    assert summary["conditions"]["clips"] == "2 without speech, 0 with"
    assert (out / "report.html").is_file()
