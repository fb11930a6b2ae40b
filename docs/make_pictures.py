"""Makes the pictures of the README and of "How it works".

    python docs/make_pictures.py --data /path/to/data

People are from the Face Research Lab London Set (DeBruine & Jones 2017, CC BY 4.0, doi
10.6084/m9.figshare.5047666.v5).
They consented to their pictures being used "in their original or altered forms and to illustrate research". Shown are
only people marked ``fit`` in its ``info.csv``, at most twelve, at up to 384 pixels, with the attribution beside the
pictures. The portrait of Eileen Collins is NASA's and in the public domain.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from emoedit.editors import load_editor
from emoedit.io.images import load_picture, save_picture
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.registry import DEFAULT_EDITOR
from emoedit.report.display import to_picture, to_srgb
from emoedit.report.grid import labelled_grid
from emoedit.types import DataError, Edit

IMAGES = Path(__file__).parent / "images"
NEUTRAL = ("062", "034", "044", "105")  # who is edited from a neutral photograph
SMILING = ("087", "117")  # who is edited from a smiling one
EMOTIONS = ("happy", "sad", "angry", "surprised")
SIDE = 256  # of a picture; the set's terms for this project allow 384
HEAD = 1.75  # side of a picture in sides of the detector's box
MOST_PEOPLE = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Makes all pictures; the exit status.

    Args:
        argv: the arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("EMOEDIT_DATA"), help="default: EMOEDIT_DATA")
    parser.add_argument("--editor", default=DEFAULT_EDITOR, help="default: %(default)s")
    parser.add_argument("--neutral", nargs="+", default=NEUTRAL, metavar="ID")
    parser.add_argument("--smiling", nargs="+", default=SMILING, metavar="ID")
    args = parser.parse_args(argv)
    photos = PhotoEditor(load_editor(args.editor))
    stages(photos)
    if args.data is None:
        parser.error("--data, or EMOEDIT_DATA, is the folder that holds london-pairs")
    people(photos, Path(args.data) / "london-pairs", args.neutral, args.smiling)
    return 0


def people(photos: PhotoEditor, folder: Path, neutral: Sequence[str], smiling: Sequence[str]) -> None:
    """``people.jpg``: neutral photographs with four emotions each, and ``smiles.jpg``: smiling ones made neutral.

    Args:
        photos: what edits.
        folder: of the London pairs.
        neutral: people of the first picture.
        smiling: people of the second one.

    Raises:
        DataError: somebody who may not be shown, or too many people.
    """
    check_allowed(folder, {*neutral, *smiling})
    images, labels = [], []
    for person in neutral:
        images += row(photos, folder / "neutral" / f"{person}.jpg", EMOTIONS)
        labels += ["photograph", *EMOTIONS]
    write(labelled_grid(images, labels, columns=1 + len(EMOTIONS), cell=SIDE), "people.jpg")
    images = [cell for p in smiling for cell in row(photos, folder / "smiling" / f"{p}.jpg", ("neutral", "sad"))]
    write(labelled_grid(images, ["photograph", "neutral", "sad"] * len(smiling), columns=6, cell=SIDE), "smiles.jpg")


def check_allowed(folder: Path, persons: set[str]) -> None:
    """Refuse whom the set's terms for this project do not allow to be shown.

    Args:
        folder: of the London pairs.
        persons: that would be shown.

    Raises:
        DataError: they are not marked ``fit``, or more than twelve.
    """
    with open(folder / "info.csv", newline="", encoding="utf-8") as file:
        fit = {line["face_id"] for line in csv.DictReader(file) if line["split"] == "fit"}
    if persons - fit or len(persons) > MOST_PEOPLE:
        raise DataError(f"at most {MOST_PEOPLE} people marked fit may be shown; not marked: {sorted(persons - fit)}")


def row(photos: PhotoEditor, path: Path, emotions: Sequence[str]) -> list[Image.Image]:
    """The head in a photograph and in each of its edits.

    Args:
        photos: what edits.
        path: of the photograph.
        emotions: of the edits.
    """
    opened = photos.open(path)
    made = [result.image for result in photos.edit(opened, [Edit(name) for name in emotions])]
    return [head(image, opened) for image in (opened.picture.to_pil(), *made)]


def head(image: Image.Image, opened: OpenPhoto) -> Image.Image:
    """The square around the first face, `SIDE` pixels wide.

    Args:
        image: the photograph or an edit.
        opened: says where the face is.
    """
    x0, y0, x1, y1 = opened.faces[0].box
    side = min(HEAD * max(x1 - x0, y1 - y0), *image.size)
    left = min(max((x0 + x1 - side) / 2, 0), image.width - side)
    top = min(max((y0 + y1 - side) / 2, 0), image.height - side)
    box = (left, top, left + side, top + side)
    return to_srgb(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)


def stages(photos: PhotoEditor) -> None:
    """``stages.jpg``: one photograph through every stage of an edit.

    Args:
        photos: what edits.
    """
    from skimage.data import astronaut

    photo = astronaut()
    opened = photos.open(photo)
    edit = Edit("sad")
    inversion = opened.inversion
    drawn = next(photos.editor.decode(inversion, [edit]))
    result = next(photos.edit(opened, [edit])).image
    reconstruction = inversion.extras["reconstruction"]
    change = (drawn - reconstruction)[0]
    cells = {
        "1 find the face": marked(opened),
        "2 align a crop": to_picture(inversion.extras["source"][0]),
        "3 invert and draw it again": to_picture(reconstruction[0]),
        "4 draw it with the emotion": to_picture(drawn[0]),
        "5 the change alone": to_picture(change.clamp(-1, 1)),
        "6 put back, in the photograph": head(result, opened),
        "what changed in the photograph": head(difference(photo, result), opened),
        "the photograph": head(Image.fromarray(photo), opened),
    }
    write(labelled_grid(list(cells.values()), list(cells), columns=4, cell=SIDE), "stages.jpg")


def marked(opened: OpenPhoto) -> Image.Image:
    """The head with the detector's box and its five landmarks.

    Args:
        opened: the photograph.
    """
    image = opened.picture.to_pil()
    draw = ImageDraw.Draw(image)
    draw.rectangle(opened.faces[0].box, outline=(255, 176, 0), width=2)
    for x, y in opened.faces[0].landmarks:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(255, 176, 0), outline="black")
    return head(image, opened)


def difference(before: np.ndarray, after: Image.Image) -> Image.Image:
    """What an edit changed, three times as large, on grey.

    Args:
        before: the photograph, uint8 ``[H, W, 3]``.
        after: its edit.
    """
    change = load_picture(after).rgb.astype(int) - before
    return Image.fromarray(np.clip(128 + 3 * change, 0, 255).astype(np.uint8))


def write(image: Image.Image, name: str) -> None:
    """A picture in ``docs/images``.

    Args:
        image: of any size.
        name: of its file.
    """
    save_picture(image, IMAGES / name, overwrite=True, quality=88)
    print(IMAGES / name, image.size)


if __name__ == "__main__":
    sys.exit(main())
