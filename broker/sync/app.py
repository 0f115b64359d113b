"""`POST /v1/sync`: a device's messages in, the commit, its receipts out. What comes here is judged as what comes by MQTT.

Who asks is told by the client certificate, and each message is taken as if it came on that device's own topic. The first one is a
`hello`, so that a centre that has lost results asks for them this way too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.aggregate import no_commands
from broker.errors import BrokerError, StoreError
from broker.ingest import Decision, Inbound, classify
from broker.settle import Settler
from broker.sync.bucket import Buckets
from edge.contract import codec, topics
from edge.contract.errors import ContractError
from edge.contract.frames import MAX_BODY, Frame, pack, unpack
from edge.contract.messages import Command, Receipt
from edge.contract.topics import Channel

log = logging.getLogger(__name__)

PEER = "cxr_peer"
"""Where the server puts the `Peer` into the ASGI scope; None: a connection without certificates."""

_BODY_WITHIN_S = 30.0
_TURN_WITHIN_S = 5.0
_AGAIN_S = 10
_TAKEN = frozenset({Channel.HELLO, Channel.RESULT, Channel.STATUS, Channel.REPLY})


@dataclass(frozen=True)
class Peer:
    """Who showed a certificate: the name in it, empty where there is not exactly one, and its serial number, hexadecimal."""

    name: str
    serial: str


class _No(Exception):
    """The request gets nothing but a status and a sentence."""

    def __init__(self, status: int, sentence: str, again_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.status = status
        self.again_s = again_s


def nobody_is(_serial: str) -> bool:
    """Say of no certificate that it was revoked, for a centre without an authority."""
    return False


def create_app(
    settler: Settler,
    buckets: Buckets,
    answers: Callable[[list[Decision]], list[Command]] = no_commands,
    revoked: Callable[[str], bool] = nobody_is,
) -> Starlette:
    """Return the ASGI application.

    Args:
        settler: the aggregator's.
        buckets: how often each device may ask.
        answers: told what came, once it is stored; returns what is to be asked of the device.
        revoked: whether the certificate with that serial number counts no more.
    """

    async def sync(request: Request) -> Response:
        try:
            peer = request.scope[PEER]
            if peer is not None:
                await run_in_threadpool(_require_counting, peer, revoked)
            body = await _body(request)
            device, messages = await run_in_threadpool(_understood, None if peer is None else peer.name, body, buckets)
            decisions = [classify(message) for message in messages]
            if peer is not None:  # a body may take its time
                await run_in_threadpool(_require_counting, peer, revoked)
            receipts = await run_in_threadpool(_settled, settler, decisions)
            commands = await run_in_threadpool(answers, decisions)
        except _No as no:
            headers = {"Retry-After": str(math.ceil(no.again_s))} if no.again_s else {}
            return PlainTextResponse(f"{no}\n", no.status, headers)
        log.debug("%s delivered %d messages by HTTPS", device, len(messages))
        return Response(_answer(receipts, commands), media_type="application/gzip")

    return Starlette(routes=[Route("/v1/sync", sync, methods=["POST"])])


def _require_counting(peer: Peer, revoked: Callable[[str], bool]) -> None:
    try:
        if not revoked(peer.serial):
            return
    except BrokerError as error:
        log.error("Whether a certificate was revoked cannot be told, so nobody is let in by HTTPS: %s", error)
        raise _No(503, "The centre cannot look up certificates just now.", _AGAIN_S) from None
    log.warning("Refused an HTTPS delivery: the certificate of %.64r was revoked.", peer.name)
    raise _No(403, "The certificate of this device was revoked. Ask the centre why, or enrol the device again.")


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_WITHIN_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise _No(413, f"A request may have {MAX_BODY} bytes.")
    except TimeoutError:
        raise _No(408, "The request did not arrive in time.") from None
    except ClientDisconnect:
        raise _No(400, "The request ended too early.") from None
    return bytes(body)


def _understood(peer: str | None, body: bytes, buckets: Buckets) -> tuple[str, list[Inbound]]:
    """Return who sent `body`, and its messages as if they had come by MQTT."""
    if peer is not None:
        _not_too_often(peer, buckets)
    try:
        frames = unpack(body)
        if not frames or frames[0].channel is not Channel.HELLO:
            raise ContractError("bad_frame", "the first message is no hello")
        hello = codec.decode_hello(frames[0].payload)
    except ContractError as error:
        raise _No(400, f"The request is not understood ({error}).") from None
    if peer is None:
        _not_too_often(hello.device, buckets)
    elif peer != hello.device:
        log.warning("Refused an HTTPS delivery: the certificate is that of %.64r, the messages that of %s.", peer, hello.device)
        raise _No(403, "The name in the certificate is not the name of the device in the messages.")
    at = time.time_ns() // 1_000_000
    wrong = next((frame.channel for frame in frames[1:] if frame.channel not in _TAKEN), None)
    if wrong is not None:
        raise _No(400, f"No {wrong.value} is taken here.")
    return hello.device, [Inbound(topics.topic(hello.device, frame.channel), frame.payload, at) for frame in frames]


def _not_too_often(name: str, buckets: Buckets) -> None:
    if wait_s := buckets.take(name, time.monotonic()):
        raise _No(429, "This device asks too often.", wait_s)


def _settled(settler: Settler, decisions: list[Decision]) -> list[Receipt]:
    try:
        return settler.settle(decisions, _TURN_WITHIN_S)
    except StoreError as error:
        log.error("The database does not take what came by HTTPS: %s. The device keeps it and tries again.", error)
        raise _No(503, "The centre's database takes nothing just now.", _AGAIN_S) from None


def _answer(receipts: Iterable[Receipt], commands: Iterable[Command]) -> bytes:
    down = [Frame(Channel.RECEIPT, codec.encode(receipt)) for receipt in receipts]
    return pack([*down, *(Frame(Channel.COMMAND, codec.encode(command)) for command in commands)])
