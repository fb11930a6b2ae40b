"""Damaged files of every kind: read, or refused by a typed error. Whatever else comes out is a fault."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emoedit.io import checkpoints
from emoedit.io.arrays import read_array
from emoedit.io.images import load_picture
from emoedit.io.metadata import clean_xmp, mark_edited, read_source_type
from emoedit.io.pickles import PickleError, read_pickle
from emoedit.io.results import Results
from emoedit.io.saving import encode_picture
from emoedit.io.weights import read_torch
from emoedit.types import CheckpointError, DataError, ImageError, OutputError
from tests.fixtures.damage import XMP, mutated, pictures, results, weights

MAX_PIXELS = 1_000_000


@pytest.mark.filterwarnings("ignore")
@given(file=mutated(pictures()))
def test_pictures(file, counted):
    name, data = file
    try:
        picture = load_picture(data, max_pixels=MAX_PIXELS, frame=0 if "animated" in name else None)
    except ImageError as error:
        assert str(error) and len(str(error)) < 1000
        counted("refused")
        return
    counted("read")
    height, width = picture.rgb.shape[:2]
    assert picture.rgb.dtype == np.uint8 and picture.rgb.shape == (height, width, 3)
    assert 0 < height * width <= MAX_PIXELS
    assert picture.alpha is None or picture.alpha.shape == (height, width)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        try:
            encode_picture(picture.to_pil(255 - picture.rgb), kind)
        except OutputError:
            assert kind == "WEBP" and max(height, width) > 16_383 or kind == "JPEG" and max(height, width) > 65_500


def test_findings_stay_found(damaged_tiff):
    """Files that coverage-guided fuzzing made: an error came out that was none of this package's."""
    for frame in (None, 0):
        with pytest.raises(ImageError, match="damaged: its pictures cannot be counted"):
            load_picture(damaged_tiff, frame=frame)


@pytest.fixture
def damaged_tiff() -> bytes:
    """Its first page points at a second one, which has no size."""
    tiff = pictures()["tiff"]
    first = int.from_bytes(tiff[4:8], "little")
    entries = int.from_bytes(tiff[first : first + 2], "little")
    link = first + 2 + 12 * entries
    assert tiff[link : link + 4] == bytes(4)
    return tiff[:link] + len(tiff).to_bytes(4, "little") + tiff[link + 4 :] + bytes(6)


def total(value: object) -> int:
    """Bytes of all tensors in a container, those that share numbers counted as often as they do."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(total, value.values()))
    return sum(map(total, value)) if isinstance(value, list | tuple) else 0


@pytest.mark.filterwarnings("ignore")
@given(file=mutated(weights()))
def test_weights(file, counted, tmp_path_factory):
    name, data = file
    path = tmp_path_factory.getbasetemp() / f"fuzz.{'json' if name == 'json' else 'safetensors'}"
    path = path.with_name(checkpoints.CONFIG) if name == "json" else path
    path.write_bytes(data)
    try:
        if name == "safetensors":
            found = checkpoints.read_weights(path)
        elif name == "npy":
            found = read_array(path)
            assert found.nbytes <= len(data)
        elif name == "json":
            found = checkpoints.read_json(path)
        elif name == "pickle":
            found = read_pickle(io.BytesIO(data), {})
        else:
            found = read_torch(data)
    except (CheckpointError, PickleError) as error:
        assert str(error) and len(str(error)) < 1000
        assert isinstance(error, PickleError) == (name == "pickle")
        counted("refused")
    else:
        counted("read")
        assert name == "npy" or total(found) <= 4 * len(data)


OPCODES = (
    b"\x80\x04)]}(.NtRb0aeuscQhqjr\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97"
    b"KMJGXTUVSI"
)
PARTS = st.one_of(st.sampled_from([bytes([code]) for code in OPCODES]), st.binary(max_size=6))


@given(parts=st.lists(PARTS, max_size=40))
@example(parts=[b"\x80\x02Nr\xff\xff\xff\xfe", b"."])
@example(parts=[b"}", b"\x94", b"h\x00", b"h\x00", b"u", b"."])
def test_programs_that_are_no_pickles(parts, counted):
    try:
        read_pickle(io.BytesIO(b"".join(parts)), {"builtins.set": list})
    except PickleError as error:
        assert len(str(error)) < 400
        counted("refused")
    else:
        counted("read")


@given(file=mutated(results()))
def test_results(file, counted, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "results.jsonl"
    path.write_bytes(file[1])
    try:
        with Results(path) as kept:
            kept.found()
            before = kept.rows
            row = {"photo": "b", "editor": "e", "emotion": "x", "strength": 1.0, "content": "c", "error": None}
            kept.append([row])
    except DataError as error:
        assert "move the file away" in str(error) and len(str(error)) < 1000
        counted("refused")
    else:
        counted("read")
        with Results(path) as again:
            assert again.rows == before + 1


@given(packet=st.one_of(st.binary(max_size=200), mutated({"xmp": XMP}).map(lambda pair: pair[1])))
def test_xmp(packet, counted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = clean_xmp(packet, "x")
    counted("read" if clean else "refused")
    assert read_source_type(mark_edited(clean)) is not None
    read_source_type(packet)
