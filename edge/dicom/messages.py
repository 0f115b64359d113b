"""Messages of one association, put together from PDUs with bounds that pynetdicom does not have.

The data set of a C-STORE goes to its `Arrival` fragment by fragment and never lies in memory; all other messages are short.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from edge.dicom.arrival import CANNOT_UNDERSTAND, Admission, Arrival

log = logging.getLogger(__name__)

_SHORT_BYTES = 1024 * 1024
"""For a command and for every data set but that of a C-STORE; a commitment request for 5000 objects has 0.6 MB."""
_AHEAD = 4
"""Requests that may wait for their answer; a peer has to wait for each, as the window that is negotiated is 1."""
_LAST, _COMMAND = 0x02, 0x01


class _NotAllowed(Exception):
    """What a peer sent breaks a bound; the text is for the log."""


class _Requests(queue.Queue[Any]):
    """The peer's requests; its answers to ours are kept apart, so that neither is taken for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: queue.Queue[Any] = queue.Queue()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        message = item[1]
        if message is None or message.MessageIDBeingRespondedTo is not None:
            self.answers.put(item)  # None: the association has ended
        if message is None or message.MessageIDBeingRespondedTo is None:
            super().put(item, block, timeout)


class Messages(DIMSEServiceProvider):
    """The message reader of one association."""

    def __init__(self, assoc: Association, admission: Admission, object_s: float) -> None:
        super().__init__(assoc)
        self.msg_queue = self._requests = _Requests()
        self._admission = admission
        self._object_s = object_s
        self._arrival: Arrival | None = None
        self._arrived: deque[Arrival] = deque()
        self._unanswered = False
        self._short = 0
        self._began = 0.0
        self.heard_at = time.monotonic()

    @property
    def receiving(self) -> bool:
        """Whether an object is on its way or not yet answered."""
        return self._arrival is not None or bool(self._arrived) or self._unanswered

    def take(self, sop_instance: str) -> Arrival | None:
        """Return the object of the request that is being served, None if it had none of that SOP Instance UID."""
        if not self._arrived:
            return None
        self._unanswered = True  # before it is taken: between the two nothing may seem to be left to do
        arrival = self._arrived.popleft()
        if arrival.sop_instance == sop_instance:
            return arrival
        arrival.drop()
        return None

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; the peer's requests are answered one after the other."""
        super().send_msg(primitive, context_id)
        self._unanswered = False

    def drop(self) -> None:
        """Forget what has not arrived whole: the connection has ended."""
        for arrival in (self._arrival, *self._arrived):
            if arrival is not None:
                arrival.drop()
        self._arrival = None
        self._arrived.clear()

    def get_msg(self, block: bool = False) -> Any:
        """Return the next request, or, when waiting for an answer to ours, that."""
        if not block:
            return super().get_msg()
        try:
            return self._requests.answers.get(timeout=self.dimse_timeout)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one PDU. What is not allowed, or no message, ends the association."""
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._receive(context_id, value)
        except Exception as error:  # also whatever pydicom raises on a command that is none
            why = str(error) if isinstance(error, _NotAllowed) else f"it sent no DICOM message ({type(error).__name__})"
            log.warning("an association with %s was aborted: %s", self.assoc.remote["ae_title"], why)
            self.dul.event_queue.put("Evt19")

    def _receive(self, context_id: int, value: bytes) -> None:
        self.heard_at = time.monotonic()
        if self.message is None:
            self._began, self._short = self.heard_at, 0
        if self.heard_at - self._began > self._object_s:
            raise _NotAllowed(f"it took longer than {self._object_s:g} s for one message")
        if self.msg_queue.qsize() > _AHEAD:
            raise _NotAllowed("it does not wait for answers")
        control = value[0]
        if control & _COMMAND and self._arrival is not None:
            raise _NotAllowed("it sent a command in the place of an object")
        if control & _COMMAND or self._arrival is None:
            self._short += len(value)
            if self._short > _SHORT_BYTES:
                raise _NotAllowed(f"it sent a command of more than {_SHORT_BYTES} bytes")
        else:
            self._arrival.write(memoryview(value)[1:])
            value = value[:1]
            if control & _LAST:
                if self._answer_nameless(context_id):
                    return
                self._arrived.append(self._arrival)
                self._arrival = None
        self._hand_on(context_id, value)
        if control & _COMMAND and control & _LAST and isinstance(self.message, C_STORE_RQ):
            self._arrival = self._begin(context_id, self.message)

    def _hand_on(self, context_id: int, value: bytes) -> None:
        data = P_DATA()
        data.presentation_data_value_list.append((context_id, value))
        super().receive_primitive(data)

    def _begin(self, context_id: int, message: C_STORE_RQ) -> Arrival:
        (context,) = (context for context in self.assoc.accepted_contexts if context.context_id == context_id)
        sop_class, sop_instance = (
            str(message.command_set.get(f"AffectedSOP{what}UID", "") or "") for what in ("Class", "Instance")
        )
        return Arrival(self._admission, sop_class, sop_instance, context.transfer_syntax[0])

    def _answer_nameless(self, context_id: int) -> bool:
        """Answer a C-STORE without a SOP Instance UID, which pynetdicom would leave without any; return whether it was one."""
        assert self.message is not None
        assert self._arrival is not None
        if self._arrival.sop_instance:
            return False
        command = self.message.command_set
        answer = C_STORE()
        answer.MessageID = answer.MessageIDBeingRespondedTo = command.MessageID
        answer.AffectedSOPClassUID = command.get("AffectedSOPClassUID")
        answer.Status = CANNOT_UNDERSTAND
        self._arrival.drop()
        self._arrival = self.message = None
        self.send_msg(answer, context_id)
        return True
