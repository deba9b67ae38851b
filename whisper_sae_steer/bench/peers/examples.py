"""Clips on which the peers differ most, to listen to, with every transcript."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from tqdm import tqdm

from ...audio.clips import NONSPEECH_KINDS, Clip
from ...audio.reading import load_audio
from ...audio.units import SAMPLE_RATE
from ...errors import AudioError
from ...reports import metrics
from ...reports.page import heading, paragraph, render, sound, table
from ..runner import Row
from .summary import Entry

PEERS = "whisper_sae_steer.bench.peers"
COUNTS = {"nonspeech": 6, "speech": 4}
SECONDS = 30.0
"""what is played of a clip"""


def examples(
    entries: Sequence[Entry], rows: Mapping[str, Sequence[Row]], clips: Sequence[Clip]
) -> list[Markup]:
    """HTML of clips with a player and the transcripts, those that agree on one line."""
    by_clip: dict[str, dict[str, Row]] = defaultdict(dict)
    for entry in entries:
        for row in rows[entry["name"]]:
            if row["error"] is None:
                by_clip[row["path"]][entry["name"]] = row
    if not by_clip:
        return []
    body = [
        heading("Clips on which the peers differ most"),
        paragraph(
            "Without speech: those where the numbers of peers with text and without are closest; with"
            " speech: those with the widest range of word errors; each class once before any comes twice."
        ),
    ]
    known = {clip.key: clip for clip in clips}
    for key in pick(by_clip):
        clip = known[key]
        try:
            start = load_audio(clip.path)[: int(SECONDS * SAMPLE_RATE)]
            player = sound(start, clip.key)
        except (AudioError, OSError) as error:
            tqdm.write(f"left out of the examples: {error}")
            continue
        found = _transcripts(entries, by_clip[key])
        lines = [(text or "(nothing)", ", ".join(peers)) for text, peers in found]
        transcripts = table(("transcript", "peers"), lines, text=True)
        title = heading(clip.key, 3)
        body.append(
            render(PEERS, "example.html.j2", title=title, clip=clip, player=player, transcripts=transcripts)
        )
    return body


def pick(by_clip: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """Keys of the clips to show."""
    scored: dict[str, list[tuple[float, str, str]]] = {kind: [] for kind in COUNTS}
    for key, found in by_clip.items():
        row = next(iter(found.values()))
        kind = "nonspeech" if row["kind"] in NONSPEECH_KINDS else "speech"
        if (difference := _difference(list(found.values()))) > 0:
            scored[kind].append((-difference, f"{row['source']} {row['class']}", key))
    picked: list[str] = []
    for kind, count in COUNTS.items():
        turns: dict[str, int] = defaultdict(int)
        ranked: list[tuple[int, float, str]] = []
        for score, group, key in sorted(scored[kind]):
            ranked.append((turns[group], score, key))
            turns[group] += 1
        picked += [key for _, _, key in sorted(ranked)[:count]]
    return picked


def _difference(found: Sequence[Row]) -> float:
    if found[0]["kind"] in NONSPEECH_KINDS:
        wrote = sum(metrics.has_text(row["text"] or "") for row in found)
        return min(wrote, len(found) - wrote)
    scored = [
        errors.rate
        for row in found
        if (errors := metrics.word_errors(row["reference"] or "", row["text"] or "", row["language"]))
    ]
    return max(scored) - min(scored) if scored else 0.0


def _transcripts(entries: Sequence[Entry], found: Mapping[str, Row]) -> list[tuple[str, list[str]]]:
    """Each transcript with the peers that gave it: the empty one first, then by number of peers."""
    peers: dict[str, list[str]] = {}
    for entry in entries:
        if entry["name"] in found:
            text = " ".join((found[entry["name"]]["text"] or "").split())
            peers.setdefault(text, []).append(entry["name"])
    return sorted(peers.items(), key=lambda item: (bool(item[0]), -len(item[1])))
