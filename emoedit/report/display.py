"""Representations of results in notebooks: a picture or a short table.

Each function takes the value and returns what IPython's display protocol asks for (``_repr_png_``: bytes,
``_repr_html_``: markup); the classes call them. Pictures are small, so that a notebook stays small.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms

from emoedit.report.grid import labelled_grid
from emoedit.steering.unit_names import is_unit

if TYPE_CHECKING:
    from torch import Tensor

    from emoedit.editors import Editor, EditOutput
    from emoedit.evaluation.compare import Comparison
    from emoedit.types import Edit, Inversion

CELL = 320  # longest side of a picture in a notebook, in pixels
COLUMNS = 4
MOST = 32  # pictures; of more, the first are shown
KEY_NUMBERS = ("target_score", "identity", "hes", "perceptual", "seconds")  # of a comparison's rows


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture as a screen shows it: RGB in sRGB, transparency on white. Always a copy.

    Args:
        image: image of any mode; ``.info`` may hold its ``icc_profile``. A damaged profile is ignored with a warning.
    """
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB").copy()
    if profile:
        try:
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
        except (ImageCms.PyCMSError, OSError) as error:
            warnings.warn(f"the photo's colour profile cannot be used and is ignored: {error}", stacklevel=3)
    image.info.clear()
    return image


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file.

    Args:
        image: the picture.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def photo_edit_png(source: Image.Image, image: Image.Image, edit: Edit) -> bytes:
    """The photograph beside its edit.

    Args:
        source: the photograph.
        image: its edit, of the same size.
        edit: the edit.
    """
    return png(labelled_grid([to_srgb(source), to_srgb(image)], ["photograph", words(edit)], columns=2, cell=CELL))


def edit_output_png(output: EditOutput) -> bytes:
    """Edited crops, labelled with their edits.

    Args:
        output: output of an editor, pictures or tensors.
    """
    crops = output.images if isinstance(output.images, list) else list(output.images.flatten(0, 1))
    each = len(crops) // len(output.edits)
    labels = [words(edit) for edit in output.edits for _ in range(each)]
    pictures = [crop if isinstance(crop, Image.Image) else to_picture(crop) for crop in crops[:MOST]]
    return png(labelled_grid(pictures, labels[:MOST], columns=COLUMNS, cell=CELL // 2))


def inversion_html(inversion: Inversion) -> str:
    """The input above its reconstruction, and the shape of the latent.

    Args:
        inversion: inversion of an editor, or (without these pictures) of a backbone.
    """
    extras = inversion.extras
    shapes = {"latent": tuple(inversion.latent.shape), **{name: tuple(value.shape) for name, value in extras.items()}}
    table = facts_html(f"Inversion of {len(inversion)} crops", shapes)
    if not {"source", "reconstruction"} <= set(extras):
        return table
    count = min(len(inversion), COLUMNS)
    pictures = [to_picture(row) for name in ("source", "reconstruction") for row in extras[name][:count]]
    labels = ["crop"] * count + ["reconstruction"] * count
    return inline(labelled_grid(pictures, labels, columns=count, cell=CELL // 2)) + table


def editor_html(editor: Editor) -> str:
    """The parts of an editor.

    Args:
        editor: any.
    """
    backbone = editor.backbone
    crop = backbone.crop
    count = sum(parameter.numel() for parameter in backbone.parameters())
    facts = {
        "backbone": f"{type(backbone).__name__}, {count / 1e6:.1f} million parameters",
        "steerings": ", ".join(type(steering).__name__ for steering in editor.steerings),
        "crop": f"{crop.resolution} px, {'colour' if backbone.channels == 3 else 'luminance'}, {crop.style}",
        "emotions": ", ".join(name for name in editor.emotions if not is_unit(name)),
        "device": str(editor.device),
    }
    if units := [name for name in editor.emotions if is_unit(name)]:
        facts["action units"] = ", ".join(units)
    return facts_html(f"Editor {editor.name}", facts)


def inline(image: Image.Image) -> str:
    """A picture as an HTML element that needs no other file.

    Args:
        image: the picture.
    """
    data = base64.b64encode(png(image)).decode()
    return f'<img alt="" src="data:image/png;base64,{data}">'


def to_picture(crop: Tensor) -> Image.Image:
    """A crop ``[C, R, R]`` in [-1, 1] as a PIL picture."""
    levels = ((crop.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels))


def words(edit: Edit) -> str:
    """An edit in a few words.

    Args:
        edit: the edit.
    """
    return edit.emotion if edit.strength == 1 else f"{edit.emotion} at {edit.strength:g}"


def facts_html(title: str, facts: Mapping[str, Any]) -> str:
    """A small table of names and values.

    Args:
        title: above it.
        facts: shown in their order; whatever they hold is escaped.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(name))}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<div><strong>{html.escape(title)}</strong><table>{rows}</table></div>"


def comparison_html(found: Comparison) -> str:
    """The pictures of a comparison and their main metrics, a row an edit.

    Args:
        found: the comparison.
    """
    rows = found.rows
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("editor", "emotion", "strength", *KEY_NUMBERS))
    body = "".join(
        "<tr>"
        + "".join(f"<td>{_cell(row.get(key))}</td>" for key in ("editor", "emotion", "strength", *KEY_NUMBERS))
        + (f"<td>{html.escape(row['error'])}</td>" if row.get("error") else "")
        + "</tr>"
        for row in rows
    )
    return f"{inline(found.grid())}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else html.escape(str(value))
