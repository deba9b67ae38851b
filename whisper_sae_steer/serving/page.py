"""The page at ``/``: plain files of this package, which load nothing from anywhere else."""

from pathlib import Path

from fastapi import APIRouter, Response

from ..reports.page import LOOK
from .errors import ApiError

FOLDER = Path(__file__).with_suffix("")
SAMPLE = FOLDER.parents[1] / "samples" / "gap.ogg"
"""a sentence, more than a minute without speech, another sentence"""
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".ogg": "audio/ogg"}
FILES = {"sample.ogg": SAMPLE, LOOK.name: LOOK} | {file.name: file for file in FOLDER.iterdir()}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:;"
        " img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> Response:
    """The page itself; open without the key, which it asks for where one is needed."""
    return file("index.html")


@router.get("/page/{name}")
def file(name: str) -> Response:
    """A style sheet, a script, the sample; ApiError 404."""
    if name not in FILES:
        raise ApiError(404, f"the page has no file {name!r}")
    path = FILES[name]
    return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=HEADERS)
