"""Filling a device's own values into a device.toml line by line, so that what people wrote beside them stays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_TABLE = re.compile(r"\s*\[\s*([A-Za-z0-9_.-]+)\s*\]\s*(#.*)?")
_ARRAY = re.compile(r"\s*\[\[")
_KEY = re.compile(r"(\s*([A-Za-z0-9_-]+)\s*=\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*')(.*)", re.DOTALL)


def fill(text: str, values: Mapping[tuple[str, str], str]) -> str:
    """Return TOML with strings set: (table, key) -> value; table "" is the top. A key that is not there is put first in its table.

    Only keys whose value is a string on one line are known as being there.
    """
    left = dict(values)
    lines = text.splitlines()
    table, done = "", []
    begins = {"": 0}
    for line in lines:
        if heading := _TABLE.fullmatch(line):
            table = heading[1]
            done.append(line)
            begins[table] = len(done)
            continue
        if _ARRAY.match(line):
            table = "[["
        elif (found := _KEY.fullmatch(line)) and (table, found[2]) in left:
            done.append(f"{found[1]}{json.dumps(left.pop((table, found[2])), ensure_ascii=False)}{found[4]}")
            continue
        done.append(line)
    for (table, key), value in sorted(left.items(), key=lambda item: begins.get(item[0][0], -1), reverse=True):
        line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
        if table in begins:
            done.insert(begins[table], line)
        else:
            done += ["", f"[{table}]", line]
            begins[table] = len(done) - 1
    return "\n".join(done) + "\n"
