"""Pictures side by side with a word under each."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from emoedit.types import ImageError


def labelled_grid(
    images: Sequence[Image.Image], labels: Sequence[str], *, columns: int, cell: int = 320
) -> Image.Image:
    """Pictures in rows on white, each centred over its label.

    Args:
        images: images of any size and mode; scaled to fit a cell, never cut. Transparency shows white.
        labels: one a picture; a long one is set smaller until it fits the cell.
        columns: the most pictures in a row.
        cell: side of a cell in pixels.

    Returns:
        RGB, just large enough for the rows there are.

    Raises:
        ImageError: no picture, not one label a picture, or a cell or row of no size.
    """
    if not images or len(images) != len(labels):
        raise ImageError(f"{len(images)} pictures and {len(labels)} labels; at least one, and a label each, are needed")
    if columns < 1 or cell < 16:
        raise ImageError(f"a grid has at least 1 column and cells of 16 pixels, not {columns} and {cell}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    margin, line = max(2, cell // 40), max(12, cell // 9)
    size = (margin + columns * (cell + margin), margin + rows * (cell + line + margin))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        row, column = divmod(number, columns)
        x, y = margin + column * (cell + margin), margin + row * (cell + line + margin)
        tile = ImageOps.contain(image.convert("RGBA"), (cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(tile, (x + (cell - tile.width) // 2, y + (cell - tile.height) // 2), tile)
        draw.text((x + cell / 2, y + cell + line / 2), label, "black", _font(label, cell, line), anchor="mm")
    return sheet


def _font(label: str, width: int, line: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, as large as suits the line and as small as the width demands."""
    size = line * 0.64
    length = ImageFont.load_default(size=size).getlength(label)
    return ImageFont.load_default(size=max(4.0, size * min(1.0, 0.98 * width / max(length, 1))))
