"""What notebooks show of results."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from emoedit.editors import Editor
from emoedit.evaluation.compare import Comparison
from emoedit.io.images import Original, load_picture
from emoedit.models.vae.backbone import VAEBackbone, VAEConfig
from emoedit.photo import PhotoEdit
from emoedit.report import display
from emoedit.steering.directions import LatentDirections
from emoedit.types import Edit, Inversion


@pytest.fixture(scope="module")
def editor() -> Editor:
    torch.manual_seed(0)
    backbone = VAEBackbone(VAEConfig(resolution=32, widths=(8, 16), latent_dim=8))
    return Editor(backbone, [LatentDirections(("neutral", "happy"), torch.randn(2, 8))], name="tiny<1>")


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return image.size


@pytest.mark.parametrize("kind", ["pil", "pt"])
def test_crops_are_shown_as_a_labelled_picture(editor, kind) -> None:
    output = editor(torch.zeros(2, 1, 32, 32), ["happy", "neutral"], output_type=kind)
    width, height = size(output._repr_png_())
    assert width > 4 * 100 and height > 100


def test_an_inversion_shows_source_and_reconstruction_and_no_numbers(editor) -> None:
    inversion = editor.invert(torch.rand(1, 1, 32, 32) - 0.5)
    page = inversion._repr_html_()
    assert "data:image/png;base64," in page and "(1, 8)" in page and "tensor(" not in page
    assert "<img" not in Inversion(torch.zeros(3, 4))._repr_html_()


def test_an_editor_says_what_it_is_made_of_and_names_are_escaped(editor) -> None:
    page = editor._repr_html_()
    assert "tiny&lt;1&gt;" in page and "VAEBackbone" in page and "32 px, luminance" in page and "neutral, happy" in page


def test_a_photograph_beside_its_edit() -> None:
    photo = Image.new("RGBA", (64, 48), (255, 0, 0, 128))
    width, height = size(display.photo_edit_png(photo, photo, Edit("happy", 0.5)))
    assert width > height


def test_a_notebook_shows_an_edited_photograph_beside_its_source() -> None:
    before, after = Image.new("RGB", (64, 64), (255, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 255))
    edit = PhotoEdit(after, Original(load_picture(before)), (), Edit("happy", 0.5), "tiny", 0, 0.0)
    shown = np.asarray(Image.open(io.BytesIO(edit._repr_png_())).convert("RGB"), int)
    left, right = np.array_split(shown, 2, axis=1)
    assert ((left == (255, 0, 0)).all(-1)).any() and not ((left == (0, 0, 255)).all(-1)).any()
    assert ((right == (0, 0, 255)).all(-1)).any() and not ((right == (255, 0, 0)).all(-1)).any()


def test_a_comparison_shows_pictures_and_numbers() -> None:
    row = {"editor": "a<b", "emotion": "happy", "strength": 1.0, "target_score": 0.5, "identity": 0.25, "error": None}
    failed = {**row, "target_score": None, "error": "no <face>"}
    picture = Image.new("RGB", (32, 32))
    page = Comparison("me", [row, failed], [picture, None], picture)._repr_html_()
    assert "a&lt;b" in page and "0.25" in page and "no &lt;face&gt;" in page and "<b" not in page.replace("<body", "")


def test_a_screen_is_given_srgb_without_profile_or_transparency() -> None:
    wide = Image.new("RGB", (4, 4), (0, 255, 0))
    wide.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "icc_profile" not in display.to_srgb(wide).info
    clear = display.to_srgb(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert clear.mode == "RGB" and np.asarray(clear).min() == 255
    wide.info["icc_profile"] = b"damaged"
    with pytest.warns(UserWarning, match="profile"):
        display.to_srgb(wide)
