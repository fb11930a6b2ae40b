"""Pipelines that edit by instruction: a tiny InstructPix2Pix and a tiny flow-matching one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.cli import main
from emoedit.editors import Editor, load_editor
from emoedit.editors.whole import NOTE
from emoedit.emotions import list_emotions
from emoedit.models.instruct.backbone import InstructBackbone
from emoedit.photo import PhotoEdit, PhotoEditor
from emoedit.steering.instructions import Instructions
from emoedit.types import CheckpointError, Control, Edit, EditError, ImageError
from tests.fixtures.instruct import write_pix2pix, write_sd3
from tests.fixtures.stable_diffusion import smooth

WRITERS = {"pix2pix": write_pix2pix, "sd3": write_sd3}
HOW = {"steps": 4, "resolution": 64, "device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request, tmp_path_factory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def editor(folder) -> Editor:
    return load_editor("instruct", model=folder, **HOW)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return smooth(2, 3, 64)


def test_an_instruction_changes_the_picture_and_none_leaves_it(editor, crops):
    assert editor.name == "instruct" and editor.emotions == list_emotions() and editor.backbone.compositor == "rgb"
    inversion = editor.invert(crops, generator=torch.Generator().manual_seed(3))
    assert torch.equal(inversion.extras["reconstruction"], crops)
    still, happy, weak, sad = editor.edit(inversion, [Edit("happy", 0), Edit("happy"), Edit("happy", 0.5), Edit("sad")])
    assert torch.equal(still, crops)
    for picture in (happy, weak, sad):
        assert picture.shape == crops.shape and bool(picture.isfinite().all()) and not torch.equal(picture, crops)
    assert not torch.equal(happy, sad) and not torch.equal(happy, weak)


def test_the_same_seed_gives_the_same_picture_alone_or_in_a_batch(editor, crops):
    def edited(x: torch.Tensor, seed: int) -> torch.Tensor:
        inversion = editor.invert(x, generator=torch.Generator().manual_seed(seed))
        return next(iter(editor.edit(inversion, [Edit("angry")])))

    together = edited(crops, 3)
    torch.testing.assert_close(edited(crops[1:], 3), together[1:])
    assert not torch.equal(edited(crops[1:], 4), together[1:])


def test_the_whole_photograph_or_the_crop_that_is_put_back(editor, astronaut):
    photo = np.ascontiguousarray(astronaut[:256, 96:384])
    edits = [Edit("happy", 0), Edit("happy"), Edit("sad")]

    def made(how: Editor, seed: int = 0) -> list[PhotoEdit]:
        photos = PhotoEditor(how)
        return list(photos.edit(photos.open(photo, seed=seed, edits=edits), edits, seed=seed))

    def changed(result: PhotoEdit) -> np.ndarray:
        return np.abs(np.asarray(result.image, int) - photo).max(2) > 0

    whole = editor.with_sampling(whole=True)
    still, happy, sad = made(whole)
    assert not changed(still).any() and still.notes == ()
    assert changed(happy).mean() > 0.9 and (happy.image.size, happy.notes) == ((288, 256), (NOTE,))
    assert not np.array_equal(np.asarray(happy.image), np.asarray(sad.image))
    assert np.array_equal(np.asarray(made(whole)[1].image), np.asarray(happy.image))  # of one seed
    assert not np.array_equal(np.asarray(made(whole, seed=5)[1].image), np.asarray(happy.image))
    crop = made(editor)[1]
    assert 0 < changed(crop).mean() < 0.6 and crop.notes != (NOTE,)  # the rest is the photograph's own, to the bit
    with pytest.raises(EditError, match="redraws whole photographs .*leave out the compositor"):
        PhotoEditor(whole, compositor="replace")
    with pytest.raises(EditError, match="whole is true or false, not 1"):
        editor.with_sampling(whole=1)


def test_a_pipeline_is_given_the_photographs_shape_at_the_crops_pixels(editor, monkeypatch):
    seen = []

    def call(**how):
        seen.append(how)
        return SimpleNamespace(images=[np.zeros((*how["image"].size[::-1], 3), np.float32)])

    monkeypatch.setattr(editor.backbone, "pipeline", call)
    inversion = editor.backbone.invert(torch.zeros(1, 3, 64, 64))
    control = Control(prompt=("smile",), prompt_strength=torch.ones(1))
    found = editor.backbone.edit_photo(np.zeros((300, 900, 3), np.uint8), inversion, control)
    assert found.shape == (300, 900, 3) and seen[0]["image"].size == (112, 32)  # 64 * 64 pixels, multiples of 16
    if "height" in seen[0]:
        assert (seen[0]["width"], seen[0]["height"]) == (112, 32)


def test_a_saved_editor_names_its_pipeline(editor, folder, crops, tmp_path):
    saved = editor.save_pretrained(tmp_path / "saved")
    part = json.loads((saved / "editor.json").read_text())["backbone"]
    assert part["source"] == str(folder.resolve()) and part["settings"]["steps"] == 4
    again = load_editor(saved, device="cpu", precision="float32")
    assert again.backbone.config == editor.backbone.config
    first, second = (next(iter(e.edit(e.invert(crops[:1]), [Edit("sad")]))) for e in (editor, again))
    assert torch.equal(first, second)


def test_a_folder_alone_is_enough(folder):
    assert load_editor(folder, **HOW).name == "instruct"


def test_what_a_pipeline_does_not_take_is_refused(editor, crops):
    backbone = editor.backbone
    inversion = backbone.invert(crops)
    with pytest.raises(EditError, match="takes a prompt, and no shift"):
        backbone.decode(inversion, Control(shift=torch.zeros_like(crops)))
    with pytest.raises(EditError, match="1 prompts and 2 strengths for 2 pictures"):
        backbone.decode(inversion, Control(prompt=("make it",), prompt_strength=torch.ones(2)))
    with pytest.raises(EditError, match="less than not at all"):
        backbone.decode(inversion, Control(prompt=("a", "b"), prompt_strength=-torch.ones(2)))
    with pytest.raises(ImageError, match="expected"):
        backbone.invert(crops[:, :1])
    for settings, match in (({"steps": 0}, "steps must be"), ({"guidance": -1}, "guidance must be")):
        with pytest.raises(EditError, match=match):
            backbone.with_sampling(**settings)


def test_a_picture_that_is_not_finite_is_no_result(editor, crops, monkeypatch):
    decode = editor.backbone.pipeline.vae.decode
    monkeypatch.setattr(
        editor.backbone.pipeline.vae, "decode", lambda *a, **k: tuple(v * float("nan") for v in decode(*a, **k))
    )
    with pytest.raises(EditError, match="not finite in float32"):
        list(editor.edit(editor.invert(crops[:1]), [Edit("happy")]))


def test_folders_that_are_no_such_pipeline_are_refused(folder, tmp_path):
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "vae": ["os", "system"]}))
    with pytest.raises(CheckpointError, match=r"parts of unknown libraries, vae \(os\); nothing of it was loaded"):
        InstructBackbone.load(broken)
    (broken / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(broken / "vae")
    with pytest.raises(CheckpointError, match="cannot be loaded as a"):
        InstructBackbone.load(broken)
    with pytest.raises(EditError, match="multiple of 16, not 65"):
        InstructBackbone.load(folder, resolution=65)


def test_a_pipeline_is_told_what_to_do_or_what_to_draw(editor, crops):
    (prompt,) = editor.control(editor.invert(crops[:1]), [Edit("happy")]).prompt
    described = editor.backbone.config.kind == "StableDiffusion3Img2ImgPipeline"
    assert prompt.startswith("a photo of a smiling face" if described else "make this a smiling face, the same")


def test_guidance_scales_pix2pix_and_noise_scales_sd3(editor, crops, monkeypatch):
    seen = []

    class Stop(Exception):
        pass

    def call(**how):
        seen.append(how)
        raise Stop

    monkeypatch.setattr(editor.backbone, "pipeline", call)
    for strength in (0.5, 1, 4):
        with pytest.raises(Stop):
            editor.backbone._edited(crops[0], "smile", strength, 0)
    if editor.backbone.config.image_guidance is None:
        assert [how["strength"] for how in seen] == [0.3, 0.6, 1.0] and {how["guidance_scale"] for how in seen} == {7.0}
    else:
        assert [how["guidance_scale"] for how in seen] == [4.25, 7.5, 27.0] and seen[0]["image_guidance_scale"] == 1.5


def test_instructions_name_what_is_to_be_seen():
    steering = Instructions()
    assert steering.instruction({"happy": 1.0}).startswith("make this a smiling face, the same person")
    assert steering.instruction({"angry": 0.5}).startswith("make this an angry face")
    assert steering.instruction({"angry": 0.5}, describes=True) == "a photo of an angry face"
    assert steering.instruction({"happy": 0.4, "surprised": 0.8}).startswith("make this a surprised and smiling face")
    inversion = type("I", (), {"__len__": lambda self: 1, "latent": torch.zeros(1, 3, 8, 8)})()
    control = steering.control(None, inversion, [Edit("happy + 0.5*surprised", 2.0)])
    assert float(control.prompt_strength) == 2.0 and "smiling and surprised" in control.prompt[0]
    for edit in (Edit("happy - 0.4*surprised"), Edit("happy", -1)):
        with pytest.raises(EditError, match="an instruction cannot say"):
            steering.control(None, inversion, [edit])
    with pytest.raises(EditError, match="needs one {}"):
        Instructions(template="smile")


def test_compare_and_evaluate_take_a_pipeline_beside_others(editor, astronaut, tmp_path, monkeypatch):
    """As a saved editor, on the command line; measured by the same networks."""
    monkeypatch.chdir(tmp_path)
    editor.with_sampling(steps=2).save_pretrained("mine")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.ascontiguousarray(astronaut[:256, 96:352])).save("photos/me.png")
    both = ("--editors", "mine,vae", "--emotions", "happy", "--strengths", "1", "--device", "cpu")
    assert main(["compare", "photos/me.png", *both, "--output", "compared"]) == 0
    assert main(["evaluate", "--data", "photos", *both, "--output", "evaluated"]) == 0
    for folder in ("compared", "evaluated"):
        rows = [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]
        (row,) = [row for row in rows if row["editor"] == "instruct"]
        assert row["error"] is None and 0 <= row["target_score"] <= 1 and -1 <= row["identity"] <= 1
        assert "vae" in {row["editor"] for row in rows}
