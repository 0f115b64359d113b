"""The errors of the device, as one small tree.

    CxrError                 anything that a person can act on; the text says what happened and what to do
    |-- ConfigError          device.toml is missing, unreadable, or says something impossible
    |-- BundleError          the model bundle is broken, tampered with, or not for this software
    |-- JournalDamaged       the journal of silent commissioning cannot be trusted
    |-- OutboxError          the outbox cannot be opened or belongs to another device
    |   |-- OutboxOlder      an older version has written it; `cxr-edge infer` brings it up to date
    |   |-- OutboxNewer      a newer version has written it
    |   |-- OutboxFull       it has no room at present: wait, nothing is lost
    |   `-- OutboxDamaged    it is damaged or was replaced: end, and start again
    `-- ImageError           an image that gets no answer (has a reason code)
        |-- Refused          not something this model may answer: the sender can do better
        `-- Unreadable       the file is damaged or is no image

A programming error is none of these and is allowed to end the process; the supervisor starts it again.
"""


class CxrError(Exception):
    """Base of all errors whose text is meant for the person who runs the device."""


class ConfigError(CxrError):
    """The configuration cannot be used."""


class BundleError(CxrError):
    """The model bundle cannot be trusted or run."""


class JournalDamaged(CxrError):
    """The journal of silent commissioning cannot be trusted; `cxr-edge infer` puts it aside and begins silent."""


class OutboxError(CxrError):
    """The outbox cannot be used."""


class OutboxOlder(OutboxError):
    """The outbox has the layout of an older version; the next start of `cxr-edge infer` brings it up to date."""


class OutboxNewer(OutboxError):
    """The outbox has the layout of a newer version, which alone can read it."""


class OutboxFull(OutboxError):
    """The outbox takes no more until receipts or a larger disk make room."""


class OutboxDamaged(OutboxError):
    """The outbox cannot be trusted; the next start of `cxr-edge infer` rebuilds it."""


class ImageError(CxrError):
    """An image that gets no answer. `reason` is a code from `edge.contract.reasons`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Refused(ImageError):
    """The picture was read, and this model may not answer it."""


class Unreadable(ImageError):
    """The file could not be read as one grayscale picture."""
