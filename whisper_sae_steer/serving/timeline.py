"""How likely speech is throughout a recording, for whoever draws it."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from fastapi import APIRouter, Depends, Request
from faster_whisper.audio import pad_or_trim
from numpy.typing import NDArray

from ..audio.units import SAMPLE_RATE, WINDOW_SAMPLES
from ..faster import WhisperModel
from ..steering.ctranslate import SteeredStorage
from ..steering.labels import STEP_SECONDS, Labels
from .decoding import decode
from .disconnect import unless_gone
from .engine import ServingEngine
from .errors import ApiError
from .fleet import Fleet
from .security import require_key
from .uploads import Form, audio_of, fields_of

DIGITS = 5

router = APIRouter(prefix="/v1", dependencies=[Depends(require_key)])


@router.post("/audio/timeline")
async def timeline(request: Request, form: Form) -> dict[str, Any]:
    """Speech probability and hallucination risk at each 0.1 s of an upload, without transcribing it."""
    fleet: Fleet = request.app.state.fleet
    file = audio_of(form, fleet.config)
    engine = await unless_gone(request, fleet.engine(fields_of(form).get("model")))
    if engine.model.steerer is None:
        raise ApiError(409, f"{engine.name} is served without a steering pack: nothing hears speech in it")
    answer = await unless_gone(request, engine.run(_read, engine, file))
    request.state.log |= {"audio_seconds": answer["duration"]}
    return answer


def _read(engine: ServingEngine, file: BinaryIO) -> dict[str, Any]:
    samples = decode(file, engine.config)
    labels = list(timeline_of(engine.model, samples))
    return {
        "duration": round(len(samples) / SAMPLE_RATE, 3),
        "step": STEP_SECONDS,
        "speech_prob": [round(label.speech_prob, DIGITS) for label in labels],
        "hallucination_risk": [round(label.hallucination_risk, DIGITS) for label in labels],
    }


def timeline_of(model: WhisperModel, samples: NDArray[np.float32]) -> Iterator[Labels]:
    """Labels at each STEP_SECONDS of samples [n], judged in windows of 30 s by a model that has a pack."""
    for begin in range(0, len(samples), WINDOW_SAMPLES):
        window = samples[begin : begin + WINDOW_SAMPLES]
        with model.steering():
            encoded = model.encode(pad_or_trim(model.feature_extractor(window)[:, :-1]))
        assert isinstance(encoded, SteeredStorage)
        assert model.steerer is not None
        scores = encoded.batch.scores[0]
        for step in range(-(-len(window) // round(STEP_SECONDS * SAMPLE_RATE))):
            yield model.steerer.label_moment(scores, (step + 0.5) * STEP_SECONDS)
