"""Unseen sources: what is spoken in a package's files, and in which words."""

from pathlib import Path

from benchmarks.speech import unseen_sources as sources


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_dialogues_are_those_whose_recording_is_there(tmp_path: Path):
    game = tmp_path / "usr/share/games/fillets-ng"
    script_file = touch(game / "script/magnet/dialogs_cs.lua")
    script_file.write_text(
        'dialogId("a", "font_big", "Look (there).")\ndialogStr("Ha. Další.")\n\n'
        'dialogId("b", "font_small", "Silent.")\ndialogStr("Nic.")\n',
        encoding="utf-8",
    )
    spoken = touch(game / "sound/magnet/cs/a.ogg")
    (found,) = sources.dialogues(tmp_path)
    assert found == (spoken, "cs-magnet-a", "speech", "cs", "Ha. Další.", "cs-magnet")


def test_stamps_have_the_text_of_their_language(tmp_path: Path):
    folder = tmp_path / "usr/share/tuxpaint/stamps/animals/birds"
    touch(folder / "drake.txt").write_text("A drake.\nca.utf8=Un ànec.\nel.utf8=Πάπια.\n", encoding="utf-8")
    for name in ("drake_desc_el.ogg", "drake_desc_ca.ogg", "drake_desc_bg.ogg", "drake_desc_pt_BR.ogg"):
        touch(folder / name)
    found = {stamp.language: stamp.text for stamp in sources.stamps(tmp_path)}
    assert found == {"ca": "Un ànec.", "el": "Πάπια."}


def test_words_are_of_languages_that_whisper_knows(tmp_path: Path):
    for language in ("fi", "nds", "it"):
        touch(tmp_path / "usr/share/ktuberling/sounds" / language / "hattu.wav")
    found = {thing.language: thing for thing in sources.things(tmp_path)}
    assert {*found} == {"fi", "it"}
    assert found["fi"][2:] == ("speech", "fi", "", "ktuberling-fi")
    assert list(sources.unseen_things(tmp_path)) == [found["it"]], "the packs know Finnish words"
