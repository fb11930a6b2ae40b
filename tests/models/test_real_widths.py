"""Models at the widths of the published ones, with random weights, from files of their layout to a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from emoedit.editors import load_editor
from emoedit.models.pretrained import TABLE
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, StyleGAN2Config
from emoedit.models.stylegan2.network import widths
from emoedit.steering.hspace import ShiftBlock
from emoedit.types import Control, Edit, Inversion
from tests.fixtures.stable_diffusion import smooth
from tests.fixtures.style_encoder import as_rosinality

pytestmark = pytest.mark.slow
CELEBAHQ = {  # google/ddpm-ema-celebahq-256, entry for entry
    "_class_name": "UNet2DModel",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "center_input_sample": False,
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}
SCHEDULER = {"_class_name": "DDPMScheduler", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001}


def test_celebahq_with_one_of_asyrps_files(tmp_path):
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(**{name: value for name, value in CELEBAHQ.items() if name[0] != "_"})
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(TABLE["celebahq"].parameters * 1e6, rel=1e-3)
    save_file(unet.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CELEBAHQ))
    (tmp_path / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, "num_train_timesteps": 1000}))
    del unet
    block = ShiftBlock(512, 512)  # the shape of every published file
    file: Path = tmp_path / "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
    torch.save({"0": block.state_dict()}, file)
    how = {"steps": 2, "t_boost": 0, "t_edit": 500, "device": "cpu", "precision": "float32"}
    editor = load_editor("celebahq", model=tmp_path, shifts={"happy": file}, **how)
    assert editor.backbone.h_shape == (512, 8, 8) and editor.backbone.crop.resolution == 256
    x = smooth(1, 3, 256)
    (happy,) = editor.edit(editor.invert(x), [Edit("happy")])
    assert happy.shape == x.shape and bool(happy.isfinite().all()) and not torch.equal(happy, x)


def test_stylegan2_of_1024_px(tmp_path):
    config = {"resolution": 1024, "channels": 3, "widths": widths(1024), "z_dim": 512, "w_dim": 512}
    generator = StyleGAN2Backbone(
        StyleGAN2Config(**config, mapping_layers=8, encoder_widths=None, optimise_steps=1)
    ).requires_grad_(False)
    expected = TABLE["stylegan2"].parameters * 1e6
    assert sum(p.numel() for p in generator.parameters()) == pytest.approx(expected, rel=0.01)
    torch.save({"g_ema": as_rosinality(generator), "latent_avg": torch.zeros(512)}, tmp_path / "ffhq.pt")
    boundary = tmp_path / "smile.pt"
    torch.save(torch.eye(512)[:1], boundary)
    editor = load_editor("stylegan2", model=tmp_path / "ffhq.pt", boundaries={"happy": boundary}, layers=(4, 8))
    w_plus = editor.backbone.latents(torch.Generator().manual_seed(0), 1)
    inversion = Inversion(w_plus, {"mean": torch.zeros(1, 1, 1, 1), "gain": torch.ones(1, 1, 1, 1)})
    control = editor.control(inversion, [Edit("happy")])
    assert control.shift is not None and control.shift.shape == (1, 18, 512)
    drawn = [editor.backbone.decode(inversion, each) for each in (Control(), control)]
    assert drawn[0].shape == (1, 3, 1024, 1024) and not torch.equal(*drawn)
