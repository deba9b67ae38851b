"""Settings of a sweep: their names, and those that are refused."""

import argparse
from dataclasses import replace
from typing import Any

import pytest

from whisper_sae_steer.commands.fields import every_combination
from whisper_sae_steer.errors import ConfigError
from whisper_sae_steer.sweep import SweepConfig, command
from whisper_sae_steer.sweep.audio import audios, change
from whisper_sae_steer.sweep.config import labels, setting_name
from whisper_sae_steer.sweep.groups import gigabytes, groups
from whisper_sae_steer.training import StreamConfig, TrainConfig

BASE = TrainConfig()
JUMP = replace(BASE, architecture="jumprelu")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["audio", "--out", "o", *words])
    args.max_fvu, args.compile = None, False
    return args


def test_every_combination_is_a_setting():
    args = parsed("--architecture", "topk", "jumprelu", "--k", "25", "50", "100", "--lr", "1e-3")
    settings = every_combination(args, TrainConfig, command.SEVERAL)
    assert [(one.architecture, one.k) for one in settings] == [
        *(("topk", 25), ("topk", 50), ("topk", 100)),
        *(("jumprelu", 25), ("jumprelu", 50), ("jumprelu", 100)),
    ]
    assert {(one.lr, one.expansion) for one in settings} == {(1e-3, 8)}


def test_without_options_a_sweep_is_one_training_by_default():
    assert every_combination(parsed(), TrainConfig, command.SEVERAL) == [BASE]


def test_names_tell_what_is_not_usual():
    assert setting_name(BASE) == "batchtopk-k50-x8"
    assert setting_name(replace(BASE, d_sae=100, k=4, expansion=3, batch_size=64)) == "batchtopk-k4-d100"
    assert setting_name(replace(JUMP, lr=2e-5, bandwidth=1.0)) == "jumprelu-k50-x8-lr2e-05-bandwidth1"


def test_labels_leave_out_what_all_have_in_common():
    settings = [replace(BASE, k=k, lr=1e-3) for k in (25, 50)] + [replace(JUMP, k=25, lr=1e-3)]
    given = [(one, "") for one in settings]
    assert labels(given) == ["batchtopk k25", "batchtopk k50", "jumprelu k25"]
    assert labels(given[:2]) == ["k25", "k50"]
    assert labels([(BASE, "")]) == ["batchtopk k50 x8"]
    assert labels([(BASE, ""), (BASE, "music0"), (JUMP, "music0")]) == [
        "batchtopk", "batchtopk music0", "jumprelu music0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ((), {}, "at least one setting"),
        ((BASE,), {"seeds": ()}, "and one seed"),
        ((BASE,), {"seeds": (0, 1, 0)}, "seed 0 is given twice"),
        ((BASE,), {"taps": ("block.1", "block.1")}, r"tap block\.1 is given twice"),
        ((BASE, BASE), {}, "one training, batchtopk-k50-x8"),
        ((BASE, replace(BASE, bandwidth=1.0)), {}, "uses nothing they differ in"),
        ((replace(BASE, d_sae=64), replace(BASE, d_sae=64, expansion=4)), {}, "one training"),
        ((BASE, replace(BASE, lr=2.0000001e-4)), {}, None),
        ((replace(BASE, lr=1e-3), replace(BASE, lr=1.0000001e-3)), {}, "differ by too little"),
        ((BASE, replace(BASE, k=25, max_fvu=0.1)), {}, "leave max_fvu out"),
    ],
)
def test_sweeps_that_make_no_sense(
    settings: tuple[TrainConfig, ...], options: dict[str, Any], said: str | None
):
    if said is None:
        assert SweepConfig(settings, **options).settings == settings
        return
    with pytest.raises(ConfigError, match=said):
        SweepConfig(settings, **options)


def test_members_come_tap_by_tap():
    config = SweepConfig((BASE, JUMP), seeds=(3, 4))
    names = [member.name for member in config.members(["block.0", "block.1"])]
    first = [f"{name}-k50-x8-block.0-seed{seed}" for name in ("batchtopk", "jumprelu") for seed in (3, 4)]
    assert names == first + [name.replace("block.0", "block.1") for name in first]


def test_groups_fit_into_memory_and_keep_their_order():
    members = SweepConfig(tuple(replace(BASE, k=k) for k in range(10, 20)), seeds=(0, 1)).members(["tap"])
    widths = {"tap": 384}
    whole = gigabytes(dict(members), widths)
    assert groups(members, widths, whole) == [members]
    several = groups(members, widths, whole - 0.5)
    assert len(several) > 1
    assert all(gigabytes(team, widths) <= whole - 0.5 for team in several)
    assert [name for team in several for name in team] == list(members)
    rest = {name: config for team in several[1:] for name, config in team.items()}
    assert groups(rest, widths, whole - 0.5) == several[1:]


def test_a_setting_that_is_too_large_for_memory():
    members = SweepConfig((BASE, replace(BASE, expansion=512))).members(["tap"])
    with pytest.raises(ConfigError, match=r"x512-tap-seed0 takes \d+\.\d GB, more than 4"):
        groups(members, {"tap": 512}, 4.0)


def test_audio_is_changed_as_it_is_written():
    stream = StreamConfig(speech=2, noise_share=0.5)
    found = audios(stream, [change("noise_share=0"), change("music=0,sound=0.5")])
    assert found == {
        "": stream,
        "noise_share0": replace(stream, noise_share=0),
        "music0-sound0.5": replace(stream, music=0, sound=0.5),
    }
    with pytest.raises(ConfigError, match="audio with sound1 is the same"):
        audios(stream, [change("sound=1")])


@pytest.mark.parametrize("text", ["", "noise_share", "noise_share=no", "seed=1", "k=2", "music=0,", "a=1=2"])
def test_changes_that_are_none(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not like noise_share=0"):
        change(text)
