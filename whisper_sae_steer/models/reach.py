"""Whether a server can be reached: asked before libraries that would retry or wait without a limit."""

import http.client
import threading
import urllib.error
import urllib.request

REACH_SECONDS = 5.0
"""How long a server may take to answer at all before it counts as unreachable."""


def unreachable(url: str) -> str | None:
    """Why the server of `url` does not answer within seconds, None if it does.

    Asked first because the downloaders retry, chain tracebacks or wait without a limit; in a
    thread because no timeout covers a name server that stays silent.
    """
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
            reasons.append(None)
        except urllib.error.HTTPError as error:  # an answer, if only "method not allowed"
            reasons.append(None if error.code < 500 else one_line(error))
        except (OSError, ValueError, http.client.HTTPException) as error:
            reasons.append(one_line(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS + 1)
    return reasons[0] if reasons else f"no answer within {REACH_SECONDS:g} s"


def one_line(error: BaseException, most: int = 120) -> str:
    """What went wrong, in at most `most` characters without line breaks."""
    reason = getattr(error, "reason", None)
    text = " ".join(str(reason or error).split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."
