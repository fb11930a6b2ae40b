"""Where models compute: a machine with CUDA gets CUDA, and batches that do not fit are halved."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from emoedit import photo
from emoedit.editors import Editor, load_editor
from emoedit.faces import analysis
from emoedit.models import devices
from emoedit.models.devices import (
    choose_device,
    choose_precision,
    compile_parts,
    describe,
    fitting,
    in_batches,
)
from emoedit.models.precision import weight_dtype
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.photo import PhotoEditor
from emoedit.steering.words import Words
from emoedit.types import DeviceMemoryError, Edit, EditError
from tests.fixtures.editors import tiny_asyrp, tiny_vae
from tests.fixtures.stable_diffusion import tiny as tiny_stable_diffusion
from tests.fixtures.stable_diffusion import write_model as write_stable_diffusion


@pytest.fixture
def machine(monkeypatch):
    """A machine that has what it is told it has."""

    def have(cuda: int = 0, mps: bool = False, bfloat16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(devices, "supports_bfloat16", lambda kind: kind == "cuda" and bfloat16)
        card = SimpleNamespace(name="Card", total_memory=24e9)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)

    return have


def test_auto_is_cuda_then_mps_then_the_cpu(machine, caplog):
    for has, expected in (({"cuda": 1, "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")):
        machine(**has)
        with caplog.at_level(logging.INFO, "emoedit"):
            assert choose_device("auto") == expected
        assert caplog.messages[-1] == f"computing on {expected}"


def test_a_machine_with_cuda_gets_cuda(machine, tmp_path, monkeypatch, caplog):
    model = write_stable_diffusion(tmp_path / "sd")
    load_editor("sd15", model=model, device="cpu")  # imports all that asks torch for its devices
    machine(cuda=1)
    placed = []

    def to_device(self, device, precision, *, offload):
        placed.append((device, precision, offload))
        return self

    monkeypatch.setattr(StableDiffusionBackbone, "to_device", to_device)
    monkeypatch.setattr(Words, "to", lambda self, device: placed.append(device) or self)
    with caplog.at_level(logging.INFO, "emoedit"):
        load_editor("sd15", model=model, offload=True)
    assert placed == [("cuda", "auto", True), "cuda"]
    assert {"computing on cuda", "sd15 computes on cuda (Card, 24 GB)"} <= {*caplog.messages}


def test_each_process_of_a_launch_has_its_own_card(machine, monkeypatch):
    machine(cuda=2)
    for rank, expected in (("0", "cuda:0"), ("1", "cuda:1"), ("2", "cuda")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert choose_device("auto") == choose_device("cuda") == expected
        assert choose_device("cuda:0") == "cuda:0"  # which was asked for


def test_devices_are_taken_by_name_or_refused(machine):
    machine(cuda=2, mps=True)
    for name in ("cpu", "mps", "cuda", "cuda:0", "cuda:1"):
        assert choose_device(name) == name
    assert describe("cuda:1") == "cuda:1 (Card, 24 GB)"
    for name, match in (("cuda:2", "finds 2 CUDA devices"), ("gpu", "device is auto"), ("cpu:1", "device is auto")):
        with pytest.raises(EditError, match=match):
            choose_device(name)
    machine()
    for name, match in (("cuda", "finds no CUDA device"), ("mps", "finds none")):
        with pytest.raises(EditError, match=match):
            choose_device(name)


def test_precision_follows_the_device(machine):
    machine(cuda=1)
    assert choose_precision("auto", "cuda:0") == torch.bfloat16 and choose_precision("fp16", "cpu") == torch.float16
    machine(cuda=1, bfloat16=False)
    assert choose_precision("auto", "cuda") == torch.float16 and choose_precision("auto", "mps") == torch.float32
    with pytest.raises(EditError, match="precision must be auto"):
        choose_precision("float8", "cpu")


def test_a_batch_that_does_not_fit_is_halved_and_that_is_said(caplog):
    seen = []

    def run(part: slice) -> list[int]:
        chosen = list(range(10))[part]
        if len(chosen) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        seen.append(len(chosen))
        return chosen

    with caplog.at_level(logging.WARNING, "emoedit"):
        assert sum(in_batches(10, 8, run), []) == list(range(10))
    assert seen == [2] * 5
    assert caplog.messages == [f"out of memory: going on with {n} pictures at a time" for n in (4, 2)]


def test_one_picture_that_does_not_fit_is_an_error_that_helps():
    def run(part: slice) -> None:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")

    with pytest.raises(DeviceMemoryError, match="not even one picture.*--batch 1.*--offload"):
        list(in_batches(3, 2, run))
    with pytest.raises(DeviceMemoryError, match="sd15 does not fit"), fitting("sd15"):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="another reason"), fitting("sd15"):
        raise RuntimeError("another reason")


def test_an_editor_goes_on_with_smaller_batches(monkeypatch):
    editor = tiny_vae()
    crops = torch.linspace(-1, 1, 4 * 32 * 32).view(4, 1, 32, 32)
    edits = [Edit("happy"), Edit("sad")]
    expected = list(editor.edit(editor.invert(crops), edits))
    decode, invert = editor.backbone.decode, editor.backbone.invert

    def small(call):
        def checked(x, *args, **kwargs):
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return call(x, *args, **kwargs)

        return checked

    monkeypatch.setattr(editor.backbone, "decode", small(decode))
    monkeypatch.setattr(editor.backbone, "invert", small(invert))
    found = list(editor.edit(editor.invert(crops), edits))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert editor.batch == 2


def test_photographs_are_drawn_in_the_editors_batches(monkeypatch, astronaut):
    """``--batch``, or what suits a large model; and a batch that did not fit once is not tried again."""
    editor = load_editor("vae", device="cpu", batch=3)
    decode, sizes = editor.backbone.decode, []

    def counted(inversion, *args, **kwargs):
        sizes.append(len(inversion))
        if len(inversion) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(inversion, *args, **kwargs)

    monkeypatch.setattr(editor.backbone, "decode", counted)
    photos = PhotoEditor(editor)
    opened = photos.open(astronaut, edits=[Edit("happy")])
    edits = [Edit("happy", strength) for strength in (0.2, 0.4, 0.6, 0.8, 1.0)]
    assert len(list(photos.edit(opened, edits))) == 5
    assert sizes == [1, 3, 1, 1, 1, 1, 1] and editor.batch == 1  # the reconstruction; three in vain; one by one


def test_noise_does_not_depend_on_the_batch():
    editor = tiny_asyrp(1, t_boost=200)
    crops = torch.linspace(-1, 1, 2 * 256).view(2, 1, 16, 16)
    whole = editor.invert(crops, generator=torch.Generator().manual_seed(3))
    editor.batch = 1
    parts = editor.invert(crops, generator=torch.Generator().manual_seed(3))
    assert torch.equal(parts.extras["seed"], whole.extras["seed"])
    torch.testing.assert_close(parts.latent, whole.latent)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("make", [lambda: tiny_asyrp().backbone, tiny_stable_diffusion])
def test_weights_are_held_once_in_the_type_they_are_used_in(make, precision):
    backbone, whole = make(), make()
    backbone.to_device("cpu", precision)
    assert weight_dtype(backbone.unet) == getattr(torch, precision)
    assert backbone.unet.time_embedding.linear_1.weight.dtype == torch.float32
    assert backbone._unet_in_precision() is backbone.unet  # no second copy
    x = torch.linspace(-1, 1, backbone.crop.resolution**2).view(1, 1, *[backbone.crop.resolution] * 2)
    torch.testing.assert_close(backbone.invert(x).latent, whole.invert(x).latent, atol=0.1, rtol=0.1)
    with pytest.raises(EditError, match=f"held in {precision}: load the model with precision=float32"):
        backbone.with_sampling(precision="float32").invert(x)


def test_values_that_are_not_finite_in_half_precision_name_the_way_out():
    backbone = tiny_asyrp().backbone.to_device("cpu", "float16")
    backbone.unet.conv_out.weight.data.fill_(6e4)
    with pytest.raises(EditError, match="not finite .* in float16: load it in another precision"):
        backbone.invert(torch.ones(1, 1, *[backbone.crop.resolution] * 2))


def test_parts_that_are_offloaded_come_only_to_work(monkeypatch):
    """Simulated, as there may be no second device: who is moved where, and that the text encoder's and the VAE's way
    back is not forgotten when they fail."""
    backbone = tiny_stable_diffusion()
    moves = []

    def watch(name: str) -> None:
        part = getattr(backbone, name)
        monkeypatch.setattr(part, "to", lambda device: moves.append((name, str(device))))

    watch("vae"), watch("text_encoder")
    backbone._offload_device = torch.device("meta")
    backbone.context("a happy face")
    backbone.to_latent(torch.zeros(1, 1, 16, 16))
    monkeypatch.setattr(backbone.vae, "decode", lambda z: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backbone.to_picture(torch.zeros(1, *backbone.latent_shape), torch.zeros(1), torch.ones(1))
    there_and_back = [("cpu"), ("meta")]
    assert moves == [(name, where) for name in ("text_encoder", "vae", "vae") for where in there_and_back]


@pytest.mark.parametrize("make", [lambda: tiny_asyrp().backbone, tiny_stable_diffusion])
def test_compiled_blocks_compute_what_plain_ones_do(make, monkeypatch):
    """Traced, and run without generated code: that would take minutes."""
    traced = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args: traced(*args, backend="eager"))
    plain, compiled = make(), make()
    compile_parts(compiled.compiled_parts(), "cpu")
    blocks = compiled.compiled_parts()
    assert len(blocks) == 2 * len(compiled.unet.down_blocks) + 1
    assert all(block._compiled_call_impl is not None for block in blocks)
    x = torch.linspace(-1, 1, plain.crop.resolution**2).view(1, 1, *[plain.crop.resolution] * 2)
    torch.testing.assert_close(compiled.invert(x).latent, plain.invert(x).latent)


def test_a_machine_without_a_compiler_is_told(monkeypatch):
    def fails(*_):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda *_: fails)
    with pytest.raises(EditError, match=r"torch.compile does not work on this machine, leave it out \(no C\+\+"):
        compile_parts([], "cpu")


@pytest.mark.parametrize(
    ("name", "how", "match"),
    [
        ("celebahq", {"offload": True}, "celebahq takes no --offload .*: its one U-Net is at work in every step"),
        ("stylegan2", {"offload": True}, "stylegan2 takes no --offload .*: its generator takes .12 GB"),
        ("stylegan2", {"compile": True}, "stylegan2 takes no --compile .*: its layers keep prepared weights"),
        ("asyrp", {"offload": True}, "asyrp takes no --offload .*: it is small"),
        ("vae", {"compile": True}, "vae takes no --compile .*: it draws in less time than compiling takes"),
        ("stability", {"offload": True}, "stability takes no --offload"),
    ],
)
def test_ways_of_computing_that_gain_nothing_are_refused_before_weights_are_read(
    name, how, match, tmp_path, monkeypatch
):
    for part in ("none.pth", "none.npy"):
        (tmp_path / part).touch()
    parts = {"celebahq": {"shifts": {"happy": tmp_path / "none.pth"}}}
    parts["stylegan2"] = {"boundaries": {"happy": tmp_path / "none.npy"}, "model": tmp_path / "none.pkl"}
    monkeypatch.setattr("emoedit.full_size.load_backbone", lambda *a, **k: pytest.fail("read weights"))
    with pytest.raises(EditError, match=match):
        load_editor(name, device="cpu", **parts.get(name, {}), **how)


def test_weights_that_do_not_fit_on_the_device_are_told_with_their_size(tmp_path, monkeypatch):
    model = write_stable_diffusion(tmp_path / "sd")

    def full(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.20 GiB")

    monkeypatch.setattr(StableDiffusionBackbone, "to_device", full)
    with pytest.raises(DeviceMemoryError, match=r"sd15 \(0\.\d GB of weights in float32\) does not fit .*--offload"):
        load_editor("sd15", model=model, device="cpu")


def test_what_looks_at_photographs_runs_where_the_editor_runs(monkeypatch, astronaut):
    """On a machine that claims to have a second card, which nothing can run on here: who is asked for it is noted."""
    asked = {}
    finders = dict.fromkeys(("landmark_finder", "teeth_finder", "occlusion_finder"), analysis)
    finders |= dict.fromkeys(("face_detector", "smile_finder"), photo)
    for name, module in finders.items():

        def on(device: str, name: str = name, make=getattr(module, name)):
            asked.setdefault(name, set()).add(device)
            return make("cpu")

        monkeypatch.setattr(module, name, on)
    monkeypatch.setattr(Editor, "device", property(lambda self: torch.device("cuda:1")))
    editor = PhotoEditor(load_editor("vae", device="cpu"))
    opened = editor.open(astronaut)
    next(editor.edit(opened, [Edit("happy")]))
    assert asked == {name: {"cuda:1"} for name in asked} and len(asked) == 5


def test_embedded_editors_stay_as_they_are_unless_told():
    editor = load_editor("asyrp", device="cpu")
    assert weight_dtype(editor.backbone.unet) == torch.float32
    assert load_editor("asyrp", device="cpu", precision="bf16").backbone.config.precision == "bfloat16"
