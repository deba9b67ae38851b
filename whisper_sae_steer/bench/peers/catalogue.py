"""What people use against text on non-speech, with the settings that are tried of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...errors import SteerError

Library = Literal["faster", "openai"]
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """One way of using Whisper that is measured."""

    name: str
    """its folder below the output, and what `--peers` calls it"""
    method: str
    """peers of one method are its settings; the best of them represents it"""
    setting: str = "default"
    library: Library = "faster"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """of transcribe(), where they differ from the library's defaults"""
    batched: bool = False
    """through faster-whisper's BatchedInferencePipeline"""
    pack: str | None = None
    """`ours` for the pack of `--pack`, else the name of one in `--packs`; None: the library as it is"""
    alpha: float = 0.0
    filter: str | None = None
    """in FILTERS: what cleans the transcripts of the unsteered library"""

    @property
    def baseline(self) -> str:
        """Name of the peer that is the same library, unsteered, at its defaults."""
        return self.library


class PeerRecipe(NamedTuple):
    """A published way to steer, as packs that `benchmarks/peers/packs.py` builds."""

    name: str
    method: str
    features: int
    """how many, by |β| of a logistic regression; 0: the difference of mean frames"""
    mean: bool
    """features count with their mean activation ā_f, else with 1"""
    alphas: tuple[float, ...]
    """strengths tried; of the difference, shares of the frames' mean norm"""


SAE_MEANS = "SAE features × mean activation (arXiv 2606.07473)"
RECIPES = (
    PeerRecipe("contrast", "contrast of mean frames (arXiv 2606.07473)", 0, False, (0.1, 0.2, 0.35)),
    PeerRecipe("audiosae", "SAE features, ā = 1 (AudioSAE, arXiv 2602.05027)", 100, False, (0.1, 0.3, 1.0)),
    PeerRecipe("means10", SAE_MEANS, 10, True, (1.0, 5.0)),
    PeerRecipe("means25", SAE_MEANS, 25, True, (0.3, 1.0, 3.0)),
)
UNWANTED = ("speech", "invented")
"""What is steered away from: windows with speech (towards those without), or windows without speech for
which Whisper invents text (towards those for which it writes none)."""


def _steered(recipe: PeerRecipe) -> list[Peer]:
    features = f"{recipe.features} features, " if recipe.features else ""
    return [
        Peer(
            f"{recipe.name}-{unwanted}-{alpha:g}",
            recipe.method,
            f"{features}away from {unwanted}, α = {alpha:g}",
            pack=f"{recipe.name}-{unwanted}",
            alpha=alpha,
        )
        for unwanted in UNWANTED
        for alpha in recipe.alphas
    ]


def _vad(threshold: float) -> dict[str, Any]:
    return {"vad_filter": True, "vad_parameters": {"threshold": threshold}}


_SILENCE = {"word_timestamps": True, "hallucination_silence_threshold": 2.0}
_THRESHOLD = "stricter no_speech_threshold"
# 32 tokens of entropy 2.8, at which whisper.cpp is often set to try again, are 16 different ones, each said
# twice: about as much as this compression ratio
_WHISPER_CPP = {"compression_ratio_threshold": 2.0, "log_prob_threshold": -1.25}
PEERS = (
    Peer("faster", "faster-whisper"),
    Peer("openai", "openai-whisper", library="openai"),
    Peer("batched", "faster-whisper, batched", "with VAD (its default)", batched=True),
    Peer("batched-all", "faster-whisper, batched", "no VAD", batched=True, options={"vad_filter": False}),
    *(Peer(f"vad-{t}", "Silero VAD", f"threshold {t}", options=_vad(t)) for t in (0.3, 0.5, 0.7)),
    Peer("silence", "hallucination_silence_threshold", "2 s", options=_SILENCE),
    Peer("openai-silence", "hallucination_silence_threshold, openai", "2 s", "openai", _SILENCE),
    *(
        Peer(f"nsp-{t}", _THRESHOLD, f"{t}", options={"no_speech_threshold": t})
        for t in (0.4, 0.2)
    ),
    # without a log_prob_threshold both libraries skip by no_speech_prob alone; neither do they try
    # higher temperatures on a low avg_logprob then
    *(
        Peer(
            f"nsp-{t}-alone", _THRESHOLD, f"{t}, log_prob_threshold None",
            options={"no_speech_threshold": t, "log_prob_threshold": None},
        )
        for t in (0.6, 0.4, 0.2)
    ),
    Peer("whisper-cpp", "whisper.cpp's thresholds", "entropy 2.8, logprob −1.25", options=_WHISPER_CPP),
    Peer("phrases", "list of phrases", filter="phrases"),
    Peer("whisper-guard", "whisper-guard", filter="whisper_guard"),
    *(peer for recipe in RECIPES for peer in _steered(recipe)),
    Peer(OURS, "ours", pack=OURS, alpha=1.0),
    Peer("ours-vad", "ours + Silero VAD", "threshold 0.5", options=_vad(0.5), pack=OURS, alpha=1.0),
    Peer("ours-batched", "ours, batched", "with VAD (its default)", batched=True, pack=OURS, alpha=1.0),
    Peer(
        "ours-batched-all", "ours, batched", "no VAD",
        options={"vad_filter": False}, batched=True, pack=OURS, alpha=1.0,
    ),
    Peer("ours-openai", "ours, openai", library="openai", pack=OURS, alpha=1.0),
)  # fmt: skip
"""In the order of the table. Not among them: decoder projection (arXiv 2609.04561), whose layers and rank
are not known to us, and which needs a decoder that CTranslate2 does not open."""


def choose(names: Sequence[str] | None, packs: Path | None) -> tuple[list[Peer], dict[str, str]]:
    """The peers to run, unsteered ones that others are compared with first; and why others are left out.

    Without names all that can run. SteerError for a name that doesn't exist or can't run.
    """
    unknown = set(names or ()) - {peer.name for peer in PEERS}
    if unknown:
        raise SteerError(f"no peer is called {', '.join(sorted(unknown))}; `--list` shows all")
    wanted = [peer for peer in PEERS if names is None or peer.name in names]
    lacking = {peer.name: reason for peer in wanted if (reason := _lacks(peer, packs))}
    if names and lacking:
        raise SteerError("; ".join(f"{name} {reason}" for name, reason in lacking.items()))
    able = [peer for peer in wanted if peer.name not in lacking]
    needed = {peer.baseline for peer in able}
    baselines = [peer for peer in PEERS if peer.name in needed]
    return baselines + [peer for peer in able if peer not in baselines], lacking


def _lacks(peer: Peer, packs: Path | None) -> str | None:
    """What a peer needs and isn't there."""
    if peer.filter and peer.filter != "phrases" and find_spec(peer.filter) is None:
        return f"needs a package: pip install {peer.name}"
    if peer.pack in (None, OURS):
        return None
    if packs is None:
        return "needs --packs, made with `python -m benchmarks.peers.packs`"
    return (
        None
        if (packs / f"{peer.pack}.safetensors").is_file()
        else f"needs {peer.pack}.safetensors in --packs"
    )
