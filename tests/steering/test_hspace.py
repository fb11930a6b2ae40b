"""Shifts of h: the fitted block, directions in closed form, their files, and what they do to pictures."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.editors import Editor
from emoedit.io import checkpoints
from emoedit.models.ddpm.backbone import DDPMBackbone, DDPMConfig
from emoedit.steering.hspace import AdaptedDirections, Directions, HSpace, ShiftBlock
from emoedit.types import CheckpointError, Edit, EditError, HState, Inversion, UnknownNameError

CHANNELS, SIDE, TEMB = 16, 8, 32


@pytest.fixture(scope="module")
def backbone() -> DDPMBackbone:
    torch.manual_seed(0)
    unet = {
        "sample_size": 16,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
    }
    config = DDPMConfig(unet=unet, steps=6, t_last=600, t_edit=300, t_boost=0)
    return DDPMBackbone(config).eval().requires_grad_(False)


def state(count: int = 2, t: int = 500) -> HState:
    generator = torch.Generator().manual_seed(3)
    h = torch.randn(count, CHANNELS, SIDE, SIDE, generator=generator)
    temb = torch.randn(1, TEMB, generator=generator).expand(count, -1)
    return HState(torch.zeros(count, 1, 16, 16), torch.full((count,), t), h, temb)


def steering(**kwargs) -> HSpace:
    """One fitted block, directions at three timesteps, one direction for all."""
    torch.manual_seed(1)
    shifts = [
        ShiftBlock(CHANNELS, TEMB),
        Directions(torch.randn(3, CHANNELS, SIDE, SIDE), (300, 400, 600)),
        Directions(torch.randn(1, CHANNELS)),
    ]
    return HSpace(("happy", "sad", "angry"), shifts, **{"train_steps": 6, **kwargs}).eval()


@torch.no_grad()
def shift(model: HSpace, backbone, at: HState, *edits: Edit) -> Tensor:
    return model.control(backbone, Inversion(torch.zeros(len(edits), 1)), edits).delta_h(at)


def test_the_block_is_asyrps():
    """f_t written once more, from the paper."""
    block, at = ShiftBlock(64, TEMB), state()
    at.h = torch.randn(2, 64, 4, 4)
    hidden = torch.einsum("oi,nihw->nohw", block.conv1.weight[:, :, 0, 0], at.h) + block.conv1.bias[:, None, None]
    silu = at.temb * torch.sigmoid(at.temb)
    hidden = hidden + (silu @ block.temb_proj.weight.T + block.temb_proj.bias)[:, :, None, None]
    groups = hidden.view(2, 32, 2, 4, 4)
    mean, variance = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), keepdim=True, unbiased=False)
    hidden = ((groups - mean) / (variance + 1e-6).sqrt()).view_as(at.h)
    truth = torch.einsum("oi,nihw->nohw", block.conv2.weight[:, :, 0, 0], hidden * torch.sigmoid(hidden))
    torch.testing.assert_close(block(at), truth + block.conv2.bias[:, None, None], atol=1e-5, rtol=1e-4)


def test_directions_are_linear_between_timesteps_and_constant_beyond():
    values = torch.randn(3, CHANNELS, SIDE, SIDE)
    directions = Directions(values, (100, 300, 900))
    for t, expected in (
        (0, values[0]),
        (100, values[0]),
        (150, 0.75 * values[0] + 0.25 * values[1]),
        (300, values[1]),
        (600, 0.5 * values[1] + 0.5 * values[2]),
        (999, values[2]),
    ):
        torch.testing.assert_close(directions(state(2, t)), expected.expand(2, -1, -1, -1))
    everywhere = Directions(values[:1, :, 0, 0])
    assert torch.equal(everywhere(state(2, 7)), values[:1, :, :1, :1].expand(2, -1, -1, -1))
    for bad in (
        (values, (100, 300)),
        (values, (300, 100, 900)),
        (values, (100, 100, 900)),
        (values[0, 0], (0,) * SIDE),
        (values, (0,)),
    ):
        with pytest.raises(CheckpointError, match="ascending"):
            Directions(*bad)


def test_adapted_directions_start_as_the_directions_and_add_what_the_block_sees(backbone, tmp_path):
    torch.manual_seed(4)
    directions = Directions(torch.randn(3, CHANNELS, SIDE, SIDE), (300, 400, 600))
    adapted, at = AdaptedDirections.starting_from(directions, channels=CHANNELS, temb_dim=TEMB), state()
    assert torch.equal(adapted(at), directions(at))
    adapted(at).square().sum().backward()
    assert float(adapted.block.conv2.weight.grad.abs().sum()) > 0  # it can learn from the first step on
    torch.nn.init.normal_(adapted.block.conv2.weight)
    torch.testing.assert_close(adapted(at), directions(at) + adapted.block(at))
    assert not torch.allclose(*(adapted(at) - directions(at)))  # another picture, another shift

    model = HSpace(["happy", "sad"], [adapted, directions], train_steps=6).eval()
    model.save_pretrained(tmp_path)
    again = HSpace.from_pretrained(tmp_path)
    for edit in (Edit("happy", 0.7), Edit("sad - happy")):
        assert torch.equal(shift(again, backbone, at, edit, edit), shift(model, backbone, at, edit, edit))
    weights = tmp_path / checkpoints.WEIGHTS
    lacking = {k: v for k, v in checkpoints.read_weights(weights).items() if k != "shifts.0.block.conv1.weight"}
    checkpoints.write_part(tmp_path, checkpoints.read_json(tmp_path / checkpoints.CONFIG), lacking)
    with pytest.raises(CheckpointError, match=r"shifts\.0\.block\.conv1\.weight"):
        HSpace.from_pretrained(tmp_path)


def test_shifts_are_linear_in_strength_and_add(backbone):
    model, at = steering(), state(1)
    happy, sad, angry = (shift(model, backbone, at, Edit(name)) for name in model.emotions)
    assert min(float(part.abs().max()) for part in (happy, sad, angry)) > 0
    torch.testing.assert_close(shift(model, backbone, at, Edit("happy", -2.5)), -2.5 * happy)
    mixed = shift(model, backbone, at, Edit("0.5 happy - sad + 2*angry", 0.5))
    torch.testing.assert_close(mixed, 0.25 * happy - 0.5 * sad + angry, atol=1e-5, rtol=1e-5)
    assert not shift(model, backbone, at, Edit("happy", 0.0)).any()
    gained = steering(gain=torch.tensor([1.0, 3.0, 1.0]))
    torch.testing.assert_close(shift(gained, backbone, at, Edit("sad")), 3 * sad)


def test_each_picture_of_a_batch_has_its_own_edit(backbone):
    model, at = steering(), state(4)
    edits = [Edit("sad"), Edit("happy", 0.5), Edit("angry - happy"), Edit("happy", 0.0)]
    together = shift(model, backbone, at, *edits)
    for n, edit in enumerate(edits):
        part = slice(n, n + 1)
        alone = shift(model, backbone, HState(at.x_t[part], at.t[part], at.h[part], at.temb[part]), edit)
        torch.testing.assert_close(together[part], alone, atol=1e-6, rtol=1e-5)


def test_fewer_steps_need_larger_shifts(backbone):
    at = state(1)
    fitted, half = (shift(steering(train_steps=n), backbone, at, Edit("happy")) for n in (6, 3))
    torch.testing.assert_close(half, 0.5 * fitted)
    twice = shift(steering(train_steps=6), backbone.with_sampling(steps=3), at, Edit("happy"))
    torch.testing.assert_close(twice, 2 * fitted)


def test_nothing_moves_along_what_it_is_held_against(backbone):
    torch.manual_seed(2)
    others = [Directions(torch.randn(2, CHANNELS, SIDE, SIDE), (0, 999)), Directions(torch.randn(1, CHANNELS))]
    free, held, at = steering(), steering(against=others), state(2, 640)
    for edit in (Edit("happy"), Edit("sad", -2)):
        before, after = (shift(model, backbone, at, edit, edit) for model in (free, held))
        for other in others:
            direction = other(at).expand_as(after)
            along = (after * direction).sum((1, 2, 3)) / direction.norm() / after.norm()
            assert float(along.abs().max()) < 1e-5
        # What is taken away lies in their span: what is orthogonal to both stays as it was.
        span = torch.stack([other(at).expand_as(after)[0].flatten() for other in others], 1)
        taken = (before - after)[0].flatten()[:, None]
        solution = torch.linalg.lstsq(span, taken).solution
        torch.testing.assert_close(span @ solution, taken, atol=1e-4, rtol=0)
        assert float(taken.norm()) > 0


@pytest.mark.parametrize("against", [(), (Directions(torch.randn(1, CHANNELS, SIDE, SIDE)),)])
def test_save_then_load_is_bit_equal(backbone, tmp_path, against):
    model = steering(gain=torch.tensor([1.0, 0.3, 2.0]), against=against)
    model.save_pretrained(tmp_path)
    again = HSpace.from_pretrained(tmp_path)
    assert (again.emotions, again.train_steps) == (model.emotions, model.train_steps)
    at = state(2, 640)
    for edit in (Edit("happy"), Edit("sad + angry", -1)):
        assert torch.equal(shift(model, backbone, at, edit, edit), shift(again, backbone, at, edit, edit))


def test_damaged_folders_are_refused(tmp_path):
    for change, match in (
        ({"emotions": "happy"}, "list of names"),
        ({"emotions": ["happy"]}, "3 shifts"),
        ({"shifts": ["block", "block", "directions"]}, "does not hold shifts.1.conv1.weight"),
        ({"shifts": ["block", "magic", "directions"]}, "'shifts' of block, directions, adapted"),
        ({"train_steps": 0}, "train_steps"),
        ({"against": 1}, "against.0.directions"),
        ({"against": None}, "a number"),
    ):
        steering().save_pretrained(tmp_path)
        config = json.loads((tmp_path / checkpoints.CONFIG).read_text())
        (tmp_path / checkpoints.CONFIG).write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=match):
            HSpace.from_pretrained(tmp_path)
    steering().save_pretrained(tmp_path)
    (tmp_path / checkpoints.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        HSpace.from_pretrained(tmp_path)


def test_asyrps_own_files_are_read(backbone, tmp_path):
    """As published: one DeltaBlock under "0", and the optimiser's state beside it."""
    blocks, files = {}, {}
    for emotion, name in (("happy", "smiling"), ("sad", "sad")):
        blocks[emotion] = ShiftBlock(CHANNELS, TEMB)
        contents = {"0": blocks[emotion].state_dict(), "optimizer": {"param_groups": [{"lr": 0.5}]}, "scheduler": {}}
        files[emotion] = tmp_path / f"{name}_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
        torch.save(contents, files[emotion])
    model = HSpace.from_asyrp(files)
    assert (model.emotions, model.train_steps) == (("happy", "sad"), 40)
    at = state(1)
    with torch.no_grad():
        truth = 40 / 6 * (blocks["happy"](at) - 0.5 * blocks["sad"](at))
    torch.testing.assert_close(shift(model, backbone, at, Edit("happy - 0.5 sad")), truth, atol=1e-5, rtol=1e-5)
    assert HSpace.from_asyrp(files, train_steps=50).train_steps == 50

    other = tmp_path / "mine.pth"
    other.write_bytes(files["happy"].read_bytes())
    with pytest.raises(CheckpointError, match="give train_steps"):
        HSpace.from_asyrp({"happy": other})
    assert HSpace.from_asyrp({"happy": other}, train_steps=10).train_steps == 10
    state_dict = blocks["happy"].state_dict()
    for contents, match in (
        ({"0": torch.zeros(512, 8, 8)}, "expected one DeltaBlock"),  # a delta_h itself, as train_delta_h writes it
        (state_dict, "expected one DeltaBlock"),
        ({"0": {k: v for k, v in state_dict.items() if k != "norm2.bias"}}, "1 missing"),
        ({"0": {k: v for k, v in state_dict.items() if k != "conv1.weight"}}, "conv1.weight"),
        ({"0": {**state_dict, "conv2.bias": torch.zeros(3)}}, "expected"),
        ({"0": {**state_dict, "conv2.bias": torch.full((CHANNELS,), float("inf"))}}, "not finite"),
    ):
        torch.save(contents, other)
        with pytest.raises(CheckpointError, match=match):
            HSpace.from_asyrp({"happy": other}, train_steps=40)
    with pytest.raises(CheckpointError, match="no such file"):
        HSpace.from_asyrp({"happy": tmp_path / "none.pth"}, train_steps=40)


def test_what_does_not_fit_is_refused(backbone):
    inversion = Inversion(torch.zeros(1, 1))

    def control(*shifts, on=backbone, **kwargs):
        model = HSpace(["happy"] * len(shifts), shifts, train_steps=6, **kwargs)
        return model.control(on, inversion, [Edit("happy")])

    with pytest.raises(CheckpointError, match=r"happy.*\(512, 512\).*\(16, 32\)"):
        control(ShiftBlock(512, 512))
    with pytest.raises(CheckpointError, match=r"\(16, 4, 4\).*\(16, 8, 8\)"):
        control(Directions(torch.zeros(1, 16, 4, 4)))
    with pytest.raises(CheckpointError, match=r"\(8,\).*\(16,\)"):
        control(Directions(torch.zeros(1, 8)))
    for parts in ((torch.zeros(1, 8), 16), (torch.zeros(1, 16), 8)):
        with pytest.raises(CheckpointError, match=r"happy.*\(8.*\(16"):
            control(AdaptedDirections.starting_from(Directions(parts[0]), channels=parts[1], temb_dim=TEMB))
    with pytest.raises(CheckpointError, match="against"):
        control(Directions(torch.zeros(1, 16)), against=[Directions(torch.zeros(1, 8))])
    with pytest.raises(CheckpointError, match="has no h"):
        control(Directions(torch.zeros(1, 16)), on=SimpleNamespace(steps=6))
    for shifts, gain in (([], None), ([Directions(torch.zeros(1, 16))] * 2, None)):
        with pytest.raises(CheckpointError, match="expected"):
            HSpace(["happy"] if shifts else [], shifts, train_steps=6, gain=gain)
    with pytest.raises(CheckpointError, match="gains of shape"):
        HSpace(["happy"], [Directions(torch.zeros(1, 16))], train_steps=6, gain=torch.ones(2))
    model = steering()
    with pytest.raises(UnknownNameError, match="happy"):
        model.control(backbone, inversion, [Edit("hapy")])
    with pytest.raises(EditError, match="one edit a picture"):
        model.control(backbone, inversion, [Edit("happy")] * 2)


def test_an_editor_of_both_keeps_the_contract(backbone):
    editor = Editor(backbone, [steering(gain=torch.tensor([0.3, 0.3, 0.3]))], name="asyrp")
    coarse = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    crops = F.interpolate(coarse, (16, 16), mode="bicubic").clamp(-1, 1)
    inversion = editor.invert(crops)
    torch.testing.assert_close(inversion.extras["reconstruction"], crops)
    edits = [Edit("happy"), Edit("sad", 0.0), Edit("angry", -1.0)]
    happy, same, _ = together = list(editor.edit(inversion, edits, batch_size=8))
    assert torch.equal(same, crops)
    assert float((happy - crops).abs().mean()) > 1e-3
    for n in range(2):
        alone = editor.edit(editor.invert(crops[n : n + 1]), edits, batch_size=1)
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[n], atol=2e-4, rtol=0)
    half, full = editor.decode(inversion, [Edit("happy", 0.25), Edit("happy", 0.5)])
    assert 0 < float((half - crops).abs().mean()) < float((full - crops).abs().mean())
