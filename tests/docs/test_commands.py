"""Every command and every Python example of README and docs runs with the installed wheel, where no checkout is.

What takes long is asked for less (`LESS`), and what trains only reads its configuration. Models of the hub are small
ones of the published layout, on a server of this machine.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from PIL import Image

from emoedit.io import checkpoints
from tests.fixtures.wheel import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LESS = {  # words of a command -> what the test asks for in their place
    "--emotions happy,sad --strengths": "--editors vae --emotions happy,sad --strengths",
    "--data photos/ --emotions": "--data photos/ --editors vae --emotions",
    "--editors stylegan asyrp facs asyrp+facs": "--editors stylegan facs stylegan+facs --candidates 3",
    "--editors vae,ti_asyrp": "--editors vae",
    "editor=asyrp,vae,references": "editor=vae,references",
    "--candidates 12": "--candidates 2",
    "--candidates 24": "--candidates 2",
    "--candidates 6": "--candidates 2",
    "--emotions happy,sad --output": "--emotions happy,sad --strengths 1 --output",
    "--emotions happy --output": "--emotions happy --strengths 1 --output",
    "--editor asyrp": "--editor asyrp --set steps=4",
    "--editor ti_asyrp": "--editor ti_asyrp --set steps=4",
    "--editor space_ti": "--editor space_ti --set steps=4",
    "--output prompt.png": "--set steps=4 --output prompt.png",
    "embeds.safetensors --output": "embeds.safetensors --set steps=4 --output",
    "--output instructed.png": "--set steps=4 --output instructed.png",
    "--emotion happy -o": "--emotion happy --frames 3 -o",
    "--frames 100": "--frames 4",
    "--frames 16": "--frames 3",
    "--from -1 --to 1.5 -o": "--from -1 --to 1.5 --frames 3 -o",
    "--samples 2000": "--samples 40",
    "--layers 4-8": "--layers 2-4",
    "--video talk.mp4": "--video talk.mp4 --frames 4 --candidates 2",
    "mirror --opposite": "mirror --opposite --video talk.mp4 --frames 4 --candidates 2",
    "mirror --draw": "mirror --video talk.mp4 --frames 2 --steps 1 --draw",
    "--camera 1": "--video talk.mp4",
    "fit token ": "fit token --steps 2 ",
    "editor.steps=10,20,50": "editor.steps=2,3",
    "shard=all/64": "shard=all/2",
    "launcher=submitit_slurm hydra.launcher.partition=NAME": "launcher=basic",
    "data.path=/photos": "data.path=photos",
    "/path/to/data": "data",
}
COMPOSED = ("train ", "reproduce ", "sweep experiment=")  # only the script and its configuration are loaded
NOT_OURS = ("python3 -m venv", "export ", "python -m pytest")
LESS_CODE = {
    "candidates=12": "candidates=2",
    "steps=1500": "steps=2",
    "steps=20": "steps=4",
    'precision="bfloat16"': 'precision="float32"',
    'strengths=[0.5, 1.0], editors=["vae", "asyrp"]': 'strengths=[1.0], editors=["vae", "facs"]',
}
SKIP = "<!-- not run"  # and why
LONG = "metric_networks=null"  # added to sweeps: measuring is tested elsewhere


def blocks(page: Path) -> list[str]:
    """The command lines of a page, block by block."""
    text = page.read_text("utf-8")
    return [dedent(found) for found in re.findall(r"^[ ]*```sh\n(.*?)```", text, re.S | re.M)]


def lines(block: str) -> list[str]:
    """Commands of a block: without comments, continued lines joined, ``&&`` told apart."""
    joined = block.replace("\\\n", " ").splitlines()
    parts = [part for line in joined for part in re.split(r"\s+#\s", f"{line} ", maxsplit=1)[0].split(" && ")]
    return [re.sub(r"\s+", " ", part).strip() for part in parts if part.strip()]


COMMANDS = [(page, number, line) for page in PAGES for number, b in enumerate(blocks(page)) for line in lines(b)]


def examples(page: Path) -> str:
    """The Python blocks of a page that are to run, as one program."""
    found = re.finditer(r"(<!--[^\n]*-->\n)?[ ]*```python\n(.*?)```", page.read_text("utf-8"), re.S)
    return "\n".join(dedent(match[2]) for match in found if not (match[1] or "").startswith(SKIP))


def emoedit_words(line: str) -> str | None:
    """What is given to ``emoedit`` in a line, also below a launcher; None where it calls something else."""
    found = re.match(r"(?:accelerate launch .*--no_python |(?:\w+=\S+ )*torchrun .*--no-python )?emoedit (.*)", line)
    return found[1] if found else None


def test_every_command_is_known():
    """A line of another program needs a reason to be here: it would not be tested."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert len(COMMANDS) > 60
    for page, _, line in COMMANDS:
        if line.startswith("pip install"):
            named = re.findall(r"\[([\w,]+)\]", line)
            assert all(name in extras for group in named for name in group.split(",")), f"{page}: {line}"
        elif line.startswith(". ") or line.startswith(NOT_OURS):
            continue
        elif not line.startswith("mkdocs"):
            assert emoedit_words(line) is not None, f"{page}: {line}"


def asked(line: str) -> list[str] | None:
    """The words that the test runs for a line; None for what is no command of this package."""
    words = emoedit_words(line)
    if words is None:
        return None
    for much, less in LESS.items():
        words = words.replace(much, less)
    if words.startswith(COMPOSED):
        return [*shlex.split(words), "--cfg", "job"] if "facs" not in words else shlex.split(words)
    return shlex.split(words) + ([LONG] if words.startswith("sweep") and LONG not in words else [])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, _astronaut) -> Path:
    """The files that the pages' commands name."""
    import av
    import torch

    from emoedit.steering.hspace import ShiftBlock
    from emoedit.steering.tokens import write_embedding
    from tests.fixtures.editors import tiny_asyrp
    from tests.fixtures.faceflex import numbers
    from tests.fixtures.stable_diffusion import SMALL_TEXT
    from tests.fixtures.style_encoder import write_encoder
    from tests.fixtures.stylegan2 import tiny as tiny_stylegan

    folder = tmp_path_factory.mktemp("inputs")
    head = np.ascontiguousarray(_astronaut[:320, 64:384])
    for name in (
        "me.jpg",
        "pictures/irritated/1.jpg",
        "group.jpg",
        "photos/me.jpg",
        "data/london-pairs/neutral/001.jpg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(head).save(folder / name, quality=95)
    (folder / "data/london-pairs/smiling").mkdir()
    Image.fromarray(head).save(folder / "data/london-pairs/smiling/001.jpg", quality=95)
    (folder / "data/london-pairs/info.csv").write_text("face_id,split\n001,test\n")
    for name, shift in (("smirk", 0), ("neutral", 4)):
        (folder / name).mkdir()
        for n in range(2):
            Image.fromarray(np.roll(head, shift + n, 1)).save(folder / name / f"{n}.png")
    (folder / "password.txt").write_text("a long one\n")
    with av.open(str(folder / "talk.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for _ in range(6):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(head, format="rgb24")))
        film.mux(stream.encode())
    write_embedding(folder / "learned_embeds.safetensors", "<glad>", numbers(3, 1, SMALL_TEXT["hidden_size"]))
    ddpm = tiny_asyrp(1, channels=3, std=None).backbone
    for name in ("smiling", "outputs/asyrp-celebahq/happy"):
        file = folder / f"{name}_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"0": ShiftBlock(ddpm.h_shape[0], ddpm.temb_dim).state_dict()}, file)
    stylegan = tiny_stylegan()
    stylegan.save_pretrained(folder / "ffhq.pkl")  # a folder where the page has NVIDIA's file: tests/models reads those
    normal = numbers(3, 1, stylegan.latent_shape[1])
    np.save(folder / "smile.npy", (normal / normal.norm()).numpy())
    generator = tiny_stylegan(resolution=32, widths=(12, 12, 8, 8), channels=3, encoder_widths=None, optimise_steps=1)
    write_encoder(folder / "e4e_ffhq_encode.pt", "e4e", generator)
    normal = numbers(3, 1, generator.latent_shape[1])
    torch.save(normal / normal.norm(), folder / "smile.pt")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A server that has the repositories that the pages name."""
    from emoedit.metrics.clip import VIT_L_14
    from emoedit.models.pretrained import CELEBAHQ, STABLE_DIFFUSION
    from tests.fixtures.clip import write_clip
    from tests.fixtures.editors import tiny_asyrp
    from tests.fixtures.hub import Hub
    from tests.fixtures.instruct import write_pix2pix
    from tests.fixtures.stable_diffusion import DRAWS_SMALL, write_model

    root = tmp_path_factory.mktemp("hub")
    write_model(root / STABLE_DIFFUSION, unet=DRAWS_SMALL)
    tiny_asyrp(1, channels=3, std=None).backbone.save_pretrained(root / CELEBAHQ)
    write_clip(root / VIT_L_14, tokens=77)
    pipeline = write_pix2pix(tmp_path_factory.mktemp("pix2pix"))
    shutil.copytree(pipeline, root / "Qwen/Qwen-Image-Edit-2511")
    server = Hub(root)
    yield server
    server.stop()


def jobs_of(inputs: Path, folder: Path) -> list[tuple[str, dict[str, object]]]:
    """What runs, each with its page and line; a command that stands on several pages once, a block in one folder."""

    def prepared(name: str) -> str:
        if not (folder / name).is_dir():
            shutil.copytree(inputs, folder / name)
        return str(folder / name)

    found, seen = [], set()
    for page, number, line in COMMANDS:
        if (words := asked(line)) is not None and line not in seen:
            seen.add(line)
            where = prepared(f"{page.stem}-{number}")
            found.append((f"{page.relative_to(ROOT)}: {line}", {"folder": where, "words": words}))
    for page in PAGES:
        if code := examples(page):
            for much, less in LESS_CODE.items():
                code = code.replace(much, less)
            found.append((f"{page.relative_to(ROOT)}", {"folder": prepared(f"{page.stem}-python"), "code": code}))
    return found


@pytest.mark.slow
@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
def test_every_command_and_example_runs_with_the_installed_wheel(installed, inputs, hub, tmp_path):
    told, jobs = zip(*jobs_of(inputs, tmp_path), strict=True)
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-P", str(ROOT / "tests/fixtures/run_commands.py"), "jobs.json", "results.json"]
    environment = installed.environment(HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path / "hf"), NO_PROXY="127.0.0.1")
    environment |= {"EMOEDIT_DATA": "data", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert Path(found["package"]) == installed.site / "emoedit" / "__init__.py"
    results = list(zip(told, found["results"], strict=True))
    failed = [f"{line}\n{result['said']}" for line, result in results if result["status"] and not allowed(line, result)]
    assert not failed, "\n\n".join(failed)
    first = next(Path(job["folder"]) for job in jobs if "edits/" in job.get("words", []))
    assert (first / "me_happy.jpg").is_file() and len(list((first / "edits").iterdir())) == 9


def allowed(line: str, result: dict) -> bool:
    """Whether a status that is not 0 is the right one: of so few tries none may be good enough."""
    searches = "emoedit best" in line or "emoedit mirror" in line
    return searches and "none of 2 candidates is kept" in result["said"]
