from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edge.pixels.decode import Decoded
from edge.pixels.preprocess import preprocess, to_image
from edge.pixels.quality import check_quality
from export.phantom import Opacity, phantom, random_opacities


def test_same_seed_same_bytes_and_other_seed_others():
    assert np.array_equal(phantom(3), phantom(3))
    assert not np.array_equal(phantom(3), phantom(4))


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (300, 500), (640, 480)])
def test_it_has_the_asked_size_and_passes_the_quality_gate(width, height):
    picture = phantom(5, width=width, height=height)
    assert picture.shape == (height, width)
    assert picture.dtype == np.uint8
    check_quality(Decoded(to_image(picture)))


def test_lungs_are_darker_than_the_spine_and_air_is_darkest():
    picture = preprocess(phantom(7, width=768, height=768)).astype(int)
    lung = np.mean([picture[80:110, 45:60].mean(), picture[80:110, 132:147].mean()])
    spine, air = picture[80:110, 94:99].mean(), picture[2:12, 2:12].mean()
    assert air < lung - 20 < spine - 60


def test_an_opacity_brightens_the_lung_where_it_is_and_hardly_elsewhere():
    clear = phantom(8, width=512, height=512).astype(int)
    shadow = phantom(8, width=512, height=512, opacity=(Opacity(0.3, 0.5, 0.06, 1.0),)).astype(int)
    change = shadow - clear
    assert change[246:266, 144:164].mean() > 20
    assert abs(change[246:266, 360:380].mean()) < 5


def test_random_opacities_are_a_function_of_the_seed():
    assert random_opacities(1, 4) == random_opacities(1, 4)
    assert len(random_opacities(1, 4)) == 4
    assert random_opacities(1, 4) != random_opacities(2, 4)


def test_a_picture_too_small_to_show_anything_is_refused():
    with pytest.raises(ValueError, match="16 pixels"):
        phantom(1, width=8)


def test_phantoms_and_the_command_line_need_no_tensorflow():
    heavy = "('tensorflow', 'tf_keras', 'sklearn')"
    code = f"import sys, export.phantom, export.cli; sys.exit(any(m.split('.')[0] in {heavy} for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
