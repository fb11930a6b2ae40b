"""Weight files of NVIDIA's and rosinality's StyleGAN2: what they draw, and that reading one never runs code."""

from __future__ import annotations

import argparse
import builtins
import collections
import io
import os
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emoedit.models.stylegan2 import files as stylegan2_files
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.types import CheckpointError
from tests.fixtures.memory import peak_of
from tests.fixtures.nvidia import (
    Persistent,
    W,
    _reconstruct_persistent_obj,
    by_formula,
    module,
    nvidia_file,
    nvidia_generator,
    nvidias_names,
    rosinality_state,
    z_by_formula,
)


@pytest.fixture
def names():
    with nvidias_names():
        yield


# What NVIDIA's code draws with these weights (networks.py of NVlabs/stylegan2-ada-pytorch; truncation .7 below layer 3,
# constant noise), and rosinality's code too (model.py of rosinality/stylegan2-pytorch; truncation .7 in all layers).
EVERY = 131  # th value is compared
NVIDIA = [-3.6862, 0.55054, 8.12083, 2.92081, 3.19026, 5.24123, -16.39892, 1.14171, -1.52359, 4.39395, 3.92528, 0.77941]
ROSINALITY = [
    -3.05499,
    0.04908,
    5.92111,
    1.87155,
    3.06303,
    4.79272,
    -12.39076,
    0.46117,
    -0.7252,
    2.77973,
    3.69084,
    0.60795,
]


def drawn(model: StyleGAN2Backbone, cutoff: int | None) -> list[float]:
    with torch.no_grad():
        w = model.mapping(z_by_formula())[:, None].repeat(1, 6, 1)
        w[:, :cutoff] = model.mapping.w_avg.lerp(w[:, :cutoff], 0.7)
        return model.synthesis(w).contiguous().flatten()[::EVERY].tolist()


# Parity


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_nvidias_file_draws_what_nvidias_code_draws(tmp_path, names, protocol):
    path = nvidia_file(tmp_path / "ffhq.pkl", nvidia_generator(by_formula()), protocol)
    model = StyleGAN2Backbone.load(path)
    config = model.config
    assert (config.resolution, config.channels, config.widths) == (16, 3, (12, 12, 8))
    assert (config.z_dim, config.w_dim, config.mapping_layers, config.mapping_rate, config.clamp) == (
        8,
        8,
        3,
        0.01,
        None,
    )
    assert (model.crop.style, model.crop.scale, model.encoder, config.optimise_steps) == ("ffhq", 1.0, None, 200)
    assert drawn(model, 3) == pytest.approx(NVIDIA, abs=1e-4)


@pytest.mark.parametrize("zipped", [True, False])
def test_rosinalitys_file_draws_what_its_code_draws(tmp_path, zipped):
    state = by_formula()
    contents = {
        "g_ema": rosinality_state(state),
        "latent_avg": state["mapping.w_avg"],
        "g": {},
        "g_optim": {"state": {}},
    }
    contents["args"] = argparse.Namespace(size=16, path="faces")  # its training writes the command line's arguments
    torch.save(contents, tmp_path / "000100.pt", _use_new_zipfile_serialization=zipped)
    model = StyleGAN2Backbone.load(tmp_path / "000100.pt")
    assert (model.config.resolution, tuple(model.config.widths), model.config.mapping_rate) == (16, (12, 12, 8), 0.01)
    assert drawn(model, None) == pytest.approx(ROSINALITY, abs=1e-4)


def test_both_files_give_the_same_weights(tmp_path, names):
    state = by_formula(channels=1)
    one = StyleGAN2Backbone.load(nvidia_file(tmp_path / "x.pkl", nvidia_generator(state)))
    torch.save({"g_ema": rosinality_state(state), "latent_avg": state["mapping.w_avg"][None]}, tmp_path / "x.pt")
    other = StyleGAN2Backbone.load(tmp_path / "x.pt")
    assert one.channels == other.channels == 1
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_old_files_without_noise_and_mean_are_completed(tmp_path):
    """As the first published 256-pixel model is; both are random and the same at every reading."""
    state = {k: v for k, v in rosinality_state(by_formula()).items() if not k.startswith("noises.")}
    torch.save({"g_ema": state}, tmp_path / "550000.pt")
    one, other = (StyleGAN2Backbone.load(tmp_path / "550000.pt") for _ in range(2))
    assert torch.equal(one.mapping.w_avg, other.mapping.w_avg) and torch.equal(
        one.synthesis.noise, other.synthesis.noise
    )
    assert 0.9 < float(one.synthesis.noise.std()) < 1.1
    with torch.no_grad():
        w = one.mapping(torch.randn(20_000, W, generator=torch.Generator().manual_seed(5)))
    assert float((w.mean(0) - one.mapping.w_avg).norm()) < 0.05 * float(w.std(0).norm())


def test_half_precision_tensors_and_clamps_are_read(tmp_path, names):
    generator = nvidia_generator({k: v.half() for k, v in by_formula().items()}, layer={"conv_clamp": 256})
    model = StyleGAN2Backbone.load(nvidia_file(tmp_path / "x.pkl", generator))
    assert model.config.clamp == 256 and all(p.dtype == torch.float32 for p in model.parameters())


# Files that do not fit


def test_generators_that_cannot_be_drawn_are_refused(tmp_path, names):
    state = by_formula()
    odd = {**state, "synthesis.b8.conv0.resample_filter": torch.ones(4, 4)}
    cases = [
        (nvidia_generator(state, c_dim=10), "conditioned on 10 classes"),
        (nvidia_generator(state, layer={"activation": "relu"}), r"synthesis\.b4\.conv1 with activation 'relu'"),
        (nvidia_generator(state, layer={"resample_filter": None, "architecture": "orig"}), "architecture 'orig'"),
        (module("Discriminator", {"b4.conv.weight": torch.zeros(1)}, {}), "holds a Discriminator"),
        (module("Generator", {}, {"synthesis": module("SynthesisNetwork", {"freqs": torch.zeros(2)}, {})}), "freqs"),
        (module("Generator", {}, {}), "no tensors"),
        (None, "training_set_kwargs, G, G_ema; expected a generator under 'G_ema'"),
        ({"mapping": 1}, "expected a generator under 'G_ema'"),
    ]
    for generator, match in cases:
        with pytest.raises(CheckpointError, match=match):
            StyleGAN2Backbone.load(nvidia_file(tmp_path / "x.pkl", generator))
    block = nvidia_generator(odd)
    block.state["_modules"]["synthesis"].state["_modules"]["b8"].state["_buffers"]["resample_filter"] = torch.eye(4)
    with pytest.raises(CheckpointError, match=r"synthesis\.b8 with another filter"):
        StyleGAN2Backbone.load(nvidia_file(tmp_path / "x.pkl", block))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"synthesis.b8.conv0.weight": None}, r"1 missing \(synthesis\.convs\.1\.weight\)"),
        ({"synthesis.b8.conv0.weight": (12, 11, 3, 3)}, r"synthesis\.convs\.1\.weight is \(12, 11, 3, 3\), expected"),
        ({"synthesis.b8.conv1.weight": None}, r"synthesis\.b8\.conv1\.weight is missing"),
        ({"synthesis.b8.conv1.weight": (12, 12)}, r"is \(12, 12\), expected 4 dimensions"),
        ({"synthesis.b8.conv1.noise_const": None}, r"b8\.conv1\.noise_const is nothing, expected a noise map of 8 x 8"),
        ({"synthesis.b8.conv1.noise_const": (8, 4)}, r"noise_const is \(8, 4\)"),
        ({"synthesis.b16.torgb.weight": (2, 8, 1, 1)}, "2 channels"),
        ({"mapping.fc1.weight": (9, 8)}, r"mapping\.layers\.1\.weight is \(9, 8\)"),
        ({"mapping.w_avg": (9,)}, r"mapping\.w_avg is \(9,\), expected \(8,\)"),
        ({f"synthesis.b16.{n}": None for n in ("conv0.weight", "conv1.weight", "torgb.weight")}, "is missing"),
    ],
)
def test_tensors_that_are_missing_or_of_another_shape_are_named(tmp_path, names, change, match):
    state = by_formula()
    for name, shape in change.items():
        del state[name]
        if shape is not None:
            state[name] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=match):
        StyleGAN2Backbone.load(nvidia_file(tmp_path / "x.pkl", nvidia_generator(state)))


def test_rosinality_files_that_do_not_fit_are_refused(tmp_path):
    state = rosinality_state(by_formula())
    cases = [
        ({"g_ema": {k: v for k, v in state.items() if k != "convs.2.conv.weight"}}, r"1 missing \(synthesis\.convs\.3"),
        ({"g_ema": {**state, "convs.2.conv.weight": torch.zeros(1, 8, 9, 3, 3)}}, r"\(8, 9, 3, 3\), expected"),
        ({"g_ema": {**state, "convs.9.skip.weight": torch.zeros(1)}}, r"1 unexpected \(convs\.9\.skip"),
        ({"g_ema": {**state, "conv1.activate.bias": torch.full((12,), torch.nan)}}, "not finite"),
        ({"g_ema": {**state, "convs.0.conv.blur.kernel": torch.ones(4, 4)}}, "another filter"),
        ({"g_ema": {k: v for k, v in state.items() if k != "noises.noise_3"}}, "noise_3 is nothing"),
        ({"g_ema": {"conv.weight": torch.zeros(1)}}, "conv.weight under 'g_ema'"),
        ({"g_ema": {"a": 1}}, "under 'g_ema'"),
        ({"state_dict": state}, "holds state_dict; expected"),
        ([state], "holds list"),
    ]
    for contents, match in cases:
        torch.save(contents, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=match):
            StyleGAN2Backbone.load(tmp_path / "x.pt")


def test_damaged_and_missing_files_are_refused(tmp_path, names):
    whole = nvidia_file(tmp_path / "x.pkl", nvidia_generator(by_formula())).read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-1], b"", b"<html>not found</html>", b"version https://git-lfs\n"):
        for name in ("x.pkl", "x.pt"):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(CheckpointError, match="damaged"):
                StyleGAN2Backbone.load(tmp_path / name)
    for name in ("none.pkl", "none.pt"):
        with pytest.raises(CheckpointError, match="no such file"):
            StyleGAN2Backbone.from_file(tmp_path / name)
    loop = nvidia_generator(by_formula())
    loop.state["_modules"]["synthesis"] = module("SynthesisNetwork", {}, {})
    inner = loop.state["_modules"]["synthesis"]
    for _ in range(20):
        inner.state["_modules"]["deeper"] = inner = module("SynthesisNetwork", {}, {})
    with pytest.raises(CheckpointError, match="deep"):
        StyleGAN2Backbone.load(nvidia_file(tmp_path / "x.pkl", loop))


# Files that would run code


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


def hostile(marker: str) -> dict[str, object]:
    shell, python = f"touch {marker}", f"open({marker!r}, 'w').close()"
    inside = torch.zeros(2)
    bad_storage = io.BytesIO()
    torch.save({"storage": Calls(os.system, shell)}, bad_storage)
    zipped = io.BytesIO()
    torch.save(Calls(builtins.exec, python), zipped, _use_new_zipfile_serialization=False)
    state = {"_parameters": {"weight": Calls(builtins.eval, python.replace("open", "__import__('io').open"))}}
    return {
        "os.system": Calls(os.system, shell),
        "exec": Calls(builtins.exec, python),
        "getattr": Calls(builtins.getattr, "os", "system"),
        "import": Calls(builtins.__import__, "os"),
        "open": Calls(builtins.open, marker, "w"),
        "torch.load": Calls(torch.load, marker),
        "storage": Calls(torch.storage._load_from_bytes, bad_storage.getvalue()),
        "old storage": Calls(torch.storage._load_from_bytes, zipped.getvalue()),
        "hooks": Calls(torch._utils._rebuild_parameter, inside, True, Calls(os.system, shell)),
        "in the state": module("Generator", {}, {"synthesis": Persistent("SynthesisNetwork", state)}),
        "in a key": {Calls(os.system, shell): 1},
        "in the arguments": Calls(_reconstruct_persistent_obj, Calls(os.system, shell)),
        "a whole module": nn.Linear(1, 1),
        "an array of objects": np.array([Calls(os.system, shell)], dtype=object),
        "numpy's reconstruct": np.zeros(3),
        "namespace": argparse.Namespace(a=Calls(os.system, shell)),
    }


@pytest.mark.parametrize("name", list(hostile("x")))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_that_would_run_code_are_refused_and_do_nothing(tmp_path, names, monkeypatch, name, protocol):
    marker = tmp_path / "was_here"
    path = tmp_path / "x.pkl"
    generator = nvidia_generator(by_formula())
    for contents in ({"G_ema": hostile(str(marker))[name]}, {"D": hostile(str(marker))[name], "G_ema": generator}):
        path.write_bytes(pickle.dumps(contents, protocol=protocol))
        with pytest.raises(CheckpointError):
            StyleGAN2Backbone.load(path)
        assert not marker.exists()


def test_such_pickles_do_run_code_elsewhere(tmp_path, names):
    """Else the test above would show nothing."""
    marker = tmp_path / "was_here"
    for name in ("os.system", "exec", "storage", "in a key", "hooks"):
        data = pickle.dumps(hostile(str(marker))[name])
        try:
            pickle.loads(data)
        except (TypeError, AttributeError):
            pass  # after the call
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"cos\nsystem\n(S'touch was_here'\ntR.", r"os\.system.*Nothing of it was executed"),
        (b"(S'touch was_here'\nios\nsystem\n.", r"os\.system"),
        (b"(cos\nsystem\nS'touch was_here'\no.", r"os\.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0etouch was_here\x85R.", r"posix\.system"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.__init_subclass__\x93.", "OrderedDict.__init_subclass__"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", r"builtins\.eval"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "eval"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02X\x04\x00\x00\x00nameQ.", "outside of the file"),
        (b"Pname\n.", "outside of the file"),
        (b"cdnnlib.tflib.network\nNetwork\n.", r"TensorFlow.*legacy\.py"),
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, monkeypatch, data, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(CheckpointError, match=match):
        StyleGAN2Backbone.load(tmp_path / "x.pkl")
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("named", stylegan2_files.ALLOWED)
def test_a_pickle_cannot_change_what_it_may_name(tmp_path, named):
    """BUILD sets attributes of what lies on the stack, and a name may lie there."""
    for state in (pickle.dumps({"__call__": 1, "update": 2}, 2), pickle.dumps((None, {"__call__": 1, "add": 2}), 2)):
        data = b"\x80\x02c" + "\n".join(named.rsplit(".", 1)).encode() + b"\n" + state[2:-1] + b"b."
        (tmp_path / "x.pkl").write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            stylegan2_files.read_pickle(tmp_path / "x.pkl")


def test_tensors_cannot_reach_outside_of_their_storage(tmp_path, names):
    def stored(tensor: Tensor) -> bytes:
        """What a tensor's storage pickles as."""
        (_, arguments) = tensor.__reduce_ex__(4)
        return arguments[0].__reduce__()[1][0]

    def tensor(*where):
        return Calls(torch._utils._rebuild_tensor_v2, *where, False, collections.OrderedDict())

    storage = Calls(torch.storage._load_from_bytes, stored(torch.zeros(4)))
    for where in (
        (storage, 0, (5,), (1,)),
        (storage, 3, (2,), (1,)),
        (storage, 0, (2, 2), (4, 1)),
        ("x", 0, (1,), (1,)),
    ):
        with pytest.raises(CheckpointError, match="damaged"):
            path = nvidia_file(tmp_path / "x.pkl", module("Generator", {}, {}), D=tensor(*where))
            StyleGAN2Backbone.load(path)


def test_a_pytorch_file_that_would_run_code_is_refused(tmp_path):
    marker = tmp_path / "was_here"
    for zipped in (True, False):
        torch.save(
            {"g_ema": Calls(os.system, f"touch {marker}")}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped
        )
        with pytest.raises(CheckpointError, match="Nothing of it was executed"):
            StyleGAN2Backbone.load(tmp_path / "x.pt")
        assert not marker.exists()


def test_files_that_would_never_end_or_fill_the_memory_are_refused(tmp_path, names):
    many = module("Block", {}, {})
    for _ in range(7):  # a module that holds itself 30 times on every level: 30^7 of them
        many = module("Block", {}, {str(n): many for n in range(30)})
    expanded = nvidia_generator(by_formula())
    expanded.state["_modules"]["mapping"].state["_buffers"]["w_avg"] = torch.zeros(1).expand(10**6, 10**6)
    stored = torch.zeros(10**6).__reduce_ex__(4)[1][0].__reduce__()[1][0]
    again = [Calls(torch.storage._load_from_bytes, stored) for _ in range(300)]  # the same bytes, 300 times over
    cases = [
        ({"G_ema": many}, "more than 2,000 modules"),
        ({"G_ema": expanded}, "each used many times over"),
        ({"D": again, "G_ema": None}, "claim more bytes than the file has"),
    ]
    for contents, match in cases:
        path = tmp_path / "x.pkl"
        path.write_bytes(pickle.dumps(contents, protocol=4))

        def read(path=path, match=match) -> None:
            with pytest.raises(CheckpointError, match=match):
                StyleGAN2Backbone.load(path)

        assert peak_of(read) < 3 * path.stat().st_size + 200_000_000
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\xfe.")
    with pytest.raises(CheckpointError, match="holds NoneType"):
        StyleGAN2Backbone.load(path)
