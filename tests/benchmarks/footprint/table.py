"""The tables of docs/reference/footprint.md, between their markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "footprint.md"
START, END = "<!-- footprint: start -->", "<!-- footprint: end -->"

_WITHOUT_START = ("decoder", "drawing", "run")


def tables(figures: dict[str, Any]) -> str:
    """Return Markdown for the content of build/footprint.json."""
    lines = [f"Measured on {figures['machine']}.", ""]
    lines += [
        "| profile | installed | limit | at rest | peak | film | read | shown | ended for memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_profile(name, seen) for name, seen in figures["profiles"].items()]
    lines += ["", "What was not read, and why:", ""]
    missing = {
        f"{name}: {encoding}: `{said}`": None
        for name, seen in figures["profiles"].items()
        for encoding, said in seen["films"].items()
        if said != "result"
    }
    lines += [f"- {line}" for line in missing] or ["- nothing"]
    processes = list(figures["start_s"])
    lines += [
        "",
        "| | " + " | ".join((*processes, *_WITHOUT_START)) + " |",
        "|---|" + "---|" * (len(processes) + len(_WITHOUT_START)),
    ]
    start = " | ".join(f"{figures['start_s'][name]:.2f} s" for name in processes)
    lines.append(f"| serves after | {start} |" + " |" * len(_WITHOUT_START))
    for name, seen in figures["profiles"].items():
        peaks = " | ".join(f"{seen['peaks'].get(process, 0):.0f}" for process in (*processes, *_WITHOUT_START))
        lines.append(f"| {name}, peak | {peaks} |")
    return "\n".join(lines) + "\n"


def _profile(name: str, seen: dict[str, Any]) -> str:
    films = seen["films"].values()
    read = sum(said == "result" for said in films)
    installed = "?" if seen["installed"] is None else f"{seen['installed']:.0f} MiB"
    limit = f"{seen['limit']} MiB" + ("" if seen["limited"] else ", not enforced")
    ended = str(seen["killed"]) + (f" ({', '.join(seen['ended'])})" if seen["ended"] else "")
    cells = [installed, limit, f"{seen['at_rest']:.0f} MiB", f"{seen['peak']:.0f} MiB", f"{seen['megapixels']} MP"]
    return f"| {name} | " + " | ".join([*cells, f"{read} of {len(films)}", f"{seen['shown']}", ended]) + " |"


def write(figures: dict[str, Any], page: Path = PAGE) -> None:
    """Put the tables into the page."""
    text = page.read_text("utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n{tables(figures)}{END}{after}", "utf-8")
