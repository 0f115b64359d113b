"""What the values of messages, manifests and configurations may look like."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_SEQ = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

# `(?!\n)`: to Python `$` is also where a final line feed follows. JSON Schema has no `\Z`.
DeviceId = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$(?!\n)", description="also MQTT user name and certificate name")
]
FacilityId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$(?!\n)")]
Epoch = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$", description="random id made with the outbox")]
Seq = Annotated[int, Meta(ge=1, le=MAX_SEQ, description="1, 2, 3 ... within an epoch, without holes")]
Through = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
Keyed = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="HMAC-SHA256 under the site's key")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256")]
Code = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,47}$", description="a reason code")]
ClassName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Day = Annotated[str, Meta(pattern=r"^\d{4}-(\d{2}-\d{2}|W\d{2})$", description="a day, or an ISO week where a site coarsens it")]
AgeBand = Annotated[str, Meta(pattern=r"^(\d{1,3}-\d{1,3}|\d{2,3}\+)$", description="years, as 40-49 or 90+")]
Instant = Annotated[
    str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$", description="UTC by the device's own clock")
]
Pem = Annotated[
    str, Meta(max_length=4096, pattern=r"^-----BEGIN [A-Z ]{1,40}-----\n[A-Za-z0-9+/=\n]+-----END [A-Z ]{1,40}-----\n$")
]
Short = Annotated[str, Meta(max_length=200)]
Nonce = Annotated[str, Meta(pattern=r"^[0-9a-f]{16,64}$")]
