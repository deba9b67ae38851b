"""Repositories on the Hugging Face hub: listed, downloaded to its cache, found there without a network."""

import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path
from typing import NamedTuple, TypeVar

import whisper
from huggingface_hub import HfApi, constants, hf_hub_download, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.utils import CacheNotFound, RepositoryNotFoundError, RevisionNotFoundError

from ..errors import HubError, SteerError
from .reach import REACH_SECONDS, unreachable

PREFIX = "hub:"
"""what a name of something on the hub begins with, where files can be named too"""
_NAME = r"[\w.-]+/[\w.-]+"
_SHOWN = 10  # files in an error message
_NEWEST = {"large": "large-v3", "turbo": "large-v3-turbo"}
T = TypeVar("T")


class Repository(NamedTuple):
    """A repository, ``owner/name``, and how to get at it; the last two are huggingface_hub's."""

    name: str
    revision: str | None = None
    """branch, tag or commit; None is the branch main"""
    cache_dir: str | None = None
    token: str | bool | None = None

    @classmethod
    def named(cls, text: str, revision: str | None = None) -> "Repository":
        """From ``[hub:]owner/name[@revision]``; HubError if it isn't written so, or has two revisions."""
        match = re.fullmatch(rf"(?:{PREFIX})?({_NAME})(?:@(\S+))?", text)
        if match is None or (match[2] and revision):
            raise HubError(f"{text!r} is no repository; those are written owner/name or owner/name@revision")
        return cls(match[1], match[2] or revision)

    @property
    def address(self) -> str:
        """As ``pack=`` takes it."""
        return f"{PREFIX}{self.name}" + (f"@{self.revision}" if self.revision else "")

    def files(self) -> list[str]:
        """Paths of all files; asks the hub."""
        info = HfApi().model_info(self.name, revision=self.revision, timeout=REACH_SECONDS, token=self.token)
        return [sibling.rfilename for sibling in info.siblings or []]

    def listed(self) -> tuple[list[str] | None, str]:
        """The files, or None and why the hub can't be asked. HubError if it answers that there is nothing."""
        if constants.HF_HUB_OFFLINE:
            return None, "HF_HUB_OFFLINE is set"
        if silence := unreachable(constants.ENDPOINT):
            return None, silence
        try:
            return self.files(), ""
        except RepositoryNotFoundError:
            raise HubError(
                f"the hub has no repository {self.name} that you may read; check the name, or log in"
                " (HF_TOKEN)"
            ) from None
        except RevisionNotFoundError:
            raise HubError(f"{self.name} has no revision {self.revision!r}") from None
        except Exception as error:  # the hub's and its HTTP library's errors share no base
            return None, brief(error)

    def download(self, file: str) -> Path:
        """Into the cache, unless it is there. HubError if that fails; then nothing is kept of it."""
        try:
            return Path(
                hf_hub_download(
                    self.name, file, revision=self.revision, cache_dir=self.cache_dir, token=self.token
                )
            )
        except Exception as error:  # as above
            raise HubError(f"can't download {file} of {self.name}: {brief(error)}") from None

    def cached(self, file: str) -> Path | None:
        """A file in the cache, as of the last time that the revision was asked for."""
        path = try_to_load_from_cache(self.name, file, self.cache_dir, self.revision)
        return Path(path) if isinstance(path, str) else None

    def cached_folder(self) -> Path | None:
        """The cache's folder for the revision, with what was downloaded of it."""
        try:
            repos = scan_cache_dir(self.cache_dir or constants.HF_HUB_CACHE).repos
        except CacheNotFound:
            return None
        for repo in repos:
            if repo.repo_id != self.name or repo.repo_type != "model":
                continue
            for revision in repo.revisions:
                if (self.revision or "main") in {revision.commit_hash, *revision.refs}:
                    return revision.snapshot_path
        return None


def fetch(repository: Repository, file: str, read: Callable[[Path], T], local_files_only: bool = False) -> T:
    """``read`` of the path that a file of a repository has in the cache.

    A commit that is in the cache is taken from there. Else the hub is asked; where it doesn't answer, what is
    cached is used with a RuntimeWarning that names it. A file that ``read`` refuses with a SteerError is
    removed, so that the next call downloads it again. HubError if there is no such repository, revision or
    file, if it can't be had, or if ``read`` refused it.
    """
    path = repository.cached(file)
    if path is None or not (local_files_only or re.fullmatch(r"[0-9a-f]{40}", repository.revision or "")):
        path = _current(repository, file, path, local_files_only)
    try:
        return read(path)
    except SteerError as error:
        _discard(path)
        raise HubError(
            f"{file} of {repository.name} can't be used and was removed from the cache; the next call"
            f" downloads it again ({error})"
        ) from None


def _current(repository: Repository, file: str, cached: Path | None, local_files_only: bool) -> Path:
    """The file as the hub has it now, or the cached one if the hub can't be asked."""
    files, reason = (None, "local_files_only is set") if local_files_only else repository.listed()
    if files is None:
        if cached is None:
            raise HubError(
                f"{repository.name} is not in the cache ({file}), and the hub can't be asked: {reason}"
            )
        if not constants.HF_HUB_OFFLINE:
            message = f"the hub can't be asked ({reason}); {repository.name} is used as cached in {cached}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return cached
    if file not in files:
        shown = ", ".join(files[:_SHOWN]) + (", …" if len(files) > _SHOWN else "")
        raise HubError(f"{repository.name} has no {file}; it has {shown or 'no files'}")
    return repository.download(file)


def _discard(path: Path) -> None:
    """Remove a file from the cache: the name in the snapshot, and the content that it links to."""
    with suppress(OSError):  # where the cache is read-only, it stays
        content = path.parent / os.readlink(path) if path.is_symlink() else path
        path.unlink()
        content.unlink(missing_ok=True)


def whisper_on_hub(model: str) -> str | None:
    """The repository of Whisper's weights by the model's name: "tiny.en" is openai/whisper-tiny.en."""
    if re.fullmatch(_NAME, model):
        return model
    return f"openai/whisper-{_NEWEST.get(model, model)}" if model in whisper.available_models() else None


def brief(error: Exception) -> str:
    """One line; huggingface_hub wraps what went wrong in "check your connection"."""
    reason = error.__cause__ or error
    if isinstance(reason, JSONDecodeError):
        return "it answers with something else than a hub does: a login page, or a proxy's?"
    return " ".join(str(reason).split())[:160] or type(reason).__name__
