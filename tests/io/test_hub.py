"""Models of the hub, from a server on this machine: found, fetched once, used again without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from emoedit.steering.hspace import ShiftBlock
from tests.fixtures.configs import ROOT
from tests.fixtures.editors import tiny_asyrp

# The address of the hub is read when its package is imported: in a process of its own.
PROGRAM = """
import json, os, sys
from pathlib import Path
from tests.fixtures.hub import Hub

hub = Hub(Path(sys.argv[1]))
os.environ["HF_ENDPOINT"] = hub.endpoint
from emoedit.editors import load_editor
from emoedit.io.checkpoints import is_cached
from emoedit.types import CheckpointError

def load(name):
    how = {"steps": 4, "t_last": 600, "t_edit": 100, "t_boost": 0, "device": "cpu", "precision": "float32"}
    try:
        return load_editor("celebahq", model=name, shifts={"happy": sys.argv[2]}, **how).emotions
    except CheckpointError as error:
        return str(error)

found = {"before": is_cached("someone/faces"), "first": load("someone/faces"), "sent": dict(hub.sent)}
found |= {"after": is_cached("someone/faces"), "second": load("someone/faces"), "again": dict(hub.sent)}
found["unknown"] = load("someone/nothing")
asked = hub.asked
hub.stop()
found |= {"without": load("someone/faces"), "unreachable": load("someone/other"), "more": hub.asked - asked}
print(json.dumps(found))
"""


def test_the_hub_is_asked_once(tmp_path):
    backbone = tiny_asyrp(1, channels=3, std=None).backbone
    folder = tmp_path / "hub" / "someone" / "faces"
    backbone.save_pretrained(folder)
    (folder / "training_state.bin").write_bytes(b"0" * 4096)  # of no use here
    (tmp_path / "hub" / "someone" / "other").mkdir()
    shift = tmp_path / "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
    torch.save({"0": ShiftBlock(backbone.h_shape[0], backbone.temb_dim).state_dict()}, shift)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "hub"), str(shift)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["before"] and found["after"]
    assert found["first"] == found["second"] == found["without"] == ["happy"]
    weights = "someone/faces/unet/diffusion_pytorch_model.safetensors"
    assert found["sent"][weights] == 1 and set(found["sent"].values()) == {1}
    assert found["again"] == found["sent"] and found["more"] == 0
    assert not any("training_state" in name for name in found["sent"])
    for name, repository in (("unknown", "someone/nothing"), ("unreachable", "someone/other")):
        assert f"no folder {repository!r} is here, and the hub did not give it either" in found[name]
        assert f"hf download {repository} --local-dir FOLDER" in found[name]
    assert "RepositoryNotFoundError" in found["unknown"]
    left = [path.name for path in Path(tmp_path / "home").rglob("*") if path.name.endswith(".incomplete")]
    assert not left
