from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from whisper_sae_steer import cli
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.audio.clips import Clip, read_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.bench import hard, hard_command
from whisper_sae_steer.errors import ManifestError

Audio = NDArray[np.float32]
RATE = 16000
COLUMNS = "path\tsplit\tkind\tclass\tlanguage\ttext\tgroup\tsource\tlicence"


def voice(number: int) -> Audio:
    """0.5 s of silence, 1.6 s of a warbling tone, 0.3 s of silence."""
    time = np.arange(round(1.6 * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 35 * number) * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return np.concatenate([np.zeros(8000), 0.1 * tone, np.zeros(4800)]).astype(np.float32)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    lines = [COLUMNS]

    def add(audio: Audio, kind: str, class_: str, number: int, text: str = "", group: str = "") -> None:
        path = f"{kind}/dev/made/{class_}-{number}.wav"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_wav(root / path, audio)
        language = "en" if kind == "speech" else ""
        lines.append("\t".join((path, "dev", kind, class_, language, text, group, f"deb:{class_}", "CC0")))

    for number in range(10):
        add(voice(number), "speech", "tone", number, f"word {number} " + "and on " * number, f"s{number}")
    for number in range(4):
        noise = synthetic.clip("pink", number, seconds=(2, 4)).audio
        late = np.concatenate([np.zeros(RATE), noise]).astype(np.float32)
        add(late, "nonspeech", "rain", number)
        add(synthetic.clip("siren", number, seconds=(2, 2)).audio, "nonspeech", hard.HUMAN, number)
        add(synthetic.clip("melody", number, seconds=(9, 9)).audio, "music", "song", number)
    (root / "manifest.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "manifest.tsv"


def made(manifest: Path, condition: str, seed: int = 0, count: int = 3) -> list[hard.Recording]:
    given = hard.material(read_manifest(manifest), seed=seed)
    return [job.make() for job in hard.jobs(condition, given, count)]


def decibels(ratio: float | np.floating) -> float:
    return 10 * float(np.log10(ratio))


def parts(recording: hard.Recording) -> tuple[Audio, Audio]:
    """Voice and background of a mixture: what is in line with the clean voice, and the rest."""
    clean = load_audio(recording.speech[0].path)
    gain = np.float32(recording.audio @ clean / (clean @ clean))
    return gain * clean, recording.audio - gain * clean


@pytest.mark.parametrize(
    ("condition", "snr"), [("snr20", 20), ("snr-5", -5), ("music5", 5), ("babble0", 0), ("babble10", 10)]
)
def test_mixtures_have_their_ratio(manifest: Path, condition: str, snr: float) -> None:
    for recording in made(manifest, condition):
        speech, rest = parts(recording)
        assert decibels(np.mean(speech**2) / np.mean(rest**2)) == pytest.approx(snr, abs=0.6)
        assert recording.background
        for clip in recording.background:
            kind = {"s": "nonspeech", "m": "music", "b": "speech"}[condition[0]]
            assert (clip.kind, clip.class_ == hard.HUMAN) == (kind, False)
            assert clip.group != recording.speech[0].group
    assert len({len(recording.background) for recording in made(manifest, "babble0")}) == 1


def test_an_utterance_meets_the_same_noise_at_every_ratio(manifest: Path) -> None:
    for loud, soft in zip(made(manifest, "snr0"), made(manifest, "snr10"), strict=True):
        assert loud.background == soft.background
        assert np.corrcoef(parts(loud)[1], parts(soft)[1])[0, 1] > 0.999
    other = made(manifest, "snr0", seed=1)
    assert any(a.background != b.background for a, b in zip(other, made(manifest, "snr0"), strict=True))


def test_levels_and_clipping(manifest: Path) -> None:
    for dbfs in (-20, -40, -50):
        peaks = [np.abs(recording.audio).max() for recording in made(manifest, f"quiet{dbfs}")]
        assert peaks == pytest.approx([10 ** (dbfs / 20)] * 3, rel=1e-5)
    for recording in made(manifest, "clipped"):
        clean = load_audio(recording.speech[0].path)
        driven = clean * (10**0.6 / np.abs(clean).max())
        cut = np.abs(driven) > 1
        assert cut.mean() > 0.2
        np.testing.assert_allclose(recording.audio[~cut], driven[~cut], atol=1e-5)
        np.testing.assert_array_equal(recording.audio[cut], np.sign(driven[cut]))


def sine(hertz: float, dbfs: float) -> Audio:
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)).astype(np.float32)


def through(condition: str, audio: Audio) -> Audio:
    clip = Clip(Path(), "", "", "speech", "", "", "", "", None)
    rng = np.random.default_rng(0)
    return hard.EFFECTS[condition](audio, clip, hard.Material([], []), rng)[0]


def test_telephone_has_the_band_and_the_noise_of_g711() -> None:
    def power(hertz: float) -> float:
        return decibels(np.mean(through("telephone", sine(hertz, -10))[4000:-4000] ** 2))

    assert power(1000) == pytest.approx(-13, abs=0.3)
    assert power(300) == pytest.approx(-16, abs=1)
    assert power(3400) == pytest.approx(-16, abs=1)
    assert power(100) < -40
    assert power(5000) < -60
    for dbfs in (-10, -40):
        heard = through("telephone", sine(1000, dbfs))[4000:-4000]
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))) ** 2
        peak = int(spectrum.argmax())
        signal = spectrum[peak - 3 : peak + 4].sum()
        # µ-law keeps 30 to 40 dB at every level; 8 linear bits would leave 12 dB at -40 dBFS
        assert 29 < decibels(signal / (spectrum.sum() - signal)) < 46


@pytest.mark.parametrize("rt60", [0.5, 1.0])
def test_reverberation_decays_by_60_db_in_its_time(rt60: float) -> None:
    click = np.zeros(RATE, np.float32)
    click[0] = 0.5
    response = through(f"reverb{rt60}", click)
    assert len(response) == RATE + round(rt60 * RATE) - 1
    assert (response.argmax(), response.max()) == (0, pytest.approx(0.5))
    tail = response[1 : round(rt60 * RATE)].astype(np.float64)
    assert decibels(np.sum(tail**2) / 0.25) == pytest.approx(0, abs=0.1)
    left = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # Schroeder's integral
    five, thirty = (int(np.argmax(left < -level)) for level in (5, 30))
    assert (thirty - five) / RATE * 60 / 25 == pytest.approx(rt60, rel=0.1)


def test_short_ones_are_the_shortest(manifest: Path) -> None:
    texts = [recording.speech[0].text for recording in made(manifest, "short", count=9)]
    assert [len(text.split()) for text in texts] == [2, 4]


def test_gaps_lie_where_they_are_said_to(manifest: Path) -> None:
    noisy, silent = made(manifest, "gaps")[0], made(manifest, "silent-gaps")[0]
    assert (noisy.gaps, noisy.speech) == (silent.gaps, silent.speech)
    assert len(noisy.gaps) == len(noisy.speech) + 1
    assert noisy.gaps[0][0] == 0
    assert noisy.gaps[-1][1] == len(noisy.audio) / RATE >= 120
    assert all(1 <= end - start <= 60 for start, end in noisy.gaps)
    edges = [(round(start * RATE), round(end * RATE)) for start, end in noisy.gaps]
    level = np.mean(voice(0)[8000:-4800] ** 2)
    for (start, end), (later, _), clip in zip(edges, edges[1:], noisy.speech, strict=False):
        spoken = load_audio(clip.path)[8000:-4800]  # without the silence at its ends
        np.testing.assert_array_equal(noisy.audio[end:later], spoken)
        assert -30.5 < decibels(np.mean(noisy.audio[start:end] ** 2) / level) < -4.5
        assert not silent.audio[start:end].any()
    assert {clip.kind for clip in noisy.background} == {"nonspeech", "music"}
    assert not silent.background


def test_no_more_long_recordings_than_two(manifest: Path) -> None:
    given = hard.material(read_manifest(manifest))
    assert [len(hard.jobs(name, given, 50)) for name in ("long", "gaps", "clean", "dc")] == [2, 20, 10, 50]


def test_sounds_are_not_those_of_calibration(manifest: Path) -> None:
    (silence, *_), (dc, *_), (hum, *_) = (made(manifest, name) for name in ("silence", "dc", "hum"))
    assert not silence.audio.any()
    assert abs(dc.audio.mean()) > 10 * dc.audio.std()
    heard = synthetic.clip("hum", 0, seconds=(1, 60)).audio
    size = min(len(heard), len(hum.audio))
    assert not np.allclose(heard[:size], hum.audio[:size], atol=1e-3)
    assert 1 <= len(hum.audio) / RATE <= 60


def test_what_a_manifest_lacks(manifest: Path) -> None:
    clips = read_manifest(manifest)
    few = [clip for clip in clips if clip.kind != "music" and clip.group not in ("s0", "s1")]
    given = hard.material(few)
    with pytest.raises(ManifestError, match="no music in the manifest; leave it out"):
        hard.jobs("music0", given, 1)[0].make()
    with pytest.raises(ManifestError, match="no 9 speakers"):
        hard.jobs("babble0", given, 1)[0].make()
    with pytest.raises(ManifestError, match="condition short: no fitting speech"):
        hard.jobs("short", given, 1)
    assert hard.material(clips, language="de").speech == []


def test_command(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["clean", "snr5", "gaps", "dc"]
    line = ["bench", "hard", str(manifest), "--split", "dev", "--per_condition", "2", "--conditions", *names]
    out = tmp_path / "out"
    assert cli.main([*line, "--out", str(out)]) == 0
    assert "manifest.tsv: ready" in capsys.readouterr().out
    clips = read_manifest(out / "manifest.tsv", "dev")
    assert (
        [clip.source for clip in clips]
        == [clip.class_ for clip in clips]
        == sorted(names * 2, key=names.index)
    )
    clean, noisy, _, dialogue, *_, dc = (clips[i] for i in (0, 2, 3, 4, 7))
    assert (clean.text, clean.group, clean.language) == (noisy.text, noisy.group, "en")
    assert (clean.origin, noisy.origin) == ("deb:tone", "deb:rain + deb:tone")
    assert (dc.kind, dc.text, dc.licence) == ("nonspeech", "", "CC0-1.0")
    assert dialogue.text.count("|") == len(dialogue.gaps) > 2
    assert dialogue.gaps[-1][1] == pytest.approx(dialogue.seconds)
    assert len(load_audio(dialogue.path)) == round((dialogue.seconds or 0) * RATE)
    assert cli.main([*line, "--out", str(tmp_path / "again")]) == 0
    for clip in clips:
        assert clip.path.read_bytes() == (tmp_path / "again" / clip.key).read_bytes()
    assert cli.main([*line, "--out", str(out), "--seed", "1"]) == 2
    assert "choose another output folder" in capsys.readouterr().err
    assert cli.main([*line, "--out", str(out), "--per_condition", "0"]) == 2


def test_a_stopped_command_goes_on(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["bench", "hard", str(manifest), "--out", str(tmp_path), "--conditions", "clean", "telephone"]
    written: list[str] = []
    write = hard_command.write_flac

    def stopping(path: Path, audio: Audio) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, audio)

    monkeypatch.setattr(hard_command, "write_flac", stopping)
    assert cli.main(line) == 130
    assert "goes on from" in capsys.readouterr().err
    table = tmp_path / "manifest.tsv"
    clips = read_manifest(table)
    assert len(clips) == 7
    clips[0].path.unlink()
    table.write_bytes(table.read_bytes()[:-9])
    written = [""] * 8
    assert cli.main(line) == 0
    assert len(written) == 8 + 20 - 5
    assert len(read_manifest(table)) == 20
