"""The routes of the local page. Everything behind the PIN; what changes something is a POST of the page itself."""

from __future__ import annotations

import errno
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.errors import OutboxError
from edge.page.checking import Checking
from edge.page.film import Films
from edge.page.forms import is_of_this_page, read_form
from edge.page.health import Health
from edge.page.hosts import is_own
from edge.page.session import COOKIE, LASTS_S, Sessions
from edge.page.studies import Studies, Study
from edge.page.upload import Empty, TooLarge, Uploads
from edge.page.words import LANGUAGES, Words, choose, words
from edge.requests import ReadingRequest, Requests, SilenceRequest

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers name no origin of a form either
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LANGUAGE = "cxr_language"
_NUMBER = re.compile("[1-9][0-9]{0,17}")  # Python reads no number of thousands of digits, and SQLite has 64 bits
_OPEN = frozenset({"/login", "/language", "/healthz"})
_WRONG_PATIENT = "wrong_patient"
_YEAR_S = 365 * 86400


@dataclass(frozen=True)
class Parts:
    """What the page is made of. has_room: whether the device may take another picture. names: see `edge.page.hosts`.

    secure: whether it is served by TLS.
    """

    facility: str
    studies: Studies
    uploads: Uploads
    films: Films
    health: Health
    checking: Checking
    sessions: Sessions
    requests: Requests
    has_room: Callable[[], bool]
    names: frozenset[str]
    secure: bool = False


def create_app(parts: Parts) -> Starlette:
    """Return the ASGI application. All of it runs in one thread, since the outbox is for one."""
    page = _Page(parts)
    routes = [
        Route("/", page.today),
        Route("/login", page.login, methods=["GET", "POST"]),
        Route("/logout", page.logout, methods=["POST"]),
        Route("/language", page.language, methods=["POST"]),
        Route("/uploads", page.upload, methods=["POST"]),
        Route("/uploads/{intake}", page.progress),
        Route("/studies/{number}", page.study),
        Route("/studies/{number}/film.png", page.film),
        Route("/studies/{number}/slip", page.slip),
        Route("/studies/{number}/wrong-patient", page.wrong_patient, methods=["POST"]),
        Route("/studies/{number}/reading", page.read, methods=["POST"]),
        Route("/commissioning", page.commissioning),
        Route("/commissioning/release", page.release, methods=["POST"]),
        Route("/commissioning/silence", page.silence, methods=["POST"]),
        Route("/device", page.device),
        Route("/healthz", page.healthz),
        Mount("/static", StaticFiles(packages=[("edge.page", "static")])),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: page.not_found, OutboxError: page.not_yet, Exception: page.broken}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(_Guard, page=page)])


class _Guard:
    """Stands before all routes. Not Starlette's own base for this, behind which a page does not learn that its reader has gone."""

    def __init__(self, app: ASGIApp, page: _Page) -> None:
        self._app = app
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._page.refusal(Request(scope)) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send_with_headers)


class _Page:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._templates = Environment(
            loader=PackageLoader("edge.page", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def refusal(self, request: Request) -> Response | None:
        """Answer to our own names; let in who has a session; take a POST from the page itself alone."""
        path = request.url.path
        if not self._named(request):
            return self._render(request, "error.html", status=421, message="error.name")
        if request.method == "POST" and not is_of_this_page(request):
            return self._render(request, "error.html", status=403, message="error.broken")
        if path in _OPEN or path.startswith("/static/") or self._parts.sessions.holds(request.cookies.get(COOKIE)):
            return None
        if request.method == "GET" and not path.startswith("/uploads"):
            return RedirectResponse("/login", 303)
        return JSONResponse({"reason": "login"}, 401)

    async def login(self, request: Request) -> Response:
        peer = request.client.host if request.client else ""
        if request.method == "GET":
            return self._render(request, "login.html", wrong="")
        given = (await read_form(request)).get("pin", "")
        token = self._parts.sessions.begin(given, peer)
        if token is None:
            wait, say = self._parts.sessions.wait_s(peer), _words(request)
            wrong = say.count("login.wait", math.ceil(wait)) if wait > 0 else say("login.wrong")
            return self._render(request, "login.html", status=403, wrong=wrong)
        response = RedirectResponse("/", 303)
        secure = self._parts.secure
        response.set_cookie(COOKIE, token, max_age=int(LASTS_S), httponly=True, samesite="strict", secure=secure)
        return response

    async def logout(self, request: Request) -> Response:
        self._parts.sessions.end(request.cookies.get(COOKIE))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    async def language(self, request: Request) -> Response:
        form = await read_form(request)
        back = form.get("back", "/")
        # Only a path of this page: "//host" and "/\host" would lead elsewhere.
        back = back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/"
        response = RedirectResponse(back, 303)
        if form.get("language") in LANGUAGES:
            response.set_cookie(_LANGUAGE, form["language"], max_age=_YEAR_S, samesite="strict", secure=self._parts.secure)
        return response

    async def today(self, request: Request) -> Response:
        before = request.query_params.get("before", "")
        number = int(before) if _NUMBER.fullmatch(before) else None
        say = _words(request)
        listing = self._parts.studies.list(say, number)
        waiting, silence = self._parts.studies.waiting(), self._parts.checking.sentence(say)
        return self._render(request, "today.html", listing=listing, paged=bool(number), waiting=waiting, silence=silence)

    async def upload(self, request: Request) -> Response:
        say = _words(request)
        if not self._parts.has_room():
            return _refused(say("send.no_room"), 507)
        try:
            intake = await self._parts.uploads.receive(request.query_params.get("name", ""), request.stream())
        except TooLarge:
            return _refused(say("send.too_large"), 413)
        except Empty:
            return _refused(say("send.empty"), 422)
        except ClientDisconnect:
            return _refused("", 400)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            log.error("an upload was not taken: %s", error.strerror)
            return _refused(say("send.no_room"), 507) if full else _refused(say("error.broken"), 500)
        return JSONResponse({"intake": intake.id}, 201)

    async def progress(self, request: Request) -> Response:
        return JSONResponse({"study": self._parts.studies.number_of(request.path_params["intake"])})

    async def study(self, request: Request) -> Response:
        read = request.query_params.get("read") == "1"
        return self._render(request, "study.html", study=self._study(request), read=read)

    async def slip(self, request: Request) -> Response:
        return self._render(request, "slip.html", study=self._study(request), facility=self._parts.facility)

    async def film(self, request: Request) -> Response:
        study = self._study(request)
        heat = study.heat if request.query_params.get("heat") == "1" else None
        drawn = None if study.picture is None else await self._parts.films.draw(study.picture, heat, request.is_disconnected)
        if drawn is None:
            raise HTTPException(404)
        return Response(drawn, media_type="image/png")

    async def wrong_patient(self, request: Request) -> Response:
        study = self._study(request)
        if study.may_void:
            self._parts.requests.void(study.epoch, study.seq, _WRONG_PATIENT)
        return RedirectResponse(f"/studies/{study.number}", 303)

    async def read(self, request: Request) -> Response:
        study, label = self._study(request), (await read_form(request)).get("label", "")
        if label in dict(study.choices):
            self._parts.requests.ask(ReadingRequest(epoch=study.epoch, seq=study.seq, label=label))
        return RedirectResponse(f"/studies/{study.number}?read=1", 303)

    async def commissioning(self, request: Request) -> Response:
        checked = self._parts.checking.read(_words(request))
        return self._render(request, "commissioning.html", checked=checked, asked=request.query_params.get("asked", ""))

    async def release(self, request: Request) -> Response:
        form = await read_form(request)
        asked = self._parts.checking.release(form.get("by", ""), form.get("threshold", ""))
        if asked is not None:
            self._parts.requests.ask(asked)
        return RedirectResponse(f"/commissioning?asked={'refused' if asked is None else 'done'}", 303)

    async def silence(self, request: Request) -> Response:
        possible = self._parts.checking.can_be_silenced()
        if possible:
            self._parts.requests.ask(SilenceRequest())
        return RedirectResponse(f"/commissioning?asked={'done' if possible else 'refused'}", 303)

    async def device(self, request: Request) -> Response:
        say = _words(request)
        health, silence = self._parts.health.read(say), self._parts.checking.sentence(say)
        return self._render(request, "device.html", health=health, silence=silence)

    async def healthz(self, _request: Request) -> Response:
        self._parts.studies.waiting()
        return JSONResponse({"status": "ok"})

    async def not_found(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return self._render(request, "error.html", status=status, message="error.none")

    async def not_yet(self, request: Request, _error: Exception) -> Response:
        if request.url.path in ("/healthz",) or request.url.path.startswith("/uploads/"):
            return JSONResponse({"study": None}, 503)
        return self._render(request, "error.html", status=503, message="error.not_yet")

    async def broken(self, request: Request, _error: Exception) -> Response:
        response = self._render(request, "error.html", status=500, message="error.broken")
        response.headers.update(HEADERS)
        return response

    def _named(self, request: Request) -> bool:
        reached = (request.scope.get("server") or ("",))[0]
        return self._parts.secure or is_own(request.headers.get("host", ""), self._parts.names, reached)

    def _study(self, request: Request) -> Study:
        number = request.path_params["number"]
        study = self._parts.studies.one(int(number), _words(request)) if _NUMBER.fullmatch(number) else None
        if study is None:
            raise HTTPException(404)
        return study

    def _render(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        inside = self._parts.sessions.holds(request.cookies.get(COOKIE))
        common = {"say": _words(request), "languages": LANGUAGES, "path": request.url.path, "inside": inside}
        html = self._templates.get_template(template).render(**common, clinic=self._parts.facility, **values)
        return HTMLResponse(html, status)


def _words(request: Request) -> Words:
    return words(choose(request.cookies.get(_LANGUAGE), request.headers.get("accept-language", "")))


def _refused(reason: str, status: int) -> Response:
    return JSONResponse({"reason": reason}, status)
