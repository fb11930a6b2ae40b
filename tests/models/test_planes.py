"""Crops as planes: nothing of luminance is lost, and of colour what eyes do not see."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from emoedit.models.luminance import in_luminance
from emoedit.models.planes import from_planes, plane_count, to_planes


@pytest.mark.parametrize(("channels", "patch"), [(1, 2), (3, 1), (3, 2)])
def test_without_colour_planes_are_the_pixels_in_another_order(channels, patch):
    x = torch.randn(2, channels, 8, 8)
    planes = to_planes(x, patch)
    assert planes.shape == (2, plane_count(patch, None, channels), 8 // patch, 8 // patch)
    assert torch.equal(planes, F.pixel_unshuffle(x, patch))
    assert torch.equal(from_planes(planes, patch), x)


def test_planes_of_colour_lose_nothing_of_luminance_nor_of_colour_without_detail():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    planes = to_planes(x, 2, 4.0)
    assert planes.shape == (2, 6, 8, 8) and plane_count(2, 4.0) == 6
    drawn = from_planes(planes, 2, 4.0)
    torch.testing.assert_close(in_luminance(drawn), in_luminance(x), atol=1e-5, rtol=0)
    assert float((drawn - x).abs().max()) > 0.1  # colour between pixels is gone
    even = in_luminance(x) + torch.tensor([0.3, -0.1, 0.2])[:, None, None]  # one colour all over
    torch.testing.assert_close(from_planes(to_planes(even, 2, 4.0), 2, 4.0), even, atol=1e-5, rtol=0)


def test_grey_pictures_have_empty_planes_of_colour():
    grey = torch.randn(2, 1, 8, 8).expand(-1, 3, -1, -1)
    planes = to_planes(grey, 2, 4.0)
    assert float(planes[:, 4:].abs().max()) < 1e-5
    torch.testing.assert_close(planes[:, :4], F.pixel_unshuffle(grey[:, :1], 2))


def test_the_factor_scales_the_planes_of_colour_alone():
    x = torch.randn(1, 3, 8, 8)
    one, four = to_planes(x, 2, 1.0), to_planes(x, 2, 4.0)
    assert torch.equal(one[:, :4], four[:, :4])
    torch.testing.assert_close(one[:, 4:] * 4, four[:, 4:])
