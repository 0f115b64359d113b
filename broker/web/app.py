"""The routes of the dashboard. All of them only read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from broker.errors import StoreError
from broker.reader import Kind, Reader
from broker.web.view import device_view, odd_view, outcome_view

PAGE = 50
"""Outcomes on one page."""

_ODD_SHOWN = 20
_MAX_ID = 2**62

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(reader: Reader) -> Starlette:
    """Return the ASGI application that shows what `reader` reads."""
    pages = _Pages(reader)
    routes = [
        Route("/", pages.index),
        Route("/live", pages.live),
        Route("/outcomes/{device}/{epoch}/{seq:int}", pages.outcome),
        Route("/healthz", pages.healthz),
        Mount("/static", StaticFiles(packages=[("broker.web", "static")])),
    ]
    handlers: Mapping[Any, Any] = {StoreError: pages.no_database, HTTPException: pages.not_found}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_headers)])


class _Pages:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        loader = PackageLoader("broker.web", "templates")
        self._templates = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, enable_async=False
        )

    def index(self, request: Request) -> Response:
        return self._page("index.html", **self._everything(request))

    def live(self, request: Request) -> Response:
        """The part of the page that changes, or 204 when nothing has changed since the revision that the page shows."""
        if request.query_params.get("revision") == str(self._reader.revision()):
            return Response(status_code=204)
        return self._page("live.html", swapped=True, **self._everything(request))

    def outcome(self, request: Request) -> Response:
        path = request.path_params
        row = self._reader.outcome(path["device"], path["epoch"], path["seq"]) if path["seq"] < _MAX_ID else None
        if row is None:
            raise HTTPException(404)
        return self._page("outcome.html", outcome=outcome_view(row))

    def healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "revision": self._reader.revision()})

    def no_database(self, request: Request, error: Exception) -> Response:
        if request.url.path == "/healthz":
            return JSONResponse({"status": "error", "detail": str(error)}, status_code=503)
        template = "live_error.html" if request.url.path == "/live" else "error.html"
        return self._page(template, status=503, title="No database", message=str(error), query=_without_revision(request))

    def not_found(self, _request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        message = "There is nothing at this address." if status == 404 else "The page cannot answer this request."
        return self._page("error.html", status=status, title="Not found", message=message, query="")

    def _everything(self, request: Request) -> dict[str, Any]:
        asked = request.query_params
        device = asked.get("device") or None
        kind: Kind | None = next((kind for kind in get_args(Kind) if kind == asked.get("kind")), None)
        before = _positive(asked.get("before"))
        # The revision is read first: what is committed in between shows again, rather than not at all.
        revision = self._reader.revision()
        rows = self._reader.outcomes(device=device, kind=kind, before=before, limit=PAGE + 1)
        return {
            "revision": revision,
            "outcomes": [outcome_view(row) for row in rows[:PAGE]],
            "older": rows[PAGE - 1].id if len(rows) > PAGE else None,
            "devices": [device_view(row) for row in self._reader.devices()],
            "odd": [odd_view(row) for row in self._reader.quarantine(limit=_ODD_SHOWN)],
            "totals": self._reader.totals(),
            "device": device,
            "kind": kind,
            "before": before,
        }

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(template).render(**({"swapped": False} | values))
        return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})


def _without_revision(request: Request) -> str:
    """The query to go on with after an error: it shows no revision now, so that any answer is news."""
    return urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "revision"])


def _positive(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


async def _headers(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await proceed(request)
    response.headers.update(HEADERS)
    return response
