import numpy as np

from cisi_runtime.codec import decode_pixels, encode_pixels, levels

ALL_LEVELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)


def test_every_grey_level_survives_the_round_trip() -> None:
    decoded = decode_pixels(ALL_LEVELS)
    assert decoded.shape == (1, 3, 16, 16)
    assert decoded.dtype == np.float32
    assert (decoded.min(), decoded.max()) == (-1.0, 1.0)
    assert np.array_equal(encode_pixels(decoded), ALL_LEVELS)


def test_truncation_would_change_63_levels() -> None:
    truncated = levels(decode_pixels(ALL_LEVELS)).astype(np.uint8)
    assert (np.moveaxis(truncated, 1, 3) != ALL_LEVELS)[..., 0].sum() == 63


def test_half_goes_to_even_and_out_of_range_is_clipped() -> None:
    half_levels = np.array([0.5, 1.5, 2.5, 253.5], dtype=np.float64) / 127.5 - 1.0
    values = np.concatenate([half_levels, [-7.0, 7.0]]).reshape(1, 1, 6)
    exact = levels(values)[0, 0]
    assert encode_pixels(values)[0, :, 0].tolist() == np.rint(exact).astype(int).tolist()
    assert np.rint([0.5, 1.5, 2.5]).tolist() == [0, 2, 2]
    assert encode_pixels(values)[0, -2:, 0].tolist() == [0, 255]
