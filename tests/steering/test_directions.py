"""Directions in a latent: what only :class:`LatentDirections` promises, beside the contract of every editor."""

from __future__ import annotations

import pytest
import torch

from emoedit.editors import Editor, load_editor
from emoedit.io import checkpoints
from emoedit.models.vae.backbone import VAEBackbone
from emoedit.steering.directions import LatentDirections, class_statistics, fit_directions, mean_differences
from emoedit.types import CheckpointError, DataError, Edit, Inversion
from tests.fixtures.editors import TINY, from_neutral, tiny_vae


def editors_with_directions() -> list[str]:
    """Tiny ones, and those embedded ones whose description names such a steering and no other."""
    found = ["tiny-vae", "tiny-pixels"]
    for name in checkpoints.embedded_names():
        steerings = checkpoints.read_json(checkpoints.embedded_root() / name / checkpoints.EDITOR)["steerings"]
        found += [name] if [part["kind"] for part in steerings] == ["directions"] else []
    return found


@pytest.fixture(scope="module", params=editors_with_directions())
def editor(request) -> Editor:
    return TINY[request.param]() if request.param in TINY else load_editor(request.param, device="cpu")


@pytest.fixture(scope="module")
def inversion(editor: Editor) -> Inversion:
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    rough = torch.rand(1, channels, 6, 6, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    return editor.invert(torch.nn.functional.interpolate(rough, (side, side), mode="bicubic").clamp(-1, 1))


def test_algebra_is_linear_in_the_control(editor, inversion):
    if not all(name in editor.emotions for name in ("happy", "sad")):
        pytest.skip("no such emotions")
    plain = from_neutral(editor)
    mix = plain.control(inversion, [Edit("0.5*happy - sad", 2.0)]).shift
    happy = plain.control(inversion, [Edit("happy")]).shift
    sad = plain.control(inversion, [Edit("sad")]).shift
    torch.testing.assert_close(mix, happy - 2 * sad)
    torch.testing.assert_close(plain.control(inversion, [Edit("shame")]).shift.shape, happy.shape)


def test_neutral_takes_away_what_is_shown_and_nothing_else(editor, inversion):
    steering = editor.steerings[0]
    shown = steering.shown(inversion.latent)
    assert float(shown.min()) >= 0
    shift = editor.control(inversion, [Edit("neutral")]).shift
    if steering.means is None:  # it does not look, and takes every source for neutral
        assert not bool(shown.any()) and not bool(shift.any())
    else:
        torch.testing.assert_close(shift, -shown @ steering.means)


def test_what_is_shown_is_not_added_again():
    """On a latent whose expression is known: the target is reached from wherever the source is, at the same place."""
    directions = torch.zeros(3, 4)
    directions[1, 0], directions[2, 1] = 1.0, 1.0
    readout, distance = 20 * directions, torch.tensor([0.0, 20, 20])
    steering = LatentDirections(
        ("neutral", "happy", "sad"),
        directions,
        gain=torch.tensor([0.0, 1.5, 1.5]),
        means=directions.clone(),
        readout=readout,
        offset=-0.5 * distance,
        distance=distance,
    )
    neutral, smiling = torch.zeros(1, 4), directions[1:2] * 1.0
    backbone = tiny_vae().backbone

    def reached(latent: torch.Tensor, emotion: str, strength: float = 1.0) -> list[float]:
        inversion = Inversion(latent)
        return (latent + steering.control(backbone, inversion, [Edit(emotion, strength)]).shift)[0, :2].tolist()

    assert reached(neutral, "happy") == pytest.approx([1.5, 0])
    assert reached(smiling, "happy") == pytest.approx([1.5, 0], abs=1e-3)
    assert reached(smiling, "neutral") == pytest.approx([0, 0], abs=1e-3)
    assert reached(smiling, "neutral", 0.5) == pytest.approx([0.5, 0], abs=1e-3)
    assert reached(smiling, "sad") == pytest.approx([0, 1.5], abs=1e-3)
    assert reached(neutral, "sad", -1) == pytest.approx([0, -1.5])
    assert reached(smiling, "happy", -1) == pytest.approx([-0.5, 0], abs=1e-3)
    assert reached(neutral, "neutral") == pytest.approx([0, 0])


def test_weights_are_safetensors_of_another_width_or_nothing(tmp_path):
    editor = tiny_vae()
    folder = editor.save_pretrained(tmp_path / "e")
    wide = LatentDirections(("happy",), torch.randn(1, 9))
    crops = torch.zeros(1, 1, 32, 32)
    with pytest.raises(CheckpointError, match="latent"):
        list(Editor(editor.backbone, [wide]).edit(editor.invert(crops), [Edit("happy")]))
    (folder / "backbone" / checkpoints.WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match="safetensors"):
        VAEBackbone.from_pretrained(folder / "backbone")


def test_mean_differences_by_hand():
    """Each data set counts by trust and by the harmonic mean of its counts; too few pictures say nothing."""
    one = {"neutral": torch.tensor([[1.0, 2.0]]), "happy": torch.tensor([[2.0, 4.0]])}
    two = {"neutral": torch.tensor([[0.0, 0.0]]), "happy": torch.tensor([[4.0, 8.0]]), "sad": torch.tensor([[1.0, 1]])}
    few = {"neutral": torch.tensor([[0.0, 0.0]]), "happy": torch.tensor([[99.0, 99.0]])}
    sets = {
        "one": ({"neutral": 30, "happy": 60}, one),
        "two": ({"neutral": 40, "happy": 40, "sad": 20}, two),
        "few": ({"neutral": 500, "happy": 19}, few),
    }
    found = mean_differences(sets, ["sad", "happy"], trust={"one": 1.0, "two": 0.5, "few": 1.0})
    first, second = 30 * 60 / 90, 0.5 * 40 * 40 / 80
    happy = (first * torch.tensor([[1.0, 2.0]]) + second * torch.tensor([[4.0, 8.0]])) / (first + second)
    torch.testing.assert_close(found, torch.stack([torch.tensor([[1.0, 1.0]]), happy]))
    assert found.shape == (2, 1, 2)
    trust = {"one": 1.0, "two": 1.0, "few": 1.0}
    with pytest.raises(DataError, match="no data set has 20 pictures of 'angry' and of neutral"):
        mean_differences(sets, ["angry"], trust=trust)
    with pytest.raises(DataError, match="no data set has 21 pictures of 'sad'"):
        mean_differences(sets, ["sad"], trust=trust, min_count=21)


def test_ten_pictures_of_a_class_are_enough_with_a_warning():
    latents = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    latents[20:] += 3
    statistics = class_statistics(latents, ["neutral"] * 20 + ["happy"] * 10)
    how = {"trust": {"mine": 1.0}, "gains": {}}
    with pytest.warns(UserWarning, match="no data set has 20 pictures of 'happy'"):
        found = fit_directions({"mine": statistics}, ["happy"], **how)
    assert found.emotions == ("neutral", "happy") and float(found.directions[1].sum()) > 3
    nine = class_statistics(latents[:29], ["neutral"] * 20 + ["happy"] * 9)
    with pytest.raises(DataError, match="no data set has 10 pictures of 'happy'"):
        fit_directions({"mine": nine}, ["happy"], **how)
