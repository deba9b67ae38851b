"""The README of an exported model: what it is, how it is loaded, what it was checked with."""

from pathlib import Path
from typing import NamedTuple

from ..models.weights import Weights
from ..reports.metrics import wilson
from ..steering.pack import SteeringPack, stored_digest
from .check import Check, ModelFigures
from .writers import CHECKPOINT, Format

LOADING = {
    "ct2": 'from faster_whisper import WhisperModel\n\nmodel = WhisperModel("FOLDER", compute_type="int8")\n'
    'segments, info = model.transcribe("call.wav")',
    "openai": f'import whisper\n\nmodel = whisper.load_model("FOLDER/{CHECKPOINT}")\n'
    'result = model.transcribe("call.wav")',
    "hf": "from transformers import pipeline\n\n"
    'asr = pipeline("automatic-speech-recognition", "FOLDER")\n'
    'result = asr("call.wav", return_timestamps=True)',
}
RUNTIMES = {"ct2": "faster-whisper", "openai": "openai-whisper, float32", "hf": "transformers, float32"}


class Checked(NamedTuple):
    """What is known of an exported model that was checked."""

    result: Check
    slower: float
    """time of the steered encoder over the plain one's"""


def loading_code(form: Format, folder: str | Path) -> str:
    """Python that transcribes with an exported model."""
    return LOADING[form].replace("FOLDER", str(folder))


def model_card(
    weights: Weights, pack: SteeringPack, alpha: float, form: Format, compute_type: str,
    checked: Checked | None,
) -> str:  # fmt: skip
    """The card in Markdown; ``checked`` is None for a model that wasn't."""
    assert pack.path is not None
    digest = stored_digest(pack.path)
    how = (
        "its `ln_post.bias`"
        if pack.metadata.gate == "none"
        else "two more encoder blocks, which act only in 30 s windows in which nobody speaks"
    )
    figures = "Not checked." if checked is None else _figures(alpha, form, compute_type, checked)
    return f"""---
license: mit
pipeline_tag: automatic-speech-recognition
tags: [whisper, activation-steering, sparse-autoencoder]
---

# Whisper {weights.name}, steered

OpenAI's Whisper `{weights.name}` that writes no text for audio without speech. The edit of a
whisper-sae-steer pack (`{pack.metadata.model}`, {digest[:12]}, α = {alpha:g}) is in {how};
all other weights are Whisper's. No hook and no other package is needed:

```python
{loading_code(form, "FOLDER")}
```

{figures}

Unlike the hooked model it has no `steer_alpha`, doesn't cut gaps out of windows with speech, and
doesn't ask the decoder in doubt.
"""


def _figures(alpha: float, form: Format, compute_type: str, checked: Checked) -> str:
    result = checked.result
    sounds, utterances = result.sounds, result.utterances
    runtime = f"{RUNTIMES[form]}, {compute_type}" if form == "ct2" else RUNTIMES[form]
    rows = "\n".join(
        _row(name, figures, result)
        for name, figures in (
            ("unsteered", result.unsteered),
            (f"hooked, α = {alpha:g}", result.hooked),
            ("this model", result.exported),
        )
    )
    return f"""| {runtime} | FPR_text, {sounds} clips without speech | WER, {utterances} of speech |
|---|---|---|
{rows}

FPR_text: share of clips without speech that get a letter or digit at the runtime's default settings,
with its 95% Wilson interval. The encoder takes {checked.slower:.2f} times the time of the plain one
(PyTorch, where this was made)."""


def _row(name: str, figures: ModelFigures, result: Check) -> str:
    rate = wilson(figures.texts, result.sounds)
    errors = figures.errors
    wer = f"{errors.errors}/{errors.words} = {errors.rate:.2%}" if errors.words else "–"
    shown = f"{rate.k}/{rate.n} = {rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}]" if rate.n else "–"
    return f"| {name} | {shown} | {wer} |"
