"""Editors from published files: each kind, from small files of the same layout, and what is missing is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from emoedit.models import pretrained as full_size
from emoedit.steering.hspace import ShiftBlock
from emoedit.steering.tokens import write_embedding
from emoedit.types import CheckpointError, Edit, EditError
from tests.fixtures.editors import tiny_asyrp
from tests.fixtures.faceflex import LATENT, numbers, weights
from tests.fixtures.stable_diffusion import SMALL_TEXT, write_model
from tests.fixtures.stylegan2 import tiny as tiny_stylegan


def works(editor, emotion: str) -> None:
    """It changes a crop, and strength 0 does not."""
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    x = torch.nn.functional.interpolate(numbers(5, 1, channels, 4, 4).clamp(-0.8, 0.8), (side, side), mode="bilinear")
    inversion = editor.invert(x)
    still, changed = editor.edit(inversion, [Edit(emotion, 0), Edit(emotion)])
    assert torch.equal(still, x) and bool(changed.isfinite().all()) and not torch.equal(changed, x)


def test_asyrp(tmp_path):
    backbone = tiny_asyrp().backbone
    backbone.save_pretrained(tmp_path)
    file = tmp_path / "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
    block = ShiftBlock(*(backbone.h_shape[0], backbone.temb_dim))
    torch.save({"0": block.state_dict()}, file)
    editor = full_size.asyrp({"happy": file}, backbone=str(tmp_path), steps=4)
    assert editor.emotions == ("happy",) and editor.steerings[0].train_steps == 40 and editor.backbone.steps == 4
    works(editor, "happy")
    with pytest.raises(CheckpointError, match="none_ngen40_.pth"):
        full_size.asyrp({"happy": tmp_path / "none_ngen40_.pth"}, backbone=str(tmp_path))


def test_textual_inversion(tmp_path):
    write_model(tmp_path / "sd")
    file = tmp_path / "learned_embeds.safetensors"
    write_embedding(file, "<irritated>", numbers(3, 1, SMALL_TEXT["hidden_size"]))
    how = {"backbone": str(tmp_path / "sd"), "steps": 3, "t_last": 500}
    editor = full_size.textual_inversion({"irritated": file}, **how)
    assert editor.emotions == ("irritated",) and editor.backbone.steps == 3
    with pytest.raises(CheckpointError, match="none.safetensors"):
        full_size.textual_inversion({"irritated": tmp_path / "none.safetensors"}, **how)


def test_stylegan(tmp_path):
    model = tiny_stylegan()
    model.save_pretrained(tmp_path)
    layers, width = model.latent_shape
    normal = numbers(3, 1, width)
    np.save(tmp_path / "smile.npy", (normal / normal.norm()).numpy())
    files = {"happy": tmp_path / "smile.npy"}
    editor = full_size.stylegan(str(tmp_path), files, gains={"happy": 3.0}, layers=[0, 2])
    works(editor, "happy")
    directions = editor.steerings[0].directions.view(layers, width)
    assert bool(directions[:2].any()) and not bool(directions[2:].any())
    with pytest.raises(EditError, match="no gain for happy"):
        full_size.stylegan(str(tmp_path), files, gains={})
    with pytest.raises(CheckpointError, match="none.npy"):
        full_size.stylegan(str(tmp_path), {"happy": tmp_path / "none.npy"}, gains={"happy": 1.0})


def test_face_flex(tmp_path):
    torch.save(weights(), tmp_path / "weights.pth")
    save_file({"pos": numbers(1, 2, LATENT), "neg": numbers(2, 2, LATENT)}, tmp_path / "Smiling.safetensors")
    editor = full_size.face_flex(str(tmp_path / "weights.pth"), {"happy": tmp_path / "Smiling.safetensors"})
    works(editor, "happy")
    with pytest.raises(CheckpointError, match="none.pth"):
        full_size.face_flex(str(tmp_path / "none.pth"), {"happy": tmp_path / "Smiling.safetensors"})
