"""Several processes: two on half a batch each are one on the whole batch (gloo, on the CPU)."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests.support.paths import ROOT
from tests.support.training_parts import CONFIG, sparse_store
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.training import train

SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
from dataclasses import replace
from pathlib import Path
from torch import distributed
from tests.support.training_parts import CONFIG
from whisper_sae_steer.sae.formats import save_sae
from whisper_sae_steer.training import FrameStore, train
from whisper_sae_steer.training.store import Shard
distributed.init_process_group("gloo")
out = Path({out!r})
shards = tuple(Shard(f"train-{{i}}.safetensors", 2000) for i in range(4))
store = FrameStore(out / "frames", "synthetic", "f" * 32, "a", {{"encoder_output": 64}}, shards, ())
config = replace(CONFIG, architecture={architecture!r}, steps={steps}, checkpoint_every=10)
train(store, config, out / "work")
(trained,) = train(store, config, out / "work")  # from the checkpoint, which is at the end
save_sae(trained.sae, out / f"rank{{distributed.get_rank()}}")
distributed.destroy_process_group()
"""


def run(tmp_path: Path, architecture: str, steps: int) -> None:
    code = tmp_path / "script.py"
    root = str(ROOT)
    code.write_text(SCRIPT.format(root=root, out=str(tmp_path), architecture=architecture, steps=steps))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, str(code)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path):
    frames = sparse_store(tmp_path / "frames")
    run(tmp_path, "topk", 40)
    ranks = [load_sae(tmp_path / f"rank{rank}") for rank in range(2)]
    (alone,) = train(frames, replace(CONFIG, architecture="topk", steps=40), tmp_path / "alone")
    for name, tensor in alone.sae.state_dict().items():
        one, other = (rank.state_dict()[name] for rank in ranks)
        assert torch.equal(one, other)
        if name != "threshold":  # the mean of two processes' smallest is not the smallest of both
            torch.testing.assert_close(one, tensor, rtol=1e-3, atol=2e-4)


def test_processes_agree_on_what_a_batch_shares(tmp_path: Path):
    sparse_store(tmp_path / "frames")
    run(tmp_path, "batchtopk", 20)
    one, other = (load_sae(tmp_path / f"rank{rank}").state_dict() for rank in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
