"""The Batch tab's layout, and what its button calls (`emoedit.app.batch`)."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from emoedit.app import figures
from emoedit.app.batch import MAX_FILES, Outcome, edit_files
from emoedit.app.components import emotion_box, or_reason
from emoedit.app.studio import Studio
from emoedit.registry import DEFAULT_EDITOR

_PROGRESS = gr.Progress()  # gradio gives each call one of its own in its place


class BatchLayout:
    """Builds the tab inside a `gr.Blocks`.

    Args:
        studio: models and sessions.
        editor: name of the editor that is selected at first.
    """

    def __init__(self, studio: Studio, editor: str = DEFAULT_EDITOR) -> None:
        self.studio = studio
        self.message = gr.HTML(
            figures.notice(f"One edit of up to {MAX_FILES} photographs, each in its own format, as a zip file."),
            elem_id="batch-message",
        )
        self.files = gr.File(file_count="multiple", type="filepath", label="Photographs", elem_id="batch-files")
        with gr.Row():
            self.emotion = emotion_box("happy", elem_id="batch-emotion")
            self.strength = gr.Slider(0, 2, value=1, step=0.05, label="Strength", elem_id="batch-strength", buttons=[])
        with gr.Row():
            self.editor = gr.Dropdown(studio.editors(), value=editor, label="Editor", filterable=False)
            self.face = gr.Radio(["largest", "all"], value="largest", label="Faces")
        self.button = gr.Button("Edit all", variant="primary", elem_id="batch-run")
        self.zip = gr.DownloadButton("Download the zip file", interactive=False, elem_id="batch-zip")
        self.table = gr.HTML(elem_id="batch-table")
        self.button.click(
            self._run,
            [self.files, self.emotion, self.strength, self.editor, self.face],
            [self.message, self.table, self.zip, self.files],
            api_visibility="private",
            concurrency_id="long",
            concurrency_limit=1,
            show_progress_on=[self.message],
        )

    def _run(
        self,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
        files: list[str] | None = None,
        emotion: str = "happy",
        strength: float = 1.0,
        editor: str = DEFAULT_EDITOR,
        face: str = "largest",
    ) -> list[object]:
        session = self.studio.session(request.session_hash or "")

        def run() -> tuple[Path | None, list[Outcome]]:
            paths = [Path(file) for file in files or []]

            def report(done: int, of: int) -> None:
                progress((done, of), unit="photographs")

            return edit_files(self.studio, session, paths, emotion, strength, editor, face, report)

        found = or_reason(run)
        if isinstance(found, str):
            return [figures.notice(found, error=True), *[gr.skip()] * 3]
        path, outcomes = found
        done = sum(not outcome.error for outcome in outcomes)
        rows = [[outcome.name, outcome.result, outcome.error] for outcome in outcomes]
        return [
            figures.notice(f"{done} of {len(outcomes)} photographs were edited.", error=done < len(outcomes)),
            figures.table("Results", ("photograph", "result", "error"), rows),
            gr.update(value=str(path) if path else None, interactive=path is not None),
            None,
        ]
