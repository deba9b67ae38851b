"""The licence of what was made from recordings: the most demanding one of theirs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import HubError

# From the least to the most demanding; a licence with versions takes over the newest that is named.
_LICENCES = (
    (r"\bCC0\b|public domain|\bPD\b", "cc0-1.0"),
    (r"\bMIT\b", "mit"),
    (r"\bApache\b", "apache-2.0"),
    (r"\bCC[ -]BY\b(?![ -]\w\w\b)(?:[ -](\d\.\d))?", "cc-by-"),
    (r"\bCC[ -]BY[ -]SA\b(?:[ -](\d\.\d))?", "cc-by-sa-"),
)
_REFUSED = r"\bNC\b|\bND\b|non-?commercial|no-?deriv"
_UNVERSIONED = "4.0"


def licence_of(data: Mapping[str, Any], what: str) -> str:
    """The hub's name of the licence for something made from recordings, by a pack's ``metadata.data``.

    Recordings of the pack that it was built on count too; synthetic sounds are free. HubError, which says to
    pass ``--license``, if a source forbids commercial use or changes, is under nothing but the GPL or another
    licence that isn't known here, or if it isn't said which licences the recordings have.
    """
    choose = "pass --license if you know better"
    rank, version = 0, ""
    for made_from in built_from(data):
        licences = made_from.get("licences") or ()
        if made_from.get("clips", 1) and not licences:
            raise HubError(f"{what} doesn't say which licences its recordings have: pass --license")
        for line in licences:
            found = _demands(line.rsplit(": ", 1)[-1])
            if found is None:
                raise HubError(f"{what} was made from {line}, which can't be passed on freely; {choose}")
            rank, version = max((rank, version), found)
    return _LICENCES[rank][1] + version


def may_be_passed_on(terms: str) -> bool:
    """Whether what was made from recordings under these terms may be shared, by what is known here."""
    return _demands(terms) is not None


def built_from(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The data of a pack, of the one it was built on, and so on."""
    step: Mapping[str, Any] | None = data
    while step is not None:
        yield step
        step = step.get("built_on")


def _demands(terms: str) -> tuple[int, str] | None:
    """Rank and version of the most demanding licence that is named, None if none may be passed on.

    Of files under several licences, the GPL among them, the others count. A version that isn't said is 4.0.
    """
    if re.search(_REFUSED, terms, re.IGNORECASE):
        return None
    for rank in reversed(range(len(_LICENCES))):
        pattern, name = _LICENCES[rank]
        versions = [match[match.re.groups] for match in re.finditer(pattern, terms, re.IGNORECASE)]
        if versions:
            return rank, max(version or _UNVERSIONED for version in versions) if name.endswith("-") else ""
    return None
