"""What an SAE's errors cost Whisper: WER and FPR with its reconstruction in place of the activation.

Every frame at the tap, content and padding alike, is replaced by what the SAE makes of it, and all
of ``transcribe()`` runs on top with the library's default settings, beside the untouched model.
"""

import copy
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import faster_whisper
import numpy as np
import torch
from ctranslate2 import StorageView
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from whisper.model import AudioEncoder

from ..audio.clips import NONSPEECH_KINDS, Clip, select
from ..bench.backends import FasterBackend, Transcript
from ..bench.report import write_report
from ..bench.runner import Row, run
from ..errors import ManifestError, SAEFormatError
from ..models.convert import load_torch
from ..models.greedy import RawWindow
from ..models.taps import block_index
from ..models.weights import Weights
from ..reports import metrics
from ..reports.metrics import Difference, Rate, WordErrors
from ..sae.autoencoder import SAE
from ..steering.calls import Call, CallOptions, active, current
from ..steering.ctranslate import SteeredEncoder
from ..steering.steerer import Steerer

UNTOUCHED, SPLICED = 0.0, 1.0
"""as α in the bench's rows"""
PER_SOURCE, PER_CLASS = 10, 2
"""clips that the cost is measured on: of speech at most so many a source, of the rest a source and class"""
COMPUTE_TYPE = "float32"
"""the type SAEs are trained in, and the one that CTranslate2's and PyTorch's encoders agree in"""


class RateChange(NamedTuple):
    """A rate over clips, in the untouched model and with the reconstruction."""

    untouched: Rate
    spliced: Rate
    change: Difference


class WordChange(NamedTuple):
    """Word errors of all clips, in the untouched model and with the reconstruction."""

    untouched: WordErrors
    spliced: WordErrors
    change: Difference
    """of the WER"""


class Downstream(NamedTuple):
    """The downstream cost of an SAE; definitions are those of ``metrics.DEFINITIONS``."""

    wer: WordChange | None
    """None without speech that has words"""
    frr: Rate | None
    """None without speech that has text in the untouched model"""
    fpr_text: RateChange | None
    """None without non-speech"""
    fpr_raw: RateChange | None
    speech: int
    """clips measured"""
    nonspeech: int
    failed: int
    """clips that could not be read or transcribed, and count nowhere"""


class Splice(Steerer):
    """Replaces frames by an SAE's reconstruction of them wherever a steerer would steer."""

    def __init__(self, sae: SAE):
        self.sae = sae

    @torch.no_grad()
    def __call__(self, h: Tensor) -> None:
        """Overwrite ``h`` [B, 1500, d] in place if a call is active."""
        if current(self) is None:
            return
        for window in h:  # one at a time, for the features are many times as large
            window.copy_(self.sae(window.to(self.sae.W_enc)).reconstruction)


class BlockSplicedEncoder(SteeredEncoder):
    """Stands in for a CTranslate2 model; inside a call, PyTorch encodes with a block's output spliced.

    Outside one CTranslate2 encodes as ever: the untouched model is the library's own.
    """

    def __init__(self, model: Any, encoder: AudioEncoder, splice: Splice, block: int):
        super().__init__(model.model, splice, model.hf_tokenizer)
        self._encoder = encoder
        encoder.get_submodule(f"blocks.{block}").register_forward_hook(splice.hook)

    @torch.no_grad()
    def encode(self, features: StorageView, to_cpu: bool = False) -> StorageView:
        if current(self._steerer) is None:
            return self._inner.encode(features, to_cpu=to_cpu)
        mel = torch.from_numpy(np.asarray(features))
        output = self._encoder(mel.to(next(self._encoder.parameters())))
        return StorageView.from_array(output.cpu().numpy())


class SplicedBackend:
    """A plain faster-whisper model for the bench: α = 1 splices the SAE in, α = 0 is the library."""

    name = "faster"
    compute_type = COMPUTE_TYPE

    def __init__(self, weights: Weights, sae: SAE, threads: int = 0):
        _check(sae, weights)
        # fallback temperatures sample: CTranslate2 takes its seed when a model's threads start
        ctranslate2.set_random_seed(0)
        model: Any = faster_whisper.WhisperModel(
            str(weights.ct2_dir), compute_type=COMPUTE_TYPE, cpu_threads=threads
        )
        silence = np.zeros((model.model.n_mels, model.feature_extractor.nb_max_frames), np.float32)
        width = model.encode(silence).shape[-1]
        if width != sae.config.d_in:
            raise SAEFormatError(
                f"the SAE takes frames of width {sae.config.d_in}, but {weights.name} has {width}"
            )
        self.splice = Splice(copy.deepcopy(sae).to(model.model.device))
        model.model = _stand_in(model, weights, self.splice)
        self.model_name = weights.name
        self.pack: str | None = f"sae {_digest(sae)}"
        self._plain = FasterBackend(model, weights.name, COMPUTE_TYPE)

    def transcribe(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> Transcript:
        with self._at(alpha):
            return self._plain.transcribe(audio, UNTOUCHED, language)

    def first_window(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> RawWindow:
        with self._at(alpha):
            return self._plain.first_window(audio, UNTOUCHED, language)

    def _at(self, alpha: float) -> AbstractContextManager[Call | None]:
        options = CallOptions(alpha, steer_language_detection=True)
        return active(self.splice, Call(options) if alpha else None)


def clips_to_judge(
    weights: Weights, clips: Sequence[Clip], per_source: int = PER_SOURCE, per_class: int = PER_CLASS
) -> tuple[list[Clip], list[Clip]]:
    """Some of the clips: speech that the model understands, ``per_source``; non-speech, ``per_class``."""
    nonspeech = select([clip for clip in clips if clip.kind in NONSPEECH_KINDS], per_class)
    english_only = weights.name.endswith(".en")
    understood = [clip for clip in clips if clip.language in ("", "en") or not english_only]
    return select([clip for clip in understood if clip.kind == "speech"], per_source), nonspeech


def measure_downstream(
    weights: Weights,
    sae: SAE,
    speech: Sequence[Clip],
    nonspeech: Sequence[Clip],
    work: Path,
    threads: int = 0,
    progress: bool = True,
) -> Downstream:
    """Measure what a jumprelu SAE of ``encoder_output`` or ``block.N`` costs, in float32.

    Clips are transcribed in the language that the model detects. Each is a row on disk as soon as it is
    done: after Ctrl-C the same call goes on. ``work`` may be shared by SAEs of one model: the untouched
    model's rows lie in ``untouched/`` and are made once, each SAE's and its table in a folder of its own.

    Raises ManifestError for clips that can't be used, SAEFormatError for an SAE of other weights,
    another width or without thresholds, PackError for an unknown tap.
    """
    keys = _checked_keys(speech, nonspeech)
    backend = SplicedBackend(weights, sae, threads)
    folders = {UNTOUCHED: work / "untouched", SPLICED: work / str(backend.pack).replace(" ", "-")}
    rows: list[Row] = []
    for kind, clips in (("speech", speech), ("nonspeech", nonspeech)):
        for alpha, folder in folders.items() if clips else ():
            if progress:
                tqdm.write(f"{kind}, {'reconstruction' if alpha else 'untouched model'}: {len(clips)} clips")
            raw = kind == "nonspeech"
            rows += run(backend, clips, [alpha], folder / kind, raw, progress=progress)
    rows = [row for row in rows if row["path"] in keys]
    failed = {row["path"] for row in rows if row["error"] is not None}
    rows = [row for row in rows if row["error"] is not None or row["path"] not in failed]
    conditions = {
        "α": f"0 is the untouched model, 1 has {backend.pack} spliced in at {sae.config.tap}",
        "time": "the two ran one after the other, so wall_ratio says little",
    }
    summary = write_report(folders[SPLICED], rows, conditions)
    return Downstream(
        wer=_word_change(summary["speech"]),
        frr=_lost(summary["speech"]),
        fpr_text=_text_change(summary["nonspeech"]),
        fpr_raw=_raw_change(summary["nonspeech"], rows),
        speech=summary["speech"]["clips"] if summary["speech"] else 0,
        nonspeech=summary["nonspeech"]["clips"] if summary["nonspeech"] else 0,
        failed=len(failed),
    )


def _stand_in(model: Any, weights: Weights, splice: Splice) -> SteeredEncoder:
    tap = splice.sae.config.tap
    block = block_index(tap)
    if block is None:
        return SteeredEncoder(model.model, splice, model.hf_tokenizer)
    whisper = load_torch(weights)
    if block >= whisper.dims.n_audio_layer:
        last = whisper.dims.n_audio_layer - 1
        raise SAEFormatError(f"the SAE reads {tap}, but {weights.name} has blocks 0 to {last}")
    return BlockSplicedEncoder(model, whisper.encoder.to(model.model.device), splice, block)


def _check(sae: SAE, weights: Weights) -> None:
    if sae.config.architecture != "jumprelu":
        raise SAEFormatError(
            f"a {sae.config.architecture} SAE can't be spliced in without a threshold;"
            " call calibrate_threshold(sae, frames) first"
        )
    if sae.config.metadata.get("fingerprint", weights.fingerprint) != weights.fingerprint:
        raise SAEFormatError(
            f"the SAE was trained on other weights ({sae.config.model}) than {weights.name};"
            " measure it on its own"
        )


def _checked_keys(speech: Sequence[Clip], nonspeech: Sequence[Clip]) -> set[str]:
    clips = [*speech, *nonspeech]
    keys = {clip.key for clip in clips}
    if not clips:
        raise ManifestError("no clips to measure the downstream cost on; give speech, non-speech or both")
    if len(keys) < len(clips):
        raise ManifestError("two clips have the same path; name folders with different names")
    for given, kinds in ((speech, ("speech",)), (nonspeech, NONSPEECH_KINDS)):
        for clip in given:
            if clip.kind not in kinds:
                raise ManifestError(f"{clip.key} is {clip.kind}, not {' or '.join(kinds)}")
    return keys


def _word_change(section: Any) -> WordChange | None:
    if not section or section["total"]["1"]["WER_change"] is None:
        return None
    fields = ("substitutions", "deletions", "insertions", "words")
    before, after = (WordErrors(*(section["total"][a][name] for name in fields)) for a in "01")
    return WordChange(before, after, Difference(**section["total"]["1"]["WER_change"]))


def _lost(section: Any) -> Rate | None:
    rate = section["total"]["1"]["FRR"] if section else None
    return Rate(**rate) if rate else None


def _text_change(section: Any) -> RateChange | None:
    if not section:
        return None
    before, after = (Rate(**section["total"][a]["FPR_text"]) for a in "01")
    return RateChange(before, after, Difference(**section["total"]["1"]["FPR_text_change"]))


def _raw_change(section: Any, rows: Sequence[Row]) -> RateChange | None:
    """As :func:`_text_change`; the bench's summary has the rates, but not their difference."""
    if not section:
        return None
    wrote: dict[float, dict[str, bool]] = {UNTOUCHED: {}, SPLICED: {}}
    for row in rows:
        if row["raw"] is not None:
            wrote[row["alpha"]][row["path"]] = metrics.has_text(row["raw"]["text"])
    change = metrics.bootstrap_difference(
        list(wrote[SPLICED].values()), [wrote[UNTOUCHED][path] for path in wrote[SPLICED]]
    )
    before, after = (Rate(**section["total"][a]["FPR_raw"]) for a in "01")
    return RateChange(before, after, change)


def _digest(sae: SAE) -> str:
    """Names an SAE by its tap and its numbers."""
    digest = hashlib.sha256(sae.config.tap.encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:12]
