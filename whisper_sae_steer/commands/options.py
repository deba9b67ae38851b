"""The options of `transcribe`: those of openai's `whisper`, same names and defaults, and ours.

Only names and types live here; `transcribe.py` says what they do with each back end.
"""

import argparse

from .common import Parser, add_compute_type, add_model, add_pack
from .values import (
    above_zero,
    alpha,
    boolean,
    candidates,
    device_or_auto,
    language,
    not_negative,
    number,
    or_none,
    risk,
    share,
    spans,
    temperature_step,
    threads,
    token_ids,
    whole,
)

FORMATS = ("txt", "vtt", "srt", "tsv", "json")
SUBTITLES = ("vtt", "srt")
WORD_OPTIONS = ("highlight_words", "max_line_count", "max_line_width", "max_words_per_line")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser every option of openai's `whisper` command and of steering."""
    _add_files(parser)
    _add_steering(parser.add_argument_group("steering"))
    _add_decoding(parser.add_argument_group("decoding"))
    _add_words(parser.add_argument_group("words and lines"))


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("audio", nargs="+", help="audio file(s) to transcribe")
    add_model(parser)
    add("--model_dir", help="where downloaded models are kept, if not in the library's own folder")
    add(
        "--device",
        type=device_or_auto,
        default="auto",
        help="cpu, cuda or cuda:N; auto: cuda if there is one",
    )
    add("--output_dir", "-o", default=".", help="directory to save the outputs")
    add("--output_format", "-f", default="all", choices=(*FORMATS, "all"), help="format of the output file")
    add("--verbose", type=boolean, default=True, help="print the text; False: a progress bar")
    add("--threads", type=or_none(threads), default=0, help="CPU threads; 0: the library's choice")


def _add_steering(group: Parser) -> None:
    add = group.add_argument
    add("--steer_alpha", type=alpha, default=1.0, help="strength; 0 is the unsteered library")
    add_pack(group)
    add("--backend", choices=["openai", "faster"], default="openai", help="library that decodes")
    add_compute_type(group, "faster back end only")
    add(
        *("--steer_language_detection",),
        type=boolean,
        default=False,
        help="steer the window that the language is detected from, too",
    )
    add(
        "--skip_gaps",
        type=boolean,
        default=True,
        help="cut gaps without speech out; False: leave them to Whisper",
    )
    add(
        "--filter_risk",
        type=risk,
        help="leave out words of this hallucination_risk and more (segments, without --word_timestamps True)",
    )


def _add_decoding(group: Parser) -> None:
    add = group.add_argument
    add("--task", default="transcribe", choices=["transcribe", "translate"], help="what to write")
    add("--language", type=language, help="code or English name; detected when left out")
    add("--temperature", type=not_negative, default=0, help="temperature to use for sampling")
    add("--best_of", type=or_none(candidates), default=5, help="candidates at non-zero temperature")
    add("--beam_size", type=or_none(candidates), default=5, help="beams at temperature zero")
    add("--patience", type=above_zero, help="patience of the beam search; 1 when left out")
    add("--length_penalty", type=share, help="exponent from 0 to 1; plain normalisation when left out")
    add(
        *("--suppress_tokens",),
        type=token_ids,
        default="-1",
        help="comma-separated token ids never to write; -1: most special characters",
    )
    add("--initial_prompt", help="text given as context to the first window")
    add("--carry_initial_prompt", type=boolean, default=False, help="to every window (openai)")
    add(
        *("--condition_on_previous_text",),
        type=boolean,
        default=True,
        help="give the text so far as context to the next window",
    )
    add("--fp16", type=boolean, default=True, help="decode in fp16 where the device can")
    add(
        *("--temperature_increment_on_fallback",),
        type=or_none(temperature_step),
        default=0.2,
        help="step when decoding failed by a threshold below; None: no second try",
    )
    add("--compression_ratio_threshold", type=or_none(number), default=2.4, help="above: failed")
    add("--logprob_threshold", type=or_none(number), default=-1.0, help="average below: failed")
    add(
        *("--no_speech_threshold",),
        type=or_none(number),
        default=0.6,
        help="no_speech_prob above this and log-probability too low: taken as silence",
    )
    add("--clip_timestamps", type=spans, default="0", help="start,end,start,end,… in seconds to transcribe")


def _add_words(group: Parser) -> None:
    add = group.add_argument
    add("--word_timestamps", type=boolean, default=False, help="times of single words")
    add("--prepend_punctuations", default="\"'“¿([{-", help="joined to the next word")
    add("--append_punctuations", default="\"'.。,，!！?？:：”)]}、", help="joined to the last word")
    add("--highlight_words", type=boolean, default=False, help="underline words in srt and vtt")
    add("--highlight_risk", type=risk, help="italics in srt and vtt for words of this hallucination_risk on")
    add("--max_line_width", type=or_none(whole(1)), help="characters in a line of srt and vtt")
    add("--max_line_count", type=or_none(whole(1)), help="lines in a segment of srt and vtt")
    add("--max_words_per_line", type=or_none(whole(1)), help="words in a line of srt and vtt")
    add(
        *("--hallucination_silence_threshold",),
        type=or_none(not_negative),
        help="with --word_timestamps True: skip silence longer than this around odd text",
    )
