"""One commit to a repository on the hub: all its files, or none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from ..errors import HubError
from ..models.reach import unreachable
from ..models.repository import Repository, brief

REPORT = "report.html"
"""the one file that is removed where a new version comes without one: it would tell of another pack"""


class Uploaded(NamedTuple):
    """What there is now."""

    url: str
    """of the commit"""
    commit: str
    """its hash, a revision"""


def upload(
    repository: Repository, files: Mapping[str, Path | bytes], message: str, private: bool
) -> Uploaded:
    """Commit files, by their paths in the repository, to its branch; both are made if there are none.

    HubError if the hub can't be reached or refuses, or if a repository that is to be private is public; no
    file has been changed then.
    """
    if reason := unreachable(constants.ENDPOINT):
        raise HubError(f"the hub can't be reached, nothing was sent: {reason}")
    try:
        return _commit(HfApi(token=repository.token), repository, files, message, private)
    except HubError:
        raise
    except Exception as error:  # the hub's and its HTTP library's errors share no base
        status = getattr(getattr(error, "response", None), "status_code", None)
        log_in = "; log in with a token that may write (HF_TOKEN)" if status in (401, 403) else ""
        raise HubError(f"the hub took nothing for {repository.name}: {brief(error)}{log_in}") from None


def _commit(
    hub: Any, repository: Repository, files: Mapping[str, Path | bytes], message: str, private: bool
) -> Uploaded:
    # Decides about a new repository only: an existing one stays as visible as it is. Unsaid, the owner's
    # own default holds.
    hub.create_repo(repository.name, exist_ok=True, **({"private": True} if private else {}))
    if private and not hub.model_info(repository.name).private:
        raise HubError(
            f"{repository.name} exists and is public: make it private on the hub, or choose another name"
        )
    if repository.revision is not None:
        hub.create_branch(repository.name, branch=repository.revision, exist_ok=True)
    there = {
        file.rfilename
        for file in hub.model_info(repository.name, revision=repository.revision).siblings or []
    }
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, content) for name, content in files.items()
    ]
    if REPORT in there - set(files):
        operations.append(CommitOperationDelete(REPORT))
    done = hub.create_commit(
        repository.name, operations, commit_message=message, revision=repository.revision
    )
    return Uploaded(done.commit_url, done.oid)
