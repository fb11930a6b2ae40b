"""Preparation, loop and closed forms: resuming changes nothing, bad data is refused, known answers are found."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.models.vae.backbone import VAEConfig
from emoedit.steering.directions import class_statistics, fit_directions, project_out, suppress_within_class
from emoedit.training import readers
from emoedit.training.cropping import Filter
from emoedit.training.data import CropSet, MixtureBatches
from emoedit.training.loop import DivergedError, TrainerConfig, parameter_groups, rate, train
from emoedit.training.prepare import prepare, split_of
from emoedit.training.vae import VAETask, pyramid_loss
from emoedit.types import CropSpec, DataError, UnknownNameError

TINY = VAEConfig(resolution=32, widths=(8, 16), latent_dim=8)


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope="module")
def crops(tmp_path_factory, astronaut_array):
    """A small prepared set: the portrait at several brightnesses and crops, and pictures that have to be dropped."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for n in range(12):
        shade = (
            astronaut_array[0:300, 60:380].astype(float) * rng.uniform(0.6, 1.2) + rng.normal(0, 8, (300, 320, 1))
        ).clip(0, 255)
        folder = root / ("smiling" if n % 2 else "neutral")
        folder.mkdir(exist_ok=True)
        shade = np.roll(shade, n * 3, 1) if n < 11 else np.full_like(shade, 80)
        Image.fromarray(shade.astype(np.uint8)).save(folder / f"{n}.png")
    (root / "smiling" / "copy.png").write_bytes((root / "smiling" / "1.png").read_bytes())
    (root / "smiling" / "broken.png").write_bytes(b"\x89PNG")
    out = root / "out"
    samples = readers.read_class_folders(root)
    report = prepare({"portraits": samples}, out, CropSpec(64, "stable", 0.66, 0.074), workers=1, keep=Filter())
    return root, out, samples, report


@pytest.fixture(scope="module")
def astronaut_array():
    from skimage.data import astronaut

    return astronaut()


def test_preparation_says_what_it_dropped_and_why(crops):
    _, out, _, report = crops
    assert report["kept"] == {"portraits": 11}
    assert report["dropped"] == {
        "no face": {"portraits": 1},
        "duplicate": {"portraits": 1},
        "unreadable": {"portraits": 1},
    }
    assert report["names"]["unreadable"] == ["portraits/smiling/broken.png"]
    kept = CropSet(out)
    assert kept.crops.shape == (11, 64, 64, 3)
    assert set(kept.column("emotion")) == {"happy", "neutral"}
    assert json.loads((out / "report.json").read_text())["kept"] == report["kept"]


def test_preparing_again_detects_nothing_again(crops, monkeypatch, tmp_path):
    _, out, samples, report = crops
    before = (out / "detections.jsonl").read_text()
    (out / "detections.jsonl").write_text(before + '["half a li')  # killed while writing
    monkeypatch.setattr("emoedit.faces.detect.FaceDetector.__call__", lambda *a: pytest.fail("detected again"))
    again = prepare({"portraits": samples}, out, CropSpec(32, "stable", 0.66, 0.074), workers=1)
    assert again["kept"] == report["kept"]
    assert CropSet(out).crops.shape == (11, 32, 32, 3)
    prepare({"portraits": samples}, out, CropSpec(64, "stable", 0.66, 0.074), workers=1)


def test_nothing_left_is_an_error(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    samples = [readers.Sample(tmp_path / "x.png", "happy", "x")]
    with pytest.raises(DataError, match="1 no face"):
        prepare({"one": samples}, tmp_path / "out", CropSpec(32), workers=1)


def test_splits_go_by_person():
    assert len({split_of("d", f"{n}.png", "ann") for n in range(50)}) == 1
    share = np.mean([split_of("d", f"{n}.png", None) == "valid" for n in range(4000)])
    assert 0.03 < share < 0.07


def test_readers_read_what_their_authors_ship(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    write_csv(
        tmp_path / "labels.csv", ["image", "emotion", "person"], [["a.jpg", "Happiness", "ann"], ["b.jpg", "anger", ""]]
    )
    first, second = readers.read("labels_csv", tmp_path / "labels.csv")
    assert (first.emotion, first.person, second.emotion, second.person) == ("happy", "ann", "angry", None)

    (tmp_path / "celeba" / "img_align_celeba").mkdir(parents=True)
    (tmp_path / "celeba" / "list_attr_celeba.txt").write_text("2\nMale Smiling \n1.jpg -1  1\n2.jpg  1 -1\n")
    (tmp_path / "celeba" / "identity_CelebA.txt").write_text("1.jpg 7\n2.jpg 9\n")
    assert [(s.emotion, s.person) for s in readers.read("celeba", tmp_path / "celeba")] == [
        ("happy", "7"),
        ("neutral", "9"),
    ]

    pixels = " ".join(str(i % 256) for i in range(2304))
    write_csv(
        tmp_path / "fer.csv", ["emotion", "pixels", "Usage"], [["3", pixels, "Training"], ["6", pixels, "PrivateTest"]]
    )
    fer = readers.read("fer_csv", tmp_path / "fer.csv")
    assert [(s.emotion, s.split) for s in fer] == [("happy", "train"), ("neutral", "test")]
    assert fer[0].picture[0, 5] == 5

    pairs = tmp_path / "pairs"
    for folder in ("neutral", "smiling"):
        (pairs / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(pairs / folder / "001.jpg")
    write_csv(pairs / "info.csv", ["face_id", "split"], [["001", "fit"]])
    assert {(s.emotion, s.person, s.split) for s in readers.read("pairs", pairs)} == {
        ("neutral", "001", "fit"),
        ("happy", "001", "fit"),
    }


def test_readers_refuse_what_they_cannot_read(tmp_path):
    (tmp_path / "moods").mkdir()
    write_csv(tmp_path / "a.csv", ["image", "mood"], [])
    write_csv(tmp_path / "b.csv", ["image", "emotion"], [["gone.jpg", "happy"]])
    write_csv(tmp_path / "c.csv", ["image", "emotion"], [["a.csv", "hapy"]])
    write_csv(tmp_path / "d.csv", ["emotion", "pixels", "Usage"], [["3", "1 2 3", "Training"]])
    write_csv(tmp_path / "e.csv", ["emotion", "pixels", "Usage"], [["-1", " ".join(["0"] * 2304), "Training"]])
    (tmp_path / "f.csv").write_text("image,emotion\nshort\n")
    for reader, path, match in (
        ("labels_csv", "gone.csv", "no such file"),
        ("labels_csv", "a.csv", "no column emotion"),
        ("labels_csv", "b.csv", "not there"),
        ("labels_csv", "c.csv", "did you mean 'happy'"),
        ("labels_csv", "f.csv", "fewer fields"),
        ("fer_csv", "d.csv", "2304"),
        ("fer_csv", "e.csv", "0 to 6"),
        ("class_folders", "", "moods"),
        ("class_folders", "gone", "no such folder"),
        ("celeba", "", "list_attr_celeba"),
        ("pairs", "", "info.csv"),
    ):
        with pytest.raises(DataError, match=match):
            readers.read(reader, tmp_path / path)
    with pytest.raises(UnknownNameError, match="unknown data reader 'tea_leaves'"):
        readers.read("tea_leaves", tmp_path)


def test_batches_are_a_function_of_the_step(crops):
    _, out, _, _ = crops
    batches = MixtureBatches(CropSet(out), {"portraits": 1}, batch_size=4, resolution=32, split="train", seed=3)
    assert torch.equal(batches(5), batches(5))
    assert not torch.equal(batches(5), batches(6))
    assert not torch.equal(batches(5, 0), batches(5, 1))
    assert batches(0).shape == (4, 1, 32, 32)
    assert float(batches(0).abs().max()) <= 1
    with pytest.raises(DataError, match="nowhere"):
        MixtureBatches(CropSet(out), {"nowhere": 1}, batch_size=4, resolution=32, split="train", seed=0)
    with pytest.raises(DataError, match="prepar"):
        CropSet(out / "gone")


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    def batches(step: int, process: int) -> torch.Tensor:
        return torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1

    def run(folder, steps):
        torch.manual_seed(0)
        how = TrainerConfig(steps=steps, precision="no", warmup=1, decay=1e-9, save_every=2)
        return train(VAETask(TINY, beta=0.1), batches, tmp_path / folder, how)

    whole = run("whole", 4)
    run("parts", 2)
    resumed = run("parts", 4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=0, rtol=0, msg=name)
    assert not (tmp_path / "parts" / "state.part").exists()


def test_one_process_trains_in_one_precision_after_another(tmp_path):
    def batches(step: int, process: int) -> torch.Tensor:
        return torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1

    def run(precision, folder):
        torch.manual_seed(0)
        how = TrainerConfig(steps=2, precision=precision, warmup=1, save_every=2)
        return train(VAETask(TINY, beta=0.1), batches, tmp_path / folder, how).state_dict()

    exact, half, again = run("no", "exact"), run("bf16", "half"), run("no", "again")
    assert all(torch.equal(value, exact[name]) for name, value in again.items())
    assert any(not torch.equal(value, exact[name]) for name, value in half.items())


def test_training_lowers_the_loss_and_a_broken_batch_stops_it_with_the_last_state_saved(tmp_path):
    torch.manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.rand(4, 1, 4, 4) * 2 - 1, (32, 32), mode="bicubic").clamp(-1, 1)
    task = VAETask(TINY, beta=0.01)
    with torch.no_grad():
        before = float(task(picture)["loss"])
    how = TrainerConfig(steps=40, learning_rate=2e-3, precision="no", warmup=1, save_every=10, ema=0.5)
    trained = train(task, lambda s, p: picture, tmp_path, how)
    with torch.no_grad():
        after = float(trained(picture)["loss"])
    assert after < 0.7 * before
    with pytest.raises(DivergedError, match="step 40"):
        longer = TrainerConfig(steps=50, precision="no", save_every=10)
        train(VAETask(TINY, beta=0.01), lambda s, p: picture * float("nan"), tmp_path, longer)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 40


def test_two_batches_of_four_are_one_of_eight(tmp_path):
    """Up to rounding: gradients that are collected, and the clipping, the rate and the average that follow."""

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": (self.line(x).square() - x.sum(1, keepdim=True)).square().mean(), "size": x.abs().mean()}

    x, seen = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)), []

    def run(folder: str, count: int, **how) -> dict[str, torch.Tensor]:
        def batches(step: int, process: int) -> torch.Tensor:
            seen.append((folder, step))
            return x[step * count : (step + 1) * count]

        torch.manual_seed(0)
        how = TrainerConfig(steps=5, precision="no", warmup=1, save_every=5, learning_rate=0.05, **how)
        return train(Line(), batches, tmp_path / folder, how).state_dict()

    whole, halves = run("whole", 8), run("halves", 4, accumulate=2)
    assert [step for folder, step in seen if folder == "halves"] == list(range(10))
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, atol=1e-6, rtol=1e-5)
        assert not torch.equal(value, run("short", 4)[name])
    longer = TrainerConfig(steps=7, precision="no", accumulate=2)
    with pytest.raises(DivergedError, match="step 5"):
        train(Line(), lambda step, process: x[:4] * (float("nan") if step == 11 else 1), tmp_path / "halves", longer)


def test_parts_have_a_factor_of_the_rate(tmp_path):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = torch.nn.Parameter(torch.zeros(3))
            self.block = torch.nn.Linear(1, 3, bias=False)
            torch.nn.init.zeros_(self.block.weight)

        def forward(self, batch):
            return {"loss": -(self.plain.sum() + self.block.weight.sum())}

    how = {"learning_rate": 0.1, "weight_decay": 0.0, "warmup": 1, "decay": 0.0, "ema": 0.0, "precision": "no"}
    config = TrainerConfig(steps=4, rate_factors={"block.": 0.25}, **how)
    groups = parameter_groups(Two(), config)
    assert [group["factor"] for group in groups] == [1.0, 0.25] and all(len(g["params"]) == 1 for g in groups)
    train(Two(), lambda step, process: torch.zeros(1), tmp_path, TrainerConfig(**{**vars(config), "steps": 2}))
    done = train(Two(), lambda step, process: torch.zeros(1), tmp_path, config)  # resumed: the shares stay
    assert done.plain.tolist() == pytest.approx([0.4] * 3, rel=1e-3)
    assert done.block.weight.flatten().tolist() == pytest.approx([0.1] * 3, rel=1e-3)


def test_rate_warms_up_stays_and_falls():
    how = TrainerConfig(steps=100, warmup=10, decay=0.5)
    rates = [rate(step, how) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert 0 < rates[99] < 0.03


def test_pyramid_loss_is_zero_for_equals_and_sees_every_scale():
    x = torch.rand(2, 1, 32, 32)
    weight = torch.ones(1, 1, 32, 32)
    assert pyramid_loss(x, x, weight) == 0
    fine = torch.from_numpy(np.indices((32, 32)).sum(0) % 2 * 0.2 - 0.1).float()[None, None]
    coarse = torch.full((1, 1, 32, 32), 0.1)
    assert pyramid_loss(x, x + fine, weight) > 0.15
    assert pyramid_loss(x, x + coarse, weight) > 0.02
    torch.testing.assert_close(pyramid_loss(x, x + fine, 3 * weight), 3 * pyramid_loss(x, x + fine, weight))


def synthetic(rng, centre, moves, n, names):
    return (
        torch.from_numpy(np.concatenate([rng.normal(0, 1, (n, 6)) + centre + moves[name] for name in names])),
        [name for name in names for _ in range(n)],
    )


def test_directions_are_the_class_differences_inside_each_data_set():
    rng = np.random.default_rng(0)
    moves = {"neutral": np.zeros(6), "happy": np.eye(6)[0] * 3, "sad": np.eye(6)[1] * 2 + np.eye(6)[0]}
    sharp = class_statistics(*synthetic(rng, 0.0, moves, 4000, moves))
    soft = class_statistics(
        *synthetic(rng, 50.0, moves, 4000, moves)
    )  # another data set lies elsewhere: it must cancel
    how = {"trust": {"sharp": 1.0, "soft": 1.0}, "gains": {"happy": 2.0}, "ridge": 1e6}
    steering = fit_directions({"sharp": sharp, "soft": soft}, ["happy", "sad"], **how)
    assert steering.emotions == ("neutral", "happy", "sad")
    expected = np.stack([moves["neutral"], moves["happy"], moves["sad"]])
    assert steering.gain.tolist() == [0, 2, 1]
    np.testing.assert_allclose(steering.directions.numpy(), expected, atol=0.1)
    z, labels = synthetic(rng, 0.0, moves, 500, moves)
    read = (z.float() @ steering.readout.T + steering.offset).argmax(1)
    truth = torch.tensor([steering.emotions.index(label) for label in labels])
    assert (read == truth).float().mean() > 0.75
    shown = steering.shown(z.float())
    assert shown[truth == 0].mean() < 0.1
    assert shown[truth == 1, 1].mean() == pytest.approx(1, abs=0.25)  # a class mean shows one whole direction
    with pytest.raises(DataError, match="angry"):
        fit_directions({"sharp": sharp}, ["angry"], trust={"sharp": 1.0}, gains={})


def test_readout_is_the_gaussian_log_likelihood_ratio():
    """With no shrinkage: log N(z; m_k, S) up to a constant, the closed form of Fisher's discriminant."""
    rng = np.random.default_rng(1)
    moves = {"neutral": np.zeros(6), "happy": rng.normal(0, 1, 6)}
    z, labels = synthetic(rng, 0.0, moves, 300, moves)
    stats = class_statistics(z, labels)
    steering = fit_directions({"one": stats}, ["happy"], trust={"one": 1.0}, gains={}, shrinkage=0.0)
    covariance = (stats.scatter / len(z)).numpy()
    point = rng.normal(0, 1, 6)
    expected = [
        -0.5 * (point - stats.means[name].numpy()) @ np.linalg.inv(covariance) @ (point - stats.means[name].numpy())
        for name in ("neutral", "happy")
    ]
    logits = (torch.from_numpy(point).float() @ steering.readout.T + steering.offset).numpy()
    assert logits[1] - logits[0] == pytest.approx(expected[1] - expected[0], abs=1e-3)


def test_calming_turns_down_what_varies_anyway():
    covariance = torch.diag(torch.tensor([9.0, 1, 1, 1], dtype=torch.float64))
    direction = torch.tensor([[1.0, 1, 0, 0]], dtype=torch.float64)
    unchanged, turned = (
        suppress_within_class(direction, covariance, 1e9),
        suppress_within_class(direction, covariance, 1.0),
    )
    torch.testing.assert_close(unchanged, direction, atol=1e-6, rtol=0)
    assert turned[0, 0] < 0.5 * turned[0, 1]
    torch.testing.assert_close(turned.norm(), direction.norm())
    # 9 and 1 over the mean variance 3: (3 + 1)^-1 and (1/3 + 1)^-1
    torch.testing.assert_close(turned[0, 0] / turned[0, 1], torch.tensor((1 / 3 + 1) / (3 + 1), dtype=torch.float64))


def test_projection_makes_directions_orthogonal_at_their_old_length():
    directions = torch.randn(3, 8, dtype=torch.float64)
    torch.testing.assert_close(project_out(directions, 0.0), directions)
    full = project_out(directions, 1.0)
    torch.testing.assert_close(full.norm(dim=1), directions.norm(dim=1))
    for i in range(3):
        others = torch.cat([directions[:i], directions[i + 1 :]])
        torch.testing.assert_close(others @ full[i], torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)


def test_crops_are_resampled_without_aliasing(crops):
    _, out, _, _ = crops
    kept = CropSet(out)
    x = kept.pixels(np.array([3, 0]), 32)
    expected = Image.fromarray(kept.luminance(3)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(((x[0, 0] + 1) * 127.5).numpy(), np.asarray(expected), atol=1.5)
