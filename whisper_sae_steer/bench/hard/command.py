"""The command `bench hard`: renders hard cases into a folder that the other benches read."""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from ...audio.clips import MANIFEST_COLUMNS, NONSPEECH_KINDS, Clip
from ...audio.units import SAMPLE_RATE
from ...audio.writing import write_flac
from ...commands.recordings import add_recordings, read_recordings
from ...commands.values import whole
from ...errors import ManifestError
from ...files import write_text
from .conditions import CONDITIONS, Job, jobs
from .material import HardRecording, material

HARD_KINDS = ("speech", *NONSPEECH_KINDS)
COLUMNS = (*MANIFEST_COLUMNS, "gaps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add_recordings(parser, "clean speech (the default; transcripts beside it as .txt), sound and music")
    add("--language", help="only speech in this language, which is that of folders and files")
    add("--conditions", nargs="+", choices=CONDITIONS, metavar="NAME",
        help="%(choices)s; default: all")  # fmt: skip
    add("--per_condition", type=whole(1), default=50, metavar="N",
        help="at most N recordings of each; of those that last minutes at most 20, of `long` 2")  # fmt: skip
    add("--seed", type=whole(0), default=0)
    add("--out", type=Path, required=True, help="folder for the audio and its manifest.tsv")


def main(args: argparse.Namespace) -> int:
    """Render what is missing; the exit status is 130 after Ctrl-C, and the same command goes on."""
    clips = read_recordings(args, HARD_KINDS, args.language)
    given = material(clips, args.language, args.seed)
    names = dict.fromkeys(args.conditions or CONDITIONS)
    todo = [job for name in names for job in jobs(name, given, args.per_condition)]
    try:
        _claim(args, clips)
        _render(args.out, todo, args.split or "all")
    except OSError as error:
        raise ManifestError(f"can't write hard cases to {args.out}: {error.strerror}") from error
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {args.out}", file=sys.stderr)
        return 130
    print(f"{args.out / 'manifest.tsv'}: ready for `bench wer` and `bench fpr`")
    return 0


def _claim(args: argparse.Namespace, clips: Sequence[Clip]) -> None:
    """Write down what the folder's recordings are made from; refuse a folder of other ones."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "hard.json"
    listed = "".join(f"{clip.key}\t{clip.kind}\t{clip.class_}\t{clip.text}\n" for clip in clips)
    digest = hashlib.sha256(listed.encode()).hexdigest()
    ours = {"clips": digest, "split": args.split, "language": args.language, "seed": args.seed}
    if not path.exists():
        write_text(path, json.dumps(ours, indent=1) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != ours:
        raise ManifestError(
            f"{path} tells of other recordings, another split, language or seed: choose another output folder"
        )


def _render(out: Path, todo: Sequence[Job], split: str) -> None:
    """Make the recordings that the manifest doesn't list; a line is added when its audio is complete."""
    manifest = out / "manifest.tsv"
    kept = _kept(manifest)
    write_text(manifest, "\t".join(COLUMNS) + "\n" + "".join(kept.values()))
    with manifest.open("a", encoding="utf-8") as file:
        for job in tqdm(todo, unit="recording"):
            key = f"{job.kind}/{split}/{job.condition}/{job.name}.flac"
            if key in kept:
                continue
            recording = job.make()
            (out / key).parent.mkdir(parents=True, exist_ok=True)
            write_flac(out / key, recording.audio)
            file.write(_line(key, split, job, recording))
            file.flush()


def _kept(manifest: Path) -> dict[str, str]:
    """Lines of an earlier run by path, save a half-written one and those whose audio is gone."""
    if not manifest.exists():
        return {}
    lines = manifest.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[1:]
    whole = {line.split("\t")[0]: line for line in lines if line.endswith("\n")}
    return {key: line for key, line in whole.items() if (manifest.parent / key).is_file()}


def _line(key: str, split: str, job: Job, recording: HardRecording) -> str:
    speech, clips = recording.speech, (*recording.speech, *recording.background)
    texts = [" ".join(clip.text for clip in part) for part in recording.parts]
    speakers = sorted({clip.group for clip in speech})
    cells = {
        "path": key,
        "split": split,
        "kind": job.kind,
        "class": job.condition,
        "seconds": f"{len(recording.audio) / SAMPLE_RATE:.3f}",
        "language": speech[0].language if speech else "",
        # a mark at each gap: metrics of gaps need to know which words are next to them
        "text": " | ".join(texts).strip(),
        "group": speakers[0] if len(speakers) == 1 else "",
        "source": _joined(clip.origin for clip in clips) or "generated:whisper_sae_steer.synthetic",
        "licence": _joined(clip.licence for clip in clips) or "CC0-1.0",
        "gaps": ";".join(f"{start:.3f}-{end:.3f}" for start, end in recording.gaps),
    }
    return "\t".join(cells[column] for column in COLUMNS) + "\n"


def _joined(words: Iterable[str]) -> str:
    return " + ".join(sorted({word for word in words if word}))
