"""What is printed for a device, as plain text: sheet 1 for who sets it up, sheet 2 with the site's key to be locked away."""

from __future__ import annotations

from datetime import date

from edge.privacy.key_paper import paper_lines
from edge.privacy.pseudonym import SiteKey

FORM_FEED = "\f"


def paper(device: str, facility: str, code: str, use_before: date, key: SiteKey | None, key_id: str) -> str:
    """Return the text of a device's paper; `key` is the one in its file, and `key_id` names the one that is on an earlier paper."""
    first = [
        f"cxr-edge    SHEET 1 of {'2' if key else '1'}    device {device}",
        "",
        f"Device        {device}",
        f"Facility      {facility}",
        f"File          {device}.enrol",
        f"Use before    {use_before.isoformat()}",
        "",
        f"Code          {code}",
        "",
        "The code opens the file. Send file and code by two ways: who has both can be this device.",
        "",
        "Setting the device up",
        "",
        "1. Install the software on the board, with the file on a stick:",
        "",
        f"       sudo ./install.sh --enrol {device}.enrol",
        "",
        "2. Or, where the software is there already, as root on the board:",
        "",
        f"       cxr-edge enrol {device}.enrol --config /etc/cxr-edge/device.toml \\",
        "           --profile /opt/cxr-edge/current/profiles/BOARD.toml",
        "",
        "   with the profile of this kind of board.",
        "",
        "   Type the code. Capitals do not matter, nor do hyphens; O counts as 0, I and L as 1, U as V.",
        *_about_key(facility, key, key_id),
        "3. See that it works:  cxr-edge check --config /etc/cxr-edge/device.toml --to-the-centre",
        "4. Delete the file from the stick and destroy this sheet.",
        "",
        "A wrong code changes nothing. After the date above ask the centre for a new file.",
    ]
    sheets = ["\n".join(first) + "\n"]
    if key is not None:
        lines = [f"cxr-edge    SHEET 2 of 2    site key of {facility}", "", *paper_lines(key, facility)]
        sheets.append("\n".join(lines) + "\n")
    return FORM_FEED.join(sheets)


def _about_key(facility: str, key: SiteKey | None, key_id: str) -> list[str]:
    if key is not None:
        return []
    return [
        f"   Then it asks for the site key of {facility} (key {key_id}): type sheet 2 of the paper that",
        "   came with the first device of the facility.",
    ]
