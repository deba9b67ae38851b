"""What the benchmark of unseen sources takes from which Debian packages.

Sounds of ten games; acted dialogues in Czech and Dutch and stamps described in eleven languages, with their
texts; single words in ten languages, without. Words in ten others serve calibration (calibration/words.py).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from whisper.tokenizer import LANGUAGES

from whisper_sae_steer.audio.reading import find_audio

GAMES = (
    *("btanks-data", "bzflag-data", "chromium-bsu-data", "colobot-common-sounds", "extremetuxracer-data"),
    *("freedroidrpg-data", "lincity-ng-data", "minetest-data", "supertux-data", "xmoto-data"),
)
CALIBRATION_LANGUAGES = frozenset({"ca", "de", "en", "fi", "gl", "lt", "nn", "ro", "sl", "sv"})
"""whose words the shipped packs were calibrated with: every second that KTuberling has"""
DIALOGUE = re.compile(r'dialogId\("([^"]+)".*\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)')


class Found(NamedTuple):
    """A recording in a package."""

    path: Path
    name: str
    """of the file to write"""
    kind: str
    """as manifests have it"""
    language: str = ""
    text: str = ""
    """what is said, if it is written down"""
    group: str = ""
    """recordings of one place or thing"""


def sounds(root: Path) -> Iterator[Found]:
    """A game's. A few may be spoken."""
    for path in find_audio([root]):
        name = "-".join(path.with_suffix("").parts[-2:])
        yield Found(path, name, "music" if "music" in name else "nonspeech", group=name)


def dialogues(root: Path) -> Iterator[Found]:
    """Fish Fillets' two fish, and whom they meet: acted."""
    game = root / "usr/share/games/fillets-ng"
    for script in game.glob("script/*/dialogs_*.lua"):
        language, level = script.stem.removeprefix("dialogs_"), script.parent.name
        for key, text in DIALOGUE.findall(script.read_text(encoding="utf-8")):
            path = game / "sound" / level / language / f"{key}.ogg"
            if path.exists():
                group = f"{language}-{level}"
                yield Found(path, f"{group}-{key}", "speech", language, text, group)


def stamps(root: Path) -> Iterator[Found]:
    """Tux Paint's, read out by volunteers: a few words each."""
    for path in (root / "usr/share/tuxpaint/stamps").rglob("*_desc_*.ogg"):
        stamp, language = path.stem.split("_desc_")
        texts = path.with_name(f"{stamp}.txt")
        if language in LANGUAGES and texts.exists():
            text = re.search(rf"^{language}\.utf8=(.+)$", texts.read_text(encoding="utf-8"), re.MULTILINE)
            if text:
                group = f"{language}-{path.parent.name}"
                yield Found(path, f"{group}-{stamp}", "speech", language, text[1], group)


def things(root: Path) -> Iterator[Found]:
    """KTuberling's, named by a volunteer in each language: a word each."""
    for path in (root / "usr/share/ktuberling/sounds").glob("*/*"):
        if (language := path.parent.name) in LANGUAGES:
            yield Found(path, f"{language}-{path.stem}", "speech", language, "", f"ktuberling-{language}")


def unseen_things(root: Path) -> Iterator[Found]:
    """Those in languages that nothing was calibrated with."""
    return (found for found in things(root) if found.language not in CALIBRATION_LANGUAGES)


Source = tuple[Callable[[Path], Iterator[Found]], tuple[str, ...]]
SOURCES: Mapping[str, Source] = {game: (sounds, (game,)) for game in GAMES} | {
    "fillets-ng": (dialogues, ("fillets-ng-data", "fillets-ng-data-cs", "fillets-ng-data-nl")),
    "tuxpaint-stamps": (stamps, ("tuxpaint-stamps-default",)),
    "ktuberling": (unseen_things, ("ktuberling-data",)),
}
"""how to find what is wanted, and in which packages"""
