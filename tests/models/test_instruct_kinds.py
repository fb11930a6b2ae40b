"""Every kind of image-editing pipeline that ``instruct`` names, as its own class runs it, at tiny widths."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import diffusers
import pytest
import torch

from emoedit.editors import load_editor
from emoedit.models.identify import folder as kind_of
from emoedit.models.instruct.pipelines import KINDS
from emoedit.types import Edit
from tests.fixtures.instruct import write_klein, write_kontext, write_pix2pix_xl, write_qwen
from tests.fixtures.stable_diffusion import smooth

QWEN = ("QwenImageEditPipeline", "QwenImageEditPlusPipeline")
WRITERS = {
    "StableDiffusionXLInstructPix2PixPipeline": write_pix2pix_xl,
    "FluxKontextPipeline": write_kontext,
    "Flux2KleinPipeline": write_klein,
    **{kind: lambda folder, kind=kind: write_qwen(folder, kind) for kind in QWEN},
}
OTHERS = {"StableDiffusionInstructPix2PixPipeline", "StableDiffusion3Img2ImgPipeline"}  # tests/models/test_instruct.py


def test_every_kind_is_run():
    assert {*WRITERS, *OTHERS} == set(KINDS)


def small_inside(monkeypatch) -> None:
    """Qwen's pipelines draw pictures of a million pixels beside the one that is asked for: minutes on a CPU."""
    for name in ("pipeline_qwenimage_edit", "pipeline_qwenimage_edit_plus"):
        module = import_module(f"diffusers.pipelines.qwenimage.{name}")
        real = module.calculate_dimensions
        monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio, real=real: real(64 * 64, ratio))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_pipeline_edits_a_picture(kind, tmp_path, monkeypatch):
    if not hasattr(diffusers, kind):
        pytest.skip(f"diffusers {diffusers.__version__} has no {kind}")
    small_inside(monkeypatch)
    folder: Path = WRITERS[kind](tmp_path)
    assert kind_of(folder) == "instruct"
    editor = load_editor("instruct", model=folder, steps=2, resolution=64, device="cpu", precision="float32")
    assert editor.backbone.config.kind == kind
    x = smooth(1, 3, 64)
    inversion = editor.invert(x, generator=torch.Generator().manual_seed(3))
    still, happy, weak, again = editor.edit(
        inversion, [Edit("happy", 0), Edit("happy"), Edit("happy", 0.5), Edit("happy")]
    )
    assert torch.equal(still, x) and torch.equal(happy, again)
    for picture in (happy, weak):
        assert picture.shape == x.shape and bool(picture.isfinite().all()) and not torch.equal(picture, x)
    if KINDS[kind].strength == "mixing":
        torch.testing.assert_close(weak - x, 0.5 * (happy - x), atol=1e-5, rtol=0)
    else:
        assert not torch.equal(weak, happy)
