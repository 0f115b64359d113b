"""`cxr-edge infer` without the site's key: it reads nothing and waits, as pseudonyms are made with that key."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from edge.config import Device
from edge.enrolment.expected import how_to_restore, lacks_key
from edge.unattended.lifecycle import Stop
from edge.unattended.notify import Notifier

log = logging.getLogger(__name__)

_LOOK_S = 1.0


def wait_for_site_key(device: Device, config: Path, stop: Stop, notifier: Notifier) -> bool:
    """Wait until there is a key file, and say so to the service manager and in the log; return False if told to end before."""
    if lacks_key(device):
        sentence = how_to_restore(device, config)
        log.warning("%s", sentence, extra={"event": "no_site_key"})
        notifier.ready(sentence)
    while not stop.is_set():
        if not lacks_key(device):
            return True
        notifier.progress()
        time.sleep(_LOOK_S)
    return False
