"""The scripts that reproduce published figures and tables run, with tiny editors, and each writes its own section."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from emoedit.editors import Editor
from emoedit.faces.detect import Face
from emoedit.faces.networks import NAMES
from emoedit.io import checkpoints
from emoedit.steering.tokens import EmotionTokens
from emoedit.types import CheckpointError, DataError, EditError
from lib import reproductions
from lib.instantiate import TargetError
from lib.reproductions import MissingEditorError, Page, cell, draw_people, open_editor, people, table
from lib.sections import read_sections
from tests.fixtures.clip import write_clip
from tests.fixtures.editors import tiny_asyrp, tiny_pixels, tiny_vae
from tests.fixtures.stable_diffusion import DRAWS_SMALL, write_model
from tests.fixtures.stable_diffusion import tiny as tiny_diffusion

ROOT = Path(__file__).resolve().parents[2]
needs_networks = pytest.mark.skipif(
    not all((checkpoints.embedded_root() / name).is_dir() for name in (*NAMES, "mean_warp", "pixel_mean")),
    reason="no embedded measuring networks or references here",
)
PROMPT = "facial-expressions {}: {}; a man; eye-level; Hero; a room; cinematic"


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules, by what follows ``reproduce_``."""
    found: dict[str, ModuleType] = {}
    for path in sorted((ROOT / "experiments").glob("reproduce_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        found[path.stem.removeprefix("reproduce_")] = module
    yield found
    for name in found:
        del sys.modules[f"reproduce_{name}"]


@pytest.fixture(scope="module")
def editors(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("editors")
    crop = {"crop_style": "stable", "crop_scale": 0.66, "steps": 5}
    made: dict[str, Editor] = {"vae": tiny_vae(), "asyrp": tiny_asyrp(name="asyrp", **crop), "pixels": tiny_pixels()}
    return {name: str(editor.save_pretrained(folder / name)) for name, editor in made.items()}


@pytest.fixture(scope="module")
def photos(_astronaut, tmp_path_factory) -> Path:
    """Four people, if one looks at pixels only."""
    folder = tmp_path_factory.mktemp("photos")
    head = _astronaut[10:190, 134:314]
    for n in range(4):
        Image.fromarray(np.ascontiguousarray(np.roll(head, 3 * n, 1))).save(folder / f"{n}.png")
    return folder


@pytest.fixture
def config(editors, tmp_path):
    def composed(script: str, *overrides: str) -> dict:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            found = compose(f"reproduce_{script}", overrides=[f"page={tmp_path / 'page.md'}", *overrides])
        found = OmegaConf.to_container(found, resolve=True)
        found["models"].update(editors)
        networks = dict.fromkeys(found.get("metric_networks", {}), "embedded")
        return {**found, "work": str(tmp_path / "work"), "metric_networks": networks}

    return composed


@pytest.fixture
def page(tmp_path) -> Page:
    return Page(tmp_path / "page.md", tmp_path / "images", "section")


def pictures(text: str, page: Page) -> list[Path]:
    """What a text shows, all of it there."""
    found = [page.path.parent / link for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)]
    assert found and all(path.is_file() for path in found)
    return found


def rows(text: str) -> list[list[str]]:
    """The lines of a text's tables, without headers; all of one table are equally long."""
    lines = [[each.strip() for each in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    heads = [n - 1 for n, line in enumerate(lines) if set(line) == {"---"}]
    for first, last in zip(heads, [*heads[1:], len(lines)], strict=True):
        assert len({len(line) for line in lines[first:last]}) == 1
    return [line for n, line in enumerate(lines) if n not in heads and n - 1 not in heads]


# What the scripts share


def test_an_editor_that_is_not_here_is_told_from_one_that_cannot_be(editors):
    assert open_editor(editors["vae"]).name == "tiny"
    with pytest.raises(MissingEditorError, match="not there yet"):
        open_editor("no-such-editor")
    with pytest.raises(MissingEditorError, match="not here: .*nowhere"):
        open_editor("./nowhere/at-all")
    target = {
        "_target_": "emoedit.editors.load_editor",
        "name_or_path": "face-flex",
        "model": "none.pth",
        "boundaries": {"happy": "none.npz"},
    }
    with pytest.raises(MissingEditorError, match="not here: .*none.npz"):
        open_editor(target)
    with pytest.raises(TargetError):
        open_editor({"_target_": "os.system", "command": "true"})
    with pytest.raises(EditError, match="makes a str"):
        open_editor({"_target_": "emoedit.emotions.canonical", "name": "joy"})


def test_an_embedded_editor_that_is_damaged_is_no_editor_that_is_missing(editors, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints" / "mine"
    Editor.from_pretrained(editors["vae"]).save_pretrained(folder)
    monkeypatch.setattr(checkpoints, "embedded_root", lambda: tmp_path / "checkpoints")
    assert open_editor("mine").emotions
    next(folder.rglob("*.safetensors")).write_bytes(b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        open_editor("mine")


def test_people_of_a_folder(photos, tmp_path):
    assert [case.name for case in people(str(photos), 2, tmp_path)] == ["0.png", "1.png"]
    for split, name in (("fit", "a"), ("test", "b")):
        (tmp_path / "neutral").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "neutral" / f"{name}.png")
        with (tmp_path / "info.csv").open("a") as file:
            file.write(("face_id,split\n" if name == "a" else "") + f"{name},{split}\n")
    assert [case.person for case in people(str(tmp_path), 9, tmp_path)] == ["b"]
    with pytest.raises(DataError, match="no such folder"):
        people(str(tmp_path / "none"), 1, tmp_path)
    with pytest.raises(DataError, match="nothing here can draw people"):
        people("drawn", 1, tmp_path / "work")


@needs_networks
def test_people_who_are_drawn(monkeypatch, tmp_path):
    """The most neutral of the samples in which a detector is sure of a frontal face, drawn once."""
    backbone = tiny_asyrp().backbone
    points = np.array([[150.0, 150], [234, 150], [192, 200], [160, 250], [224, 250]])
    frontal, turned = (Face((90.0, 80, 294, 330), points + np.eye(5)[2][:, None] * [s, 0], 1.0) for s in (0, 22))
    seen = []

    class Detector:
        def __init__(self, **_):
            pass

        def __call__(self, photo):
            seen.append(photo)
            return [turned if len(seen) % 2 else frontal]

    monkeypatch.setattr(reproductions, "FaceDetector", Detector)
    cases = people("drawn", 2, tmp_path, backbone=backbone)
    drawn = [np.asarray(Image.open(case.photo)) for case in cases]
    assert [photo.shape for photo in drawn] == [(384, 384, 3)] * 2 and len(seen) == 12
    recogniser = reproductions.EmbeddedNetwork.load("expression")
    which = list(recogniser.emotions).index("neutral")
    kept = seen[1::2]
    scores = [float(recogniser.scores(recogniser.faces(photo, frontal)[None])[0, which]) for photo in kept]
    best = [kept[k] for k in np.argsort(scores)[::-1][:2]]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, best, strict=True))
    assert [c.photo for c in people("drawn", 2, tmp_path)] == [c.photo for c in cases]  # nothing is drawn again


@needs_networks
def test_too_few_drawn_faces_are_an_error(tmp_path):
    with pytest.raises(EditError, match="sees a face in 0 of 6 samples; 1 are wanted"):
        draw_people(tiny_asyrp().backbone, 1, detector=lambda photo: [])


def test_the_grid_of_pixel_squares_is_taken_away():
    """What a U-Net of 2 x 2 squares repeats has the highest frequency there is."""
    x = torch.tensor([[1.0, -1.0] * 4] * 8)[None, None]
    assert float(reproductions.without_grid(x, 2)[..., :-1].abs().max()) < 1e-6
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(reproductions.without_grid(ramp, 2)[..., 1:-1], ramp[..., 1:-1])
    assert torch.equal(reproductions.without_grid(ramp, 1), ramp)


def test_cells_of_tables():
    assert table(["a", "b"], [[0.125, None], [float("nan"), "x | y\nz"], [3, np.float32(2)]]) == (
        "| a | b |\n| --- | --- |\n| 0.12 | – |\n| – | x \\| y z |\n| 3 | 2.00 |"
    )
    assert cell("\x00") == "\\x00"


# The scripts


def test_a_script_replaces_only_its_own_section(scripts, config, page):
    asked = config("prompt_study", "editor=no-such-editor")
    for name in ("prompt-study", "seed-report"):
        Page(page.path, page.images, name).write(f"## {name}")
    text = scripts["prompt_study"].section(asked, page)
    Page(page.path, page.images, "prompt-study").write(text)
    found = read_sections(page.path.read_text())
    assert list(found) == ["seed-report", "prompt-study"] and found["seed-report"] == "## seed-report"
    assert "The model is not there yet" in found["prompt-study"]


@needs_networks
def test_the_seed_reports_figures(scripts, config, page, photos, monkeypatch):
    monkeypatch.delenv("STABILITY_API_KEY", raising=False)
    asked = config(
        "seed_report", f"photo={photos / '0.png'}", "strengths=[1.0]", "models.ti=none", "models.stylegan=none"
    )
    text = scripts["seed_report"].section(asked, page)
    assert [line[:7] for line in text.splitlines() if line.startswith("###")] == [f"### 3.{n}" for n in range(1, 7)]
    assert text.count("not there yet") == 3 and text.count("Expected: ") == 6
    assert "Skipped: the environment variable STABILITY_API_KEY holds no key." in text
    assert [path.name for path in pictures(text, page)] == ["section-3-4.jpg", "section-3-6.jpg"]
    assert "This editor has no fearful, disgusted." in text  # the tiny Asyrp's
    found = rows(text)
    assert [(line[1], line[2]) for line in found] == [
        *((name, "1.00") for name in ("happy", "sad", "angry", "surprised")),
        ("happy", "1.00"),
    ]
    assert all(0 <= float(line[n]) <= 1 for line in found for n in (3, 4, 7))
    assert len({line[3] for line in found if line[1] == "happy"}) == 1  # what the photograph itself is read as

    monkeypatch.setenv("STABILITY_API_KEY", "key")
    text = scripts["seed_report"].section(
        {**asked, "models": {**asked["models"], **dict.fromkeys(("asyrp", "vae", "stability"), "none")}}, page
    )
    assert "holds no key" not in text and text.count("not there yet") == 6


@needs_networks
@pytest.mark.slow
def test_asyrps_claims(scripts, config, page, photos):
    asked = config("asyrp", f"people={photos}", "count=4", "emotions=[happy,sad,fearful]", "strengths=[-1.0,2.0]")
    parts = {own.section: (own, text) for own, text in scripts["asyrp"].sections(asked, page)}
    assert list(parts) == ["section", *(f"section-{n}" for n in ("interval", "other-faces", "linearity", "over-t"))]
    own, text = parts["section"]
    (strip,) = pictures(text, own)
    assert Image.open(strip).width > Image.open(strip).height  # of a folder's people no picture is shown
    assert [line[0] for line in rows(text)] == ["happy", "sad"]  # the tiny one has no fear
    own, text = parts["section-interval"]
    assert pictures(text, own)[0].suffix == ".svg" and "the embedded perceptual network" in text
    assert [line[0] for line in rows(text)] == ["t_edit", "t_boost"]
    _, text = parts["section-other-faces"]
    found = rows(text)
    kinds = ["none", "its own", "of other faces", "their mean over t", "random, as long"]
    assert [line[1] for line in found[:10]] == kinds * 2
    alike = {line[0]: float(line[1]) for line in found[10:]}
    assert alike["sad"] == 1 and alike["happy"] < 1  # a direction, and a block that looks at the face
    _, text = parts["section-linearity"]
    (minus, two, both) = rows(text)
    assert (minus[0], two[0], both[0]) == ("-1", "2", "happy + sad")
    assert float(minus[1]) < 0 and float(minus[2]) < 0 and float(two[1]) > 0.5 and float(two[2]) > 1
    own, text = parts["section-over-t"]
    pictures(text, own)
    assert [line[:2] for line in rows(text)] == [["happy", "3"], ["sad", "3"]]

    only = config("asyrp", f"people={photos}", "count=2", "emotions=[happy]", "parts=[interval]")
    assert [own.section for own, _ in scripts["asyrp"].sections(only, page)] == ["section-interval"]
    for override, error in (("parts=[intervals]", "no part intervals"), ("count=1", "needs two")):
        with pytest.raises(DataError, match=error):
            list(scripts["asyrp"].sections(config("asyrp", f"people={photos}", override), page))
    for editor, reason in (("nobody", "not there yet"), ("vae", "is no diffusion model")):
        ((_, text),) = scripts["asyrp"].sections(config("asyrp", f"editor={editor}"), page)
        assert reason in text


@needs_networks
def test_ffe_bench(scripts, config, photos):
    how = ["count=2", "emotions=[happy,fearful]", "strengths=[0.5,1.0]"]
    asked = config("ffe_bench", f"people={photos}", "editors=[pixels,nobody]", *how)
    text = scripts["ffe_bench"].section(asked)
    found = rows(text)
    main = {line[0]: line for line in found[: 4 + 2]}
    assert list(main) == ["tiny-pixels", "mean_warp", "pixel_mean", "nothing", "nobody", "best published"]
    assert main["nothing"][4] == "–" and main["nothing"][6].startswith("1.00")
    assert main["nobody"][1].startswith("not there yet") and main["best published"][2:5] == ["0.055", "0.863", "0.808"]
    assert scripts["ffe_bench"].section(asked) == text  # from the same results
    assert scripts["ffe_bench"].slug("/a/b/My Photos (2)") == "my-photos-2"
    assert "No editor is here." in scripts["ffe_bench"].section({**asked, "editors": ["nobody"]})
    with pytest.raises(DataError, match="data.root"):
        scripts["ffe_bench"].section({**asked, "people": "london", "data": {"root": None}})


@needs_networks
def test_the_prompt_study_edits(scripts, config, page, tmp_path, astronaut):
    file = tmp_path / "prompts.csv"
    lines = [("Shame", "lonely, round"), ("Zzz", "blue"), ("Jealousy", "bitter")]
    text = "".join(f'"{PROMPT.format(*line)}",6.5,x,\n' for line in lines)
    file.write_text(f"prompt,entropy,noise,aesthetic\n{text}")
    asked = config("prompt_study", f"prompts={file}")
    text = scripts["prompt_study"].section(asked, page)
    pictures(text, page)
    means, found, seen = rows(text)[:3], rows(text)[3:6], rows(text)[6:]
    assert [line[0] for line in seen] == ["1", "3"] and [line[3] for line in seen] == ["1", "1"]
    assert seen[0][1:3] == ["eye-level", "cinematic"] and "Not measurable here" in text
    assert [line[2] for line in found[::2]] == ["0.5*shame + 0.5*lonely", "0.5*jealousy + 0.5*bitter"]
    assert found[1][2].startswith("nothing: unknown emotion 'Zzz'") and found[1][4:8] == ["–"] * 4
    assert [line[3] for line in found] == ["round", "Zzz, blue", "–"]
    assert all(4 < float(line[4]) < 8 and 0 < float(line[5]) < 10 for line in found[::2])
    assert [line[2] for line in means] == [found[0][4], "–", found[2][4]]
    assert [line[6] for line in means] == ["6.50"] * 3 and [line[7] for line in means] == ["–"] * 3
    assert "no CLIP was given" in text and "no predictor was given" in text


@needs_networks
def test_the_prompt_study_rates_with_clip(scripts, config, page, tmp_path):
    """With a CLIP and a predictor in the public layouts, against the metrics themselves."""
    from emoedit.metrics.clip import AestheticPredictor, Clip
    from lib.prompts import parse_prompt

    (tmp_path / "clip").mkdir()
    clip = str(write_clip(tmp_path / "clip"))
    head = {"weight": torch.randn(1, 768), "bias": torch.tensor([5.0])}
    torch.save(head, tmp_path / "linear.pth")
    metrics = scripts["prompt_study"].PictureMetrics(clip, str(tmp_path / "linear.pth"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    short = parse_prompt("facial-expression Joy:;;;;;")
    found = metrics(image, short)
    seen = Clip.from_pretrained(clip)
    x = scripts["prompt_study"].as_tensor(image)
    embedded, read = seen.image_embeddings(x), seen.text_embeddings([short.text]) if len(short.text) < 20 else None
    rating = AestheticPredictor.from_file(tmp_path / "linear.pth")(embedded)
    assert found["aesthetic"] == pytest.approx(float(rating), abs=1e-5)
    assert rating[0] == pytest.approx(float(embedded[0] @ head["weight"][0] + 5), abs=1e-4)
    if read is not None:
        assert found["prompt_clip_score"] == pytest.approx(float((embedded * read).sum()), abs=1e-5)
    long = metrics(image, parse_prompt(PROMPT.format("Shame", "lonely")))  # this CLIP reads 24 tokens
    assert long["prompt_clip_score"] is None and "tokens" in metrics.why["prompt_clip_score"]
    assert long["aesthetic"] == found["aesthetic"]

    with pytest.raises(CheckpointError, match="missing.pth: there is no such file"):
        scripts["prompt_study"].section(config("prompt_study", "aesthetic=missing.pth"), page)
    save_file({"weight": torch.zeros(1, 5), "bias": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="other.safetensors rates embeddings of 5"):
        scripts["prompt_study"].PictureMetrics(clip, str(tmp_path / "other.safetensors"))
    assert (
        "none was given" in scripts["prompt_study"].PictureMetrics(None, str(tmp_path / "linear.pth")).why["aesthetic"]
    )


def test_the_prompt_study_generates(scripts, config, page, tmp_path, editors):
    """From an editor on Stable Diffusion, and from a folder of diffusers."""
    file = tmp_path / "prompts.txt"
    file.write_text("facial-expression Joy:;;;;;\n" + PROMPT.format("Shame", "lonely") + "\n")
    vectors = {"happy": torch.randn(1, 16)}
    own = Editor(tiny_diffusion(), [EmotionTokens(vectors)], name="tiny-ti").save_pretrained(tmp_path / "ti")
    public = write_model(tmp_path / "sd", unet=DRAWS_SMALL)
    for generator in (own, public):
        asked = config("prompt_study", f"prompts={file}", f"generator={generator}", "steps=3")
        text = scripts["prompt_study"].section(asked, page)
        drawn = rows(text)[2:]
        if generator == public:
            assert [line[2] for line in drawn[:2]] == ["drawn", "drawn"] and 0 < float(drawn[0][4]) <= 8
            pictures(text, page)
        else:  # its text encoder reads 16 tokens
            assert "tokens" in drawn[1][2] and drawn[1][4] == "–"
    for generator, error in ((editors["vae"], "draws nothing from a text"),):
        with pytest.raises(DataError, match=error):
            scripts["prompt_study"].section(config("prompt_study", f"generator={generator}"), page)
    text = scripts["prompt_study"].section(config("prompt_study", "generator=nobody"), page)
    assert "The model is not there yet" in text


@pytest.mark.slow
@needs_networks
def test_a_script_runs_as_it_is_documented(tmp_path, editors):
    """From the command line, in another folder, and again with another section there."""
    command = [sys.executable, str(ROOT / "experiments" / "reproduce_prompt_study.py"), f"models.vae={editors['vae']}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        text = (tmp_path / "docs" / "reproductions.md").read_text()
        (tmp_path / "docs" / "reproductions.md").unlink()
        assert (
            list(read_sections(text)) == ["prompt-study"] and len(rows(text)) == 2 + 20 + 20
        )  # measured, and seen in it
    assert [path.name for path in (tmp_path / "docs" / "images" / "reproductions").iterdir()] == [
        "prompt-study-pictures.jpg"
    ]
