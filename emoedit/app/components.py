"""Pieces that several tabs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr
from gradio.data_classes import ImageData

from emoedit.emotions import list_emotions
from emoedit.types import EmoEditError

T = TypeVar("T")


def photo_input(**options: Any) -> gr.Image:
    """An image input that hands over the file as it was uploaded.

    So a photograph keeps its metadata and size, and what is no picture is refused by this package's own reader.

    Args:
        **options: those of `gr.Image`.
    """
    image = gr.Image(type="filepath", sources=["upload", "webcam", "clipboard"], buttons=[], **options)

    def path_of(payload: ImageData | None) -> str | None:
        return payload.path if payload is not None else None  # it has been checked to lie among the uploads

    image.preprocess = path_of  # gradio writes a stub file beside the module of a subclass, which this does not need
    return image


def emotion_box(value: str | None, *, elem_id: str) -> gr.Dropdown:
    """A list of all emotions, into which a sum of them can be written, too.

    Args:
        value: what it shows first.
        elem_id: id of the element.
    """
    return gr.Dropdown(
        list(list_emotions()),
        value=value,
        allow_custom_value=True,
        label="Emotion by name, or a sum such as happy - 0.4*surprised",
        elem_id=elem_id,
    )


def or_reason(work: Callable[[], T]) -> T | str:
    """The result of a function, or the message of the error that it raises.

    Args:
        work: function to call; unexpected errors are raised.
    """
    try:
        return work()
    except EmoEditError as error:
        return str(error)


def fetch_file(elem_id: str) -> str:
    """JavaScript that presses a hidden download button once the page has its file.

    Args:
        elem_id: id of the button.
    """
    return (
        "() => { setTimeout(() => { const box = document.getElementById('" + elem_id + "'); "
        "(box.matches('a,button') ? box : box.querySelector('a,button')).click(); }, 250); }"
    )
