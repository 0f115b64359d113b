"""Everything in the repository that is written from code: golden messages and pixels, JSON Schema, the reference of device.toml."""

from __future__ import annotations

import inspect
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from edge import config
from edge.contract import messages
from edge.contract.codec import encode
from edge.network.manifest import SHIPPED
from edge.pixels.network_input import read_pgm
from edge.pixels.preprocess import preprocess
from export.card import readme_figures
from export.gate_files import GATE_REPORT_NAME
from export.gate_page import gate_figures
from export.onnx import run_onnx
from export.phantom import phantom
from tests.golden.examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = ROOT / "tests/golden/messages"
PIXELS = ROOT / "tests/golden/pixels"
SCHEMA = ROOT / "docs/reference/contract.schema.json"
README = ROOT / "README.md"
_START, _END = "<!-- figures: start -->", "<!-- figures: end -->"
ENGINE_SCORES = ROOT / "firmware_configs/jetson/golden-scores.json"
DEVICE_TOML = ROOT / "docs/reference/device-toml.md"

FRAMES: dict[str, tuple[int, int]] = {"upright": (260, 311), "wide": (470, 333), "square": (193, 193)}
"""Name -> (width, height) of the golden frames; odd sizes, so that rounding shows."""

_TYPES = (
    messages.Result,
    messages.Refusal,
    messages.Failure,
    messages.Void,
    messages.Status,
    messages.Hello,
    messages.Receipt,
    messages.Command,
    messages.Reply,
)
_BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="))
_TABLES = {"": config.Device, "watch": config.Watch, "model": config.Model, "decode": config.Decode}
_TABLES |= {
    "storage": config.Storage,
    "relay": config.Relay,
    "usb": config.Usb,
    "commissioning": config.Commissioning,
    "dicom": config.Dicom,
    "pacs": config.Pacs,
    "page": config.Page,
}
_TABLES |= {"metrics": config.Metrics, "board": config.Board}


def messages_now() -> dict[Path, bytes]:
    """Return the golden file of each message and the bytes that today's code makes."""
    return {MESSAGES / f"{name}.json": encode(message) for name, message in EXAMPLES.items()}


def schema_now() -> bytes:
    """Return the JSON Schema of the contract."""
    refs, definitions = msgspec.json.schema_components(_TYPES, ref_template="#/$defs/{name}")
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"cxr/v{messages.SCHEMA}: messages between a device and the centre",
        "description": f"Written from edge/contract/messages.py. A message has at most {messages.MAX_BYTES} bytes.",
        "oneOf": list(refs),
        "$defs": definitions,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def device_toml_now() -> str:
    """Return the reference of device.toml."""
    lines = ["# device.toml", "", "Written from `edge/config.py`. An unknown key is refused.", ""]
    for table, struct in _TABLES.items():
        lines += [f"## {f'[{table}]' if table else 'Top of the file'}", "", inspect.cleandoc(struct.__doc__ or ""), ""]
        lines += ["| key | default | what it may be |", "|---|---|---|"]
        for field in msgspec.structs.fields(struct):
            if not table and field.name in _TABLES:
                continue
            default = "required" if field.default is msgspec.NODEFAULT else f"`{msgspec.json.encode(field.default).decode()}`"
            lines.append(f"| `{field.name}` | {default} | {_allowed(field.type)} |")
        lines.append("")
    return "\n".join(lines)


def readme_now() -> str:
    """Return the README with the figures of the shipped network in their place."""
    text = README.read_text("utf-8")
    before, _, rest = text.partition(_START)
    _, _, after = rest.partition(_END)
    report = msgspec.json.decode((SHIPPED / "report.json").read_bytes())
    gate = msgspec.json.decode((SHIPPED / GATE_REPORT_NAME).read_bytes())
    return before + _START + "\n" + "\n".join([*readme_figures(report), "", *gate_figures(gate)]) + "\n" + _END + after


def engine_scores_now() -> dict[str, list[float]]:
    """Return what the ONNX file gives for the golden inputs of the shipped network: what an engine built from it gives."""
    paths = sorted((SHIPPED / "golden").glob("*.pgm"))
    pictures = np.stack([read_pgm(path.read_bytes()) for path in paths])[..., np.newaxis]
    scores = run_onnx(SHIPPED.with_name("chest.onnx").read_bytes(), pictures)["scores"]
    return {path.name: [round(float(value), 4) for value in row] for path, row in zip(paths, scores, strict=True)}


def frames_now() -> dict[Path, np.ndarray]:
    """Return the golden frames: drawn, with the values of a real film's range."""
    return {PIXELS / f"{name}-frame.png": phantom(7, width=width, height=height) for name, (width, height) in FRAMES.items()}


def input_of(frame_file: Path) -> np.ndarray:
    """Return the network input that today's code makes of a stored golden frame."""
    with Image.open(frame_file) as image:
        return preprocess(np.asarray(image))


def input_file(frame_file: Path) -> Path:
    """Return where the golden network input of a golden frame is stored."""
    return frame_file.with_name(frame_file.name.replace("-frame", "-input"))


def write_all() -> None:
    """Write every file."""
    for folder in (MESSAGES, PIXELS, SCHEMA.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for path, content in messages_now().items():
        path.write_bytes(content)
    SCHEMA.write_bytes(schema_now())
    DEVICE_TOML.write_text(device_toml_now(), "utf-8")
    README.write_text(readme_now(), "utf-8")
    ENGINE_SCORES.write_text(json.dumps(engine_scores_now(), indent=1) + "\n", "utf-8")
    for path, frame in frames_now().items():
        _write_png(path, frame)
        _write_png(input_file(path), input_of(path))


def _write_png(path: Path, picture: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    path.write_bytes(buffer.getvalue())


def _allowed(annotation: Any) -> str:
    schema = msgspec.json.schema(annotation)
    parts = []
    for option in schema.get("anyOf", [schema]):
        words = [str(option.get("type", ""))] if "enum" not in option else [" or ".join(f"`{value}`" for value in option["enum"])]
        words += [f"{sign} {option[key]}" for key, sign in _BOUNDS if key in option]
        if "items" in option:
            words.append(f"of {option['items']['type']}s")
        if "pattern" in option:
            words.append(f"matching `{option['pattern']}`".replace("|", "\\|"))
        parts.append(" ".join(words))
    return " or ".join(part for part in parts if part != "null")
