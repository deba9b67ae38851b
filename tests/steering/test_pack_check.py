"""Packs with a right hash and a wrong content: each is refused by one line that names file and field."""

import copy
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.support.small_pack import WIDTH, small_pack
from whisper_sae_steer.errors import PackError
from whisper_sae_steer.kernels import GateKind
from whisper_sae_steer.steering import pack as packs
from whisper_sae_steer.steering.metadata import LATER_FIELDS, GateLevels, PackMetadata, Strategy
from whisper_sae_steer.steering.pack import SteeringPack, read_pack, save_pack, shipped_packs
from whisper_sae_steer.steering.pack_check import LARGEST

NAN, INF = math.nan, math.inf
Json = dict[str, Any]
Tensors = dict[str, Tensor]

TEXT: tuple[Any, ...] = (None, 5, NAN, True, ["x"], {})
NUMBER: tuple[Any, ...] = (NAN, INF, -INF, 1e38, -1e38, 10**400, "1", None, True, [1.0], {})
WHOLE: tuple[Any, ...] = (NAN, INF, 0, -1, 10**9, 1.5, "5", None, True, [], {})
LIST: tuple[Any, ...] = (NAN, 5, "ab", None, {}, [NAN], [None], [[]])
OBJECT: tuple[Any, ...] = (NAN, 3, "x", None, [], {"a": NAN}, {"a": [{"b": INF}]})
WRONG: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("model", "fingerprint", "selection", "created_with"), TEXT),
    **dict.fromkeys(("strategy", "gate", "tap"), (*TEXT, "x", "")),
    **dict.fromkeys(("encoder_mark", "decoder_mark", "decoder_fingerprint"), TEXT[1:]),
    "d_in": WHOLE,
    "gate_smoothing": WHOLE,
    "alpha_unit": (*NUMBER, 0.0, -1.0),
    "no_speech_works": (NAN, "no", 0, None, []),
    "levels": (*OBJECT, {}),
    **{f"levels.{name}": NUMBER for name in ("noise_ceiling", "full_edit_below", "speech_floor")},
    "levels.threshold": (*NUMBER, -6e4, 6e4),
    "levels.gap_below": (*(value for value in NUMBER if value is not None), 6e4),
    "speech_calibration": (*LIST, [], [1.0], [1.0, 2.0, 3.0], [NAN, 1.0], [1.0, "2"]),
    "risk_calibration": (*LIST, [], [1.0], [1.0, INF, 1.0], [True, 1.0, 1.0]),
    **dict.fromkeys(("stock_texts", "compute_types"), (*LIST, [5], ["x", 5])),
    **dict.fromkeys(("sae", "data", "guarantee", "metrics"), OBJECT),
}
"""values that a field of the shipped pack must not have"""


class Content(NamedTuple):
    """What a pack's file holds, but for its hash."""

    metadata: Json
    tensors: Tensors


@pytest.fixture(scope="module")
def shipped() -> Content:
    with safe_open(str(shipped_packs()["tiny.en"]), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Content(json.loads(file.metadata()["metadata"]), tensors)


def write(path: Path, tensors: Tensors, metadata: str, version: str = "2") -> None:
    """A file with a right hash, whatever is in it."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = {"format": version, "metadata": metadata, "sha256": packs._digest(tensors, metadata)}
    save_file(tensors, path, metadata=header)


def refusal(path: Path) -> str:
    """The one line that refuses this pack, without its file."""
    with pytest.raises(PackError) as caught:
        read_pack(path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < len(str(path)) + 250
    assert line.startswith(f"{path} is no usable pack: ")
    return line.removeprefix(f"{path} is no usable pack: ")


def wrong_metadata(right: Json) -> Iterator[tuple[str, Json]]:
    """Each field lost, and with each wrong value; the name of what is to be complained of comes first."""
    yield "gate.rows", {**right, "d_in": right["d_in"] + 1}
    for name, values in WRONG.items():
        for value in values:
            metadata = copy.deepcopy(right)
            *groups, last = name.split(".")
            (metadata[groups[0]] if groups else metadata)[last] = value
            yield name, metadata
    for name in right.keys() - {*LATER_FIELDS}:
        yield name, {key: value for key, value in right.items() if key != name}
    for name in right["levels"]:
        levels = {key: value for key, value in right["levels"].items() if key != name}
        yield f"levels.{name}", {**right, "levels": levels}


def with_one(value: float) -> Callable[[Tensor, random.Random], Tensor]:
    """One number replaced by this one."""

    def change(tensor: Tensor, dice: random.Random) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[dice.randrange(tensor.numel())] = value
        return changed

    return change


OTHER_SHAPES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda t: t[None],
    lambda t: t[:1] if t.ndim and len(t) > 1 else torch.cat([t.reshape(1, *t.shape)] * 2),
    lambda t: torch.cat([t, t]) if t.numel() and t.ndim else t.reshape(1, 1, -1),
    lambda t: t.new_zeros(0, 2),
)
OTHER_KINDS = (torch.int32, torch.bool, torch.float8_e4m3fn)


def wrong_tensors(right: Tensors, dice: random.Random) -> Iterator[tuple[str, Tensors]]:
    """Each tensor lost, of other shapes and kinds, and with numbers that are none."""
    for name, tensor in right.items():
        changed = [change(tensor) for change in OTHER_SHAPES]
        changed += [tensor.to(kind) for kind in OTHER_KINDS]
        if name.endswith(".ids"):
            changed += [tensor.double(), *([tensor - 10_000] if len(tensor) else [])]
        else:
            changed.append(tensor.long())
            values = (NAN, INF, -INF, 1e38) if tensor.numel() else ()
            changed += [with_one(value)(tensor, dice) for value in values]
        yield from ((name, {**right, name: other}) for other in changed)
        if name != "probe":
            yield name, {key: value for key, value in right.items() if key != name}


def test_every_wrong_value_is_refused_by_the_name_of_its_field(shipped: Content, tmp_path: Path):
    path, dice = tmp_path / "wrong.safetensors", random.Random(0)
    assert {name.partition(".")[0] for name in WRONG} == {field.name for field in fields(PackMetadata)}
    mutants = [(name, metadata, shipped.tensors) for name, metadata in wrong_metadata(shipped.metadata)]
    mutants += [(name, shipped.metadata, tensors) for name, tensors in wrong_tensors(shipped.tensors, dice)]
    assert len(mutants) > 400
    for name, metadata, tensors in mutants:
        write(path, tensors, json.dumps(metadata))
        # of two tensors that don't fit each other the second is named
        second = name.replace(".ids", ".rows").replace("key", "value").replace("directions", "coefficients")
        line = refusal(path)
        assert name in line or second in line


def test_text_with_changed_characters_is_refused_or_makes_sense(shipped: Content, tmp_path: Path):
    path, dice, taken = tmp_path / "typo.safetensors", random.Random(1), 0
    few = {name: shipped.metadata[name] for name in shipped.metadata.keys() - {"data", "metrics", "sae"}}
    text = json.dumps({**few, "data": {}, "metrics": {}, "sae": {}, "stock_texts": ["you"]})
    for _ in range(300):
        at = dice.randrange(len(text))
        changed = text[:at] + dice.choice(["", "-", "0", "9", "e9", "[", "}", '"', ",", "N"]) + text[at + 1 :]
        write(path, shipped.tensors, changed)
        try:
            metadata = read_pack(path).metadata
        except PackError:
            continue
        taken += 1
        levels = metadata.levels
        assert json.dumps(asdict(metadata), allow_nan=False)
        assert metadata.strategy in get_args(Strategy)
        assert metadata.gate in get_args(GateKind)
        assert metadata.d_in == 384
        assert 1 <= metadata.gate_smoothing <= 1500
        assert 0 < metadata.alpha_unit <= LARGEST
        assert -LARGEST <= levels.full_edit_below < levels.threshold < levels.speech_floor <= LARGEST
    assert 20 < taken < 280  # digits and names may be others


@pytest.mark.parametrize("text", ["", "null", "[]", '"x"', "not json", "{}", '{"levels": 3}', "[" * 9999])
def test_metadata_that_is_no_object_of_fields(shipped: Content, tmp_path: Path, text: str):
    for version in ("1", "2"):
        write(tmp_path / "a.safetensors", shipped.tensors, text, version)
        refusal(tmp_path / "a.safetensors")


def test_what_means_the_same_is_read_as_the_same(shipped: Content, tmp_path: Path):
    path, right = tmp_path / "same.safetensors", read_pack(shipped_packs()["tiny.en"])
    metadata = {"of a later version": [NAN], **dict(reversed(shipped.metadata.items()))}
    tensors = {name: t if name.endswith(".ids") else t.double() for name, t in shipped.tensors.items()}
    write(path, {**tensors, "of_a_later_version": torch.zeros(2)}, json.dumps(metadata, indent=2))
    read = read_pack(path)
    assert read.metadata == right.metadata
    for name, tensor in packs._flatten(right).items():
        assert torch.equal(packs._flatten(read)[name].to(tensor.dtype), tensor), name


def test_what_older_packs_lack(shipped: Content, tmp_path: Path):
    path = tmp_path / "old.safetensors"
    metadata = {name: value for name, value in shipped.metadata.items() if name not in LATER_FIELDS}
    tensors = {n: tensor for n, tensor in shipped.tensors.items() if not n.startswith(("pooled", "probe"))}
    write(path, tensors, json.dumps(metadata))
    read, right = read_pack(path), read_pack(shipped_packs()["tiny.en"])
    assert (read.probe, read.pooled) == (None, None)
    unknown: Json = dict.fromkeys(LATER_FIELDS) | {"no_speech_works": True}
    assert read.metadata == replace(right.metadata, **unknown)


@pytest.mark.parametrize(
    "gate",
    [
        {"gate_threshold": NAN, "gate_ramp": 1.0},
        {"gate_threshold": "x", "gate_ramp": 1.0},
        {"gate_threshold": 1.0, "gate_ramp": 0.0},
        {"gate_threshold": 1.0, "gate_ramp": -1.0},
        {"gate_threshold": 1.0, "gate_ramp": 1.0, "gap_threshold": "x"},
        {"gate_ramp": 1.0},
        {},
    ],
)
def test_gates_of_format_1_are_checked(shipped: Content, tmp_path: Path, gate: Json):
    metadata = {name: value for name, value in shipped.metadata.items() if name != "levels"} | gate
    write(tmp_path / "a.safetensors", shipped.tensors, json.dumps(metadata), "1")
    assert refusal(tmp_path / "a.safetensors").startswith(("gate_", "gap_threshold", "levels."))


UNUSABLE: Mapping[str, tuple[SteeringPack, str]] = {
    "nan": (small_pack()._replace(gate_bias=torch.tensor(NAN)), "gate_bias must hold numbers"),
    "smoothing": (small_pack(gate_smoothing=1501), "gate_smoothing must be a whole number from 1 to 1500"),
    "metrics": (small_pack(metrics={"wer": NAN}), "metrics must be"),
    "levels": (small_pack(levels=GateLevels(threshold=-1.0)), "levels.full_edit_below, -1, must be below"),
    "ramp": (small_pack(ramp=0.0), "levels.full_edit_below"),
    "gap": (small_pack(gap_below=9.0), "levels.gap_below, 9, must be below levels.speech_floor, 3.5"),
    "no features": (small_pack()._replace(directions=torch.zeros(0, WIDTH), coefficients=torch.zeros(0)),
        "directions must not be empty"),
    "suppressed by others": (small_pack("suppress")._replace(steer=small_pack().steer), "steer.rows must"),
    "overflow": (small_pack(alpha_unit=6e4), "directions times coefficients and alpha_unit must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_packs_are_not_written(tmp_path: Path, case: str):
    pack, why = UNUSABLE[case]
    with pytest.raises(PackError) as caught:
        save_pack(pack, tmp_path / "new" / "a.safetensors")
    assert f"a.safetensors is no usable pack: {why}" in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_an_average_over_a_whole_window_and_a_gate_that_was_lowered_into_the_noise(tmp_path: Path):
    levels = GateLevels.spaced(0.5, 1.5).lowered_to(-9.0)
    save_pack(small_pack(gate_smoothing=1500, levels=levels), tmp_path / "a.safetensors")
    assert read_pack(tmp_path / "a.safetensors").metadata.levels == levels
