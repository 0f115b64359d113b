"""What leaves as a picture names nobody: neither its header, whatever was in the old one, nor writing in it."""

import random
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edge.commands.deidentify import deidentify, new_uid, recorded
from edge.commands.setup_device import set_up
from edge.commissioning.silence import Site, open_silence
from edge.config import Commissioning, Watch
from edge.config import Device as Settings
from edge.contract.codec import decode_outcome
from edge.contract.messages import Failure, Result
from edge.errors import Refused, Unreadable
from edge.infer.inference import Inference
from edge.infer.local import LocalStore
from edge.infer.outcomes import OutcomeWriter
from edge.intake.spool import Spool
from edge.network.bundle import load_bundle
from edge.outbox.writer import Outbox
from edge.pixels.decode import Limits, decode_file
from edge.pixels.decoder_protocol import NotReady, Ready
from edge.pixels.headers import Headers
from edge.pixels.preprocess import preprocess_image
from edge.privacy.clean_pixels import MOST, clean, writing
from edge.privacy.identifiers import patient_of
from edge.privacy.pseudonym import SiteKey, chain, load_site_key
from export.phantom import phantom
from tests.support.dicom_files import dicom
from tests.support.processes import find_program

KEY = SiteKey(b"k" * 32)
CANARY = "ZqCanary"
UID_CANARY = "1.2.3.777888999"
BUNDLE = load_bundle()
SETTINGS = Settings(device="clinic-1", facility="Clinic", state="s", site_key="k", watch=Watch(folder="f"))


def chest(seed=1, side=400):
    """A drawn chest without the grain of the drawing, which is finer than that of any detector."""
    drawn = Image.fromarray(phantom(seed, width=side // 2, height=side // 2))
    return drawn.resize((side, side), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(side / 300))


CHEST = np.asarray(chest())


def anything(image, headers):
    """Lets every picture pass, for tests of the header."""


def nothing_recorded(source):
    return None


def gate(image, headers):
    BUNDLE.scores(np.asarray(preprocess_image(image)), headers)


def released(path, **changes):
    return deidentify(path, KEY, changes.get("require", anything), Limits(), changes.get("find", nothing_recorded))


def write(path, pixels=CHEST, **values):
    named = {
        "PatientName": f"{CANARY}^Ada", "PatientID": f"{CANARY} 17", "PatientBirthDate": "18151210", "PatientSex": "F",
        "StudyInstanceUID": UID_CANARY, "SeriesInstanceUID": UID_CANARY + ".1", "StudyDate": "20260131", "ViewPosition": "PA",
        "PixelSpacing": ["0.14", "0.14"], "BurnedInAnnotation": "YES", "InstitutionName": CANARY, "OperatorsName": CANARY,
    }  # fmt: skip
    return dicom(path, pixels, **(named | values))


def test_the_new_object_has_the_pseudonyms_of_the_outcome_and_nothing_else_of_the_patient(tmp_path):
    made = released(write(tmp_path / "a.dcm")).data
    assert made.PatientID == KEY.keyed("patient", patient_of(Headers(patient_id=f"{CANARY} 17"))[0])
    assert made.SOPInstanceUID == new_uid(KEY.keyed("source", "sop:1.2.3.4"))
    assert made.StudyInstanceUID == new_uid(KEY.keyed("study", UID_CANARY))
    assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
    assert len({made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID}) == 3
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in (made.SOPInstanceUID, made.StudyInstanceUID))
    assert made.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in made.DeidentificationMethodCodeSequence] == ["113100", "113101"]
    assert (made.BurnedInAnnotation, made.ViewPosition, made.PixelSpacing) == ("NO", "PA", [0.14, 0.14])
    assert not any((made.PatientBirthDate, made.PatientSex, made.StudyDate, made.AccessionNumber, made.ReferringPhysicianName))


class Asis:
    """A decoder in this process, which tells pixels apart by their sum."""

    def decode_while(self, path, work):
        told = []
        try:
            found = decode_file(path, tell=told.append)
        except Unreadable as error:
            return NotReady(False, error.reason, headers=told[0]), work()
        frame = np.asarray(preprocess_image(found.image))
        return Ready(frame.tobytes(), f"{int(frame.sum()):064x}", found.headers, 1.0, 2.0), work()


class Device:
    """Takes in, answers and keeps files as a device does; `key` may change in between."""

    def __init__(self, home):
        self.home = home
        self.spool = Spool(home)
        self.outbox = Outbox(home / "outbox.db", "clinic-1")

    def take(self, path, key=KEY):
        """Return the outcome of a copy of a file, and where the copy lies now."""
        copy = self.home / path.name
        copy.write_bytes(path.read_bytes())
        intake = self.spool.admit(copy)
        bundle = replace(BUNDLE, gate=None)
        writer = OutcomeWriter(SETTINGS, key, bundle.manifest, self.outbox.epoch)
        site = Site(Commissioning(readings=0), "b" * 64, bundle.manifest.threshold)
        with closing(open_silence(self.home, site, self.outbox)) as silence:
            seq = Inference(self.spool, Asis(), bundle, self.outbox, writer, LocalStore(self.home), silence).process(intake)
        row = self.outbox.row(seq)
        found = next(path for path in (self.spool.done / row["place"], self.spool.aside / row["place"], copy) if path.exists())
        return decode_outcome(row["payload"]), found


def test_the_new_object_is_named_after_the_outcome_that_the_file_has(tmp_path):
    device = Device(tmp_path / "device")
    with closing(device.outbox):

        def uids(path):
            made = released(path, find=recorded(device.outbox, KEY)).data
            return made.SOPInstanceUID, made.PatientID

        first, other, last = (write(tmp_path / f"{name}.dcm", PatientID=name) for name in ("K-1", "K-2", "K-3"))
        again = write(tmp_path / "again.dcm", PatientID="K-1", StudyTime="101112")
        reused = write(tmp_path / "reused.dcm", CHEST[:, ::-1].copy(), PatientID="K-1")
        Image.fromarray(CHEST).save(tmp_path / "a.png")
        outcomes = {path: device.take(path)[0] for path in (first, other, again, reused)}
        outcome, kept = device.take(tmp_path / "a.png")
        outcomes[kept] = outcome
        for path in (other, again, reused, kept):
            told = outcomes[path]
            assert uids(path) == (new_uid(told.source_key), told.patient or "")
        assert uids(first) == uids(again), "both say the patient whose answer stands"
        assert len({outcome.source_key for outcome in outcomes.values()}) == 5
        named = uids(last)
        assert named[0] == new_uid(device.take(last)[0].source_key), "taken in only later"


def test_it_is_not_named_after_a_failure_that_the_object_had_before(tmp_path):
    device = Device(tmp_path / "device")
    with closing(device.outbox):
        path = write(tmp_path / "a.dcm", Rows=0)
        failure, _ = device.take(path)
        write(path)
        named = [released(path, find=recorded(device.outbox, KEY)).data.SOPInstanceUID]
        result, _ = device.take(path)
        named.append(released(path, find=recorded(device.outbox, KEY)).data.SOPInstanceUID)
    assert (type(failure), type(result)) == (Failure, Result)
    assert named == [new_uid(result.source_key)] * 2


def test_under_a_new_key_it_is_named_anew_and_still_after_the_right_outcome(tmp_path):
    device = Device(tmp_path / "device")
    with closing(device.outbox):
        files = [write(tmp_path / f"{name}.dcm", PatientID=name) for name in ("K-1", "K-2")]
        old = [device.take(path)[0] for path in files]
        newer = chain([SiteKey(b"n" * 32), KEY])
        made = [deidentify(path, newer, anything, Limits(), recorded(device.outbox, newer)).data for path in files]
    assert len({data.SOPInstanceUID for data in made}) == 2
    assert not {data.SOPInstanceUID for data in made} & {new_uid(outcome.source_key) for outcome in old}
    assert not {data.PatientID for data in made} & {outcome.patient for outcome in old}


def test_a_missing_number_stays_missing_and_two_objects_without_uids_are_two(tmp_path):
    first = released(write(tmp_path / "a.dcm", PatientID="UNKNOWN")).data
    assert first.PatientID == ""
    Image.fromarray(CHEST).save(tmp_path / "b.png")
    Image.fromarray(255 - CHEST).save(tmp_path / "c.png")
    second, third = (released(tmp_path / name).data for name in ("b.png", "c.png"))
    assert len({first.StudyInstanceUID, second.StudyInstanceUID, third.StudyInstanceUID}) == 3
    assert (second.Modality, "PixelSpacing" in second) == ("OT", False)


def test_the_picture_that_leaves_is_the_displayed_one(tmp_path):
    source = write(tmp_path / "a.dcm", (4095 - (CHEST.astype(np.uint16) << 4)), bits=12, photometric="MONOCHROME1")
    made = released(source)
    made.data.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    again, before = decode_file(tmp_path / "b.dcm").image, decode_file(source).image
    same = np.asarray(again) == np.asarray(before)
    assert again.size == before.size
    assert same.mean() > 1 - made.replaced - 0.001
    assert made.replaced < 0.1


_OF_VR = {
    "AE": CANARY, "AS": "045Y", "CS": CANARY.upper(), "DA": "18151210", "DS": "77788.8999", "DT": "18151210101112.777888",
    "IS": "777888999", "LO": CANARY, "LT": CANARY, "PN": f"{CANARY}^Ada", "SH": CANARY, "ST": CANARY, "TM": "101112.777888",
    "UC": CANARY, "UI": UID_CANARY, "UR": CANARY, "UT": CANARY, "OB": CANARY.encode(), "OW": CANARY.encode(), "UN": CANARY.encode(),
}  # fmt: skip
_PIXELS = {0x00080005, 0x00080016, 0x00080018, 0x00080060}
"""What the pixels are, and whether they are read at all, is not for canaries."""
_TAGS: dict[str, list[int]] = {vr: [] for vr in (*_OF_VR, "SQ")}
for _tag, (_vr, _vm, _, _, _keyword) in pydicom.datadict.DicomDictionary.items():
    if (
        _vr in _TAGS
        and _keyword
        and _vm in ("1", "1-n")
        and _tag not in _PIXELS
        and 4 < _tag >> 16 not in (0x28, 0x5400, 0x7FE0, 0xFFFE)
    ):
        _TAGS[_vr].append(_tag)


def planted(rng, depth=0):
    """A data set with canaries in elements of every kind, private ones and nested sequences too."""
    data = Dataset()
    for vr, value in _OF_VR.items():
        for tag in rng.sample(_TAGS[vr], min(len(_TAGS[vr]), 3)):
            data.add_new(tag, vr, value)
    for group in rng.sample([0x0009, 0x0019, 0x7777], 2):
        block = data.private_block(group, CANARY, create=True)
        for number, vr in enumerate(rng.sample(sorted(_OF_VR), 5)):
            block.add_new(number, vr, _OF_VR[vr])
    if depth < 2:
        for tag in rng.sample(_TAGS["SQ"], 2):
            data.add_new(tag, "SQ", Sequence([planted(rng, depth + 1)]))
    return data


@given(st.randoms(use_true_random=False), st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_nothing_that_is_put_into_any_element_comes_out(tmp_path, rng, syntax):
    path = write(tmp_path / f"{CANARY}.dcm", CHEST[:200, :200], syntax=syntax)
    data = pydicom.dcmread(path)
    for element in planted(random.Random(rng.random())):
        data[element.tag] = element
    data.preamble = (CANARY * 16)[:128].encode()
    data.add_new(0x60003000, "OW", CANARY.encode())
    data.file_meta.SourceApplicationEntityTitle = CANARY
    data.file_meta.PrivateInformationCreatorUID = UID_CANARY
    data.file_meta.PrivateInformation = CANARY.encode()
    data.save_as(path)
    assert path.read_bytes().count(CANARY.encode()) > 50
    made = released(path).data
    made.save_as(tmp_path / "out.dcm", enforce_file_format=True)
    content = (tmp_path / "out.dcm").read_bytes()
    for secret in (CANARY, CANARY.upper(), UID_CANARY, "18151210", "777888", "Ada", "1.2.3.4\0"):
        assert secret.encode() not in content
    assert content[:128] == bytes(128)
    assert not any(element.tag.is_private for element in made.iterall())


@pytest.mark.parametrize("view", ["PA", "AP", None])
def test_dciodvfy_finds_no_error(tmp_path, view):
    source = write(tmp_path / "a.dcm", Modality="DX", ViewPosition=view)
    released(source, require=gate).data.save_as(tmp_path / "out.dcm", enforce_file_format=True)
    said = subprocess.run(
        [find_program("dciodvfy", "dicom3tools"), tmp_path / "out.dcm"], capture_output=True, text=True, check=False
    )
    assert "SCImage" in said.stderr
    assert "Error" not in said.stderr, said.stderr


def write_on(image, text, place, height, shade):
    """Write on a copy of a picture; return it and where the strokes are."""
    font = ImageFont.load_default(size=height / 0.73)
    strokes = Image.new("L", image.size, 0)
    ImageDraw.Draw(strokes).text(place, text, font=font, fill=255)
    drawn = image.copy()
    drawn.paste(shade, mask=strokes)
    return drawn, np.asarray(strokes) > 128


@pytest.mark.parametrize("side", [400, 1600])
@pytest.mark.parametrize("share", [0.02, 0.04, 0.06])
@pytest.mark.parametrize(("place", "shade"), [((0.02, 0.02), 255), ((0.5, 0.88), 0), ((0.15, 0.45), 255), ((0.3, 0.6), 0)])
def test_writing_is_found_and_gone(side, share, place, shade):
    image = chest(2, side)
    drawn, strokes = write_on(image, "OKAFOR 4711", (place[0] * side, place[1] * side), share * side, shade)
    before, written = (np.asarray(picture).astype(int) for picture in (image, drawn))
    seen = strokes & (np.abs(written - before) > 40)
    assert seen.sum() > 0.3 * strokes.sum()
    assert writing(drawn)[seen].mean() > 0.95
    left = np.abs(np.asarray(clean(drawn).image) - before)[seen]
    assert left.mean() < 0.25 * np.abs(written - before)[seen].mean(), "what is there now is like what was there before"


def test_the_object_that_leaves_holds_the_cleaned_picture(tmp_path):
    drawn, strokes = write_on(chest(1), "OKAFOR 4711", (8, 8), 12, 255)
    made = released(write(tmp_path / "a.dcm", np.asarray(drawn)), require=gate).data
    left = np.frombuffer(made.PixelData, np.uint8).reshape(made.Rows, made.Columns)
    assert left[strokes].mean() < 60 < 200 < np.asarray(drawn)[strokes].mean()


def test_a_picture_full_of_writing_is_not_released(tmp_path):
    image = chest(2)
    draw = ImageDraw.Draw(image)
    for row in range(4, 400, 16):
        draw.text((2, row), "OKAFOR 4711 " * 9, fill=255)
    assert writing(image).mean() > MOST
    with pytest.raises(Refused, match="text_over_lungs"):
        clean(image)


def test_what_the_gate_refuses_is_not_released(tmp_path):
    upside_down = write(tmp_path / "a.dcm", CHEST[::-1].copy())
    with pytest.raises(Refused, match="upside_down"):
        released(upside_down, require=gate)
    with pytest.raises(Refused, match="lateral"):
        released(write(tmp_path / "b.dcm", ViewPosition="LL"), require=gate)
    (tmp_path / "c.dcm").write_bytes(b"no picture")
    with pytest.raises(Unreadable):
        released(tmp_path / "c.dcm", require=gate)


def test_what_the_gate_refuses_after_cleaning_is_not_released_either(tmp_path):
    drawn, strokes = write_on(chest(1), "OKAFOR 4711", (8, 8), 12, 255)
    source = write(tmp_path / "a.dcm", np.asarray(drawn))

    def without_writing(image, headers):
        if np.asarray(image)[strokes].mean() < 100:
            raise Refused("inverted")

    with pytest.raises(Refused, match="inverted"):
        released(source, require=without_writing)


def test_the_command_writes_what_may_leave_and_names_no_file_that_may_not(tmp_path):
    set_up(tmp_path / "home", "clinic-1", "Clinic", "mqtt://127.0.0.1:1")
    key = load_site_key(tmp_path / "home" / "site.key")
    device = Device(tmp_path / "home" / "state")
    for patient in ("K-1", f"{CANARY} 17"):  # corrected at the console
        outcome, _ = device.take(write(tmp_path / "Lovelace.dcm", PatientID=patient), key)
    device.outbox.close()
    write(tmp_path / "Okafor.dcm", ViewPosition="LL")
    command = [sys.executable, "-m", "edge.cli", "deidentify", "--config", tmp_path / "home" / "device.toml", tmp_path / "out"]
    done = subprocess.run(
        [*command, tmp_path / "Adeyemi.dcm", tmp_path, tmp_path / "Lovelace.dcm", tmp_path / "Okafor.dcm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "1: not released. The system says: No such file or directory." in done.stdout
    assert "2: not released. The system says: Is a directory." in done.stdout
    assert "4: not released. This is a view from the side." in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Look at every picture")
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == f"{new_uid(outcome.source_key)}.dcm"
    assert pydicom.dcmread(written).PatientIdentityRemoved == "YES"
    assert not any(name in done.stdout + done.stderr for name in ("Lovelace", "Adeyemi"))
