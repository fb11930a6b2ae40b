"""Weight files of others: what is read, and what is refused at what price."""

from __future__ import annotations

import argparse
import collections
import io
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emoedit.io import checkpoints
from emoedit.io.arrays import read_array
from emoedit.io.pickles import MAX_DEPTH, MAX_INSTRUCTIONS, NamedError, PickleError, read_pickle
from emoedit.io.weights import read_torch
from emoedit.models import identify
from emoedit.types import CheckpointError
from tests.fixtures.memory import peak_of

LIMIT = 200_000_000  # bytes that a reader may take beside three times the file


def refused(path: Path, match: str) -> None:
    """The file is refused with this message, for no more memory than promised."""

    def read() -> None:
        with pytest.raises(CheckpointError, match=match) as caught:
            read_torch(path)
        assert path.name in str(caught.value) and len(str(caught.value)) < 800

    assert peak_of(read) < 3 * path.stat().st_size + LIMIT


# What is read


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read_bit_for_bit(tmp_path, zipped):
    generator = torch.Generator().manual_seed(1)
    state = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).state_dict()
    base = torch.randn(4, 6, generator=generator)
    contents = {
        "state": state,
        "view": base[1:3, ::2],
        "same": base,
        "turned": base.T,
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "whole": torch.arange(5),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "truth": torch.tensor([True, False]),
        "one": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "parameter": nn.Parameter(base.clone()),
        "plain": [1, -(2**40), 2.5, "Ä", None, True, (1, 2), {"deep": {3: [b"x"]}}],
        "args": argparse.Namespace(size=16),
        "counted": collections.Counter("aab"),
        "dtype": torch.float32,
        "size": torch.Size([1, 2]),
    }
    torch.save(contents, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "x.pt")
    assert list(found) == list(contents)
    for name, value in contents.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    assert list(found["state"]) == list(state)
    assert all(torch.equal(found["state"][name], value) for name, value in state.items())
    assert found["plain"] == contents["plain"] and found["size"] == (1, 2)
    assert found["args"] == {"size": 16} and found["counted"] == {"a": 2, "b": 1}
    assert found["view"].data_ptr() == found["same"].data_ptr() + 6 * 4  # views stay views


def test_a_parameter_dict_is_a_mapping(tmp_path):
    torch.save({"string_to_param": nn.ParameterDict({"*": nn.Parameter(torch.ones(2, 3))})}, tmp_path / "x.pt")
    found = read_torch(tmp_path / "x.pt")["string_to_param"]
    assert found.kind == "torch.nn.modules.container.ParameterDict"
    assert torch.equal(found["_parameters"]["*"], torch.ones(2, 3))


def test_writing_to_what_was_read_leaves_the_file_alone(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    read_torch(tmp_path / "x.pt")["a"].zero_()
    assert read_torch(tmp_path / "x.pt")["a"].sum() == 3


# Tensors that are not what they claim


@pytest.mark.parametrize("zipped", [True, False])
def test_expanded_tensors_are_refused_before_they_grow(tmp_path, zipped):
    for number, shape in enumerate([(10**5, 10**5), (2**20, 768), (2, 1)]):
        torch.save({"x": torch.zeros(1).expand(shape)}, path := tmp_path / f"{number}.pt",
                   _use_new_zipfile_serialization=zipped)  # fmt: skip
        assert path.stat().st_size < 3000
        refused(path, "only 1 numbers in the file, each used many times over")


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_that_many_tensors_share_are_refused(tmp_path, zipped):
    base = torch.zeros(10**6)
    path = tmp_path / "x.pt"
    torch.save({str(n): base.view(1000, 1000) for n in range(3)}, path, _use_new_zipfile_serialization=zipped)
    assert len(read_torch(path)) == 3
    torch.save({str(n): base.view(1000, 1000) for n in range(30)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "the same numbers more than 4 times over")


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:Validating sparse")
@pytest.mark.filterwarnings("ignore:TypedStorage", "ignore:.*torch.ao.quantization", "ignore:.*quant")
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path):
    x = torch.rand(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = {
            "a sparse tensor": x.to_sparse(),
            "tensor on the meta device": x.to("meta"),
            "a complex tensor": torch.complex(x, x),
            "a quantised tensor": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            "a nested tensor": torch.nested.nested_tensor([x, x[:2]]),
        }
        for kind, tensor in kinds.items():
            torch.save({"w": tensor}, path := tmp_path / "x.pt")
            refused(path, kind)
        torch.save({"w": x.to_sparse_csr()}, path)
        refused(path, "a sparse tensor")
        torch.save({"w": x.to(torch.float8_e4m3fn)}, path)
        refused(path, "holds more than tensors|cannot be read")


# Archives


def rewritten(source: Path, target: Path, compression: int, changes: dict[str, bytes]) -> Path:
    """An archive with its entries stored anew, some of them changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, changes.get(entry.filename.split("/", 1)[1], old.read(entry)))
    return target


def test_compressed_archives_are_refused_before_they_inflate(tmp_path):
    torch.save({"x": torch.zeros(4)}, tmp_path / "x.pt")
    bomb = {"data/0": bytes(400_000_000)}
    path = rewritten(tmp_path / "x.pt", tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED, bomb)
    assert path.stat().st_size < 1_000_000
    del bomb
    refused(path, "its entries are compressed")


@pytest.mark.parametrize("zipped", [True, False])
def test_names_and_shapes_are_read_without_the_numbers(tmp_path, zipped):
    state = {"a.weight": torch.zeros(5000, 5000), "b": torch.ones(3).half()}
    torch.save(state, path := tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    read_torch(path, numbers=False)
    found: list = []
    assert peak_of(lambda: found.append(read_torch(path, numbers=False))) < 10_000_000  # of a file of 100 MB
    shapes = {name: (tuple(value.shape), value.dtype, value.device.type) for name, value in found[0].items()}
    assert shapes == {"a.weight": ((5000, 5000), torch.float32, "meta"), "b": ((3,), torch.float16, "meta")}
    assert identify.tensors(path) == {"a.weight": (5000, 5000), "b": (3,)}


def test_what_a_file_is_is_told_without_unpacking_it(tmp_path):
    """Of an archive of 400 KB that unpacks to 400 MB, and of a key that never ends to be hashed."""
    torch.save({"x": torch.zeros(4)}, tmp_path / "x.pt")
    bomb = {"data.pkl": b"(" + b"0" * 400_000_000}
    path = rewritten(tmp_path / "x.pt", tmp_path / "bomb.ckpt", zipfile.ZIP_DEFLATED, bomb)
    del bomb

    def told() -> None:
        with pytest.raises(CheckpointError, match="its entries are compressed"):
            identify.file(path)

    assert peak_of(told) < 50_000_000
    script = b"\x80\x02}(" + b")" + b"22\x87" * 60 + b"K\x01u."
    path = rewritten(tmp_path / "x.pt", tmp_path / "key.ckpt", zipfile.ZIP_STORED, {"data.pkl": script})
    with pytest.raises(CheckpointError):
        identify.file(path)


def test_archives_that_claim_more_than_they_have_are_refused(tmp_path):
    torch.save({"x": torch.zeros(4)}, tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    path = tmp_path / "y.pt"
    script = zipfile.ZipFile(tmp_path / "x.pt").read("x/data.pkl")
    assert script.count(b"K\x04") == 2  # count of the storage, and the side
    lying = script.replace(b"K\x04", b"J\xff\xff\xff\x7f", 1)
    refused(rewritten(tmp_path / "x.pt", path, zipfile.ZIP_STORED, {"data.pkl": lying}), "more than the file has bytes")
    lying = script.replace(b"K\x04", b"K\x08", 1)
    refused(rewritten(tmp_path / "x.pt", path, zipfile.ZIP_STORED, {"data.pkl": lying}), "were announced")
    path.write_bytes(whole + b"more")
    refused(path, "does not end as an archive")
    end = whole.rindex(b"PK\6\6") + 40  # the size of the list in the 64-bit record
    path.write_bytes(whole[:end] + struct.pack("<Q", 2**40) + whole[end + 8 :])
    refused(path, "list of entries takes")
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "does not end as an archive")
    many = tmp_path / "many.pt"
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(1000):
            archive.writestr(f"x/{number}/data.pkl", b"")
    refused(many, "1000 entries named data.pkl")


def test_the_old_format_cannot_ask_for_more_than_the_file(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"x": torch.zeros(77)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"K\x4d", b"J\xff\xff\xff\x7f", 1))
    refused(path, "more than the file has bytes")
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        refused(path, "cannot be read")
    # Many storages, each as large as the file.
    path.write_bytes(whole)
    torch.save({str(n): torch.zeros(200) for n in range(50)}, path, _use_new_zipfile_serialization=False)
    damaged = path.read_bytes().replace(b"K\xc8N", b"M\x10\x27N")
    path.write_bytes(damaged)
    refused(path, "more bytes than the file has")


# Pickles


def machine(data: bytes) -> object:
    return read_pickle(io.BytesIO(data), {})


def test_hostile_pickles_are_refused_for_little_memory():
    nested = b"\x80\x04)" + b"\x85" * 100_000 + b"."
    doubled = b"\x80\x04]" + b"\x94h\x00h\x00\x86" * 1 + b"".join(b"q%ch%ch%c\x86" % (n, n, n) for n in range(1, 100))
    cases = {
        "a memo index of 2 GB": (b"\x80\x02Nr\xff\xff\xff\xfeN.", "do not end in one object"),
        "deep": (nested, f"more than {MAX_DEPTH} deep"),
        "a tuple in a tuple, twice each": (doubled + b".", f"more than {MAX_DEPTH} deep"),
        "many": (b"\x80\x04" + b"}" * (MAX_INSTRUCTIONS + 1) + b".", "more than 500,000 instructions"),
        "a long text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", "bytes, and 2 are left"),
        "long bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "bytes, and 2 are left"),
        "a bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "bytes, and 2 are left"),
        "a long number": (b"\x80\x02\x8b" + struct.pack("<i", 5) + b"12345.", "instruction LONG4"),
        "a tuple as key": (b"\x80\x04})N\x85Ns.", "do not fit|neither text nor"),
        "an odd mapping": (b"\x80\x04}(Nu.", "key without a value"),
        "too much taken": (b"\x80\x04\x86.", "take more than they put"),
        "no end": (b"\x80\x04N", "bytes, and 0 are left"),
        "nothing": (b"", "bytes, and 0 are left"),
    }
    for name, (data, match) in cases.items():

        def read(data: bytes = data, match: str = match) -> None:
            with pytest.raises(PickleError, match=match):
                machine(data)

        assert peak_of(read) < 3 * len(data) + LIMIT, name
    assert machine(b"\x80\x02Nr\xff\xff\xff\xfe.") is None


def test_names_and_calls_are_refused():
    for data in (pickle.dumps(print), pickle.dumps(np.zeros(2)), b"cos\nsystem\n(S'x'\ntR.", b"(S'x'\nios\nsystem\n."):
        with pytest.raises(NamedError, match="it asks for"):
            machine(data)
    assert read_pickle(io.BytesIO(pickle.dumps({1, 2})), {}) == [1, 2]  # a set is read as a list


# Safetensors, json, npy


def header_file(path: Path, header: object, rest: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)
    return path


def test_safetensors_headers_are_checked_first(tmp_path):
    path = tmp_path / "x.safetensors"
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4]}
    cases = [
        (header_file(path, {"w": entry}, b"1234").read_bytes(), "damaged or no safetensors file"),
        (header_file(path, {"w": {**entry, "dtype": "C64"}}, bytes(8)).read_bytes(), r"w \(C64\); expected one of"),
        (header_file(path, {"w": {**entry, "dtype": "F8_E4M3"}}, bytes(8)).read_bytes(), "F8_E4M3"),
        (struct.pack("<Q", 2**60) + b"{}", "a header of"),
        (b"[" * 100_000, "a header of"),
        (header_file(path, b"[" * 100_000).read_bytes(), "damaged or no safetensors file"),
        (header_file(path, {"w": 3}).read_bytes(), "damaged or no safetensors file"),
        (b"", "a header of 0 bytes"),
    ]
    for data, match in cases:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=match):
            checkpoints.read_weights(path)


def test_descriptions_of_giants_are_refused_before_anything_is_built(tmp_path):
    from emoedit.metrics.clip import Clip
    from emoedit.models.ddpm.backbone import DDPMBackbone
    from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
    from emoedit.models.vae.backbone import VAEBackbone
    from emoedit.nn.measuring import MeasuringNetwork

    embedded = checkpoints.embedded_root()

    def changed(source: Path, **changes: object) -> Path:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for path in source.iterdir():
            if path.suffix == ".safetensors":
                (folder / path.name).symlink_to(path)
        config = {**checkpoints.read_json(source / checkpoints.CONFIG), **changes}
        (folder / checkpoints.CONFIG).write_text(json.dumps(config), "utf-8")
        return folder

    unet = embedded / "asyrp/backbone/unet"
    cases = [
        (VAEBackbone, changed(embedded / "vae/backbone", widths=[200_000] * 4), "widths is 200000"),
        (VAEBackbone, changed(embedded / "vae/backbone", widths=[8192] * 4), "does not fit"),
        (VAEBackbone, changed(embedded / "vae/backbone", latent_dim=60_000), "does not fit"),
        (VAEBackbone, changed(embedded / "vae/backbone", encoder_blocks=10**9), "encoder_blocks is 1000000000"),
        (StyleGAN2Backbone, changed(embedded / "stylegan/backbone", w_dim=30_000), "does not fit"),
        (StyleGAN2Backbone, changed(embedded / "stylegan/backbone", resolution=2**17), "resolution is 131072"),
        (MeasuringNetwork, changed(embedded / "expression", widths=[20_000] * 4), "does not fit"),
        (MeasuringNetwork, changed(embedded / "expression", resolution=10**9), "resolution is 1000000000"),
        (DDPMBackbone, changed(unet, block_out_channels=[200_000] * 4), "block_out_channels is 200000"),
        (DDPMBackbone, changed(unet, layers_per_block=10**9), "layers_per_block is 1000000000"),
        (Clip, changed(embedded / "ti/clip", projection_dim=10**6), "projection_dim is 1000000"),
    ]
    for kind, folder, match in cases:

        def read(kind: type = kind, folder: Path = folder, match: str = match) -> None:
            with pytest.raises(CheckpointError, match=match):
                kind.from_pretrained(folder)

        assert peak_of(read) < LIMIT, match
    deep = tmp_path / "config.json"
    deep.write_text("[" * 100_000, "utf-8")
    with pytest.raises(CheckpointError, match="cannot be read as json"):
        checkpoints.read_json(deep)


def test_arrays_that_lie_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((1, 8), np.float32))
    whole = path.read_bytes()
    assert read_array(path).shape == (1, 8)

    def header(text: str) -> bytes:
        text = text.ljust(118 - 1) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(32)

    for data in (
        whole[:-1],
        whole + b"x",
        whole[:40],
        b"",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-8, -1), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 8), }"),
        header("{'descr': '<c8', 'fortran_order': False, 'shape': (4,), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }"),
        header("-" * 9000 + "1"),
        header("(" * 9000),
        header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (8,), }"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{}",
    ):
        path.write_bytes(data)

        def read() -> None:
            with pytest.raises(CheckpointError, match="damaged, or no array of plain numbers"):
                read_array(path)

        assert peak_of(read) < LIMIT
