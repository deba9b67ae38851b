"""Receives forms with a file, within limits of size and time that hold while they come in."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, BinaryIO, TypeVar

from fastapi import Depends, Request
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message

from ..files import FULL
from .config import ServeConfig
from .errors import ApiError
from .fleet import Fleet

FIELD_BYTES = 2**16
"""of the fields beside the file, and of each"""
T = TypeVar("T")

STALL_SECONDS = 15.0
"""without anything of an upload, after which it is given up"""
LEAST_BYTES_PER_SECOND = 1000
"""of an upload, on average, once that time is over"""


async def receive_form(request: Request) -> AsyncGenerator[FormData]:
    """A multipart form whose one file is on disk, if not small; gone when the request is over.

    ApiError before anything is read where it is no form, too large by its own word, or there is no room;
    while it comes in where it grows too large (413), stalls, trickles or takes too long (408). What a file is
    called is never used.
    """
    fleet: Fleet = request.app.state.fleet
    config = fleet.config
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "send the audio as multipart/form-data", "unsupported_media")
    check_length(request, config)
    if not fleet.has_room or not fleet.uploads.take():
        raise fleet.busy()
    try:
        form = await within_limits(request, config, _form)
    finally:
        fleet.uploads.give_back()
    try:
        yield form
    finally:
        await form.close()


Form = Annotated[FormData, Depends(receive_form)]


def fields_of(form: FormData) -> dict[str, str]:
    """The form's fields that are filled in, beside files."""
    return {name: value for name, value in form.items() if isinstance(value, str) and value}


def audio_of(form: FormData, config: ServeConfig) -> BinaryIO:
    """The form's file; ApiError 400 (none, or empty) or 413."""
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise ApiError(400, "the form has no file; send the audio as a part with a file name", None, "file")
    if not upload.size:
        raise ApiError(400, "the file is empty (0 bytes)", "invalid_audio", "file")
    if upload.size > config.max_upload_bytes:
        raise _too_large(config)
    return upload.file


def check_length(request: Request, config: ServeConfig) -> None:
    """ApiError 413 for a request that is too large by its own word."""
    if _content_length(request) > config.max_upload_bytes + FIELD_BYTES:
        raise _too_large(config)


async def within_limits(request: Request, config: ServeConfig, read: Callable[[Request], Awaitable[T]]) -> T:
    """What ``read`` makes of a request while it comes in; ApiError 408, 413 or 507."""
    size, began = 0, time.monotonic()

    async def receive() -> Message:
        nonlocal size
        try:
            message = await asyncio.wait_for(request.receive(), STALL_SECONDS)
        except asyncio.TimeoutError:
            raise _too_slow(f"nothing of the upload came for {STALL_SECONDS:g} s") from None
        size += len(message.get("body", b""))
        if size > config.max_upload_bytes + FIELD_BYTES:
            raise _too_large(config)
        if size < (time.monotonic() - began - STALL_SECONDS) * LEAST_BYTES_PER_SECOND:
            raise _too_slow(f"the upload came at less than {LEAST_BYTES_PER_SECOND} bytes a second")
        return message

    try:
        return await asyncio.wait_for(read(Request(request.scope, receive)), config.upload_timeout)
    except asyncio.TimeoutError:
        raise _too_slow(f"the upload took longer than {config.upload_timeout:g} s") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ApiError(507, "the server's disk has no room for the upload", "no_room", "file") from None


def _form(request: Request) -> Awaitable[FormData]:
    return request.form(max_files=1, max_fields=32, max_part_size=FIELD_BYTES)


def _content_length(request: Request) -> int:
    """As announced; 0 if it isn't."""
    text = request.headers.get("content-length", "0")
    if not text.isdecimal():
        raise ApiError(400, "Content-Length is no number")
    return int(text)


def _too_slow(message: str) -> ApiError:
    return ApiError(408, message, "upload_timeout", headers={"Connection": "close"})


def _too_large(config: ServeConfig) -> ApiError:
    limit = f"{config.max_upload_bytes / 2**20:g} MiB"
    return ApiError(413, f"the file is larger than {limit}", "file_too_large", "file")
