"""Directions in W and W+: layers, boundaries and their files, principal components, samples scored by a recogniser."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from emoedit.editors import Editor
from emoedit.io import checkpoints
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, StyleGAN2Config
from emoedit.steering.directions import LatentDirections, class_statistics, fit_directions
from emoedit.steering.wspace import (
    WDirections,
    condition,
    fit_boundaries,
    from_boundaries,
    pooled,
    principal_components,
    read_boundary,
    score_samples,
    select,
    write_boundary,
)
from emoedit.types import CheckpointError, DataError, Edit, EditError, Inversion, OutputError

LAYERS, DIM = 6, 8


@pytest.fixture(scope="module")
def backbone() -> StyleGAN2Backbone:
    torch.manual_seed(0)
    config = StyleGAN2Config(
        resolution=16, widths=(12, 12, 8), z_dim=DIM, w_dim=DIM, mapping_layers=2, encoder_widths=(8, 8)
    )
    model = StyleGAN2Backbone(config).eval().requires_grad_(False)
    model.encoder.own.weight.normal_(0, 0.02)
    return model


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def fitted(seed: int = 0) -> LatentDirections:
    """Directions in w that also read what the source shows."""
    centres = {"neutral": torch.zeros(DIM), "happy": 4 * torch.eye(DIM)[0], "sad": 4 * torch.eye(DIM)[1]}
    labels = [name for name in centres for _ in range(40)]
    w = torch.stack([centres[name] for name in labels]) + normal(len(labels), DIM, seed=seed)
    stats = {"samples": class_statistics(w, labels)}
    return fit_directions(stats, ["happy", "sad"], trust={"samples": 1.0}, gains={"happy": 1.5})


def inversion(w_plus: Tensor) -> Inversion:
    return Inversion(w_plus, {"mean": torch.zeros(len(w_plus), 1, 1, 1), "gain": torch.ones(len(w_plus), 1, 1, 1)})


EDITS = [Edit("happy"), Edit("sad", -0.5), Edit("happy - 0.4*sad", 2)]


# Layers


def test_directions_of_w_move_the_layers_they_are_spread_over(backbone):
    source = fitted()
    w = normal(3, DIM)
    expected = source.control(backbone, Inversion(w), EDITS).shift
    same = inversion(w[:, None].repeat(1, LAYERS, 1))
    everywhere = WDirections.in_layers(source, LAYERS).control(backbone, same, EDITS).shift
    assert everywhere.shape == (3, LAYERS, DIM)
    torch.testing.assert_close(everywhere, expected[:, None].expand(-1, LAYERS, -1), atol=1e-5, rtol=1e-4)
    some = WDirections.in_layers(source, LAYERS, (1, 4)).control(backbone, same, EDITS).shift
    torch.testing.assert_close(some[:, 1:4], everywhere[:, 1:4], atol=1e-5, rtol=1e-4)
    assert not some[:, :1].any() and not some[:, 4:].any()


def test_what_the_source_shows_is_read_from_the_layers_that_are_moved(backbone):
    source = fitted()
    w_plus = normal(3, LAYERS, DIM)
    w_plus[:, 1:4, 0] += 4  # happy in the middle layers
    moved = WDirections.in_layers(source, LAYERS, (1, 4))
    torch.testing.assert_close(moved.shown(w_plus.flatten(1)), source.shown(pooled(w_plus, (1, 4))), atol=1e-4, rtol=0)
    assert float(source.shown(pooled(w_plus, (1, 4)))[:, 1].min()) > 0.5
    assert float(WDirections.in_layers(source, LAYERS, (4, 6)).shown(w_plus.flatten(1))[:, 1].max()) < 0.5
    narrow = moved.within((2, 3))
    assert torch.equal(narrow.shown(w_plus.flatten(1)), moved.shown(w_plus.flatten(1)))
    shift = narrow.control(backbone, inversion(w_plus), EDITS).shift
    whole = moved.control(backbone, inversion(w_plus), EDITS).shift
    assert torch.equal(shift[:, 2], whole[:, 2]) and not shift[:, [0, 1, 3, 4, 5]].any()


def test_strength_is_linear_and_directions_add(backbone):
    steering = WDirections.in_layers(LatentDirections(["happy", "sad"], normal(2, DIM)), LAYERS)
    start = inversion(normal(1, LAYERS, DIM))

    def shift(emotion: str, strength: float) -> Tensor:
        return steering.control(backbone, start, [Edit(emotion, strength)]).shift

    torch.testing.assert_close(shift("happy", 2.5), 2.5 * shift("happy", 1))
    torch.testing.assert_close(shift("happy", -1), -shift("happy", 1))
    torch.testing.assert_close(shift("happy + 0.5*sad", 1), shift("happy", 1) + 0.5 * shift("sad", 1))


@pytest.mark.parametrize("where", [(2, 2), (-1, 3), (3, 9), (4, 2)])
def test_layers_that_are_not_there_are_refused(where):
    for call in (
        lambda: WDirections.in_layers(fitted(), LAYERS, where),
        lambda: WDirections.in_layers(fitted(), LAYERS).within(where),
        lambda: pooled(normal(1, LAYERS, DIM), where),
    ):
        with pytest.raises(EditError, match=rf"layers {where[0]} to {where[1]} of 6"):
            call()


def test_latents_of_another_shape_are_refused(backbone):
    steering = WDirections.in_layers(fitted(), LAYERS)
    for shape in ((1, LAYERS + 2, DIM), (1, LAYERS, DIM + 1), (1, LAYERS * DIM)):
        with pytest.raises(CheckpointError, match=r"w\+ of \(6, 8\).*the backbone's latent is"):
            steering.control(backbone, Inversion(torch.zeros(shape)), [Edit("happy")])
    with pytest.raises(CheckpointError, match=r"expected \[E, L \* D\]"):
        WDirections((3, 5), ["happy"], torch.zeros(1, 16))


def test_save_then_load_is_bit_equal(tmp_path, backbone):
    for number, source in enumerate((fitted(), from_boundaries({"happy": normal(DIM)}, {"happy": 3.0}))):
        steering = WDirections.in_layers(source, LAYERS, (1, 5))
        steering.save_pretrained(tmp_path / str(number))
        again = WDirections.from_pretrained(tmp_path / str(number))
        start = inversion(normal(1, LAYERS, DIM))
        one, other = (s.control(backbone, start, [Edit("happy", 0.7)]).shift for s in (steering, again))
        assert torch.equal(one, other) and again.emotions == steering.emotions


def test_damaged_folders_are_refused(tmp_path):
    steering = WDirections.in_layers(fitted(), LAYERS)
    for change, match in (
        ({"latent_shape": [6, "8"]}, "'latent_shape' must be a list of whole numbers"),
        ({"latent_shape": [6, 9]}, r"w\+ of \(6, 9\)"),
        ({"latent_shape": None}, "latent_shape"),
        ({"emotions": "happy"}, "'emotions' must be a list of names"),
        ({"emotions": ["happy"]}, "for 1 emotions"),
    ):
        steering.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=match):
            WDirections.from_pretrained(tmp_path)
    steering.save_pretrained(tmp_path)
    checkpoints.write_part(tmp_path, json.loads((tmp_path / "config.json").read_text()), {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="holds no 'directions', only x"):
        WDirections.from_pretrained(tmp_path)


# Boundaries


def test_conditional_boundaries_leave_the_others_alone():
    one, two, three = normal(3, DIM)
    left = condition(one, two, three)
    assert float(left.norm()) == pytest.approx(1, abs=1e-6)
    assert float((left @ two).abs()) < 1e-5 > float((left @ three).abs())
    # With one condition it is the paper's n1 - (n1 . n2) n2.
    a, b = one / one.norm(), two / two.norm()
    expected = a - (a @ b) * b
    torch.testing.assert_close(condition(a, b), expected / expected.norm())
    torch.testing.assert_close(condition(one), a)
    with pytest.raises(DataError, match="nothing of it is left"):
        condition(two + three, two, three)
    with pytest.raises(DataError, match="widths"):
        condition(one, torch.zeros(DIM + 1))


def test_interfacegans_files_are_read_and_written(tmp_path):
    """Float [1, 512] of unit length, of either precision, as numpy writes them."""
    unit = normal(512)
    unit = unit / unit.norm()
    for dtype in (np.float32, np.float64):
        np.save(tmp_path / "stylegan_ffhq_smile_w_boundary.npy", unit.numpy()[None].astype(dtype))
        found = read_boundary(tmp_path / "stylegan_ffhq_smile_w_boundary.npy", width=512)
        torch.testing.assert_close(found, unit)
    path = tmp_path / "new.npy"
    write_boundary(path, 7 * unit)
    stored = np.load(path)
    assert stored.shape == (1, 512) and stored.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(stored), 1, atol=1e-6)
    torch.testing.assert_close(read_boundary(path), unit)
    with pytest.raises(OutputError):
        write_boundary(path, unit)
    write_boundary(path, -unit, overwrite=True)
    torch.testing.assert_close(read_boundary(path), -unit)


def test_boundary_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    unit = np.eye(1, 512, dtype=np.float32)

    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "was_here"), "w")

    for array, match in (
        (np.eye(1, 256), "width 256; the backbone's w has 512"),
        (2 * unit, "length 2; expected 1"),
        (unit * np.nan, "length nan"),
        (unit[0], r"float32 \(512,\); expected a boundary, float \[1, 512\]"),
        (np.eye(2, 512), r"\(2, 512\)"),
        (unit.astype(int), "int64"),
        (np.array([[Touch()] * 512], dtype=object), "no array of plain numbers"),
    ):
        np.save(path, array)
        with pytest.raises(CheckpointError, match=match):
            read_boundary(path, width=512)
    np.savez(tmp_path / "x.npz", unit)
    with pytest.raises(CheckpointError, match="no array of plain numbers"):
        read_boundary(tmp_path / "x.npz")
    for data in (b"", b"\x93NUMPY", b"<html>"):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            read_boundary(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_boundary(tmp_path / "none.npy")
    assert not (tmp_path / "was_here").exists()


def test_a_boundary_of_another_width_is_refused_by_the_backbone(backbone):
    steering = WDirections.in_layers(from_boundaries({"happy": normal(512)}, {"happy": 3.0}), LAYERS)
    with pytest.raises(CheckpointError, match=r"w\+ of \(6, 512\).*is \(6, 8\)"):
        steering.control(backbone, inversion(normal(1, LAYERS, DIM)), [Edit("happy")])
    with pytest.raises(DataError, match="do not go together"):
        from_boundaries({"happy": normal(8), "sad": normal(9)}, {"happy": 1.0, "sad": 1.0})


def test_edits_along_boundaries_are_w_plus_k_n(backbone):
    one, two = condition(normal(DIM)), condition(normal(DIM, seed=2))
    steering = WDirections.in_layers(from_boundaries({"happy": one, "sad": two}, {"happy": 3.0, "sad": 2.0}), LAYERS)
    shift = steering.control(backbone, inversion(normal(2, LAYERS, DIM)), [Edit("happy", 0.5), Edit("sad", -1)]).shift
    torch.testing.assert_close(shift[0], (1.5 * one).expand(LAYERS, -1))
    torch.testing.assert_close(shift[1], (-2 * two).expand(LAYERS, -1))


def labelled() -> tuple[Tensor, list[str]]:
    centres = {
        "neutral": torch.zeros(DIM),
        "happy": 4 * torch.eye(DIM)[0],
        "sad": 4 * torch.eye(DIM)[1] + torch.eye(DIM)[0],
    }
    labels = [name for name in centres for _ in range(100)]
    return torch.stack([centres[name] for name in labels]) + normal(len(labels), DIM, seed=4), labels


def test_boundaries_of_emotions_lead_from_neutral_to_them():
    w, labels = labelled()
    source = fit_boundaries(w, labels, ["happy", "neutral", "sad"])
    assert source.emotions == ("neutral", "happy", "sad") and not source.directions[0].any()
    steps = source.gain[:, None] * source.directions
    assert float(steps[1, 0]) == pytest.approx(4, abs=1) and float(steps[2, 1]) == pytest.approx(4, abs=1)
    assert float(steps[1].norm()) == pytest.approx(float(source.gain[1]), abs=1e-4)
    free = fit_boundaries(w, labels, ["happy", "sad"], conditional=True)
    plain = {name: source.directions[k] for k, name in enumerate(source.emotions)}
    assert float((free.directions[1] @ plain["sad"]).abs()) < 1e-5 < float((plain["happy"] @ plain["sad"]).abs())
    with pytest.raises(DataError, match="no w of angry among 300"):
        fit_boundaries(w, labels, ["happy", "angry"])
    with pytest.raises(DataError, match="no direction in w separates happy from neutral"):
        fit_boundaries(torch.ones(20, DIM), ["happy", "neutral"] * 10, ["happy"])


# Samples of the generator


def test_samples_are_scored_and_the_plainest_kept(backbone):
    seen, done = [], []
    usual = backbone.sample(seeded(2), 200, truncation=0.7).mean()

    def scorer(pictures: Tensor) -> Tensor:
        """Happy is bright, sad dark, neutral neither."""
        seen.append(len(pictures))
        level = pictures.mean((1, 2, 3)) - usual
        return torch.stack([-level.abs(), level, -level], 1)

    w, scores = score_samples(backbone, scorer, seeded(), 40, batch_size=16, callback=lambda *step: done.append(step))
    assert w.shape == (40, DIM) and scores.shape == (40, 3)
    assert seen == [16, 16, 8] and done == [(16, 40), (32, 40), (40, 40)]
    drawn = backbone.synthesis(w[:, None].repeat(1, LAYERS, 1)).mean((1, 2, 3)) - usual
    torch.testing.assert_close(scores[:, 1], drawn, atol=1e-4, rtol=1e-4)
    rows, labels = select(scores, ["neutral", "happy", "sad"], share=0.2)
    assert labels.count("happy") == labels.count("sad") == 8 and labels.count("neutral") <= 8
    picked = {name: drawn[rows[[label == name for label in labels]]] for name in labels}
    assert picked["sad"].max() < picked["neutral"].mean() < picked["happy"].min()

    # Directions fitted from them make the generator's pictures brighter and darker.
    source = fit_boundaries(w[rows], labels, ["happy", "sad"])
    steering = WDirections.in_layers(source, LAYERS)
    start = inversion(backbone.latents(seeded(9), 8, truncation=0.7))
    before = backbone.decode(start).mean((1, 2, 3))
    for name, sign in (("happy", 1), ("sad", -1)):
        change = backbone.decode(start, steering.control(backbone, start, [Edit(name)] * 8)).mean((1, 2, 3)) - before
        assert float(sign * change.mean()) > 0


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"expected \[N, E\]"):
        select(torch.zeros(5, 2), ["neutral", "happy", "sad"])
    scores = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, 0.1]])
    with pytest.raises(DataError, match="no sample shows neutral"):
        select(scores, ["neutral", "happy", "sad"], share=0.5)


def test_principal_components():
    basis = torch.linalg.qr(normal(DIM, DIM, seed=3)).Q
    spread = torch.tensor([5.0, 3, 2, 1, 0.5, 0.3, 0.2, 0.1])
    w = normal(4000, DIM) * spread @ basis.T + 7
    found = principal_components(w, 3)
    torch.testing.assert_close(found.directions @ found.directions.T, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.deviations, spread[:3], atol=0.15, rtol=0)
    torch.testing.assert_close((found.directions @ basis[:, :3]).abs().diagonal(), torch.ones(3), atol=0.02, rtol=0)
    places = found.coordinates(w)
    torch.testing.assert_close(places.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(places.T.cov(), torch.eye(3), atol=1e-2, rtol=0)
    moved = found.coordinates(w + found.step(1, 2.0)) - places
    torch.testing.assert_close(moved, torch.tensor([0.0, 2, 0]).expand_as(moved), atol=1e-4, rtol=0)
    assert all(float(row[row.abs().argmax()]) > 0 for row in found.directions)
    with pytest.raises(DataError, match="3 axes"):
        principal_components(w[:3], 3)


# With an editor around it


def test_an_editor_of_both_keeps_the_contract(backbone):
    editor = Editor(backbone, [WDirections.in_layers(fitted(), LAYERS, (1, 5))], name="stylegan")
    crops = backbone.sample(seeded(), 2).clamp(-1, 1)
    found = editor.invert(crops)
    edits = [Edit("happy"), Edit("sad", 0.0), Edit("sad", -1.0), Edit("neutral")]
    happy, same, _, _ = together = list(editor.edit(found, edits, batch_size=8))
    assert torch.equal(same, crops)
    assert float((happy - crops).abs().mean()) > 1e-3
    for n in range(2):
        alone = editor.edit(editor.invert(crops[n : n + 1]), edits, batch_size=1)
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[n], atol=2e-4, rtol=0)
    half, full = (
        drawn - found.extras["reconstruction"]
        for drawn in editor.decode(found, [Edit("happy", 0.1), Edit("happy", 0.5)])
    )
    assert 0 < float(half.abs().mean()) < float(full.abs().mean())
