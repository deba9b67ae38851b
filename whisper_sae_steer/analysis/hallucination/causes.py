"""Effects of the features that three criteria choose, and of others at random, measured one by one."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from tqdm import tqdm

from ...calibrate.selection import strongest
from ...calibrate.windows import CalibrationWindow
from ...errors import AnalysisError
from ...models.taps import WindowEncoder
from ...models.weights import Weights, resolve
from ...reports.metrics import has_text
from ...sae.autoencoder import SAE
from ..store.activations import ActivationStore
from ..store.journal import Journal
from .criteria import (
    CRITERIA,
    Agreement,
    ComparedSAE,
    Overlap,
    agreements,
    choose_windows,
    encode_windows,
    importances,
    overlaps,
)
from .effects import (
    Effect,
    FeatureEdits,
    Reading,
    SpeechEffect,
    TapDecoder,
    effect,
    language_of,
    speech_effect,
)

RANDOM = "random"


@dataclass(frozen=True)
class EffectConfig:
    """What is tried, and on how much."""

    windows: int = 16
    """without speech"""
    speech: int = 8
    """windows with speech"""
    top: int = 10
    """features of each criterion, and as many at random"""
    factor: float = 1.0
    """what is added, in mean activations of the feature"""
    seed: int = 0


class FeatureEffect(NamedTuple):
    """What one feature does in windows without speech, and removed in windows with."""

    feature: int
    chosen_by: list[str]
    """criteria, or random"""
    rate: float
    """share of the store's frames it fires in"""
    logistic: float
    """importances; positive speaks for text where nobody speaks"""
    fisher: float
    attribution: float
    removed: Effect
    amount: float
    """what is added to every frame for ``added``"""
    added: Effect
    speech: SpeechEffect | None
    """windows with speech, feature removed; None without any"""


class CriterionEffects(NamedTuple):
    """The features of one criterion, or those at random."""

    name: str
    features: int
    d_no_speech: float
    """median over features of |change|, removed"""
    d_end_of_text: float
    added_no_speech: float
    """the same, added"""
    added_end_of_text: float
    p: float | None
    """Mann–Whitney, one-sided: that |change of P(nospeech)| when added is no larger than of random ones"""
    texts: float
    """share of windows without speech whose text changes, removed"""
    speech_words: float | None
    """word errors that removing makes in windows with speech, of the words before"""


class HallucinationResult(NamedTuple):
    """Criteria, effects, and other SAEs."""

    sae: str
    model: str
    tap: str
    windows: int
    """without speech"""
    with_text: int
    """of them, unedited"""
    speech_windows: int
    no_speech: float
    """mean probability in the windows without speech, unedited"""
    end_of_text: float
    agreements: list[Agreement]
    groups: list[CriterionEffects]
    overlaps: list[Overlap]
    """between SAEs, if several were given"""
    features: list[FeatureEffect]


class DecoderAndWindows(NamedTuple):
    """What the decoder is needed for."""

    decoder: TapDecoder
    nonspeech: list[CalibrationWindow]
    speech: list[CalibrationWindow]


def measure(
    stores: Sequence[tuple[ActivationStore, str]],
    work: Path,
    config: EffectConfig | None = None,
    model: str | None = None,
) -> HallucinationResult:
    """Compare criteria and SAEs, and try the best features of the first (store, SAE).

    Windows and results by feature are kept in ``work``: the same call goes on where it was stopped.
    AnalysisError if the model isn't the store's, if a store lacks speech or all else, or if stores differ.
    """
    config = config or EffectConfig()
    if min(config.windows, config.top) < 1:
        raise AnalysisError("at least one window without speech and one feature must be tried")
    compared: list[ComparedSAE] = []
    first: DecoderAndWindows | None = None
    for store, name in stores:
        sae, features = store.sae(name), store.features(name)
        parts = _parts(store, sae, work, config, model)
        first = first or parts
        found = importances(store, features, sae, parts.decoder.objective, parts.nonspeech, config.seed)
        compared.append(ComparedSAE(f"{store.path.name}:{name}", store, features, found))
    assert first is not None
    return _measured(compared, stores[0][0].sae(stores[0][1]), first, work, config)


def _parts(
    store: ActivationStore, sae: SAE, work: Path, config: EffectConfig, model: str | None
) -> DecoderAndWindows:
    """The model from the SAE's tap on, and windows encoded at it."""
    weights, tap = _weights(store, model), sae.config.tap or "encoder_output"
    silent, spoken = (
        choose_windows(store, speech, count)
        for speech, count in ((False, config.windows), (True, config.speech))
    )
    if not silent:
        raise AnalysisError(f"{store.path} holds nothing but speech; both are needed to tell them apart")
    folder = work / f"{store.fingerprint[:8]}-{tap}"
    windows = encode_windows(WindowEncoder(weights, tap), [*silent, *spoken], folder)
    nonspeech = [w for w in windows if not w.is_speech]
    return DecoderAndWindows(TapDecoder(weights, tap), nonspeech, [w for w in windows if w.is_speech])


def _weights(store: ActivationStore, model: str | None) -> Weights:
    weights = resolve(model or store.model)
    if weights.fingerprint != store.fingerprint:
        raise AnalysisError(
            f"{store.path} was made by other weights than {weights.name}; pass its own as --model"
        )
    return weights


def _measured(
    compared: Sequence[ComparedSAE], sae: SAE, parts: DecoderAndWindows, work: Path, config: EffectConfig
) -> HallucinationResult:
    one = compared[0]
    key = [one.store.key, one.name, asdict(config)]
    journal = Journal(work / f"{one.name.replace(':', '-')}.jsonl", key)
    before = _readings(journal, "unedited", lambda: _read(parts.decoder, parts.nonspeech))
    before_speech = _readings(journal, "unedited speech", lambda: _read(parts.decoder, parts.speech))
    edited = FeatureEdits(parts.decoder, sae, parts.nonspeech, before)
    edited_speech = FeatureEdits(parts.decoder, sae, parts.speech, before_speech)
    count = np.bincount(one.features.indices, minlength=sae.config.d_sae)
    found = _effects(one, count, edited, edited_speech, journal, config)
    return HallucinationResult(
        sae=one.name,
        model=one.store.model,
        tap=sae.config.tap,
        windows=len(before),
        with_text=sum(has_text(reading.text) for reading in before),
        speech_windows=len(before_speech),
        no_speech=float(np.mean([reading.no_speech for reading in before])),
        end_of_text=float(np.mean([reading.end_of_text for reading in before])),
        agreements=agreements(one.importances, count > 0, config.top),
        groups=_groups(found),
        overlaps=overlaps(compared, config.top),
        features=found,
    )


def _effects(
    one: ComparedSAE,
    count: NDArray[np.intp],
    edited: FeatureEdits,
    edited_speech: FeatureEdits,
    journal: Journal,
    config: EffectConfig,
) -> list[FeatureEffect]:
    """What each chosen feature does; ``count`` [F] are the frames of the store that features fire on."""
    languages = [language_of(window) for window in edited_speech.windows]
    mean = np.asarray(one.features.sum(0), np.float64).ravel() / np.maximum(count, 1)
    found: list[FeatureEffect] = []
    for f, by in tqdm(_chosen(one, count, config).items(), desc="effects", unit="feature"):
        amount = config.factor * float(mean[f])
        removed = _readings(journal, f"{f} removed", lambda f=f: edited.removed(f))
        added = _readings(journal, f"{f} added", lambda f=f, s=amount: edited.added(f, s))
        speech = _readings(journal, f"{f} removed from speech", lambda f=f: edited_speech.removed(f))
        found.append(
            FeatureEffect(
                feature=f,
                chosen_by=by,
                rate=round(float(count[f]) / one.store.rows, 7),
                logistic=float(one.importances["logistic"][f]),
                fisher=float(one.importances["fisher"][f]),
                attribution=float(one.importances["attribution"][f]),
                removed=effect(edited.before, removed),
                amount=amount,
                added=effect(edited.before, added),
                speech=speech_effect(edited_speech.before, speech, languages),
            )
        )
    return found


def _chosen(one: ComparedSAE, count: NDArray[np.intp], config: EffectConfig) -> dict[int, list[str]]:
    """The top features of each criterion that fire, and random ones, drawn by how often they fire."""
    chosen: dict[int, list[str]] = {}
    for name in CRITERIA:
        alive = np.where(count > 0, one.importances[name], 0.0)
        for f in strongest(alive, min(config.top, int((count > 0).sum()))).tolist():
            chosen.setdefault(f, []).append(name)
    left = count.astype(np.float64)
    left[list(chosen)] = 0
    rng = np.random.default_rng(config.seed)
    drawn = min(config.top, int((left > 0).sum()))
    for f in rng.choice(len(left), drawn, replace=False, p=left / left.sum()).tolist() if drawn else ():
        chosen[f] = [RANDOM]
    return chosen


def _readings(journal: Journal, name: str, read: Callable[[], list[Reading]]) -> list[Reading]:
    if name not in journal:
        journal[name] = [list(reading) for reading in read()]
    return [Reading(*reading) for reading in journal[name]]


def _read(decoder: TapDecoder, windows: Sequence[CalibrationWindow]) -> list[Reading]:
    return [decoder(window.frames()[None], [language_of(window)])[0] for window in windows]


def _groups(found: Sequence[FeatureEffect]) -> list[CriterionEffects]:
    at_random = [abs(f.added.d_no_speech) for f in found if RANDOM in f.chosen_by]
    groups: list[CriterionEffects] = []
    for name in (*CRITERIA, RANDOM):
        some = [f for f in found if name in f.chosen_by]
        if not some:
            continue
        added = [abs(f.added.d_no_speech) for f in some]
        spoken = [f.speech for f in some if f.speech]
        compared = name != RANDOM and len(at_random) > 1
        groups.append(
            CriterionEffects(
                name=name,
                features=len(some),
                d_no_speech=_median([f.removed.d_no_speech for f in some]),
                d_end_of_text=_median([f.removed.d_end_of_text for f in some]),
                added_no_speech=_median(added),
                added_end_of_text=_median([f.added.d_end_of_text for f in some]),
                p=float(mannwhitneyu(added, at_random, alternative="greater")[1]) if compared else None,
                texts=sum(f.removed.changed for f in some) / sum(f.removed.windows for f in some),
                speech_words=(
                    sum(s.words_changed for s in spoken) / sum(s.words for s in spoken) if spoken else None
                ),
            )
        )
    return groups


def _median(changes: Sequence[float]) -> float:
    return float(np.median(np.abs(changes)))
