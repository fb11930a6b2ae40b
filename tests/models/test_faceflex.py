"""face-flex's files are read and its model is computed exactly; a bad file is refused and nothing of it is run."""

import io
import math
import os
import pickle
import random
import struct
import time
import warnings
import zipfile
import zlib
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from emoedit.models.faceflex.backbone import FaceFlexVAE
from emoedit.steering import faceflex
from emoedit.steering.faceflex import directions_from_faceflex, read_attribute_vectors
from emoedit.types import CheckpointError, Control, Edit, EditError
from tests.fixtures.faceflex import LATENT, WIDTH, numbers, shapes, weights


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# What a file holds, from the published format and not from our model


def pictures(count, peak=1.0):
    """``[count, 3, 128, 128]`` in [0, peak], each with the maximum peak."""
    x = torch.stack([numbers(50 + i, 3, 8, 8) + 1 for i in range(count)])
    x = x.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return x / x.amax((1, 2, 3), keepdim=True) * peak


def vector():
    return 0.2 * numbers(77, LATENT)


def save(path, state=None, **how):
    torch.save(weights() if state is None else state, path, **how)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "weights.pth")


@pytest.fixture(scope="module", params=[False, True], ids=["running", "batch"])
def model(request, file):
    return FaceFlexVAE.from_file(file, batch_statistics=request.param)


# The model


def by_hand(state, key, x, batch_statistics):
    """Encoder (``key`` "e": both heads) or decoder ("d") in float64, written out in elementary steps."""
    s = {name: value.double() for name, value in state.items()}
    x = x.double()

    def convolve(h, name, stride):
        n, c, rows, columns = h.shape
        weight = s[f"{name}.weight"]
        size = weight.shape[-1]
        out = [(side - size) // stride + 1 for side in (rows, columns)]
        total = torch.zeros(n, len(weight), *out, dtype=torch.float64)
        for dy in range(size):
            for dx in range(size):
                part = h[:, :, dy : dy + stride * out[0] : stride, dx : dx + stride * out[1] : stride]
                part = part[:, :, : out[0], : out[1]]
                total += torch.einsum("oc,ncyx->noyx", weight[:, :, dy, dx], part)
        return total + s[f"{name}.bias"][:, None, None]

    def normalise(h, name, eps):
        if batch_statistics:
            mean = h.mean((2, 3), keepdim=True)
            variance = ((h - mean) ** 2).mean((2, 3), keepdim=True)
        else:
            mean, variance = s[f"{name}.running_mean"][:, None, None], s[f"{name}.running_var"][:, None, None]
        scaled = (h - mean) / (variance + eps) ** 0.5
        return scaled * s[f"{name}.weight"][:, None, None] + s[f"{name}.bias"][:, None, None]

    def leaky(h):
        return torch.where(h > 0, h, 0.2 * h)

    def dense(h, name):
        return torch.einsum("ij,nj->ni", s[f"{name}.weight"], h) + s[f"{name}.bias"]

    if key == "e":
        for i in range(1, 6):
            padded = torch.zeros(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2, dtype=torch.float64)
            padded[:, :, 1:-1, 1:-1] = x
            x = leaky(normalise(convolve(padded, f"e{i}", 2), f"bn{i}", 1e-5))
        x = x.reshape(len(x), -1)
        return dense(x, "fc1"), dense(x, "fc2")
    x = dense(x, "d1").clamp_min(0).reshape(len(x), -1, 4, 4)
    for i in range(2, 7):
        inside = torch.arange(2 * x.shape[-1]) // 2
        edged = torch.cat([inside[:1], inside, inside[-1:]])
        x = convolve(x[:, :, edged][:, :, :, edged], f"d{i}", 1)
        if i < 6:
            x = leaky(normalise(x, f"bn{i + 4}", 1e-3))
    return 1 / (1 + torch.exp(-x))


def test_it_computes_what_the_formulas_say(model):
    x = pictures(2)
    with torch.no_grad():
        mean, log_var = model.encoder(x)
        decoded = model.decoder(mean)
    expected_mean, expected_log_var = by_hand(weights(), "e", x, model.batch_statistics)
    assert mean.std() > 0.1 and decoded.std() > 0.05
    torch.testing.assert_close(mean.double(), expected_mean, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(log_var.double(), expected_log_var, atol=2e-5, rtol=1e-4)
    expected = by_hand(weights(), "d", mean, model.batch_statistics)
    torch.testing.assert_close(decoded.double(), expected, atol=2e-5, rtol=1e-4)


# What face-flex's own code computes with weights(), pictures(2)[1:] and three times vector(), in evaluation mode and in
# the training mode it runs in (PyTorch 2.15, CPU): eight means and four log-variances of the latent, and of the decoded
# and the edited picture column 64 of the rows 5, 44, 83 and 122 of each colour, and mean and deviation of all pixels.
UPSTREAM = {
    False: (
        [-0.00019, -0.06753, -0.06796, -0.42928, 0.08854, -0.3623, 0.2144, 0.23582],
        [-0.2757, 0.09314, -0.39893, 0.41117],
        [0.6285, 0.4141, 0.30792, 0.27021, 0.81245, 0.35764, 0.65375, 0.72082, 0.16816, 0.88981, 0.12224, 0.44189],
        (0.448846, 0.206974),
        [0.5676, 0.57526, 0.2465, 0.66151, 0.92917, 0.68958, 0.87739, 0.95137, 0.03233, 0.01704, 0.00171, 0.01605],
        (0.443021, 0.307598),
    ),
    True: (
        [-0.72861, -0.16955, 0.57147, -0.47883, -1.14425, 0.23635, -0.10069, -0.20422],
        [0.34026, 0.7437, -0.81414, 0.16247],
        [0.54243, 0.48254, 0.4748, 0.33932, 0.70141, 0.41423, 0.55922, 0.21127, 0.38746, 0.66158, 0.16124, 0.94398],
        (0.553909, 0.189987),
        [0.5236, 0.63943, 0.39979, 0.63428, 0.56387, 0.56862, 0.59423, 0.65682, 0.28641, 0.41369, 0.20178, 0.44032],
        (0.553379, 0.190703),
    ),
}


def test_it_computes_what_face_flex_computes(model):
    mean, log_var, plain, plain_all, edited, edited_all = UPSTREAM[model.batch_statistics]
    x = pictures(2)[1:]
    inversion = model.invert(2 * x - 1)
    assert inversion.latent[0, :8].tolist() == pytest.approx(mean, abs=1e-4)
    assert model.encoder(x)[1][0, :4].tolist() == pytest.approx(log_var, abs=1e-4)
    shift = Control(shift=3 * vector()[None])
    for decoded, some, over_all in (
        (model.decode(inversion), plain, plain_all),
        (model.decode(inversion, shift), edited, edited_all),
    ):
        light = (decoded + 1) / 2
        assert light[0, :, 5::39, 64].flatten().tolist() == pytest.approx(some, abs=1e-4)
        assert (light.mean().item(), light.std().item()) == pytest.approx(over_all, abs=1e-4)


def test_a_batch_is_what_its_pictures_are_one_by_one(model):
    x = 2 * pictures(3) - 1
    shift = Control(shift=3 * vector().expand(3, -1))
    batch = model.invert(x)
    together = model.decode(batch, shift)
    assert together.shape == (3, 3, 128, 128) and len(batch) == 3
    for i in range(3):
        alone = model.invert(x[i : i + 1])
        torch.testing.assert_close(batch.latent[i : i + 1], alone.latent, atol=1e-5, rtol=1e-4)
        decoded = model.decode(batch[i : i + 1], Control(shift=shift.shift[:1]))
        torch.testing.assert_close(together[i : i + 1], decoded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_nothing_is_written_and_training_mode_changes_nothing(file, batch_statistics):
    model = FaceFlexVAE.from_file(file, batch_statistics=batch_statistics)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = 2 * pictures(2) - 1
    kept = x.clone()
    first = model.decode(model.invert(x))
    second = model.train().decode(model.invert(x))
    assert torch.equal(first, second) and torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_brightness_is_divided_out_and_given_back(model):
    bright, dark = pictures(1), pictures(1, peak=0.25)
    one, quarter = model.invert(2 * bright - 1), model.invert(2 * dark - 1)
    assert quarter.extras["peak"].shape == (1, 1, 1, 1)
    assert quarter.extras["peak"].item() == pytest.approx(0.25)
    torch.testing.assert_close(one.latent, quarter.latent, atol=1e-4, rtol=1e-4)
    light = [(model.decode(inversion) + 1) / 2 for inversion in (one, quarter)]
    torch.testing.assert_close(light[0] / 4, light[1], atol=1e-5, rtol=1e-4)
    assert 0 <= light[1].min() and light[1].max() <= 0.25


def test_a_black_picture_stays_finite_and_dark(model):
    decoded = model.decode(model.invert(-torch.ones(1, 3, 128, 128)))
    assert decoded.isfinite().all() and decoded.max() < -0.99


def test_callbacks_and_the_crop(model):
    calls = []
    inversion = model.invert(2 * pictures(1) - 1, callback=lambda *done: calls.append(done))
    model.decode(inversion, callback=lambda *done: calls.append(done))
    assert calls == [(1, 1), (1, 1)]
    assert model.channels == 3 and model.crop.resolution == 128


# Weight files


def test_the_shapes_of_the_published_model():
    with torch.device("meta"):
        state = FaceFlexVAE(128, 500).state_dict()
    assert len(state) == 71
    got = {key: tuple(value.shape) for key, value in state.items()}
    assert {key: shape for key, shape in got.items() if not key.endswith("num_batches_tracked")} == shapes(128, 500)
    assert sum(key.endswith("num_batches_tracked") for key in got) == 9
    published = {
        "e1": (128, 3, 4, 4), "e2": (256, 128, 4, 4), "e3": (512, 256, 4, 4), "e4": (1024, 512, 4, 4),
        "e5": (1024, 1024, 4, 4), "fc1": (500, 16384), "fc2": (500, 16384), "d1": (32768, 500),
        "d2": (1024, 2048, 3, 3), "d3": (512, 1024, 3, 3), "d4": (256, 512, 3, 3), "d5": (128, 256, 3, 3),
        "d6": (3, 128, 3, 3),
    }  # fmt: skip
    assert {key: got[f"{key}.weight"] for key in published} == published
    assert {key: got[f"{key}.bias"] for key in published} == {key: shape[:1] for key, shape in published.items()}
    widths = [128, 256, 512, 1024, 1024, 1024, 512, 256, 128]
    assert [got[f"bn{i}.running_var"] for i in range(1, 10)] == [(width,) for width in widths]


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "no counters", "plain dict", "parameters", "float64"])
def test_every_kind_of_file_gives_the_same_model(tmp_path, file, kind):
    path = tmp_path / "weights.pth"
    if kind == "safetensors":
        path = tmp_path / "weights.SafeTensors"
        safetensors.torch.save_file(dict(weights()), path)
    elif kind == "no counters":
        assert len(weights(counters=False)) == 62
        save(path, weights(counters=False))
    elif kind == "plain dict":
        save(path, dict(weights()))
    elif kind == "parameters":
        save(path, {key: nn.Parameter(value, False) for key, value in weights().items()})
    elif kind == "float64":
        save(path, {key: value.double() if value.is_floating_point() else value for key, value in weights().items()})
    else:
        save(path, _use_new_zipfile_serialization=kind == "zip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FaceFlexVAE.from_file(str(path) if kind == "zip" else path)
    assert (model.width, model.latent, model.batch_statistics, model.training) == (WIDTH, LATENT, False, False)
    assert all(value.dtype == torch.float32 for value in model.parameters()) and model.device.type == "cpu"
    x = 2 * pictures(1) - 1
    assert torch.equal(model.invert(x).latent, FaceFlexVAE.from_file(file).invert(x).latent)


def test_width_and_latent_are_read_off_the_file_and_it_can_be_saved_again(tmp_path):
    model = FaceFlexVAE.from_file(save(tmp_path / "a.pth", weights(2, 5)))
    assert (model.width, model.latent) == (2, 5)
    again = FaceFlexVAE.from_file(save(tmp_path / "b.pth", model.state_dict()))
    assert all(torch.equal(value, weights(2, 5)[key]) for key, value in again.state_dict().items() if "num" not in key)


def changed(**changes):
    return weights() | {key.replace("__", "."): value for key, value in changes.items()}


def without(*keys):
    return {key: value for key, value in weights().items() if key not in keys}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without("fc2.bias", "bn9.running_mean"), r"missing: fc2\.bias, bn9\.running_mean$"),
        (without("e1.weight"), r"missing: e1\.weight; wrong shape: e1\.bias \(expected \(128,\), got \(4,\)\), "),
        (changed(d7__bias=torch.zeros(3)), r"of width 4 and latent 12\): unexpected: d7\.bias$"),
        (changed(d6__bias=torch.zeros(1)), r"wrong shape: d6\.bias \(expected \(3,\), got \(1,\)\)$"),
        (changed(fc1__weight=torch.zeros(12, 128)), r"fc1\.weight \(expected \(12, 512\), got \(12, 128\)\)$"),
        (changed(bn1__num_batches_tracked=torch.zeros(2)), r"num_batches_tracked \(expected \(\), got \(2,\)\)$"),
        (changed(d2__bias=torch.full((32,), math.nan)), r"not finite: d2\.bias$"),
        (changed(d2__bias=torch.full((32,), 1e300, dtype=torch.float64)), r"not finite: d2\.bias$"),
        (changed(bn4__running_var=torch.full((32,), -0.1)), r"negative variance: bn4\.running_var$"),
        (changed(d2__bias=torch.zeros(32, dtype=torch.int64)), r"not a plain floating-point tensor: d2\.bias$"),
        pytest.param(
            changed(d2__bias=torch.zeros(32).to_sparse()), "holds a sparse tensor",
            marks=pytest.mark.filterwarnings("ignore:Validating sparse"),
        ),
        (changed(d2__bias=torch.zeros(1).expand(32)), r"of shape \(32,\) in it has only 1 numbers in the file"),
        (changed(d2__bias=torch.zeros(32, device="meta")), "holds a tensor on the meta device"),
        (changed(d2__bias=1.5), r"not a plain floating-point tensor: d2\.bias$"),
        (changed(e1__weight=torch.zeros(1).expand(10**7, 3, 4, 4)), "has only 1 numbers in the file"),
        (changed(e1__weight=torch.zeros(10**12, 0, 4, 4)), r"e1\.weight \(expected \(128, 3, 4, 4\), got \(10+, 0"),
        (changed(e1__weight=torch.tensor(3.0), fc1__weight=torch.tensor(3.0)), r"e1\.weight \(expected .*, got \(\)\)"),
        ({}, "missing: e1.weight, .* and 54 more"),
        (OrderedDict((f"module.{key}", value) for key, value in weights().items()), r"save model\.module\.state_dict"),
        ({"state_dict": weights(), "epoch": 3}, r"wraps one: load it, and save its entry 'state_dict' alone"),
        ({"epoch": 3, "model": dict(weights())}, r"save its entry 'model' alone"),
        ([torch.zeros(3)], "holds a list, not a state dict"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({1: torch.zeros(3)}, "not a state dict"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_listed(tmp_path, state, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        FaceFlexVAE.from_file(save(tmp_path / "weights.pth", state))
    assert "weights.pth" in str(caught.value) and len(str(caught.value)) < 1500


def test_all_faults_are_told_at_once(tmp_path):
    state = without("d1.bias") | {"d2.bias": torch.full((32,), math.inf), "d3.bias": torch.ones(1), "x": torch.ones(1)}
    told = "missing: d1.bias; unexpected: x; wrong shape: d3.bias .*; not finite: d2.bias"
    with pytest.raises(CheckpointError, match=told):
        FaceFlexVAE.from_file(save(tmp_path / "weights.pth", state))


class Hostile:
    def __init__(self, path):
        self.command = f"echo > '{path}'"

    def __reduce__(self):
        return os.system, (self.command,)


class HostileModule(nn.Module):
    def __init__(self, path):
        super().__init__()
        self.e1 = nn.Conv2d(3, WIDTH, 4)
        self.path = path

    def __reduce__(self):
        return os.system, (f"echo > '{self.path}'",)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("make", [HostileModule, lambda path: changed(x=Hostile(path)), lambda _: nn.Linear(2, 2)])
def test_a_pickled_module_is_refused_and_runs_nothing(tmp_path, make, new_format):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it cannot keep the source of a class
        path = save(tmp_path / "weights.pth", make(tmp_path / "ran"), _use_new_zipfile_serialization=new_format)
    with pytest.raises(
        CheckpointError, match="a whole pickled module is refused.*; save the weights alone, with torch"
    ):
        FaceFlexVAE.from_file(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weight_files_are_refused(tmp_path, file, suffix):
    whole = file.read_bytes() if suffix == ".pth" else safetensors.torch.save(dict(weights()))
    path = tmp_path / f"weights{suffix}"
    for data in [b"", b"\x80", b"hello", *(whole[: len(whole) * part // 7] for part in range(1, 7))]:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="weights"):
            FaceFlexVAE.from_file(path)


def test_a_missing_weight_file_is_said_to_be_missing(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(CheckpointError, match="there is no such file"):
            FaceFlexVAE.from_file(path)


# Attribute vectors


class Stream:
    """Writes what ``joblib.dump`` writes, byte for byte: as in 2019 (joblib 0.14, protocol 3), or ``framed`` as since
    joblib 1.2 (protocol 4, aligned arrays)."""

    def __init__(self, framed):
        self.framed, self.memo, self.frame = framed, {}, b""
        self.done = b"\x80\x04" if framed else b"\x80\x03"

    def remember(self, key):
        number = self.memo[key] = len(self.memo)
        self.frame += b"\x94" if self.framed else self.numbered(b"q", b"r", number)

    def recall(self, key):
        self.frame += self.numbered(b"h", b"j", self.memo[key])

    def numbered(self, short, long, number):
        return short + struct.pack("<B", number) if number < 256 else long + struct.pack("<I", number)

    def number(self, value):
        code = "KB" if 0 <= value < 2**8 else "MH" if 0 <= value < 2**16 else "Ji"
        self.frame += code[0].encode() + struct.pack("<" + code[1], value)

    def text(self, value, again=False):
        if value in self.memo and not again:
            return self.recall(value)
        raw = value.encode()
        self.frame += b"\x8c" + struct.pack("<B", len(raw)) if self.framed else b"X" + struct.pack("<I", len(raw))
        self.frame += raw
        return self.remember(value if value not in self.memo else object())

    def name(self, module, name):
        if (module, name) in self.memo:
            return self.recall((module, name))
        if self.framed:
            self.text(module)
            self.text(name, again=True)  # "dtype", the class, and "dtype", the key, are two strings to pickle
        self.frame += b"\x93" if self.framed else f"c{module}\n{name}\n".encode()
        return self.remember((module, name))

    def commit(self):
        if self.framed and len(self.frame) >= 4:
            self.done += b"\x95" + struct.pack("<Q", len(self.frame))
        self.done, self.frame = self.done + self.frame, b""

    def kind(self, dtype):
        if dtype in self.memo:
            return self.recall(dtype)
        self.name("numpy", "dtype")
        self.text("O8" if dtype.hasobject else dtype.str[1:])
        self.frame += b"\x89\x88\x87" if self.framed else b"K\0K\1\x87"  # numpy wrote the flags as numbers until 1.20
        self.remember("arguments")
        self.frame += b"R"
        self.remember(dtype)
        self.frame += b"("
        self.number(3)
        self.text(dtype.str[0])
        self.frame += b"NNN"
        for value in (-1, -1, 0):
            self.number(value)
        self.frame += b"t"
        self.remember("state")
        self.frame += b"b"

    def array(self, values):
        self.name("joblib.numpy_pickle", "NumpyArrayWrapper")
        self.frame += b")\x81"
        self.remember(object())
        self.frame += b"}"
        self.remember(object())
        self.frame += b"("
        self.text("subclass")
        self.name("numpy", "ndarray")
        self.text("shape")
        for side in values.shape:
            self.number(side)
        self.frame += {0: b")", 1: b"\x85", 2: b"\x86"}[values.ndim]
        self.remember(object())
        self.text("order")
        self.text("C")
        self.text("dtype")
        self.kind(values.dtype)
        self.text("allow_mmap")
        self.frame += b"\x88"
        if self.framed:
            self.text("numpy_array_alignment_bytes")
            self.number(16)
        self.frame += b"ub"
        self.commit()
        if self.framed:
            padding = 16 - (len(self.done) + 1) % 16
            self.done += bytes([padding]) + padding * b"\xff"
        if values.dtype.hasobject:
            self.done += pickle.dumps(values, protocol=2)
        else:
            self.done += values.tobytes()

    def mapping(self, contents):
        self.frame += b"}"
        self.remember(object())
        self.frame += b"("
        for key, values in contents.items():
            self.text(key)
            self.frame += b"]"
            self.remember(object())
            self.frame += b"("
            for value in values:
                self.array(value) if isinstance(value, np.ndarray) else self.text(value)
            self.frame += b"e"
        self.frame += b"u."
        self.commit()
        return self.done


def dumped(contents, framed=False):
    return Stream(framed).mapping(contents)


def groups(count=25, length=LATENT):
    return {key: numbers(seed, count, length).numpy() for seed, key in ((5, "pos"), (6, "neg"))}


def write(path, data):
    path.write_bytes(data)
    return path


def as_file(path, kind, contents):
    if kind == ".npz":
        np.savez(path.with_suffix(kind), **contents)
    elif kind == ".safetensors":
        safetensors.numpy.save_file(contents, path.with_suffix(kind))
    else:
        return write(path, dumped({key: list(value) for key, value in contents.items()}, kind == "new"))
    return path.with_suffix(kind)


KINDS = ["old", "new", ".npz", ".safetensors"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "length"), [(25, LATENT), (1, 1), (3, 500)])
def test_vectors_are_differences_of_the_groups(tmp_path, kind, count, length):
    path = as_file(tmp_path / "Smiling.pkl", kind, groups(count, length))
    pos, neg = groups(count, length).values()
    for variant in {0, count // 2, count - 1}:
        assert read_attribute_vectors(path, variant=variant).tolist() == (pos[variant] - neg[variant]).tolist()
    mean = read_attribute_vectors(str(path))
    assert mean.dtype == torch.float32 and mean.shape == (length,)
    assert mean.tolist() == pytest.approx((pos.astype(float) - neg).mean(0).tolist(), abs=1e-7)


@pytest.mark.parametrize("variant", [-1, 25, 10**9])
def test_a_variant_that_is_not_there(tmp_path, variant):
    path = as_file(tmp_path / "Smiling.pkl", "old", groups())
    with pytest.raises(CheckpointError, match=rf"Smiling.pkl has the variants 0 to 24, not {variant}"):
        read_attribute_vectors(path, variant=variant)


BAD_CONTENTS = {
    "another name": ({"pos": groups()["pos"], "negative": groups()["neg"]}, "exactly 'pos' and 'neg'"),
    "one more": (groups() | {"x": groups()["pos"]}, "exactly 'pos' and 'neg'"),
    "one less": ({"pos": groups()["pos"]}, "exactly 'pos' and 'neg'"),
    "unequal count": ({"pos": groups()["pos"], "neg": groups()["neg"][:24]}, r"\(25, 12\).*\(24, 12\)"),
    "unequal length": ({"pos": groups()["pos"], "neg": groups()["neg"][:, :11].copy()}, r"\(25, 12\).*\(25, 11\)"),
    "float64": ({key: value.astype("f8") for key, value in groups().items()}, "f8|float64"),
    "float16": ({key: value.astype("f2") for key, value in groups().items()}, "f2|float16"),
    "integers": ({key: value.astype("i4") for key, value in groups().items()}, "i4|int32"),
    "NaN": ({"pos": groups()["pos"] * math.nan, "neg": groups()["neg"]}, "not finite"),
    "infinite": ({"pos": groups()["pos"], "neg": groups()["neg"] + np.float32(math.inf)}, "not finite"),
    "too large": ({key: np.full((2, 3), value, "f4") for key, value in (("pos", 3e38), ("neg", -3e38))}, "not finite"),
    "no rows": ({key: value[:0] for key, value in groups().items()}, "one or more|float32|array"),
    "no columns": ({key: value[:, :0].copy() for key, value in groups().items()}, "one-dimensional|float32"),
    "more dimensions": ({key: value.reshape(5, 5, 12) for key, value in groups().items()}, "one-dimensional|float32"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", BAD_CONTENTS)
def test_other_contents_are_refused(tmp_path, kind, bad):
    contents, message = BAD_CONTENTS[bad]
    path = as_file(tmp_path / "Smiling.pkl", kind, contents)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_attribute_vectors(path)
    assert "Smiling" in str(caught.value)


def ragged(framed):
    return dumped({"pos": [np.zeros(3, "f4"), np.zeros(4, "f4")], "neg": [np.zeros(3, "f4")] * 2}, framed)


def objects(framed):
    return dumped({"pos": [np.array([Hostile("ran")], object)], "neg": [np.zeros(1, "f4")]}, framed)


def words(framed):
    return dumped({"pos": ["a", "b"], "neg": ["a", "b"]}, framed)


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (ragged, "'pos' is not one or more arrays of one shape"),
        (objects, "numbers of the type 'O8'; expected 'f4'"),
        (words, "'pos' holds something else than arrays"),
        (lambda framed: dumped(small(), framed).replace(b"<", b">"), "objects that have no place"),
        (lambda framed: dumped(small(), framed).replace(b"ndarray", b"memmapp"), "numpy memmapp.*nothing of it"),
        (lambda framed: dumped(small(), framed) + b"\0", "more bytes follow"),
        (lambda framed: dumped(small(), framed)[:-10], "it ends inside an array"),
        (lambda framed: dumped(small(), framed) * 2, "more bytes follow"),
    ],
)
def test_other_streams_are_refused(tmp_path, monkeypatch, make, message, framed):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        read_attribute_vectors(write(tmp_path / "Smiling.pkl", make(framed)))
    assert not (tmp_path / "ran").exists()


def test_arrays_of_another_class_and_other_padding_are_refused(tmp_path):
    other = dumped(small()).replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n")
    padded = dumped(small(), framed=True).replace(3 * b"\xff", b"\xff\0\xff")
    for data in (other, padded):
        with pytest.raises(CheckpointError, match="objects that have no place"):
            read_attribute_vectors(write(tmp_path / "Smiling.pkl", data))


def small(count=2, length=3):
    return {key: list(value) for key, value in groups(count, length).items()}


def payloads(path):
    """Pickles that run something when they are unpickled."""
    command = f"echo > '{path}'".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    for protocol in range(6):
        yield pickle.dumps(Hostile(path), protocol)
        yield pickle.dumps({"pos": [Hostile(path)], "neg": [Hostile(path)]}, protocol)
    yield b"\x80\x02cos\nsystem\n" + text + b"\x85R."
    yield b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R."
    yield b"\x80\x02(cos\nsystem\n" + text + b"o."
    yield b"\x80\x02(" + text + b"ios\nsystem\n."
    yield b"\x80\x02cos\nsystem\n" + text + b"\x85\x81."
    # the hostile call before, inside and behind a file that is otherwise right
    right = dumped(small())
    call = b"cos\nsystem\n" + text + b"\x85R0"
    yield right[:2] + call + right[2:]
    yield right[:-1] + call + b"."
    yield right.replace(b"cnumpy\ndtype\n", b"cos\nsystem\n")
    yield right.replace(b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n", b"cos\nsystem\n")


def test_hostile_pickles_are_refused_and_run_nothing(tmp_path):
    target = tmp_path / "ran"
    for data in payloads(target):
        for suffix in (".pkl", ".npz", ".safetensors", ""):
            with pytest.raises(CheckpointError):
                read_attribute_vectors(write(tmp_path / f"Smiling{suffix}", data))
    assert not target.exists()
    pickle.loads(next(payloads(target)))  # they do run when they are unpickled
    assert target.exists()


@pytest.mark.parametrize("framed", [False, True])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, framed):
    whole = dumped(small(), framed)
    for end in range(len(whole)):
        with pytest.raises(CheckpointError):
            read_attribute_vectors(write(tmp_path / "Smiling.pkl", whole[:end]))
    read_attribute_vectors(write(tmp_path / "Smiling.pkl", whole))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_any_damage_is_either_harmless_or_refused_by_a_typed_error(tmp_path, kind):
    rng = random.Random(kind)
    whole = as_file(tmp_path / "whole.pkl", kind, groups(2, 3)).read_bytes()
    path = tmp_path / f"Smiling{kind if kind.startswith('.') else '.pkl'}"
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        try:
            vector = read_attribute_vectors(write(path, bytes(data)))
        except CheckpointError as error:
            assert len(str(error)) < 1000
        else:
            assert vector.ndim == 1 and vector.isfinite().all()


def nested(depth=60):
    """Tuples that hold the one before twice: small in memory, without end for whoever hashes or prints them."""
    return b"\x80\x02)q\0" + b"h\0h\0\x86q\0" * depth


@pytest.mark.parametrize(
    "data",
    [
        nested() + b".",
        nested() + b"}h\0Ns.",
        nested() + b"}X\3\0\0\0posh\0s.",
        nested() + b"cnumpy\ndtype\nh\0R.",
        nested() + b"cnumpy\ndtype\nX\2\0\0\0f4K\0K\1\x87Rh\0b.",
        nested() + b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81h\0b.",
        b"\x80\x02]q\0" + b"h\0a" * 1000 + b".",  # a list that holds itself
        b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f",  # an integer of 2 GB
        b"\x80\x02B\xff\xff\xff\x7f",
        b"\x80\x02I" + b"9" * 10**6 + b"\n.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02" + b"b" * 20 + b".",
        b"\x80\x02(((t.",
        b"\x80\x02N(\x85.",
    ],
)
def test_instructions_that_would_exhaust_a_machine_are_refused_at_once(tmp_path, data):
    start = time.perf_counter()
    with pytest.raises(CheckpointError):
        read_attribute_vectors(write(tmp_path / "Smiling.pkl", data))
    assert time.perf_counter() - start < 5


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "Smiling.pkl"
    with open(path, "wb") as file:
        file.truncate(10**9)
    with pytest.raises(CheckpointError, match=f"larger than {faceflex.MAX_BYTES} bytes"):
        read_attribute_vectors(path)
    # one array, referred to often; and zeros, compressed
    array = dumped({"pos": [np.zeros(10**5, "f4")]})
    start = array.index(b"(cjoblib")
    end = len(array) - 3
    refer = b"q\xff" + b"h\xff" * 1000
    many = b"\x80\x03}(X\3\0\0\0pos](" + array[start + 1 : end] + refer + b"eX\3\0\0\0neg](" + b"h\xff" * 1001 + b"eu."
    with pytest.raises(CheckpointError, match="'pos' unpacks to more than"):
        read_attribute_vectors(write(path, many))
    with zipfile.ZipFile(tmp_path / "Smiling.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("pos", "neg"):
            member = io.BytesIO()
            np.save(member, np.zeros((10, 10**6), "f4"))
            archive.writestr(f"{name}.npy", member.getvalue())
    with pytest.raises(CheckpointError, match="unpacks to more than"):
        read_attribute_vectors(tmp_path / "Smiling.npz")


def test_an_npz_with_pickled_objects_is_refused_and_runs_nothing(tmp_path):
    path = tmp_path / "Smiling.npz"
    rows = np.empty(1, object)
    rows[0] = Hostile(tmp_path / "ran")
    np.savez(path, pos=rows, neg=rows)
    with pytest.raises(CheckpointError, match="allow_pickle"):
        read_attribute_vectors(path)
    assert not (tmp_path / "ran").exists()


def test_compressed_or_unknown_files_and_missing_ones(tmp_path):
    for data in (zlib.compress(dumped(small())), b"", b"hello", b"x" * 1000):
        with pytest.raises(CheckpointError, match="no uncompressed joblib file"):
            read_attribute_vectors(write(tmp_path / "Smiling.pkl", data))
    np.save(tmp_path / "table.npy", groups()["pos"])
    for path in (tmp_path / "none.pkl", tmp_path, (tmp_path / "table.npy").rename(tmp_path / "table.npz")):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_attribute_vectors(path)


# Directions


@pytest.fixture
def smile(tmp_path):
    return as_file(tmp_path / "Smiling.pkl", "old", groups())


def test_strength_one_is_the_factor_times_the_vector(model, smile):
    inversion = model.invert(2 * pictures(2) - 1)
    for factor, variant in ((3.0, None), (2.5, 5)):
        steering = directions_from_faceflex({"happy": smile}, factor=factor, variant=variant)
        vector = read_attribute_vectors(smile, variant=variant)
        control = steering.control(model, inversion, [Edit("happy"), Edit("joy", -0.5)])
        torch.testing.assert_close(control.shift, torch.stack([factor * vector, -0.5 * factor * vector]))
        expected = 2 * model.decoder(inversion.latent + control.shift) * inversion.extras["peak"] - 1
        torch.testing.assert_close(model.decode(inversion, control), expected.detach())
    assert torch.equal(directions_from_faceflex({"happy": smile}).directions[0], 3 * read_attribute_vectors(smile))


def test_strength_zero_is_the_reconstruction(model, smile):
    inversion = model.invert(2 * pictures(2) - 1)
    control = directions_from_faceflex({"happy": smile}).control(model, inversion, [Edit("happy", 0)] * 2)
    assert torch.equal(control.shift, torch.zeros(2, LATENT))
    assert torch.equal(model.decode(inversion, control), model.decode(inversion))


def test_several_files_make_one_steering(tmp_path, smile):
    young = as_file(tmp_path / "Young", ".npz", {key: value + (key == "pos") for key, value in groups().items()})
    steering = directions_from_faceflex({"happy": smile, "young": young}, factor=1)
    assert steering.emotions == ("happy", "young")
    torch.testing.assert_close(steering.directions[1], steering.directions[0] + 1, atol=1e-5, rtol=1e-5)


def test_files_that_do_not_go_together_are_refused(tmp_path, model, smile):
    other = as_file(tmp_path / "Young", ".npz", groups(length=13))
    with pytest.raises(CheckpointError, match="'happy': 12, 'young': 13"):
        directions_from_faceflex({"happy": smile, "young": other})
    with pytest.raises(CheckpointError, match="none at all"):
        directions_from_faceflex({})
    for factor in (math.nan, math.inf):
        with pytest.raises(EditError, match="finite"):
            directions_from_faceflex({"happy": smile}, factor=factor)
    inversion = model.invert(2 * pictures(1) - 1)
    with pytest.raises(CheckpointError, match=r"a latent of \(13,\), the backbone's is \(12,\)"):
        directions_from_faceflex({"happy": other}).control(model, inversion, [Edit("happy")])
