from dataclasses import asdict

import numpy as np
from lesionmap.stain.profile import StainProfile, optical_density, palette
from stained import HE, profile


def test_the_palette_goes_from_none_to_the_p99_of_each_stain():
    colours = palette(profile(HE, p99=(1.5, 1.2)))
    assert (colours.shape, colours.dtype) == ((512, 512, 3), np.uint8)
    assert colours[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(colours[511, 0], np.rint(255 * np.exp(-1.5 * HE[0])))
    np.testing.assert_array_equal(colours[0, 511], np.rint(255 * np.exp(-1.2 * HE[1])))
    np.testing.assert_array_equal(colours[511, 511], np.rint(255 * np.exp(-1.5 * HE[0] - 1.2 * HE[1])))


def test_optical_density_is_natural_and_has_a_floor():
    found = optical_density(np.array([[255, 254, 1], [0, 128, 255]], dtype=np.uint8))
    expected = [[1e-6, np.log(255 / 254), np.log(255)], [np.log(255), np.log(255 / 128), 1e-6]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_optical_density_is_relative_to_the_white_point_of_each_channel():
    found = optical_density(np.array([[100, 100, 100], [189, 200, 186]], dtype=np.uint8), (189.0, 188.0, 186.0))
    np.testing.assert_allclose(found, [np.log([1.89, 1.88, 1.86]), [1e-6] * 3], rtol=1e-12)


def test_profiles_of_earlier_versions_were_measured_from_255():
    record = asdict(profile(HE))
    del record["white_point"]
    assert StainProfile.of(record) == profile(HE, white_point=(255.0, 255.0, 255.0))
