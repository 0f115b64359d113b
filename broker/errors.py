"""The errors of the centre, as one small tree.

    BrokerError                something that a person can act on; the text says what happened and what to do
    |-- StoreError             the database
    |   |-- StoreMissing       it is not there, or holds other tables than this software needs
    |   |-- StoreLocked        another aggregator writes to it
    |   |-- StoreUnavailable   it does not answer or has no room just now; the same call may succeed later
    |   `-- StoreRefused       it answers, and will never take this row
    |-- FileRefused            a file that was carried here is not what it should be, or not from where it should be
    |-- AuthorityError         the authority's folder, a device's enrolment or its standing
    |-- LinkError              the MQTT broker cannot be used as asked
    `-- StartError             a program, port or file that is needed is missing or cannot be used

A programming error is none of these and is allowed to end the process; the supervisor starts it again.
"""

from __future__ import annotations


class BrokerError(Exception):
    """Base of all errors whose text is meant for the person who runs the centre."""


class StoreError(BrokerError):
    """The database cannot be used."""


class StoreMissing(StoreError):
    """The database is not there or was not made by this software."""


class StoreLocked(StoreError):
    """Another aggregator is the one writer of this database."""


class StoreUnavailable(StoreError):
    """The database does not answer, or has no room; try again later."""


class StoreRefused(StoreError):
    """The database will not take a row, now or later."""


class FileRefused(BrokerError):
    """A sealed file is not taken in."""


class AuthorityError(BrokerError):
    """The authority cannot do what was asked, or its folder is not what it should be."""


class LinkError(BrokerError):
    """The MQTT broker cannot be used as asked."""


class StartError(BrokerError):
    """Something that is needed to start is missing or taken."""
