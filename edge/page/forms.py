"""What a browser posts: whether this page asked for it, and the fields of a small form."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

from starlette.requests import ClientDisconnect, Request

_FORM_BYTES = 4096
_FORM_S = 10.0


def is_of_this_page(request: Request) -> bool:
    """Return whether a POST comes from this page: browsers name the origin of every POST."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields; none where the form is too large, too slow or broken off."""
    try:
        return await asyncio.wait_for(_whole(request), _FORM_S)
    except (ClientDisconnect, TimeoutError, asyncio.TimeoutError):  # two kinds of TimeoutError on Python 3.10
        return {}


async def _whole(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
