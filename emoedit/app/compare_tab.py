"""The Compare tab's layout, and what its button calls (`emoedit.app.compare`)."""

from __future__ import annotations

import gradio as gr

from emoedit.app import figures
from emoedit.app.compare import Compared, compare_editors
from emoedit.app.components import fetch_file, or_reason
from emoedit.app.edit import number_of
from emoedit.app.studio import Studio
from emoedit.emotions import BASIC, list_emotions

_PROGRESS = gr.Progress()  # gradio gives each call one of its own in its place


class CompareLayout:
    """Builds the tab inside a `gr.Blocks`.

    Args:
        studio: models and sessions.
        face: the control of the Edit tab that says which face is edited.
    """

    def __init__(self, studio: Studio, face: gr.Radio) -> None:
        self.studio = studio
        names = [name for _, name in studio.editors()]
        self.message = gr.HTML(
            figures.notice("The photograph and face of the Edit tab, with every editor beside each other."),
            elem_id="compare-message",
        )
        self.editors = gr.CheckboxGroup(names, value=names, label="Editors", elem_id="compare-editors")
        self.emotions = gr.Dropdown(
            list(list_emotions()),
            value=list(BASIC[1:3]),
            multiselect=True,
            allow_custom_value=True,
            label="Emotions",
            elem_id="compare-emotions",
        )
        self.strengths = gr.CheckboxGroup(
            ["0.5", "1", "1.5"], value=["1"], label="Strengths", elem_id="compare-strengths"
        )
        with gr.Row():
            self.button = gr.Button("Compare", variant="primary", elem_id="compare-run")
            self.download = gr.Button("Download the report", elem_id="compare-download", interactive=False)
        self.file = gr.DownloadButton("file", visible="hidden", elem_id="compare-file")
        self.grid = gr.Image(
            label="Edits", elem_id="compare-grid", interactive=False, visible=False, buttons=["fullscreen"]
        )
        self.report = gr.HTML(elem_id="compare-report")
        self.button.click(
            self._run,
            [face, self.editors, self.emotions, self.strengths],
            [self.message, self.grid, self.report, self.file, self.download],
            api_visibility="private",
            concurrency_id="long",
            concurrency_limit=1,
            show_progress_on=[self.message],
        )
        self.download.click(None, None, None, js=fetch_file("compare-file"), api_visibility="private")

    def _run(
        self,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
        face: str | None = None,
        editors: list[str] | None = None,
        emotions: list[str] | None = None,
        strengths: list[str] | None = None,
    ) -> list[object]:
        session = self.studio.session(request.session_hash or "")

        def run() -> Compared:
            return compare_editors(
                self.studio,
                session,
                number_of(face),
                editors or [],
                emotions or [],
                [float(s) for s in strengths or []],
                lambda n, of: progress((n, of), unit="editors"),
            )

        found = or_reason(run)
        if isinstance(found, str):
            return [figures.notice(found, error=True), *[gr.skip()] * 4]
        said = f"{len(found.failures)} edits failed. {'; '.join(found.failures)}" if found.failures else "Done."
        return [
            figures.notice(said, error=bool(found.failures)),
            gr.update(value=found.grid, visible=True),
            found.report,
            str(found.file),
            gr.update(interactive=True),
        ]
