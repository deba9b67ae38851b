"""`whisper-sae-steer transcribe`: openai's `whisper` command with steering, on either back end."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SteerError
from ..reports.segments import segment_dict, with_risk_marked
from ..steering.filtering import check_filter_risk
from .common import check_compute_type, loading, pack_named
from .options import FORMATS, SUBTITLES, WORD_OPTIONS, add_arguments

if TYPE_CHECKING:
    from ..faster import WhisperModel

__all__ = ["add_arguments", "main"]

Transcriber = Callable[[str], dict[str, Any]]

SAME_NAME = (
    *("task", "condition_on_previous_text", "initial_prompt", "compression_ratio_threshold"),
    *("no_speech_threshold", "word_timestamps", "prepend_punctuations", "append_punctuations"),
    *("clip_timestamps", "hallucination_silence_threshold"),
    *("steer_alpha", "steer_language_detection", "skip_gaps", "filter_risk"),
)
"""Options that openai-whisper, faster-whisper and this command call the same."""


def main(args: argparse.Namespace) -> int:
    """Transcribe every file; 1 if some failed, after the others are done."""
    _check(args)
    folder = Path(args.output_dir)
    _check_folder(folder)
    transcribe = _load(args)
    failed = 0
    for audio in args.audio:
        try:
            _write(transcribe(audio), audio, folder, args)
        except Exception as error:  # one bad file must not cost the others, as with openai's
            failed += 1
            kind = "" if isinstance(error, SteerError) else f"{type(error).__name__}: "
            reason = str(error).removeprefix(f"{audio}: ")
            print(f"skipping {audio}: {kind}{reason}", file=sys.stderr)
    return 1 if failed else 0


def _check(args: argparse.Namespace) -> None:
    """Refuse combinations that would be ignored; warn where openai's command warns."""
    if not args.word_timestamps:
        for name in (*WORD_OPTIONS, "highlight_risk"):
            if getattr(args, name):
                raise SteerError(f"--{name} requires --word_timestamps True")
    check_filter_risk(args.filter_risk, args.steer_alpha != 0 and args.pack != "none")
    if args.max_line_count and not args.max_line_width:
        _warn("--max_line_count has no effect without --max_line_width")
    if args.max_words_per_line and args.max_line_width:
        _warn("--max_words_per_line has no effect with --max_line_width")
    if args.patience is not None and round((args.beam_size or 0) * args.patience) < 1:
        raise SteerError("--patience needs --beam_size, and must not make less than one beam of it")
    if args.backend == "openai" and args.compute_type != "default":
        raise SteerError("--compute_type is for --backend faster; openai's has --fp16")
    if args.backend == "faster" and args.carry_initial_prompt:
        raise SteerError("faster-whisper has no --carry_initial_prompt; use --backend openai")
    if args.backend == "faster":
        check_compute_type(args.compute_type, args.device)
    if args.model.endswith(".en") and args.language not in {"en", "English"}:
        if args.language is not None:
            _warn(f"{args.model} knows English only; using it instead of {args.language}")
        args.language = "en"


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _check_folder(folder: Path) -> None:
    """Find out before the work that results can be saved; nothing is left there yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryDirectory(dir=existing).cleanup()
    except OSError as error:
        reason = f"can't be written to ({error.strerror})"
        raise SteerError(f"--output_dir {folder}: {existing} {reason}; choose another folder") from error


def _pack(args: argparse.Namespace) -> str | None:
    # α = 0 needs no pack, so that it also works with models nobody has calibrated
    unused = args.pack == "auto" and args.steer_alpha == 0
    return None if unused else pack_named(args.pack)


def _temperatures(args: argparse.Namespace) -> list[float]:
    """The temperature and those to fall back to, up to 1."""
    step = args.temperature_increment_on_fallback
    if step is None:
        return [args.temperature]
    import numpy as np

    return np.arange(args.temperature, 1.0 + 1e-6, step).tolist() or [args.temperature]


# ---- back ends


def _load(args: argparse.Namespace) -> Transcriber:
    """The chosen back end, or a SteerError with what its library says of device or compute type."""
    with loading(args.model, args.device):
        return _openai(args) if args.backend == "openai" else _faster(args)


def _openai(args: argparse.Namespace) -> Transcriber:
    import torch

    from ..openai import load_model

    if args.threads:
        torch.set_num_threads(args.threads)
    temperatures = tuple(_temperatures(args))
    device = None if args.device == "auto" else args.device
    model = load_model(args.model, device, args.model_dir, pack=_pack(args))
    names = (
        *("language", "best_of", "beam_size", "patience", "length_penalty", "suppress_tokens"),
        *("carry_initial_prompt", "logprob_threshold", "verbose"),
    )
    options = {name: getattr(args, name) for name in (*SAME_NAME, *names)}
    options["fp16"] = args.fp16 and model.device.type != "cpu"

    def transcribe(audio: str) -> dict[str, Any]:
        return model.transcribe(audio, temperature=temperatures, **options)

    return transcribe


def _faster(args: argparse.Namespace) -> Transcriber:
    from ..faster import WhisperModel

    options = faster_options(args)
    device, _, index = args.device.partition(":")
    plain = args.compute_type == "default" and not args.fp16
    model = WhisperModel(
        args.model,
        device=device,
        device_index=int(index or 0),
        compute_type="float32" if plain else args.compute_type,
        cpu_threads=args.threads or 0,
        download_root=args.model_dir,
        pack=_pack(args),
    )
    return lambda audio: _transcribe_faster(model, audio, args.verbose, options)


def faster_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of faster-whisper's `transcribe` that mean what openai's options mean."""
    from whisper.tokenizer import TO_LANGUAGE_CODE

    name = args.language
    return {option: getattr(args, option) for option in SAME_NAME} | {
        "language": name and TO_LANGUAGE_CODE.get(name.lower(), name),
        "beam_size": args.beam_size or 1,
        "best_of": args.best_of or 1,
        "patience": 1.0 if args.patience is None else args.patience,
        "length_penalty": 1.0 if args.length_penalty is None else args.length_penalty,
        "suppress_tokens": [int(part) for part in args.suppress_tokens.split(",")],
        "log_prob_threshold": args.logprob_threshold,
        "temperature": _temperatures(args),
        "log_progress": not args.verbose,
    }


def _transcribe_faster(
    model: "WhisperModel", audio: str, verbose: bool, options: dict[str, Any]
) -> dict[str, Any]:
    from whisper.utils import format_timestamp, make_safe

    from ..faster import TranscriptionInfo

    segments, info = model.transcribe(audio, **options)
    if verbose and options["language"] is None:
        print(f"Detected language: {info.language}")
    dicts: list[dict[str, Any]] = []
    for segment in segments:
        dicts.append(segment_dict(segment, len(dicts)))
        if verbose:
            start, end = format_timestamp(segment.start), format_timestamp(segment.end)
            print(make_safe(f"[{start} --> {end}] {segment.text}"))
    text = "".join(segment["text"] for segment in dicts)
    result = {"text": text, "segments": dicts, "language": info.language}
    if isinstance(info, TranscriptionInfo):
        result["filtered"] = [segment_dict(segment, segment.id) for segment in info.filtered]
    return result


# ---- results


def _write(result: dict[str, Any], audio: str, folder: Path, args: argparse.Namespace) -> None:
    """Write with whisper's own writers, so that a result file is there whole or not at all."""
    from whisper.utils import get_writer

    folder.mkdir(parents=True, exist_ok=True)
    options = {name: getattr(args, name) for name in WORD_OPTIONS}
    shown = result if args.highlight_risk is None else with_risk_marked(result, args.highlight_risk)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".whisper-sae-steer-") as temporary:
        for name in FORMATS if args.output_format == "all" else (args.output_format,):
            writer: Any = get_writer(name, temporary)  # whose annotation is wrong
            writer(shown if name in SUBTITLES else result, audio, options)
        for path in sorted(Path(temporary).iterdir()):
            os.replace(path, folder / path.name)
