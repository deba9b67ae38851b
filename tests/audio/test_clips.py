import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from whisper_sae_steer.audio.clips import (
    KINDS,
    Clip,
    read_clips,
    read_folder,
    read_manifest,
    select,
    spread,
    write_manifest,
)
from whisper_sae_steer.audio.synthetic import clip as synthetic_clip
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.errors import AudioError, ManifestError

HEADER = "path\tsplit\tkind\tclass\tseconds\tlanguage\ttext\tgroup\tsource\tlicence"
RAIN = "nonspeech/dev/esc/rain/a.opus\tdev\tnonspeech\train\t5.00\t\t\tr1\tsomewhere\tCC0"
MUSIC = "music/calib/lmms/b.opus\tcalib\tmusic\tloops\t\t\t\tr2\tsomewhere\tCC0"
SPEECH = 'speech/dev/libri/c.opus\tdev\tspeech\tspeech-de\t2.5\tde\tEr sagt: "ja\ts1\tsomewhere\tCC0'


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


def test_manifest_fields(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.tsv", HEADER, RAIN, MUSIC, SPEECH)
    rain, music, speech = read_manifest(manifest)
    assert rain == Clip(
        path=tmp_path / "nonspeech/dev/esc/rain/a.opus",
        key="nonspeech/dev/esc/rain/a.opus",
        source="esc",
        kind="nonspeech",
        class_="rain",
        language="",
        text="",
        group="r1",
        seconds=5.0,
        origin="somewhere",
        licence="CC0",
    )
    assert rain.path.is_absolute()
    assert music.seconds is None
    assert (speech.language, speech.text) == ("de", 'Er sagt: "ja')


def test_a_written_manifest_reads_as_it_was(tmp_path: Path) -> None:
    given = write(tmp_path / "given.tsv", HEADER, RAIN, MUSIC, SPEECH)
    header = HEADER.split("\t")
    rows: list[dict[str, str]] = [
        dict(zip(header, line.split("\t"), strict=True)) for line in (RAIN, MUSIC, SPEECH)
    ]
    del rows[1]["language"]  # empty there
    write_manifest(tmp_path / "m.tsv", rows)
    assert (tmp_path / "m.tsv").read_bytes() == given.read_bytes()


def test_manifest_filters(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.tsv", HEADER, RAIN, MUSIC, SPEECH)
    assert [c.class_ for c in read_manifest(manifest, split="dev")] == ["rain", "speech-de"]
    assert [c.class_ for c in read_manifest(manifest, kind="music")] == ["loops"]
    assert len(read_manifest(manifest, kind=("music", "nonspeech"))) == 2
    assert [c.source for c in read_manifest(manifest, source=["libri"])] == ["libri"]
    with pytest.raises(ManifestError, match="sources of that split and kind: esc, libri"):
        read_manifest(manifest, split="dev", source="lmms")


def test_manifest_minimal_and_windows_line_ends(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.tsv", "\ufeffpath\tkind", "x/a.wav\tspeech", "", end="\r\n")
    (clip,) = read_manifest(manifest)
    assert (clip.source, clip.class_, clip.group, clip.kind) == ("x", "speech", "x/a.wav", "speech")


def test_manifest_gaps(tmp_path: Path) -> None:
    lines = ("a.wav\tspeech\t3.21-15.8;18.02-60", "b.wav\tspeech\t", "c.wav\tspeech\t0-1;1-2")
    clips = read_manifest(write(tmp_path / "m.tsv", "path\tkind\tgaps", *lines))
    assert [clip.gaps for clip in clips] == [((3.21, 15.8), (18.02, 60.0)), (), ((0.0, 1.0), (1.0, 2.0))]


@pytest.mark.parametrize(
    "gaps", ["3", "3-", "1-2-3", "1-2;", "a-b", "2-1", "1-1", "5-6;1-2", "1-3;2-4", "nan-1", "1-inf"]
)
def test_broken_gaps(tmp_path: Path, gaps: str) -> None:
    with pytest.raises(ManifestError, match=r"line 2: gaps '.*' are not"):
        read_manifest(write(tmp_path / "m.tsv", "path\tkind\tgaps", f"a.wav\tspeech\t{gaps}"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "empty manifest"),
        ([HEADER], "empty manifest"),
        (["path\tsplit", "a\tdev"], "lacks kind"),
        ([HEADER, RAIN, "a.wav\tdev"], "line 3: 2 cells, but the header has 10"),
        ([HEADER, RAIN, RAIN], "line 3: .*listed twice"),
        (["path\tkind", "a.wav\tnoise"], "line 2: kind 'noise' is none of"),
        (["path\tkind", "\tspeech"], "line 2: no path"),
        (["path\tkind\tseconds", "a.wav\tspeech\tlong"], "line 2: seconds 'long'"),
        (["path\tkind\tseconds", "a.wav\tspeech\tinf"], "line 2: seconds 'inf'"),
        (["path\tkind\tseconds", "a.wav\tspeech\tnan"], "line 2: seconds 'nan'"),
        (["path\tkind\tseconds", "a.wav\tspeech\t-1"], "line 2: seconds '-1'"),
    ],
)
def test_broken_manifest(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path / "m.tsv", *lines))


def test_manifest_missing_or_binary(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "none.tsv")
    with pytest.raises(ManifestError, match="not a readable UTF-8"):
        read_manifest(tmp_path)
    (tmp_path / "m.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not a readable UTF-8"):
        read_manifest(tmp_path / "m.tsv")


def test_folder(tmp_path: Path) -> None:
    noise = synthetic_clip("white", 0, seconds=(0.5, 0.5)).audio
    root = tmp_path / "mine"
    for name in ("rain/a.wav", "rain/b.wav", "street/a.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_wav(root / name, noise)
    (root / "rain/b.txt").write_text("  good\nmorning \n", encoding="utf-8")
    clips = read_folder(root, "speech", language="en")
    assert [c.key for c in clips] == ["mine/rain/a.wav", "mine/rain/b.wav", "mine/street/a.wav"]
    assert [c.class_ for c in clips] == ["rain", "rain", "street"]
    assert [c.text for c in clips] == ["", "good morning", ""]
    assert {c.source for c in clips} == {"mine"}
    assert len({c.group for c in clips}) == 3
    assert all(c.path.is_file() and c.language == "en" for c in clips)


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        read_folder(tmp_path / "none", "speech")
    with pytest.raises(ManifestError, match="kind 'noise'"):
        read_folder(tmp_path, "noise")
    with pytest.raises(AudioError):
        read_folder(tmp_path, "speech")


def make(source: str, class_: str, group: str, number: int) -> Clip:
    key = f"{source}/{class_}/{group}-{number}.wav"
    return Clip(Path("/", key), key, source, "nonspeech", class_, "", "", group, None)


def test_select_is_stratified_stable_and_spread() -> None:
    clips = [
        make(source, class_, f"g{group}", number)
        for source, class_ in (("a", "rain"), ("a", "dog"), ("b", "rain"))
        for group in range(4)
        for number in range(5)
    ]
    chosen = select(clips, per_class=6)
    assert len(chosen) == 18
    assert chosen == sorted(chosen, key=clips.index)
    for source, class_ in (("a", "rain"), ("a", "dog"), ("b", "rain")):
        counts = [
            sum((c.source, c.class_, c.group) == (source, class_, f"g{g}") for c in chosen) for g in range(4)
        ]
        assert sorted(counts) == [1, 1, 2, 2]
    shuffled = random.Random(1).sample(clips, len(clips))
    assert set(select(shuffled, per_class=6)) == set(chosen)
    assert set(select(clips, per_class=3)) < set(chosen)
    assert select(clips, per_class=99) == clips
    with pytest.raises(ManifestError, match="at least 1"):
        select(clips, per_class=0)


def test_spread_takes_every_group_before_any_twice() -> None:
    clips = [make("a", "rain", f"g{group}", number) for group in range(4) for number in range(3)]
    order = spread(clips)
    assert sorted(order, key=clips.index) == clips
    assert [len({clip.group for clip in order[turn : turn + 4]}) for turn in (0, 4, 8)] == [4, 4, 4]
    assert spread(clips[::-1]) == order


def test_recordings_are_named_by_kind_and_path_of_a_manifest_a_folder_or_a_file(tmp_path: Path):
    for name in ("voice/a.wav", "voice/b.wav", "songs/c.wav", "alone.wav", "odd=name/d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "alone.txt").write_text("hello there\n")
    manifest = tmp_path / "clips.tsv"
    manifest.write_text("path\tkind\tsplit\nx.wav\tspeech\tdev\ny.wav\tmusic\tdev\nz.wav\tspeech\ttest\n")

    def found(*sources: str, split: str | None = None, kinds: Sequence[str] = KINDS) -> list[tuple[str, str]]:
        return [(clip.path.name, clip.kind) for clip in read_clips(sources, split, kinds)]

    voice, songs, odd = (str(tmp_path / name) for name in ("voice", "songs", "odd=name"))
    assert found(voice) == [("a.wav", "nonspeech"), ("b.wav", "nonspeech")]
    assert found(voice, kinds=("speech",)) == [("a.wav", "speech"), ("b.wav", "speech")]
    assert found(f"speech={voice}", f"music={songs}", f"sound={tmp_path / 'alone.wav'}") == [
        ("a.wav", "speech"), ("b.wav", "speech"), ("c.wav", "music"), ("alone.wav", "nonspeech")
    ]  # fmt: skip
    assert found(odd) == [("d.wav", "nonspeech")], "a path that exists is no kind"
    assert found(str(manifest), split="dev") == [("x.wav", "speech"), ("y.wav", "music")]
    assert found(f"speech={manifest}") == [("x.wav", "speech"), ("z.wav", "speech")]
    (alone,) = read_clips([tmp_path / "alone.wav"], None, ("speech",), language="en")
    assert (alone.key, alone.text, alone.language) == (
        (tmp_path / "alone.wav").as_posix(),
        "hello there",
        "en",
    )
    assert len(read_clips([voice, songs], None, KINDS, per_class=1)) == 2
    for source, kinds, match in (
        ("noise=x", KINDS, "'noise' is none of speech, music, sound"),
        ("speech=x", ("nonspeech", "music"), "'speech' is none of music, sound"),
        (str(tmp_path / "missing.wav"), KINDS, "no such file or folder"),
        (str(tmp_path / "missing"), KINDS, "no such folder"),
    ):
        with pytest.raises(ManifestError, match=match):
            read_clips([source], None, kinds)
