"""Which files are photographs, and what their results are called."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from emoedit.io.folders import find_pictures
from emoedit.io.output import distinct_stems, output_path
from emoedit.types import DataError


def test_everything_that_can_be_read_is_found(tmp_path):
    names = "a.JPG b.jfif c.bmp d.avif e.gif sub/f.heic sub/deeper/g.tif 笑顔.png".split()
    others = "labels.csv LICENSE.txt .hidden.png .cache/x.png README.md".split()
    for name in [*names, *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_pictures(tmp_path)
        assert [path.relative_to(tmp_path).as_posix() for path in found] == sorted(names)
        assert len(find_pictures(tmp_path, recursive=False)) == 6
    for name in ("x.doc", "y.mov", "sub/z"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"3 files are no pictures by name and skipped: sub/z, x\.doc, y\.mov$"):
        find_pictures(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_pictures(tmp_path / "none")


def test_names_that_are_alike_get_their_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert distinct_stems(["me.jpg", "you.jpg"]) == ["me", "you"]
    assert distinct_stems(["a/1.jpg", "b/1.jpg", "b/2.jpg"]) == ["a_1", "b_1", "2"]
    assert distinct_stems(["x/a/1.jpg", "y/a/1.jpg"]) == ["x_a_1", "y_a_1"]
    assert len(set(distinct_stems(["a/1.jpg", "b/1.jpg", "a_1.jpg"]))) == 3
    assert distinct_stems(["1.jpg", "1.png"]) == ["1", "1"]  # told apart by whoever refuses it
    assert distinct_stems([]) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such locale")
def test_any_path_in_any_locale(tmp_path):
    """Names, cards and comments outside ASCII under a locale that knows nothing else."""
    script = """
import sys, numpy as np, pathlib
from PIL import Image
from emoedit.io.images import load_picture, save_picture, write_json
folder = pathlib.Path(sys.argv[1]) / "größe 笑"
save_picture(Image.fromarray(np.zeros((9, 9, 3), np.uint8)), folder / "笑顔.png")
picture = load_picture(folder / "笑顔.png")
image = picture.to_pil()
image.info["texts"] = {"Comment": "笑"}
save_picture(image, folder / "kommentar ä.png")
assert load_picture(folder / "kommentar ä.png").metadata.texts["Comment"] == "笑"
write_json(folder / "bericht.json", {"名": "笑"})
from emoedit.editors import Editor
from emoedit.models.pixels.backbone import PixelBackbone, PixelsConfig
import torch
from emoedit.steering.directions import LatentDirections
backbone = PixelBackbone(PixelsConfig(resolution=8))
directions = LatentDirections(["happy", "笑"], torch.zeros(2, 8))
Editor(backbone, [directions], name="x").save_pretrained(folder / "editor", card="# 笑\\n")
assert (folder / "editor" / "README.md").read_text("utf-8") == "# 笑\\n"
print("done")
"""
    (tmp_path / "script.py").write_text(script, "utf-8")
    environment = {**os.environ, "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0 and done.stdout.strip() == "done", done.stderr
    script = "from emoedit.io.output import write_json; write_json('\\u7b11.json', 1)"
    environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # names of files in ASCII: nothing can be done
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "OutputError: '\\u7b11.json' cannot be written" in done.stderr, done.stderr


def test_long_names_are_refused_by_a_typed_error(tmp_path):
    import numpy as np
    from PIL import Image

    from emoedit.io.images import ImageError, load_picture, save_picture
    from emoedit.types import OutputError

    path = output_path("x" * 300, "happy", output=f"{tmp_path}/", many=False)
    with pytest.raises(OutputError, match="cannot be written"):
        save_picture(Image.fromarray(np.zeros((9, 9, 3), np.uint8)), path)
    with pytest.raises(ImageError, match="cannot be read|no such file"):
        load_picture(path)
    assert not list(tmp_path.iterdir())
