"""What the app draws beside photographs: numbered outlines, bars of what a face shows, a line of numbers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from emoedit.app.session import Photo, Reading, Result
from emoedit.faces.detect import Face
from emoedit.report.display import to_srgb

CHOSEN, OTHER = (255, 176, 0), (255, 255, 255)  # outlines; both have a dark line around them


def outlined(photo: Photo, chosen: int | None) -> Image.Image:
    """The photograph with its faces outlined and numbered from 1.

    Args:
        photo: the open photograph.
        chosen: the face that will be edited; None for all.
    """
    image = to_srgb(photo.shown.to_pil())
    draw = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 250))
    for number, face in enumerate(photo.faces):
        colour = CHOSEN if chosen in (None, number) else OTHER
        box = [round(value) for value in face.box]
        draw.rectangle([box[0] - width, box[1] - width, box[2] + width, box[3] + width], outline="black", width=width)
        draw.rectangle(box, outline=colour, width=width)
        if len(photo.faces) > 1:
            _number(draw, number + 1, box, colour, max(14, round(max(image.size) / 32)))
    return image


def _number(draw: ImageDraw.ImageDraw, number: int, box: Sequence[int], colour: tuple[int, ...], size: int) -> None:
    font = ImageFont.load_default(size=size)
    x0, y0, x1, y1 = draw.textbbox((0, 0), str(number), font=font)
    x, y = max(0, box[0]), max(0, box[1])
    draw.rectangle([x, y, x + (x1 - x0) + size // 2, y + (y1 - y0) + size // 2], fill=colour)
    draw.text((x + size // 4 - x0, y + size // 4 - y0), str(number), fill="black", font=font)


def face_at(faces: Sequence[Face], x: float, y: float) -> int | None:
    """The smallest face around a point, or the nearest one within half its size.

    Args:
        faces: faces in pixels of the picture that was clicked.
        x: x coordinate of the click.
        y: y coordinate of the click.

    Returns:
        Its number; None where no face is near.
    """
    inside = [n for n, f in enumerate(faces) if f.box[0] <= x <= f.box[2] and f.box[1] <= y <= f.box[3]]
    if inside:
        return min(inside, key=lambda n: faces[n].area)
    best, shortest = None, float("inf")
    for number, face in enumerate(faces):
        x0, y0, x1, y1 = face.box
        distance = max(x0 - x, x - x1, y0 - y, y - y1)
        if distance < min(shortest, max(x1 - x0, y1 - y0) / 2):
            best, shortest = number, distance
    return best


def bars(before: Reading, after: Reading | None = None) -> str:
    """What a face shows: a bar for each basic emotion, before and after an edit, and valence and arousal.

    Args:
        before: reading of the photograph.
        after: reading of its edit.
    """
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{_bar(score, "now")}'
        + (_bar(after.scores[name], "then") if after else "")
        + "</tr>"
        for name, score in before.scores.items()
    )
    head = '<tr><th scope="col">reads as</th><th scope="col">photograph</th>'
    head += '<th scope="col">edit</th></tr>' if after else "</tr>"
    tail = "".join(
        f'<tr><th scope="row">{word}</th><td class="plain">{getattr(before, word):+.2f}</td>'
        + (f'<td class="plain">{getattr(after, word):+.2f}</td>' if after else "")
        + "</tr>"
        for word in ("valence", "arousal")
    )
    return f'<table class="bars"><caption>What the face shows</caption>{head}{rows}{tail}</table>'


def _bar(share: float, kind: str) -> str:
    percent = f"{share:.0%}"
    return f'<td><span class="bar {kind}" style="--share:{share:.3f}"></span><span class="count">{percent}</span></td>'


def numbers(result: Result) -> str:
    """One line under a result: how much of the person is kept, the strength that was used, the time it took.

    Args:
        result: result of an edit.
    """
    facts = {"identity kept": f"{result.identity:.2f}"}
    wanted = result.settings
    if not wanted.changes:
        facts = {"edit": "none yet"}
    elif result.strength != wanted.strength:
        facts["strength"] = f"{result.strength:.2g} of {wanted.strength:g}, to keep {wanted.min_identity:g}"
    if result.units != 1:
        facts["action units"] = f"{result.units:.0%}, to keep {wanted.min_identity:g}"
    facts["time"] = f"{result.seconds:.2f} s"
    return listed(facts)


def listed(facts: Mapping[str, str]) -> str:
    """Names and values on one line.

    Args:
        facts: names and values in their order; they are escaped.
    """
    cells = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="numbers">{"".join(cells)}</dl>'


def table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under headers; long texts are broken, so that it fits a narrow page.

    Args:
        caption: caption of the table.
        headers: headers of the columns.
        rows: texts; they are escaped.
    """
    head = "".join(f'<th scope="col">{html.escape(header)}</th>' for header in headers)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f'<table class="rows"><caption>{html.escape(caption)}</caption><tr>{head}</tr>{body}</table>'


def notice(text: str, *, error: bool = False) -> str:
    """A message in place of a result.

    Args:
        text: text of it; it is escaped.
        error: whether something went wrong.
    """
    role = "alert" if error else "status"
    return f'<p class="notice{" error" if error else ""}" role="{role}">{html.escape(text)}</p>' if text else ""
