"""Writes the notebooks in ``docs/notebooks/`` from the cells below, without outputs.

A notebook file is JSON that nobody reviews line by line; its cells are kept here as text. Run it after a change:
``python docs/make_notebooks.py``. A test compares the files with what this would write, and executes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parent / "notebooks"

SETTINGS = '''# Small settings let every cell run in seconds; EMOEDIT_NOTEBOOK_SIZE=full takes the usual ones.
import os

SMALL = os.environ.get("EMOEDIT_NOTEBOOK_SIZE", "small") == "small"'''

PHOTO = """from skimage.data import astronaut  # Eileen Collins (NASA, public domain); a path of yours will do

photo = astronaut()"""

NOTEBOOKS: dict[str, list[str]] = {
    "1-quickstart": [
        """# Quickstart

Edit a photograph, at several strengths, from one inversion; then save it.""",
        PHOTO,
        """import emoedit

emoedit.edit(photo, "sad")""",
        """The photograph stands beside its edit. Load an editor once and open a photograph once, and each further edit
takes a fraction of a second.""",
        """editor = emoedit.load_editor("stylegan")
editor""",
        """photos = emoedit.PhotoEditor(editor)
opened = photos.open(photo)
results = list(photos.edit(opened, [emoedit.Edit("surprised", strength) for strength in (0.5, 1.0)]))
results[-1]""",
        """Emotions are names, and names add.""",
        """print(len(emoedit.list_emotions()), "names, among them", ", ".join(emoedit.list_emotions()[:12]))
emoedit.edit(photo, "0.5*surprised - 0.5*happy", editor=photos)""",
        """Files keep the photograph's size, colour profile and metadata. Nothing is replaced unless you say so.""",
        """import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
print(results[-1].save(folder / "surprised.png"))""",
        """What the face shows, before and after, in numbers of a recogniser that no editor was fitted with:""",
        """from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io.images import load_picture

recogniser = EmbeddedNetwork.load("expression")
face = opened.faces[0]
for title, picture in (("photograph", results[-1].source), ("edit", results[-1].image)):
    scores = recogniser.scores(recogniser.faces(load_picture(picture).rgb, face)[None])[0]
    print(title, {name: round(float(score), 2) for name, score in zip(recogniser.emotions, scores, strict=True)})""",
    ],
    "2-compare": [
        """# Comparing editors on your photographs

Which editor should you take? Compare them on your own photographs, read two numbers, and add a measure of your own.""",
        PHOTO,
        SETTINGS,
        """import emoedit

editors = ["stylegan", "vae"] if SMALL else "all"
comparison = emoedit.compare(photo, ["sad", "surprised"], editors=editors, strengths=[1.0], references=not SMALL)
comparison""",
        """**target_score** is the probability of the intended emotion, **identity** the cosine similarity to the source
in a face-recognition network's space, **hes** their harmonic mean. Higher is better for all three, but an editor that
changes nothing keeps all of the identity: read both.""",
        """table = comparison.to_pandas()
table[["editor", "emotion", "target_score", "identity", "hes", "seconds"]].round(2)""",
        """## A measure of your own

A measure is a function of the photograph and its edit. This one asks how much of the change lies outside the face box,
which should be nothing.""",
        """import numpy as np


def change_outside(before: np.ndarray, after: np.ndarray, box: tuple[float, float, float, float]) -> float:
    \"\"\"Mean absolute change outside a box, in grey levels of 255.\"\"\"
    outside = np.ones(before.shape[:2], bool)
    x0, y0, x1, y1 = (int(round(value)) for value in box)
    margin = (x1 - x0) // 2
    outside[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = False
    return float(np.abs(before.astype(int) - after.astype(int))[outside].mean())


result = emoedit.edit(photo, "surprised")
change_outside(np.asarray(result.source), np.asarray(result.image), result.face.box)""",
        """## Several strengths

A stronger edit is read better and keeps less of the person. Editors are compared at the same identity, not at the same
strength.""",
        """curve = emoedit.compare(
    photo, "surprised", editors=["stylegan"], strengths=[0.5, 1.0, 1.5], references=False
).to_pandas()
curve[["strength", "target_score", "identity"]].round(2)""",
    ],
    "3-h-space": [
        """# What h-space is

The output of the middle block of a diffusion model's U-Net, at every step, is called h. Asyrp (Kwon et al., ICLR 2023,
arXiv 2210.10960) found that a shift of h moves what the picture means. Here you see the shifts over time, that they are
linear, and how to find your own direction from a few pictures.""",
        PHOTO,
        SETTINGS,
        """import emoedit

editor = emoedit.load_editor("asyrp")
if SMALL:
    editor.backbone = editor.backbone.with_sampling(steps=8)
editor""",
        """An inversion leads the face back to the noise from which the U-Net draws it again. It is a value that serves
any number of edits.""",
        """photos = emoedit.PhotoEditor(editor)
opened = photos.open(photo)
opened.inversion""",
        """## Linear in the strength

Half a shift is half an expression, and a negative one is its opposite, as far as faces go.""",
        """editor(inversion=opened.inversion, emotions="surprised", strength=[-0.5, 0.5, 1.0])""",
        """## Shifts over time

How much each step changes h. The shift is added from noise down to the step `t_edit`; after that only detail is
drawn.""",
        """import torch

from emoedit.types import Edit, HState

control = editor.control(opened.inversion, [Edit("surprised", 1.0)])
sizes = []
with torch.no_grad():

    def measured(state: HState) -> torch.Tensor:
        shift = control.delta_h(state)
        sizes.append((int(state.t[0]), float(shift.norm() / state.h.norm())))
        return shift

    drawn = editor.backbone.decode(opened.inversion, emoedit.Control(delta_h=measured))
for t, size in sizes:
    print(f"t = {t:4d}   |shift| / |h| = {size:.3f}")""",
        """## A direction of your own

The difference of h between two groups of pictures is a direction (Haas et al., 2023). Here the groups are a few faces
with and without an expression; take twenty of your own, aligned the same way. To have pictures that may be shown, these
are edits of one photograph by another editor.""",
        """other = emoedit.PhotoEditor("stylegan")
source = other.open(photo)
count = 2 if SMALL else 10
smiling = [r.image for r in other.edit(source, [Edit("happy", 0.6 + 0.1 * n) for n in range(count)])]
calm = [r.image for r in other.edit(source, [Edit("neutral", 0.6 + 0.1 * n) for n in range(count)])]


def mean_h(pictures) -> dict[int, torch.Tensor]:
    \"\"\"Mean of h at each step while a group of pictures is drawn again.\"\"\"
    kept: dict[int, list[torch.Tensor]] = {}

    def watch(state: HState) -> torch.Tensor:
        kept.setdefault(int(state.t[0]), []).append(state.h.clone())
        return torch.zeros_like(state.h)

    with torch.no_grad():
        for picture in pictures:
            editor.backbone.decode(photos.open(picture).inversion, emoedit.Control(delta_h=watch))
    return {t: torch.cat(rows).mean(0) for t, rows in kept.items()}


happy_h, calm_h = mean_h(smiling), mean_h(calm)
direction = {t: happy_h[t] - calm_h[t] for t in happy_h}
print(len(direction), "steps, each of shape", tuple(next(iter(direction.values())).shape))""",
        """The direction as a control: minus takes the smile away.""",
        """def along(weight: float) -> emoedit.Control:
    return emoedit.Control(delta_h=lambda state: weight * direction[int(state.t[0])].expand_as(state.h))


from emoedit.report.display import to_picture
from emoedit.report.grid import labelled_grid

weights = (-2.0, 0.0, 1.0)
with torch.no_grad():
    rows = [to_picture(editor.backbone.decode(opened.inversion, along(weight))[0]) for weight in weights]
labelled_grid(rows, [f"{weight:+g}" for weight in weights], columns=3, cell=192)""",
    ],
    "4-learn-a-word": [
        """# Learning a word

Textual inversion (Gal et al., 2022, arXiv 2208.01618) teaches a text-to-image model a new word from pictures: only the
word's embedding is fitted, the model stays as it is. Here a small Stable Diffusion learns a word from a handful of
crops. With twenty pictures and the usual settings it takes minutes on a GPU; the settings below show the way in
seconds.""",
        PHOTO,
        SETTINGS,
        """import emoedit

editor = emoedit.load_editor("ti")
if SMALL:
    editor.backbone = editor.backbone.with_sampling(steps=6)
editor""",
        """The words that it has learned stand in one small file each, in the layout that diffusers reads
(`learned_embeds.safetensors`).""",
        """from emoedit.io import checkpoints

for path in sorted((checkpoints.embedded_root() / "ti" / "steering_0").glob("*/learned_embeds.safetensors")):
    print(path.parent.name, path.stat().st_size, "bytes")""",
        """Pictures to learn from: aligned crops in the editor's own size. Twenty photographs that show your emotion are
what to take; these are drawn by another editor from one photograph.""",
        """import torch

from emoedit.types import Edit

other = emoedit.PhotoEditor("stylegan")
source = other.open(photo)
edits = [Edit("surprised", 0.8 + 0.1 * n) for n in range(2 if SMALL else 8)]
photos = emoedit.PhotoEditor(editor)
crops = torch.cat([photos.open(r.image).inversion.extras["source"] for r in other.edit(source, edits)])
print(tuple(crops.shape), "in [-1, 1]")""",
        """## The loss

Noise is added to the crops, and the U-Net has to predict it with the new word in its text (equation 2). The gradient
reaches the rows of the new word only. The word starts from the nearest one that the model knows.""",
        """from emoedit.training.tokens import LatentBatches, TokenConfig, TokenTask, encode_pictures

config = TokenConfig("astonished-x", like="surprised", batch_size=4)
task = TokenTask(editor.backbone, config)
batches = LatentBatches(encode_pictures(editor.backbone, crops), len(config.templates), batch_size=4, seed=0)
optimizer = torch.optim.AdamW(task.parameters(), lr=5e-3, weight_decay=1e-2)
torch.manual_seed(0)
losses = []
for step in range(4 if SMALL else 1000):
    loss = task(batches(step))["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(float(loss))
print("loss of the first and of the last step:", round(losses[0], 3), round(losses[-1], 3))""",
        """`emoedit.training.tokens.learn_token` does this with checkpoints, resuming and several processes, and writes
the file that diffusers reads ([training](../training.md)). The vectors make a steering, and the steering an editor:""",
        """from emoedit.steering.tokens import EmotionTokens

steering = EmotionTokens({config.emotion: task.learned().detach().cpu()})
own = emoedit.Editor(editor.backbone, [steering], name="own")
own""",
        """## Editing with words

An edit moves the text from neutral to the word. After a few steps your word does little; the words of the package were
learned in the same way, from many more pictures.""",
        """emoedit.edit(photo, config.emotion, editor=own)""",
        """emoedit.edit(photo, "irritated", editor=photos)""",
    ],
    "5-stylegan": [
        """# StyleGAN: walks and inversion

StyleGAN2 draws a face from a code w+ (one vector a layer). An encoder finds the code of a photograph; a step along a
fitted direction in W changes the expression; what the code cannot hold of the photograph is never replaced, because
only the change is put back.""",
        PHOTO,
        SETTINGS,
        """import emoedit

editor = emoedit.load_editor("stylegan")
photos = emoedit.PhotoEditor(editor)
opened = photos.open(photo)
opened.inversion""",
        """## Along a direction""",
        """editor(inversion=opened.inversion, emotions=["happy", "sad", "surprised"], strength=[0.5, 1.0, 1.5])""",
        """## In the photograph

The same steps, put back into the photograph, as an animation.""",
        """import tempfile
from pathlib import Path

from IPython.display import Image

from emoedit.report.walk import even_strengths, walk

found = walk(photos, opened, "surprised", even_strengths(0, 1.5, 4 if SMALL else 16), longest=320)
path = found.save(Path(tempfile.mkdtemp()) / "walk.gif")
Image(filename=path)""",
        """## What the code holds

The residual is what the generator cannot draw of this crop. It is large in hair and background, and small where an
expression is.""",
        """residual = (opened.inversion.extras["source"] - opened.inversion.extras["reconstruction"]).abs()[0, 0]
side = residual.shape[-1]
inner = residual[side // 4 : -side // 4, side // 4 : -side // 4]
print(f"mean residual: {residual.mean():.3f} in the crop, {inner.mean():.3f} in its middle (of 2)")""",
        """## Within an identity floor

The strongest surprise that keeps a cosine similarity of 0.85 to the source:""",
        """from emoedit.guard import IdentityGuard

(limited,) = IdentityGuard(photos, 0.85).limit(opened, [emoedit.Edit("surprised", 2.0)])
print("strength", limited.strength)
next(photos.edit(opened, [limited]))""",
    ],
    "6-full-size": [
        """# Full-size models on a GPU

The embedded models are small so that everything runs anywhere. The same code drives published models of full size: a
DDPM of CelebA-HQ with Asyrp's shifts, Stable Diffusion 1.5 with learned words, StyleGAN2 of FFHQ. They are read by name
or path, and run on a GPU with half precision where that suits them.

Where no full-size model is on this machine, the cells run with the embedded one of the same kind, so that the notebook
shows the way everywhere.""",
        """import os

import torch

import emoedit

NAME = os.environ.get("EMOEDIT_FULL_SIZE", "asyrp")  # or a name of `emoedit models`, a folder, an id on the hub
device = "cuda" if torch.cuda.is_available() else "cpu"
print(NAME, "on", device)""",
        """editor = emoedit.load_editor(NAME, device=device)
if device == "cpu":
    editor.backbone = editor.backbone.with_sampling(steps=6)
editor""",
        PHOTO,
        """One inversion, then any number of edits. On a GPU a batch of emotions is drawn at once.""",
        """import time

photos = emoedit.PhotoEditor(editor)
start = time.perf_counter()
opened = photos.open(photo)
print(f"inverted in {time.perf_counter() - start:.1f} s")
results = list(photos.edit(opened, [emoedit.Edit(name) for name in editor.emotions[1:3]]))
results[0]""",
        """How many steps are enough? Time grows with the steps, and the reconstruction says what a run loses.""",
        """for steps in (4, 8):
    sampled = emoedit.Editor(editor.backbone.with_sampling(steps=steps), editor.steerings, name=f"{steps} steps")
    start = time.perf_counter()
    inversion = sampled.invert(opened.inversion.extras["source"])
    error = (inversion.extras["source"] - inversion.extras["reconstruction"]).pow(2).mean()
    seconds, psnr = time.perf_counter() - start, 10 * float(torch.log10(4 / error))
    print(f"{steps:3d} steps: {seconds:.1f} s, PSNR {psnr:.1f} dB")""",
    ],
}


def is_code(cell: str) -> bool:
    """Whether a cell is Python: the others are headings or prose."""
    if all(line.startswith("#") for line in cell.splitlines()):
        return False
    try:
        compile(cell, "cell", "exec")
    except SyntaxError:
        return False
    return True


def notebook(cells: list[str]) -> str:
    """The JSON text of a notebook.

    Args:
        cells: Markdown and Python, told apart by whether they compile.
    """
    made = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(cells):
        new = nbformat.v4.new_code_cell if is_code(cell) else nbformat.v4.new_markdown_cell
        made.cells.append(new(cell, id=f"cell-{number}"))
    return nbformat.writes(made) + "\n"


def main() -> int:
    """Writes all of them; the exit status."""
    FOLDER.mkdir(exist_ok=True)
    for name, cells in NOTEBOOKS.items():
        (FOLDER / f"{name}.ipynb").write_text(notebook(cells), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
