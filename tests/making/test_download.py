"""Open sets of recordings for `make-pack`, from small copies of the sets as their libraries find them."""

import hashlib
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
import numpy as np
import pytest
from lhotse.recipes import musan as recipe
from numpy.typing import NDArray

from tests.support.parquet_sets import parquet_set
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.writing import write_flac, write_wav
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import DownloadError
from whisper_sae_steer.making import audio, command, download
from whisper_sae_steer.making.audio import Recordings
from whisper_sae_steer.making.download import SETS, downloaded, with_downloaded
from whisper_sae_steer.making.sets import musan, speech

SPEAKERS, UTTERANCES = (84, 174, 1272), 4
NOTICE = """\
music-fma-0000
"Slow" by Someone
Licensed under Creative Commons Attribution 3.0 http://creativecommons.org/licenses/by/3.0/
================
music-fma-0001
"Sung" by Someone
Creative Commons Attribution-ShareAlike 4.0
================
music-fma-0002
"Mine" by Another
Creative Commons Attribution-NonCommercial-ShareAlike 3.0
================
music-fma-0003
"Other" by Another
Creative Commons Attribution-ShareAlike 4.0
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tone(seconds: float, pitch: float) -> NDArray[np.float32]:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(int(16000 * seconds)) / 16000)).astype(np.float32)


def audio_file(path: Path, seconds: float, pitch: float) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    (write_flac if path.suffix == ".flac" else write_wav)(path, tone(seconds, pitch))
    return path.read_bytes()


@pytest.fixture
def librispeech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for speaker in SPEAKERS:
        for number in range(UTTERANCES):
            name = f"{speaker}-121123-{number:04d}"
            sound = audio_file(tmp_path / "flac" / f"{name}.flac", 1 + number / 4, speaker)
            rows.append({
                "file": f"{name}.flac",
                "audio": {"bytes": sound, "path": f"{name}.flac"},
                "text": f"UTTERANCE {number} OF {speaker}",
                "speaker_id": speaker,
                "chapter_id": 121123,
                "id": name,
            })  # fmt: skip
    place = parquet_set(tmp_path / "librispeech_asr", "validation", {"clean": rows})
    monkeypatch.setattr(speech, "LIBRISPEECH_REPOSITORY", place)
    return rows


@pytest.fixture
def fleurs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two languages, two recordings of each sentence."""
    configs: dict[str, list[dict[str, Any]]] = {}
    for config in ("de_de", "ja_jp"):
        rows = configs.setdefault(config, [])
        for number in range(10):
            name = f"{config}{number:03d}"
            sound = audio_file(tmp_path / "wav" / f"{name}.wav", 1.0, 200 + number)
            rows.append({
                "id": 1500 + number // 2,
                "num_samples": 16000,
                "path": f"/somewhere/{name}.wav",
                "audio": {"bytes": sound, "path": f"{name}.wav"},
                "transcription": f"satz {number}",
                "raw_transcription": f"Satz\t{number}.",
                "gender": number // 2 % 2,
                "lang_id": 17,
                "language": "a language",
                "lang_group_id": 0,
            })  # fmt: skip
    place = parquet_set(tmp_path / "fleurs", "validation", configs, "parquet-data/")
    monkeypatch.setattr(speech, "FLEURS_REPOSITORY", place)
    monkeypatch.setattr(speech, "LANGUAGES", {"de_de": "de", "ja_jp": "ja"})


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MUSAN's archive, where lhotse looks for it."""
    tree = tmp_path / "original" / "musan"
    for number in range(3):
        audio_file(tree / "noise" / "free-sound" / f"noise-free-sound-{number:04d}.wav", 14.0, 300 + number)
    audio_file(tree / "noise" / "sound-bible" / "noise-sound-bible-0000.wav", 1.0, 400)
    for number in range(4):
        audio_file(tree / "music" / "fma" / f"music-fma-{number:04d}.wav", 22.0, 500 + number)
    audio_file(tree / "music" / "rfm" / "music-rfm-0000.wav", 1.0, 600)
    audio_file(tree / "speech" / "librivox" / "speech-librivox-0000.wav", 1.0, 700)
    (tree / "noise/free-sound/LICENSE").write_text("All were marked as in the Public Domain on Free Sound.\n")
    (tree / "noise/sound-bible/LICENSE").write_text("noise-sound-bible-0001\nLicense: Attribution 3.0\n")
    (tree / "music/fma/LICENSE").write_text(NOTICE)
    (tree / "music/fma/ANNOTATIONS").write_text(
        "music-fma-0000 ambient,classical N Some_One\nmusic-fma-0001 pop Y Some_One\n"
        "music-fma-0002 jazz N Another\nmusic-fma-0003 Y rock Another\n"
    )
    (tree / "music/rfm/LICENSE").write_text("Public Domain\n")  # but whether there is singing isn't said
    packed = tmp_path / "musan.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        file.add(tree, "musan")
    monkeypatch.setattr(recipe.download_musan, "__defaults__", (".", packed.as_uri(), False))
    return packed


def fetched(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[str]:
    """The names of the clips that are fetched from now on; Ctrl-C after so many."""
    names: list[str] = []
    write: Callable[[Path, NDArray[np.float32]], None] = download.write_opus

    def noted(path: Path, audio: NDArray[np.float32]) -> None:
        if len(names) == stop_after:
            raise KeyboardInterrupt
        write(path, audio)
        names.append(path.stem)

    monkeypatch.setattr(download, "write_opus", noted)
    return names


def names_of(clips: Sequence[Clip]) -> list[str]:
    return [clip.path.stem for clip in clips]


@pytest.mark.usefixtures("librispeech")
def test_librispeech_has_as_many_utterances_of_each_speaker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SETS, "librispeech", speech.LIBRISPEECH._replace(per_class=6))
    clips = downloaded("librispeech")
    assert sorted(clip.group for clip in clips) == sorted(2 * [f"ls-spk{speaker}" for speaker in SPEAKERS])
    for clip in clips:
        speaker, _, number = clip.path.stem.split("-")
        assert clip.text == f"UTTERANCE {int(number)} OF {speaker}"
        assert (clip.kind, clip.language, clip.source) == ("speech", "en", "librispeech")
        assert (clip.origin, clip.licence) == ("openslr:12", "CC BY 4.0 (LibriSpeech)")
        audio = load_audio(clip.path)
        assert clip.seconds == pytest.approx(1 + int(number) / 4, abs=0.05)
        spectrum = np.abs(np.fft.rfft(audio[:16000]))
        assert int(np.argmax(spectrum)) == pytest.approx(int(speaker), abs=2)  # Hz: its own audio
    assert downloaded("librispeech") == clips


@pytest.mark.usefixtures("fleurs")
def test_fleurs_has_each_sentence_once_and_groups_without_a_speaker_in_common():
    clips = downloaded("fleurs")
    assert names_of(clips) == [f"{config}{n:03d}" for config in ("de_de", "ja_jp") for n in range(0, 10, 2)]
    assert {(clip.language, clip.group) for clip in clips} == {
        (config[:2], f"fleurs-{config}-gender{gender}") for config in ("de_de", "ja_jp") for gender in (0, 1)
    }
    assert [clip.text for clip in clips] == [f"Satz {n}." for n in range(0, 10, 2)] + 5 * [""]
    assert {clip.licence for clip in clips} == {"CC BY 4.0 (FLEURS)"}


@pytest.mark.usefixtures("archive")
def test_musan_leaves_out_what_may_not_be_passed_on_and_singing(cache: Path):
    clips = downloaded("musan")
    assert {clip.path.stem: (clip.kind, clip.class_, clip.group, clip.licence) for clip in clips} == {
        **{
            name: ("nonspeech", "noise", f"musan-{name}", "public domain")
            for name in (f"noise-free-sound-{number:04d}" for number in range(3))
        },
        "music-fma-0000": ("music", "music", "musan-Some_One", "CC BY 3.0"),
    }
    assert {round(clip.seconds or 0, 1) for clip in clips} == {12.0, 20.0}
    assert not (cache / "audio" / "musan" / "download").exists()  # 24 GB of the real one


@pytest.mark.parametrize(
    ("terms", "licence"),
    [
        ("License: Attribution 3.0", "CC BY 3.0"),
        ("CC BY-NC 2.5", "CC BY-NC 2.5"),
        ("http://creativecommons.org/licenses/by-nc-nd/3.0/", "CC BY-NC-ND 3.0"),
        ("Attribution-No Derivative Works 3.0 United States", "CC BY-ND 3.0"),
        ("Attribution-Share Alike 3.0", "CC BY-SA 3.0"),
        ("Public Domain Mark 1.0", "public domain"),
        ("CC0 1.0 Universal", "public domain"),
        ("with kind permission", ""),
    ],
)
def test_a_licence_in_free_words(terms: str, licence: str):
    block = f"noise-a-0001\n{terms}\n"
    assert musan.licence_in(f"noise-a-0002\nGPL\n====\n{block}", "noise-a-0001") == licence
    assert musan.licence_in(block, "noise-a-0003") == ""  # about others
    assert musan.licence_in(terms, "noise-a-0003") == licence  # about the whole folder


@pytest.mark.usefixtures("librispeech")
def test_stopped_it_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, cache: Path):
    with monkeypatch.context() as patch:
        fetched(patch, stop_after=5)
        with pytest.raises(KeyboardInterrupt):
            downloaded("librispeech")
    assert not (cache / "audio" / "librispeech" / "manifest.tsv").exists()
    rest = fetched(monkeypatch)
    clips = downloaded("librispeech")
    assert len(rest) == len(SPEAKERS) * UTTERANCES - 5
    rest.clear()
    assert downloaded("librispeech") == clips
    assert not rest


@pytest.mark.usefixtures("librispeech", "fleurs", "archive")
@pytest.mark.parametrize("name", SETS)
def test_only_what_is_broken_or_gone_is_fetched_again(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    clips = downloaded(name)
    before = clips[1].path.read_bytes()
    clips[0].path.unlink()
    clips[1].path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    again = fetched(monkeypatch)
    assert [replace(clip, seconds=0) for clip in downloaded(name)] == [replace(c, seconds=0) for c in clips]
    assert sorted(again) == sorted(names_of(clips[:2]))
    for line in (cache / "audio" / name / "SHA256SUMS").read_text().splitlines():
        digest, key = line.split("  ")
        assert hashlib.sha256((cache / "audio" / name / key).read_bytes()).hexdigest() == digest


@pytest.mark.usefixtures("librispeech")
def test_all_that_lies_there_needs_neither_network_nor_library(monkeypatch: pytest.MonkeyPatch):
    clips = downloaded("librispeech")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert downloaded("librispeech") == clips
    clips[0].path.unlink()
    with pytest.raises(DownloadError, match=r"needs datasets: pip install 'whisper-sae-steer\[download\]'"):
        downloaded("librispeech")


def test_musan_names_the_library_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lhotse.recipes", None)
    with pytest.raises(DownloadError, match=r"needs lhotse: pip install 'whisper-sae-steer\[download\]'"):
        downloaded("musan")


@pytest.mark.parametrize("name", ["librispeech", "fleurs"])
def test_without_the_hub(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"can't be reached \(.*the same command goes on") as error:
        downloaded(name)
    assert "\n" not in str(error.value)


def test_without_openslr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(recipe.download_musan, "__defaults__", (".", "http://127.0.0.1:9/musan", False))
    with pytest.raises(DownloadError, match=r"MUSAN can't be fetched \(.*the same command goes on"):
        downloaded("musan")
    assert "11 GB" in capsys.readouterr().out  # said before it starts


def test_a_broken_archive_is_fetched_anew(archive: Path, cache: Path):
    whole = archive.read_bytes()
    archive.write_bytes(b"no gzip" + whole[7:])
    with pytest.raises(DownloadError, match="archive is broken"):
        downloaded("musan")
    archive.write_bytes(whole)
    assert len(downloaded("musan")) == 4


def test_a_short_archive_is_kept_to_go_on_with(archive: Path, cache: Path):
    archive.write_bytes(archive.read_bytes()[:-20_000])
    with pytest.raises(DownloadError, match=r"can't be fetched \(.*is kept, the same command goes on"):
        downloaded("musan")
    kept = cache / "audio" / "musan" / "download" / "musan.tar.gz"
    assert kept.read_bytes() == archive.read_bytes()


def test_other_layouts(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch):
    expected = "is not laid out as expected.*name the other sets"
    row = {"id": "1-2-3", "audio": {"bytes": b"noise", "path": "1-2-3.flac"}, "text": "WORDS"}
    for number, rows in enumerate(({"clean": [row]}, {"other": [row]}, {"clean": [row | {"speaker_id": 1}]})):
        place = parquet_set(tmp_path / f"changed{number}", "validation", rows)
        monkeypatch.setattr(speech, "LIBRISPEECH_REPOSITORY", place)
        with pytest.raises(DownloadError, match=expected):
            downloaded("librispeech")
    (tmp_path / "empty" / "musan").mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "empty" / "musan", "musan")
    with pytest.raises(DownloadError, match=expected):
        downloaded("musan")


@pytest.mark.usefixtures("librispeech", "fleurs", "archive")
def test_what_the_command_takes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    taken: list[Recordings] = []
    monkeypatch.setattr(
        command, "estimated_seconds", lambda _weights, recordings, *_: taken.append(recordings)
    )
    monkeypatch.setattr(command, "forecast", lambda *_: sys.exit(0))
    for arguments in (["--download"], ["--download", "fleurs", "musan"]):
        with pytest.raises(SystemExit):
            main(["make-pack", "--model", "tiny.en", "--no_bundle", "--sae", "new", *arguments])
    everything, two = taken
    assert {clip.source for clip in everything.speech} == {"librispeech", "fleurs"}
    assert {clip.source for clip in two.speech} == {"fleurs"}
    assert {clip.kind for clip in two.nonspeech} == {"nonspeech", "music"}
    with pytest.raises(SystemExit):
        main(["make-pack", "--model", "tiny.en", "--download", "voxceleb"])
    assert "voxceleb" in capsys.readouterr().err


def test_nothing_is_fetched_unasked(cache: Path):
    own = Recordings([], [])
    assert with_downloaded(own, None) is own
    assert not (cache / "audio").exists()


def test_a_missing_bundle_is_told_before_anything_is_fetched(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(audio, "BUNDLE", tmp_path / "nowhere.tsv")
    assert main(["make-pack", "--model", "tiny.en", "--download", "musan"]) == 2
    assert "--no_bundle" in capsys.readouterr().err
    assert not (cache / "audio").exists()
