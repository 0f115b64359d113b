"""From a hospital's DICOM export and a table of labels to a folder with a manifest.

What leaves the DICOM: the picture, as the device's own decoder shows it; age in years, 90 for everybody above; sex; view; and codes
for patients, made with a key that stays at the hospital. No name, number, date, description or identifier does, and none is part of
a file's name.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ConfigError, ImageError
from edge.pixels.decode import decode_file
from edge.pixels.quality import check_quality
from edge.privacy.pseudonym import SiteKey, load_site_key, make_site_key
from export.dataset import ADULT, Sample
from export.dicom_headers import Export, read_export
from export.errors import DataError
from export.label_table import Row, read_labels
from export.manifest_file import write_manifest
from export.requirements import require_empty

OLDEST_TOLD = 90
_CODE = 16
"""Hex digits of a code."""


@dataclass(frozen=True)
class Imported:
    """What came of it.

    samples: written. left_out: (file, reason) of the rest. unused: lines of the table that no file belongs to. unsaid: how many of
    those written lack what. key: file of the key. list_file: where left_out was written, outside the folder of pictures.
    """

    samples: list[Sample]
    left_out: list[tuple[str, str]]
    unused: list[int]
    unsaid: dict[str, int]
    key: Path
    list_file: Path


def import_dicom(
    folder: Path, table: Path, out: Path, *, key: Path | None = None, source: str = "", burned_in: bool = False
) -> Imported:
    """Write `out` with manifest.csv and images/.

    Args:
        folder: the export, with any folders below it.
        table: see `export.label_table.read_labels`.
        out: a new or empty folder.
        key: file of the key for codes, made if it is not there; the same key gives the same codes in a later import. By default
            beside `out`, never in it.
        source: what the manifest calls this hospital; by default the name of `out`.
        burned_in: whether to take pictures that say that text is burned into them; it may be a name.

    Raises:
        DataError: before anything is written, if the table cannot be used, contradicts itself, or two of its rows contradict each
            other about one file; if `out` is not empty; or if no picture is left.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Name the folder of the DICOM export.")
    rows = read_labels(table)
    require_empty(out, "no earlier import may be mixed with this")
    exports = [export for export in read_export(folder) if export.file.resolve() != table.resolve()]
    matched, used = _match(exports, rows, folder)
    usable = [(export, label) for export, label in matched if label and not _reason(export, burned_in)]
    if not usable:
        raise DataError(f"None of {len(exports)} files in {folder} can be used with {table}: {_why(matched, burned_in)}.")
    key = key or out.with_name(out.name + ".key")
    if out.resolve() in key.resolve().parents:
        raise DataError(f"The key {key} would lie among the pictures. Keep it elsewhere: who has both can tell who is who.")
    return _write(
        matched, out, _key(key), key, source or out.name, burned_in, [row.line for row in rows if row.line not in used], folder
    )


def _write(
    matched: Sequence[tuple[Export, str]],
    out: Path,
    site: SiteKey,
    key: Path,
    source: str,
    burned_in: bool,
    unused: list[int],
    folder: Path,
) -> Imported:
    (out / "images").mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    written: list[Export] = []
    left_out: list[tuple[str, str]] = []
    seen: set[str] = set()
    for export, label in matched:
        reason = _reason(export, burned_in) or ("" if label else "no_label")
        code = site.keyed("picture", export.headers.sop_instance_uid or _digest(export.file))[:_CODE] if not reason else ""
        if not reason and code in seen:
            reason = "same_object_twice"
        if not reason:
            try:
                picture = decode_file(export.file)
                check_quality(picture)
                picture.image.save(out / "images" / f"{code}.png")
            except ImageError as error:
                reason = error.reason
            except OSError:
                reason = "not_readable"
        if reason:
            left_out.append((str(export.file.relative_to(folder)), reason))
            continue
        seen.add(code)
        written.append(export)
        samples.append(_sample(export, label, site, out / "images" / f"{code}.png", source))
    list_file = out.with_name(out.name + ".left-out.csv")
    with list_file.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "reason"), *left_out])
    if not samples:
        raise DataError(f"No picture could be read: {_counted(reason for _, reason in left_out)}. {list_file} names them all.")
    write_manifest(out / "manifest.csv", samples)
    unsaid = {
        "age": sum(sample.age is None for sample in samples),
        "sex": sum(not sample.sex for sample in samples),
        "view": sum(sample.view in ("", "OTHER") for sample in samples),
        "patient number": sum(not sample.patient_known for sample in samples),
        "whether text is burned in": sum(export.burned_in not in ("YES", "NO") for export in written),
    }
    return Imported(samples, left_out, unused, unsaid, key, list_file)


def _match(exports: Sequence[Export], rows: Sequence[Row], folder: Path) -> tuple[list[tuple[Export, str]], set[int]]:
    """Return each file with its label, empty if no row is about it, and the lines that were about a file."""
    by_key: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        name = next(name for name in ("sop", "file", "accession") if name in row.keys)
        by_key.setdefault((name, row.keys[name]), []).append(row)
    names = Counter(name for export in exports for name in {export.file.name, export.file.stem})
    matched: list[tuple[Export, str]] = []
    used: set[int] = set()
    objects: dict[str, tuple[str, str]] = {}
    for export in exports:
        path = export.file.relative_to(folder).as_posix()
        keys = [("sop", export.headers.sop_instance_uid or ""), ("accession", export.accession)]
        keys += [("file", name) for name in dict.fromkeys((path, export.file.name, export.file.stem))]
        found = [(key, row) for key in keys for row in by_key.get(key, [])]
        for key, row in found:
            if key[0] == "file" and key[1] != path and names[key[1]] > 1:
                raise DataError(
                    f"Line {row.line} of the table names {key[1]}, and {names[key[1]]} files are called so. "
                    "Name them with their folders; nothing was written."
                )
        labels = {row.label: row for _, row in reversed(found)}
        if len(labels) > 1:
            first, second = sorted(labels.values(), key=lambda row: row.line)[:2]
            raise DataError(
                f"The table contradicts itself about {path}: line {first.line} says {first.label} and line {second.line} says "
                f"{second.label}. Correct one of them; nothing was written."
            )
        used.update(row.line for _, row in found)
        label = next(iter(labels), "")
        earlier, other = objects.setdefault(export.headers.sop_instance_uid or path, (label, path)) if label else (label, path)
        if earlier != label:
            raise DataError(
                f"{other} and {path} are one DICOM object, and the table calls it {earlier} and {label}. "
                "Correct one of them; nothing was written."
            )
        matched.append((export, label))
    return matched, used


def _reason(export: Export, burned_in: bool) -> str:
    if export.reason:
        return export.reason
    if export.headers.view == "LATERAL":
        return "lateral"
    return "burned_in" if export.burned_in == "YES" and not burned_in else ""


def _sample(export: Export, label: str, site: SiteKey, file: Path, source: str) -> Sample:
    headers = export.headers
    age = None if headers.age_years is None else float(min(headers.age_years, OLDEST_TOLD))
    person = headers.patient_id or ""
    # Without a number, pictures of one study at least belong together.
    other = headers.study_instance_uid or headers.sop_instance_uid or _digest(export.file)
    code = site.keyed("training patient", person) if person else site.keyed("training study", other)
    return Sample(
        file=file,
        label=label,
        patient=("p" if person else "s") + code[:_CODE],
        source=source,
        dataset=file.parent.parent.name,
        age=age,
        sex=headers.sex or "",
        view=headers.view or "",
        group="" if age is None else "adult" if age >= ADULT else "child",
        patient_known=bool(person),
    )


def _key(path: Path) -> SiteKey:
    try:
        return load_site_key(path) if path.exists() else make_site_key(path)
    except ConfigError:
        raise DataError(f"{path} is no key of 64 hexadecimal digits. Name the key of an earlier import, or a new file.") from None
    except OSError as error:
        raise DataError(f"The key {path} cannot be made ({error.strerror}). Name another file with --key.") from None


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _why(matched: Sequence[tuple[Export, str]], burned_in: bool) -> str:
    return _counted(_reason(export, burned_in) or "no_label" for export, label in matched) or "there are none"


def _counted(reasons: Iterable[str]) -> str:
    counts = Counter(reasons)
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))


def summary(imported: Imported, out: Path) -> list[str]:
    """Return what a person reads about an import."""
    labels = _counted(sample.label for sample in imported.samples)
    people = len({sample.patient for sample in imported.samples})
    unsaid = ", ".join(f"{name} {count}" for name, count in imported.unsaid.items() if count)
    lines = [f"{out}: {len(imported.samples)} pictures of {people} patient codes; {labels}"]
    if imported.left_out:
        reasons = _counted(reason for _, reason in imported.left_out)
        lines.append(f"left out: {reasons}. {imported.list_file} names the files; keep it at the hospital, as names may tell who.")
    if imported.unused:
        lines.append(f"no file belongs to the table's lines {', '.join(map(str, imported.unused))}")
    if unsaid:
        lines.append(f"the headers do not say: {unsaid}")
    lines.append("Look at the pictures before they leave the hospital: text in them is not searched for.")
    lines.append(f"The key {imported.key} makes the codes. Keep it at the hospital; the same key gives the same codes again.")
    return lines
