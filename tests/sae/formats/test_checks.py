"""Damaged SAEs of every format: each is refused in one line, or read as what it was."""

import copy
import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.small_saes import D_IN, D_SAE, K
from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.sae.autoencoder import SAE
from whisper_sae_steer.sae.formats import load_sae

Json = dict[str, Any]
NAN, INF = math.nan, math.inf


def random_tensors(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name.replace("__", "."): torch.randn(shape, generator=generator).abs()
        for name, shape in shapes.items()
    }


class Kind(NamedTuple):
    """A format's files: what to write where."""

    weights: str
    tensors: Mapping[str, Tensor]
    settings: str
    config: Json


LINEAR = random_tensors(encoder__weight=(D_SAE, D_IN), encoder__bias=(D_SAE,), decoder__weight=(D_IN, D_SAE))
PARAMETERS = random_tensors(W_enc=(D_IN, D_SAE), b_enc=(D_SAE,), W_dec=(D_SAE, D_IN), b_dec=(D_IN,))
THRESHOLD = random_tensors(threshold=(D_SAE,))
CENTRE = random_tensors(b_dec=(D_IN,))
SAELENS: Json = {
    "d_in": D_IN, "d_sae": D_SAE, "apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": True,
    "normalize_activations": "none", "metadata": {"model_name": "tiny", "hook_name": "block.1", "k": K},
}  # fmt: skip


def trained(dict_class: str) -> Json:
    own = {"activation_dim": D_IN, "dict_size": D_SAE, "k": K, "lm_name": "tiny", "dict_class": dict_class}
    return {"trainer": own}


KINDS = {
    "jumprelu": Kind("sae_weights.safetensors", PARAMETERS | THRESHOLD, "cfg.json",
        {**SAELENS, "architecture": "jumprelu"}),
    "topk": Kind("sae_weights.safetensors", PARAMETERS, "cfg.json",
        {**SAELENS, "architecture": "topk", "k": K}),
    "sparsify": Kind("sae.safetensors", {**{n: LINEAR[n] for n in ("encoder.weight", "encoder.bias")},
        **{n: PARAMETERS[n] for n in ("W_dec", "b_dec")}}, "cfg.json",
        {"d_in": D_IN, "num_latents": D_SAE, "k": K}),
    "audiosae": Kind("ae.pt", {**LINEAR, **CENTRE, "k": torch.tensor(K)}, "config.json",
        {"activation_dim": D_IN, "dict_size": D_SAE, "k": K}),
    "batchtopk": Kind("ae.pt", {**LINEAR, **CENTRE, "k": torch.tensor(K), "threshold": torch.tensor(0.5)},
        "config.json", trained("BatchTopKSAE")),
    "matryoshka": Kind("ae.pt", {**PARAMETERS, "k": torch.tensor(K), "group_sizes": torch.tensor([8, 32])},
        "config.json", trained("MatryoshkaBatchTopKSAE")),
    "gates": Kind("ae.pt", PARAMETERS | THRESHOLD, "config.json", trained("JumpReluAutoEncoder")),
    "relu": Kind("ae.pt", {**LINEAR, "bias": CENTRE["b_dec"]}, "config.json", trained("AutoEncoder")),
    "openai": Kind("6.pt", {**{n: LINEAR[n] for n in ("encoder.weight", "decoder.weight")},
        "pre_bias": CENTRE["b_dec"], "latent_bias": PARAMETERS["b_enc"],
        "latents_mean_square": torch.zeros(D_SAE)}, "", {}),
}  # fmt: skip


def one_wrong(value: float) -> Callable[[Tensor], Tensor]:
    """The last number replaced by this one."""

    def change(tensor: Tensor) -> Tensor:
        changed = tensor.float()
        changed.view(-1)[-1] = value
        return changed

    return change


WRONG_TENSORS: Mapping[str, Callable[[Tensor], object]] = {
    "nan": one_wrong(NAN),
    "inf": one_wrong(INF),
    "complex": lambda t: t.to(torch.complex64),
    "int": lambda t: t.mul(3).int(),
    "bool": lambda t: t > 0,
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "nothing": lambda t: t.reshape(-1)[:0],
    "another dimension": lambda t: torch.stack([t, t]),
    "flat": lambda t: torch.cat([t.reshape(-1)] * 2),
    "two of one": lambda t: t.reshape(-1)[:2] if t.numel() > 1 else torch.stack([t, t]),
}
WRONG_IN_PICKLES: Mapping[str, Callable[[Tensor], object]] = {
    "meta": lambda t: t.to("meta"),
    "quantised": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "sparse": lambda t: t.float().to_sparse(),
    "of one number": lambda t: torch.zeros(1).expand(10**12),
    "nested": lambda t: torch.nested.nested_tensor([t.float().reshape(-1)]),
    "text": lambda _: "x",
    "none": lambda _: None,
    "list": lambda t: t.tolist(),
}
RIGHT_TENSORS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "float64": lambda t: t.double(),
    "parameter": lambda t: torch.nn.Parameter(t) if t.is_floating_point() else t,
}
WRONG_VALUES = (None, "x", "", -1, 0, 1.5, NAN, INF, 10**30, [], {}, True, [1], "10")
UNREAD = {"latents_mean_square": WRONG_TENSORS.keys(), "group_sizes": WRONG_TENSORS.keys() - {"nan", "inf"}}
"""tensors that no activation depends on, and what they may be"""


def write(folder: Path, kind: Kind, tensors: Mapping[str, object], config: Json) -> None:
    if kind.weights.endswith(".pt"):
        torch.save(dict(tensors), folder / kind.weights)
    else:
        dense = {name: tensor.contiguous() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
        save_file(dense, folder / kind.weights)
    if kind.settings:
        (folder / kind.settings).write_text(json.dumps(config))


def read(folder: Path) -> SAE | None:
    """What is read, None for what is refused."""
    try:
        return load_sae(folder)
    except SAEFormatError as error:
        line = str(error)
    assert "\n" not in line
    assert len(line) < 3 * len(str(folder)) + 250
    return None


def same(one: SAE | None, other: SAE) -> bool:
    if one is None or (one.config.k, one.config.tap) != (other.config.k, other.config.tap):
        return False
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.filterwarnings("ignore::UserWarning")  # nested and quantised tensors are odd to PyTorch, too
@pytest.mark.parametrize("name", KINDS)
def test_every_wrong_tensor_is_refused(tmp_path: Path, name: str):
    kind = KINDS[name]
    write(tmp_path, kind, kind.tensors, kind.config)
    right = load_sae(tmp_path)
    wrong = {**WRONG_TENSORS, **(WRONG_IN_PICKLES if kind.weights.endswith(".pt") else {})}
    for key, tensor in kind.tensors.items():
        for case, change in wrong.items():
            write(tmp_path, kind, {**kind.tensors, key: change(tensor.clone())}, kind.config)
            found = read(tmp_path)
            assert found is None or (case in UNREAD.get(key, ()) and same(found, right)), (key, case)
        for case, change in RIGHT_TENSORS.items():
            write(tmp_path, kind, {**kind.tensors, key: change(tensor.clone())}, kind.config)
            assert same(read(tmp_path), right), (key, case)
        write(tmp_path, kind, {n: t for n, t in kind.tensors.items() if n != key}, kind.config)
        found = read(tmp_path)
        # a threshold or k that is not there is one that was not measured, or stands in the settings
        assert found is None or key in ("k", "group_sizes", "latents_mean_square", "threshold"), key
        assert found is None or name not in ("jumprelu", "gates"), key


def paths(config: Json) -> Iterator[tuple[str, ...]]:
    for key, value in config.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in paths(value))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.settings])
def test_every_wrong_setting_is_refused_or_means_the_same(tmp_path: Path, name: str):
    kind = KINDS[name]
    write(tmp_path, kind, kind.tensors, kind.config)
    right, outcomes = load_sae(tmp_path), Counter[bool]()
    for *groups, last in paths(kind.config):
        for value in WRONG_VALUES:
            config = copy.deepcopy(kind.config)
            inner = config
            for group in groups:
                inner = inner[group]
            inner[last] = value
            write(tmp_path, kind, kind.tensors, config)
            found = read(tmp_path)
            outcomes[found is None] += 1
            if found is None:
                continue
            names_only = last in ("model_name", "hook_name", "lm_name") and value in (None, "", "x", "10")
            no_names = last == "metadata" and value == {}
            no_k = last == "k" and value is None and name == "jumprelu"
            other_rule = last == "apply_b_dec_to_input" and value is True
            assert names_only or no_names or no_k or other_rule or same(found, right), (groups, last, value)
    assert outcomes[True] > 4 * len(kind.config)


@pytest.mark.parametrize("k", [NAN, INF, -INF, 0.0, -3.0, 2.5, 1e30])
def test_a_k_that_is_no_count(tmp_path: Path, k: float):
    kind = KINDS["audiosae"]
    settings = {key: value for key, value in kind.config.items() if key != "k"}
    write(tmp_path, kind, {**kind.tensors, "k": torch.tensor(k, dtype=torch.float64)}, settings)
    assert read(tmp_path) is None
    write(tmp_path, kind, {**kind.tensors, "k": torch.tensor(float(K))}, settings)
    assert load_sae(tmp_path).config.k == K


def test_more_features_a_frame_than_there_are(tmp_path: Path):
    kind = KINDS["topk"]
    write(tmp_path, kind, kind.tensors, {**kind.config, "k": D_SAE + 1})
    with pytest.raises(SAEFormatError, match="has 40 features, fewer than k, 41"):
        load_sae(tmp_path)


def test_folding_that_leaves_the_range_of_floats(tmp_path: Path):
    kind = KINDS["gates"]
    huge = {name: torch.full_like(kind.tensors[name], 1e30) for name in ("W_enc", "b_dec")}
    write(tmp_path, kind, {**kind.tensors, **huge}, kind.config)
    with pytest.raises(SAEFormatError, match="values in b_enc that are not finite"):
        load_sae(tmp_path)


def test_one_threshold_of_any_shape(tmp_path: Path):
    kind = KINDS["batchtopk"]
    for shape in ((), (1,), (1, 1)):
        write(tmp_path, kind, {**kind.tensors, "threshold": torch.full(shape, 0.5)}, kind.config)
        assert load_sae(tmp_path).threshold.tolist() == [0.5] * D_SAE


@pytest.mark.parametrize("name", ["audiosae", "openai"])
def test_what_would_unpack_to_far_more_than_the_file_is_refused(tmp_path: Path, name: str):
    kind = KINDS[name]
    write(tmp_path, kind, kind.tensors, kind.config)
    weights = tmp_path / kind.weights
    with zipfile.ZipFile(weights) as parts:
        content = {part.filename: parts.read(part) for part in parts.infolist()}
    with zipfile.ZipFile(weights, "w", zipfile.ZIP_DEFLATED) as packed:
        for part, data in content.items():
            packed.writestr(part, data + bytes(10_000))
    with pytest.raises(SAEFormatError, match="is compressed"):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", ["jumprelu", "sparsify"])
@pytest.mark.parametrize(
    "told", [{"shape": [10**9, 10**9]}, {"shape": [2**62]}, {"data_offsets": [0, 2**62]}], ids=str
)
def test_headers_that_ask_for_more_than_the_file_has(tmp_path: Path, name: str, told: Json):
    kind = KINDS[name]
    write(tmp_path, kind, kind.tensors, kind.config)
    weights = tmp_path / kind.weights
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["b_dec"] |= told
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    assert read(tmp_path) is None
    weights.write_bytes((2**63).to_bytes(8, "little") + data[8:])
    assert read(tmp_path) is None
