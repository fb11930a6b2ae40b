"""An emotion of one's own from Python: a word, a shift of h, a direction, each as an editor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emoedit.editors import Editor, load_editor
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.training.fit import fit_direction, fit_shift
from emoedit.training.loop import TrainerConfig
from emoedit.training.tokens import TokenConfig, learn_token
from emoedit.types import Edit
from tests.fixtures.editors import tiny_asyrp
from tests.fixtures.stable_diffusion import smooth, write_model
from tests.fixtures.style_encoder import write_encoder
from tests.fixtures.stylegan2 import tiny as tiny_stylegan

pytestmark = pytest.mark.filterwarnings("ignore:only 2 pictures")


def changes(editor: Editor, x: torch.Tensor) -> bool:
    (found,) = editor.edit(editor.invert(x), [Edit("smirk")])
    return bool(found.isfinite().all()) and not torch.equal(found, x)


def test_a_shift_of_a_ddpm(tmp_path):
    tiny_asyrp(1, channels=3, std=None).backbone.save_pretrained(tmp_path)
    backbone = DDPMBackbone.load(tmp_path).with_sampling(t_edit=100, t_boost=0)
    side = backbone.crop.resolution
    shift = fit_shift(backbone, "smirk", smooth(2, 3, side), smooth(2, 3, side).flip(-1))
    assert changes(Editor(backbone, [shift]), smooth(1, 3, side))


def test_a_direction_of_a_stylegan_that_an_encoder_reads(tmp_path):
    generator = tiny_stylegan(resolution=32, widths=(8,) * 4, channels=3, encoder_widths=None, optimise_steps=1)
    backbone = StyleGAN2Backbone.load(write_encoder(tmp_path / "e4e_ffhq_encode.pt", "e4e", generator))
    direction = fit_direction(backbone, "smirk", smooth(2, 3, 32), smooth(2, 3, 32).flip(-1))
    assert changes(Editor(backbone, [direction]), smooth(1, 3, 32))


def test_a_word_of_a_stable_diffusion(tmp_path):
    pytest.importorskip("accelerate")
    model: Path = write_model(tmp_path / "sd")
    backbone = StableDiffusionBackbone.load(model).eval().requires_grad_(False)
    how = TrainerConfig(1, warmup=1, precision="no", save_every=1)
    learn_token(backbone, smooth(2, 3, 64), TokenConfig("smirk", "happy"), tmp_path / "word", how)
    editor = load_editor("sd15", model=model, tokens={"smirk": tmp_path / "word"}, device="cpu", steps=2)
    assert changes(editor, smooth(1, 3, 64))
