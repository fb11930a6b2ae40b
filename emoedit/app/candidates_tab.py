"""The Candidates tab's layout, and what its controls call (`emoedit.app.candidates`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from emoedit.app import figures
from emoedit.app.candidates import HEADERS, MAX_CANDIDATES, Search, SearchResult, chosen, search
from emoedit.app.components import emotion_box, or_reason
from emoedit.app.edit import number_of
from emoedit.app.edit_tab import EditLayout
from emoedit.app.session import Session
from emoedit.app.settings import Settings
from emoedit.app.studio import Studio
from emoedit.evaluation.naming import QUICK_EDITORS, editors_in_turn

_PROGRESS = gr.Progress()  # gradio gives each call one of its own in its place


class CandidatesLayout:
    """Builds the tab inside a `gr.Blocks`.

    Args:
        studio: models and sessions.
        edit: the Edit tab, whose photograph and face this is about.
        tabs: the tabs of the page.
    """

    def __init__(self, studio: Studio, edit: EditLayout, tabs: gr.Tabs) -> None:
        self.studio, self.edit = studio, edit
        self.message = gr.HTML(
            figures.notice(
                "Many edits of the photograph and face of the Edit tab: ranked by how clearly the emotion is read, how "
                "much of the person is kept, and how free of damage the picture is."
            ),
            elem_id="candidates-message",
        )
        self._asked()
        self._found()
        self.button.click(
            self._run,
            {
                *(edit.face, self.emotion, self.editors, self.count, self.keep),
                *(self.weakest, self.strongest, self.least, self.seed),
            },
            [self.message, self.kept, self.sheet, self.table, self.zip],
            api_visibility="private",
            concurrency_id="long",
            concurrency_limit=1,
            show_progress_on=[self.message],
        )
        self.kept.select(
            self._take,
            [self.emotion, edit.close],
            [self.message, tabs, *edit.all],
            api_visibility="private",
            concurrency_id="edit",
        )

    def _asked(self) -> None:
        names = [name for _, name in self.studio.editors()]
        quick = [name for name in QUICK_EDITORS if set(editors_in_turn(name)) <= set(names)]
        names += [name for name in quick if name not in names]
        with gr.Row():
            self.emotion = emotion_box("happy", elem_id="candidates-emotion")
            self.count = gr.Slider(
                2, MAX_CANDIDATES, value=9, step=1, label="Candidates", elem_id="candidates-count", buttons=[]
            )
            self.keep = gr.Slider(1, 12, value=3, step=1, label="Kept, at most", elem_id="candidates-keep", buttons=[])
        own = [name for name in names if self.studio.own is not None and name == self.studio.own.name]
        self.editors = gr.CheckboxGroup(names, value=own or quick, label="Editors", elem_id="candidates-editors")
        with gr.Row():
            self.weakest = gr.Slider(
                0.1, 2, value=0.7, step=0.05, label="Weakest strength", elem_id="candidates-weakest", buttons=[]
            )
            self.strongest = gr.Slider(
                0.1, 2, value=1.6, step=0.05, label="Strongest strength", elem_id="candidates-strongest", buttons=[]
            )
            self.least = gr.Slider(
                0,
                0.95,
                value=0,
                step=0.05,
                label="Least identity kept (0: as much as the default edit keeps)",
                elem_id="candidates-least",
                buttons=[],
            )
            self.seed = gr.Number(0, precision=0, minimum=0, label="Seed of the noise", elem_id="candidates-seed")
        with gr.Row():
            self.button = gr.Button("Find the best", variant="primary", elem_id="candidates-run")
            self.zip = gr.DownloadButton("Download the zip file", interactive=False, elem_id="candidates-zip")

    def _found(self) -> None:
        self.kept = gr.Gallery(
            label="Kept, best first; press one to open it in the Edit tab",
            elem_id="candidates-kept",
            columns=3,
            fit_columns=False,
            allow_preview=False,
            object_fit="contain",
            visible=False,
            format="jpeg",
            buttons=[],
        )
        self.sheet = gr.Image(
            label="All candidates, best first, each with its score",
            elem_id="candidates-sheet",
            interactive=False,
            visible=False,
            format="jpeg",
            buttons=["fullscreen"],
        )
        self.table = gr.HTML(elem_id="candidates-table")

    def _run(self, values: Mapping[Any, Any], request: gr.Request, progress: gr.Progress = _PROGRESS) -> list[object]:
        session = self.studio.session(request.session_hash or "")
        asked = Search(
            number_of(values[self.edit.face]),
            values[self.emotion] or "",
            values[self.editors] or [],
            candidates=int(values[self.count]),
            keep=int(values[self.keep]),
            strengths=(values[self.weakest], values[self.strongest]),
            min_identity=values[self.least],
            seed=int(values[self.seed] or 0),
        )

        def run() -> SearchResult:
            return search(self.studio, session, asked, lambda n, of: progress((n, of), unit="candidates"))

        found = or_reason(run)
        if isinstance(found, str):
            return [figures.notice(found, error=True), *[gr.skip()] * 4]
        return [
            figures.notice(found.explanation, error=not found.kept),
            gr.update(value=found.kept, visible=bool(found.kept)),
            gr.update(value=found.sheet, visible=True),
            figures.table("Why each is kept, or not", HEADERS, found.rows),
            gr.update(value=str(found.zip), interactive=True),
        ]

    def _take(self, emotion: str | None, close: bool, event: gr.SelectData, request: gr.Request) -> list[Any]:
        """Open the clicked candidate in the Edit tab, where it can be downloaded at the photograph's own size."""

        def change(session: Session) -> tuple[Settings, bool]:
            return self.edit.tab.named(chosen(session, event.index), emotion or ""), close

        page, refusal = self.edit.opened_at(request, change)
        return [figures.notice(refusal, error=True) if refusal else gr.skip(), gr.Tabs(selected="edit"), *page]
