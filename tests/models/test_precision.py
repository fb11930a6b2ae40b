"""In which precision a network computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from emoedit.models import precision
from emoedit.models.precision import PrecisionCopy, check_precision, supports_bfloat16
from emoedit.types import EditError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time_embedding, self.body = nn.Linear(3, 3), nn.Linear(3, 3)


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_what_the_device_is_fast_in(monkeypatch, able, dtype):
    monkeypatch.setattr(precision, "supports_bfloat16", lambda kind: able)
    net, held = Net(), PrecisionCopy()
    found = held.of(net, "auto")
    assert found.body.weight.dtype == dtype and found.time_embedding.weight.dtype == torch.float32
    assert (found is net) is not able and net.body.weight.dtype == torch.float32
    assert held.of(net, "float32") is net


def test_the_copy_is_made_once_and_again_when_weights_change():
    made = []
    net, held = Net(), PrecisionCopy(made.append)
    low = held.of(net, "bfloat16")
    assert held.of(net, "bfloat16") is low and made == [low]
    with torch.no_grad():
        net.body.weight += 1
    again = held.of(net, "bfloat16")
    assert again is not low and torch.equal(again.body.weight, net.body.weight.bfloat16())


@pytest.mark.parametrize(
    ("says", "able"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx2": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_a_processor_is_asked(monkeypatch, says, able):
    supports_bfloat16.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: says, raising=False)
    assert supports_bfloat16("cpu") is able
    supports_bfloat16.cache_clear()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert supports_bfloat16("cpu") is False  # older versions of torch cannot say
    supports_bfloat16.cache_clear()


def test_other_precisions_are_refused():
    for name in ("auto", "float32", "float16", "bfloat16"):
        check_precision(name)
    for name in ("float8", None, torch.float32):
        with pytest.raises(EditError, match="precision must be auto, float32, float16 or bfloat16"):
            check_precision(name)
