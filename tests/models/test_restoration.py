"""Restoration by a weight file that spandrel reads, of Real-ESRGAN's compact architecture with random weights."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.cli import main
from emoedit.faces.detect import FaceDetector
from emoedit.models.restoration import Restorer, identity_kept
from emoedit.types import CheckpointError, ImageError, MissingExtraError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as Real-ESRGAN publishes it: a state dict under ``params``."""
    compact = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG")
    torch.manual_seed(0)
    model = compact.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=2)
    for parameter in model.parameters():
        parameter.data *= 0.1  # what is added to the enlarged picture stays small
    path = tmp_path_factory.mktemp("restore") / "compact.pth"
    torch.save({"params": model.state_dict()}, path)
    return path


def test_a_picture_is_enlarged_and_the_person_measured(weights, _astronaut):
    source = Image.fromarray(_astronaut[:256, 96:352])
    restorer = Restorer(weights)
    larger = restorer(source)
    assert restorer.scale == 2 and larger.size == (512, 512)
    back = np.asarray(larger.resize(source.size, Image.Resampling.LANCZOS), float)
    assert np.abs(back - np.asarray(source)).mean() < 8
    face = FaceDetector().choose(np.asarray(source), "largest")[0]
    same, other = identity_kept(source, [source, larger], face)
    assert same == pytest.approx(1.0, abs=1e-5) and 0.8 < other < 1


def test_files_that_are_no_models_are_refused(tmp_path):
    pytest.importorskip("spandrel")
    with pytest.raises(CheckpointError, match="no model file"):
        Restorer(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"text\.pth"):
        Restorer(tmp_path / "text.pth")


def test_pictures_that_are_too_large_are_refused(weights):
    with pytest.raises(ImageError, match="too large"):
        Restorer(weights)(Image.new("RGB", (4096, 2048)))


def test_without_spandrel_the_extra_is_named(monkeypatch, tmp_path):
    real = builtins.__import__

    def absent(name, *rest, **named):
        if name.startswith("spandrel"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"\[restore\]"):
        Restorer(tmp_path / "x.pth")


def test_best_restores_what_it_keeps_and_says_what_that_does(weights, tmp_path, monkeypatch, capsys, _astronaut):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(_astronaut[:256, 96:352]).save("me.png")
    floors = ["--min-target", "0", "--min-identity", "0", "--min-realism", "0"]
    arguments = ["best", "me.png", "--emotion", "sad", "--candidates", "1", "--editors", "facs", *floors]
    assert main([*arguments, "--restore", str(weights)]) == 0
    (restored,) = (tmp_path / "me_sad_best").glob("*_restored.png")
    assert Image.open(restored).size == (512, 512)
    assert "identity before" in capsys.readouterr().err
    assert main([*arguments, "--restore", "none.pth", "--output", "other"]) == 1
    assert not (tmp_path / "other").exists()  # refused before anything was drawn
