"""The page, put together and served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gradio as gr

from emoedit.app.batch_tab import BatchLayout
from emoedit.app.candidates_tab import CandidatesLayout
from emoedit.app.compare_tab import CompareLayout
from emoedit.app.edit_tab import EditLayout
from emoedit.app.pad import STATIC
from emoedit.app.privacy import MAX_UPLOAD, Access, LocalOnly
from emoedit.app.studio import Studio
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import OutputError

ABOUT = (
    "Edit pictures of people who agree to it, and say that a picture was edited. "
    "An edited expression says nothing about what anybody felt."
)


def theme() -> gr.themes.Base:
    """Colours with a contrast of at least 4.5 to 1, and the system's own fonts: none is loaded."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Default(
        primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_info_text_color="*neutral_600",
        body_text_color_subdued="*neutral_600",
        block_label_text_color_dark="*neutral_200",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued_dark="*neutral_300",
    )


def build(studio: Studio, *, editor: str = DEFAULT_EDITOR) -> gr.Blocks:
    """The page.

    Args:
        studio: models and sessions.
        editor: name of the editor that is selected at first.
    """
    with gr.Blocks(title="emoedit", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        gr.HTML("<h1>emoedit</h1>", elem_id="title")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Edit", id="edit"):
                edit = EditLayout(studio, editor)
            with gr.Tab("Compare", id="compare"):
                CompareLayout(studio, edit.face)
            with gr.Tab("Candidates", id="candidates"):
                CandidatesLayout(studio, edit, tabs)
            with gr.Tab("Batch", id="batch"):
                BatchLayout(studio, editor)
        gr.HTML(f"<p>{ABOUT}</p>", elem_id="about")

        def leave(request: gr.Request) -> None:
            studio.end(request.session_hash)

        page.unload(leave)
    page.queue(api_open=False, default_concurrency_limit=1)
    return page


def serve(
    studio: Studio,
    access: Access,
    check: Callable[[str, str], bool] | None,
    *,
    editor: str,
    browser: bool,
    ready: Callable[[str], None] | None,
    stop: threading.Event | None,
) -> None:
    """Load the models and serve the page until it is interrupted; [emoedit.app.launch.launch][] prepares all else.

    Args:
        studio: models and sessions.
        access: where to listen.
        check: check of a user and a password; None where the page asks for none.
        editor: name of the editor that is selected at first.
        browser: whether to open the page in the system's browser.
        ready: called with the address when the page can be opened.
        stop: stops the server when it is set; None to serve until Ctrl-C.

    Raises:
        UnknownNameError: no such editor.
        CheckpointError: damaged weights.
        OutputError: the port is taken.
    """
    studio.warm_up(editor)
    page = build(studio, editor=editor)
    try:
        _, address, _ = page.launch(
            server_name=access.host, server_port=access.port, auth=check, inbrowser=browser, **_private_options()
        )
    except OSError as error:
        taken = f"port {access.port} of {access.host} cannot be used: {error}"
        raise OutputError(f"{taken}; choose another with --port") from error
    try:
        if ready is not None:
            ready(address)
        (stop or threading.Event()).wait()
    finally:
        page.close(verbose=False)


def _private_options() -> dict[str, Any]:
    """Options for privacy and appearance."""
    return {
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "max_file_size": MAX_UPLOAD,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "allowed_paths": [],
        "theme": theme(),
        "css": (STATIC / "style.css").read_text("utf-8"),
        "app_kwargs": {"middleware": [_middleware()], "docs_url": None, "redoc_url": None, "openapi_url": None},
    }


def _middleware() -> Any:
    from starlette.middleware import Middleware

    return Middleware(LocalOnly)
