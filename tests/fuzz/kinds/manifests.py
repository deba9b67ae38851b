"""Lists and folders of clips with their transcripts, as every command that takes recordings reads them."""

import random
from pathlib import Path

from tests.fuzz.damage import NASTY, spoiled
from tests.support.serving_parts import wav
from whisper_sae_steer.audio.clips import (
    MANIFEST_COLUMNS,
    NONSPEECH_KINDS,
    manifest_row,
    read_clips,
    write_manifest,
)
from whisper_sae_steer.batch.pieces import pieces_of

COLUMNS = (*MANIFEST_COLUMNS, "gaps")
CELLS = {
    "path": ("a.wav", "calib/x/y/a.wav", "/etc/passwd", "../a.wav", "", ".", "b/" * 2000),
    "kind": ("speech", "nonspeech", "music", "noise", ""),
    "seconds": ("1.5", "0", "-1", "nan", "inf", "1e999", "x", "１"),
    "gaps": ("", "1-2", "2-1", "1-2;3-4", "nan-1", "1", "-", ";", "1-inf"),
    "split": ("dev", "calib", ""),
}


def attempt(dice: random.Random, folder: Path) -> str:
    """Read it with any choice of lines; what is read can be planned with, and written again."""
    path = folder / dice.choice(("list.tsv", "list.tsv", "list.tsv", "list.csv", "list"))
    text = _table(dice)
    data = text.encode("utf-8", "surrogatepass")
    if dice.random() < 0.3:
        data = data.decode("utf-8", "replace").encode(
            dice.choice(("utf-16", "latin-1", "utf-8-sig")), "replace"
        )
    path.write_bytes(spoiled(data, dice) if dice.random() < 0.6 else data)
    if dice.random() < 0.2:
        (folder / "clips").mkdir()
        (folder / "clips" / "a.wav").write_bytes(wav(0.1))
        (folder / "clips" / "a.txt").write_bytes(dice.randbytes(20))
        path = dice.choice((folder / "clips", folder / "clips" / "a.wav", folder / "none"))
    kind = dice.choice(("", "", "speech=", "sound=", "loud=", "="))
    clips = read_clips(
        [f"{kind}{path}"],
        dice.choice((None, None, "dev", "")),
        dice.choice((("speech",), NONSPEECH_KINDS, ("speech", *NONSPEECH_KINDS))),
        dice.choice((None, 1, 3, 10**9)),
        dice.choice((None, None, ("a",))),
    )
    assert clips
    for clip in clips:
        assert pieces_of(clip.seconds or 0)
    write_manifest(folder / "again.tsv", [manifest_row(clip, "dev") for clip in clips])
    return "read"


def _table(dice: random.Random) -> str:
    columns = [column for column in COLUMNS if dice.random() < 0.9]
    if dice.random() < 0.2:
        columns.append(dice.choice(columns or ["path"]))
    rows = [columns, *([_cell(column, dice) for column in columns] for _ in range(dice.randrange(5)))]
    tab = "," if dice.random() < 0.1 else "\t"
    return dice.choice(("\n", "\n", "\r\n", "\r")).join(tab.join(row) for row in rows)


def _cell(column: str, dice: random.Random) -> str:
    if dice.random() < 0.05:
        return str(dice.choice(NASTY)) if dice.random() < 0.9 else dice.randbytes(9).decode("latin-1")
    return dice.choice(CELLS.get(column, ("", "a", "é", "x" * 300)))
