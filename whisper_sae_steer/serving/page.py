"""The page at ``/``: plain files of this package, which load nothing from anywhere else."""

from pathlib import Path

from fastapi import APIRouter, Response

FOLDER = Path(__file__).with_suffix("")
TYPES = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
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
    return _file("index.html")


@router.get("/page.css")
def style() -> Response:
    return _file("page.css")


@router.get("/page.js")
def script() -> Response:
    return _file("page.js")


def _file(name: str) -> Response:
    return Response((FOLDER / name).read_bytes(), media_type=TYPES[name], headers=HEADERS)
