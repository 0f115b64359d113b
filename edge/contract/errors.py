"""The one error of the contract; it lives here so that the contract stands on its own."""

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises over bytes that are not what they should be: it does not wrap the last two."""


class ContractError(ValueError):
    """A message or topic that does not follow the contract.

    `reason` is the code under which the message is quarantined, `detail` is for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
