"""What the centre may ask a device for, whichever way the question came: a sign of life, and a new certificate."""

from __future__ import annotations

import logging

from edge.config import Device
from edge.contract.messages import Command, Reply
from edge.errors import CxrError

log = logging.getLogger(__name__)


class Commands:
    """Answers for one device. What renewing needs is loaded when it is asked for, as it is much and comes every two months."""

    def __init__(self, device: Device) -> None:
        from edge.enrolment.renewal import Renewal

        self._name = device.device
        self._renewal = Renewal(device.device, device.relay)
        self._renewed = False

    def answer(self, command: Command) -> Reply:
        """Do what is asked, and return what the centre is to be told."""
        if command.device != self._name:
            return self._reply(command, False, "unknown command")
        try:
            match command.verb:
                case "ping":
                    return self._reply(command, True, "here")
                case "renew":
                    return self._reply(command, True, "asks for a certificate", self._renewal.request())
                case "certificate":
                    until = self._renewal.install(command.certificate or "")
                    self._renewed = True
                    log.info("this device has a new certificate, good until %s", until, extra={"event": "renewed"})
                    return self._reply(command, True, "uses the new certificate")
        except CxrError as error:
            log.warning("%s", error)
            return self._reply(command, False, str(error)[:200])
        return self._reply(command, False, "unknown command")

    def take_renewed(self) -> bool:
        """Return, once, whether the certificate has changed: a connection made with the earlier one should be made anew."""
        renewed, self._renewed = self._renewed, False
        return renewed

    def _reply(self, command: Command, ok: bool, detail: str, request: str | None = None) -> Reply:
        return Reply(device=self._name, id=command.id, ok=ok, detail=detail, request=request)
