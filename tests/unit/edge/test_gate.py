"""What is no frontal chest radiograph, the right way up, is refused with a reason and travels as a refusal."""

import hashlib
import shutil
from contextlib import closing
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from pydicom.dataset import Dataset

from edge.commands.classify_files import classify_files
from edge.config import Decode
from edge.contract.reasons import REASONS
from edge.errors import BundleError, Refused
from edge.network.bundle import load_bundle
from edge.network.classify import Scores
from edge.network.gate import GOOD, Gate, check_headers, read_weights
from edge.network.manifest import SHIPPED, read_manifest
from edge.pixels.decoder import Decoder
from edge.pixels.headers import Headers, read_headers
from edge.pixels.network_input import INPUT_SIDE
from edge.pixels.preprocess import preprocess_image
from export.phantom import phantom

BUNDLE = load_bundle()


class Says:
    """A graph that gives the same logits for every picture."""

    input_side = INPUT_SIDE

    def __init__(self, *logits):
        self.classes = len(logits)
        self._scores = Scores(np.array(logits, np.float32), (), np.empty((0, 0, 0), np.float32), np.empty(0, np.float32))

    def run(self, picture):
        return self._scores


PICTURE = np.zeros((INPUT_SIDE, INPUT_SIDE), np.uint8)
NOTHING = np.zeros((3, 3), np.float32)
REFUSABLE = (GOOD, "blurred", "inverted")


def gate(*logits, weights=NOTHING, limit=0.5):
    return Gate(Says(*logits), weights, REFUSABLE, limit)


def test_the_likeliest_wrong_reason_is_named():
    gate(5, 0, 1).check(PICTURE, np.zeros(2, np.float32))
    for logits, reason in (((0, 1, 3), "inverted"), ((0, 3, 1), "blurred")):
        with pytest.raises(Refused) as refused:
            gate(*logits).check(PICTURE, np.zeros(2, np.float32))
        assert refused.value.reason == reason


def test_the_limit_alone_decides_even_where_good_is_not_the_likeliest():
    logits = np.log([0.3, 0.6, 0.1])
    gate(*logits, limit=0.29).check(PICTURE, np.zeros(2, np.float32))
    with pytest.raises(Refused):
        gate(*logits, limit=0.31).check(PICTURE, np.zeros(2, np.float32))


def test_traits_and_bias_count():
    weights = np.array([[0, 0, 0], [0, 4, 0], [0, 0, 0]], np.float32)
    gate(2, 0, 0, weights=weights).check(PICTURE, np.array([9, 0], np.float32))
    with pytest.raises(Refused, match="blurred"):
        gate(2, 0, 0, weights=weights).check(PICTURE, np.array([0, 1], np.float32))
    weights = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 9]], np.float32)
    with pytest.raises(Refused, match="inverted"):
        gate(2, 0, 0, weights=weights).check(PICTURE, np.zeros(2, np.float32))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_its_decision_is_a_function_of_pixels_and_traits(seed):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (INPUT_SIDE, INPUT_SIDE), dtype=np.uint8)
    traits = rng.normal(0, 3, BUNDLE.classifier.traits).astype(np.float32)
    first = BUNDLE.gate.chances(picture, traits)
    BUNDLE.gate.chances(255 - picture, -traits)  # what was looked at before leaves nothing behind
    assert np.array_equal(first, BUNDLE.gate.chances(picture.copy(), traits.copy()))
    assert first.sum() == pytest.approx(1)
    assert len(first) == len(BUNDLE.gate.reasons)


def test_every_reason_tells_a_person_what_to_do():
    assert set(BUNDLE.gate.reasons[1:]) | {"lateral", "too_young"} <= set(REASONS)


def drawn(seed=700):
    return Image.fromarray(phantom(seed, width=512, height=512))


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("on_its_side", lambda image: image.transpose(Image.Transpose.ROTATE_90)),
        ("on_its_side", lambda image: image.transpose(Image.Transpose.ROTATE_270)),
        ("upside_down", lambda image: image.transpose(Image.Transpose.ROTATE_180)),
        ("inverted", ImageOps.invert),
        ("blurred", lambda image: image.filter(ImageFilter.GaussianBlur(14))),
        ("cut_off", lambda image: image.crop((0, 0, 220, 512))),
    ],
)
def test_the_shipped_gate_lets_a_drawn_chest_pass_and_refuses_it_spoilt(reason, change):
    named = []
    for seed in range(700, 706):
        BUNDLE.scores(np.asarray(preprocess_image(drawn(seed))))
        with pytest.raises(Refused) as refused:
            BUNDLE.scores(np.asarray(preprocess_image(change(drawn(seed)))))
        named.append(refused.value.reason)
    assert named.count(reason) >= 4


def test_a_refusal_is_what_a_person_at_the_command_line_reads(tmp_path):
    drawn().save(tmp_path / "good.png")
    drawn().transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png")
    with closing(Decoder(Decode())) as decoder:
        good, turned = classify_files([tmp_path / "good.png", tmp_path / "turned.png"], decoder, None, None)
    assert good.status == "ok"
    assert (turned.status, turned.reasons, turned.probabilities) == ("refused", ["upside_down"], {})


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (Headers(view="LATERAL"), "lateral"),
        (Headers(view="PA", age_years=17), "too_young"),
        (Headers(view="AP", age_years=18), None),
        (Headers(), None),
    ],
)
def test_what_the_header_says_is_looked_at_before_the_network(headers, reason):
    if reason is None:
        check_headers(headers, 18)
        return
    with pytest.raises(Refused, match=reason):
        check_headers(headers, 18)
    with pytest.raises(Refused, match=reason):
        replace(BUNDLE, gate=None).scores(PICTURE, headers)


def test_a_network_that_has_learned_from_children_answers_them():
    check_headers(Headers(age_years=3), 0)


@pytest.mark.parametrize("position", ["LL", "RL", "LATERAL", "LAT"])
def test_a_lateral_view_is_known_by_its_position(position):
    data = Dataset()
    data.ViewPosition = position
    with pytest.raises(Refused, match="lateral"):
        check_headers(read_headers(data), 0)


def test_or_by_the_code_of_its_view():
    for code, view in (("399198007", "LATERAL"), ("R-10214", "PA"), ("1", "OTHER")):
        data, item = Dataset(), Dataset()
        item.CodeValue = code
        data.ViewCodeSequence = [item]
        assert read_headers(data).view == view
        data.ViewPosition = "AP"
        assert read_headers(data).view == "AP"
    data = Dataset()
    data.ViewCodeSequence = []
    assert read_headers(data).view is None


def test_the_shipped_network_knows_adults_only():
    assert BUNDLE.manifest.minimum_age == 18


@pytest.fixture
def bundle(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "bundle")
    return tmp_path / "bundle"


def change_gate(bundle, **changes):
    manifest = read_manifest(bundle)
    gate = msgspec.convert(msgspec.to_builtins(manifest.gate) | changes, type(manifest.gate))
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, gate=gate)))


@pytest.mark.parametrize("name", ["gate.tflite", "gate.f32", "gate.json"])
def test_a_damaged_gate_is_refused(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is not the file that its manifest names"):
        load_bundle(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read"):
        load_bundle(bundle)


def test_a_gate_that_computes_something_else_is_refused_by_its_golden_inputs(bundle):
    golden = msgspec.to_builtins(read_manifest(bundle).gate.golden)
    for row in golden:
        for steps in row["scores"].values():
            steps[0] += 3 if steps[0] < 0 else -3
    change_gate(bundle, golden=golden)
    with pytest.raises(BundleError, match=r"quality gate in [^ ]+ gives .* computes differently"):
        load_bundle(bundle)


def test_a_gate_of_another_network_is_refused(bundle):
    reasons = list(BUNDLE.gate.reasons)
    change_gate(bundle, reasons=reasons[1:] + reasons[:1])
    with pytest.raises(BundleError, match="does not fit its manifest"):
        load_bundle(bundle)
    weights = np.zeros((len(reasons), 4), "<f4").tobytes()
    (bundle / "gate.f32").write_bytes(weights)
    change_gate(bundle, reasons=reasons, weights_sha256=hashlib.sha256(weights).hexdigest())
    with pytest.raises(BundleError, match="not of the expected kind"):
        load_bundle(bundle)
    with pytest.raises(BundleError, match="not of the expected kind"):
        read_weights(np.full((3, 3), np.nan, "<f4").tobytes(), 3, 2)


def test_a_bundle_without_a_gate_still_answers(bundle):
    manifest = read_manifest(bundle)
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, gate=None)))
    upside_down = np.asarray(preprocess_image(drawn().transpose(Image.Transpose.ROTATE_180)))
    assert load_bundle(bundle).decide(upside_down).label in manifest.classes
