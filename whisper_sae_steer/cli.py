"""The command `whisper-sae-steer`: picks a sub-command and turns errors into exit codes.

Exit codes: 0 done, 1 some files failed and the others are done, 2 wrong usage or an error that says
what to do, 130 stopped with Ctrl-C.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple, TypeVar

from .errors import SteerError
from .files import FULL

PROGRAM = "whisper-sae-steer"
SUMMARY = "Whisper that writes no text where nobody speaks."


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults to the help, save those that are None: the help says what that means."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Command(NamedTuple):
    """A module with `add_arguments(parser, *given)` and `main(args)`, imported when it is used."""

    summary: str
    module: str
    given: tuple[Any, ...] = ()


class CommandGroup(NamedTuple):
    """Commands under a common first word."""

    summary: str
    commands: Mapping[str, Command]


BENCHES = {
    "fpr": Command("how often text is written for audio without speech", ".bench.command", ("fpr",)),
    "wer": Command("word errors and lost utterances on speech", ".bench.command", ("wer",)),
    "hard": Command("hard cases made from clean clips, for the other benches", ".bench.hard.command"),
    "peers": Command("what else keeps Whisper quiet, on the same clips", ".bench.peers.command"),
}
ANALYSES = {
    "encode": Command("recordings into activations, which the others read", ".analysis.store.command"),
    **{
        name: Command(summary, ".analysis.command", (name,))
        for name, summary in {
            "stability": "features found again by other seeds, layers, models",
            "domains": "features of speech, music and sound",
            "search": "the features of each label",
            "probe": "how many features a label takes",
            "unlearn": "how many features must go to erase a label",
            "mel": "what features sound like",
            "describe": "features in words, and how well the words predict them",
            "hallucination": "features that make Whisper write",
            "eeg": "responses of the brain to features",
        }.items()
    },
    "report": Command("a folder to browse features in", ".analysis.browser.command"),
}
COMMANDS: Mapping[str, Command | CommandGroup] = {
    "transcribe": Command(
        "audio to text, with the options of openai's whisper command", ".commands.transcribe"
    ),
    "export": Command("a steered model that unmodified runtimes load", ".export.command"),
    "info": Command("model, pack and device that will be used", ".commands.info"),
    "make-pack": Command("a measured steering pack for any Whisper, installed", ".making.command"),
    "calibrate": Command("a steering pack from your own noise and speech", ".calibrate.command"),
    "train": Command("sparse autoencoders from recordings", ".training.command"),
    "sweep": Command("many settings of sparse autoencoders, side by side", ".sweep.command"),
    "quality": Command("how good sparse autoencoders are, and what they cost", ".training.quality_command"),
    "serve": Command("an OpenAI-compatible server", ".serving.command"),
    "batch": Command("many recordings to text, on this machine or a Ray cluster", ".batch.command"),
    "push": Command("a pack or an SAE to the Hugging Face hub", ".hub.push"),
    "pull": Command("a pack or an SAE from the Hugging Face hub, checked", ".hub.pull"),
    "analyze": CommandGroup("find out what features of sparse autoencoders mean", ANALYSES),
    "bench": CommandGroup("measure a model with and without steering: fpr, wer, hard, peers", BENCHES),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code.

    Wrong usage raises SystemExit with code 2, as argparse does.
    """
    try:
        run = parse(sys.argv[1:] if argv is None else argv)
        gc.freeze()  # or every decoded file walks through all of torch's objects again
        return run()
    except SteerError as error:
        print(f"{PROGRAM}: error: {in_options(str(error))}", file=sys.stderr)
        return 2
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        print(f"{PROGRAM}: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"{PROGRAM}: error: no room: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return 130


def in_options(message: str) -> str:
    """An error's way out as it is written here: errors speak to people who write Python."""
    return message.replace("pack=None", "--pack none")


def parse(argv: Sequence[str]) -> Callable[[], int]:
    """The command's `main`, bound to its parsed arguments."""
    name, command = _choose(argv[:1], PROGRAM, SUMMARY, COMMANDS)
    prog, rest = f"{PROGRAM} {name}", argv[1:]
    if isinstance(command, CommandGroup):
        name, command = _choose(rest[:1], prog, command.summary, command.commands)
        prog, rest = f"{prog} {name}", rest[1:]
    module = import_module(command.module, __package__)
    parser = argparse.ArgumentParser(prog, description=command.summary, formatter_class=HelpFormatter)
    module.add_arguments(parser, *command.given)
    args = parser.parse_args(rest)
    return lambda: module.main(args)


C = TypeVar("C", Command, Command | CommandGroup)


def _choose(word: Sequence[str], prog: str, summary: str, commands: Mapping[str, C]) -> tuple[str, C]:
    """The command that `word` names. Parsed alone, so that no other command is imported."""
    lines = [f"  {name:14}{command.summary}" for name, command in commands.items()]
    parser = argparse.ArgumentParser(
        prog,
        usage="%(prog)s COMMAND [arguments]",
        description=summary,
        epilog="commands:\n" + "\n".join(lines) + "\n\n`%(prog)s COMMAND --help` lists its options",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=list(commands), help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version(PROGRAM)}")
    name: str = parser.parse_args(word).command
    return name, commands[name]
