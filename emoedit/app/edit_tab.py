"""The Edit tab's layout, and which control calls what (`emoedit.app.edit`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from emoedit.app import figures, pad
from emoedit.app.components import emotion_box, fetch_file, or_reason, photo_input
from emoedit.app.edit import ALL, SLIDERS, UNIT_NAMES, EditTab, View
from emoedit.app.session import Session
from emoedit.app.settings import Settings
from emoedit.app.studio import Studio
from emoedit.registry import DEFAULT_EDITOR
from emoedit.steering.unit_names import HIGHEST, LOWEST, UNITS

_PROGRESS = gr.Progress()  # gradio gives each call one of its own in its place
HINT = "Open a photograph of a face. It stays on this machine and is forgotten when you close the page."


class EditLayout:
    """Builds the tab inside a `gr.Blocks`.

    Args:
        studio: models and sessions.
        editor: name of the editor that is selected at first.
    """

    def __init__(self, studio: Studio, editor: str = DEFAULT_EDITOR) -> None:
        self.studio, self.tab, self.editor = studio, EditTab(studio), editor
        self.message = gr.HTML(figures.notice(HINT), elem_id="message")
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=6, min_width=340):
                self._photograph()
            with gr.Column(scale=5, min_width=340, visible=False) as self.controls:
                self._controls()
        self._wire()

    # --- layout

    def _photograph(self) -> None:
        with gr.Group() as self.start:
            self.input = photo_input(label="Photograph", elem_id="photo", height=320)
            self.example = gr.Button("Use the example: an astronaut", elem_id="example")
        with gr.Column(visible=False) as self.work:
            self.result = gr.ImageSlider(
                label="Photograph (left) and edit (right)",
                type="filepath",
                elem_id="result",
                max_height=620,
                interactive=False,
                buttons=["fullscreen"],
            )
            self.numbers = gr.HTML(elem_id="numbers")
            with gr.Row():
                self.undo = gr.Button("Undo", elem_id="undo", min_width=90)
                self.keep = gr.Button("Keep", elem_id="keep", min_width=90)
                self.download = gr.Button("Download", variant="primary", elem_id="download", min_width=110)
                self.gif = gr.Button("GIF", elem_id="gif", min_width=70)
                self.mp4 = gr.Button("MP4", elem_id="mp4", min_width=70)
                self.another = gr.Button("Another photograph", elem_id="another", min_width=160)
            self.file = gr.DownloadButton("file", visible="hidden", elem_id="file")
            self.kept = gr.Gallery(
                label="Kept edits; press one to go back to it",
                elem_id="kept",
                columns=5,
                height=170,
                fit_columns=False,
                allow_preview=False,
                object_fit="cover",
                visible=False,
                format="jpeg",
                buttons=[],
            )
            self.close = gr.Checkbox(False, label="Show only the head", elem_id="close")
            with gr.Accordion("Faces", open=False, elem_id="faces-box") as self.found:
                self.faces = gr.Image(
                    label="Faces; press one to edit it",
                    elem_id="faces",
                    interactive=False,
                    height=220,
                    format="jpeg",
                    buttons=[],
                )
                self.face = gr.Radio(["1"], value="1", label="Face to edit", elem_id="face")

    def _controls(self) -> None:
        self.pad = gr.HTML(
            value={"v": 0, "a": 0},
            html_template=pad.markup(),
            js_on_load=pad.script(),
            elem_id="pad",
            label="Valence and arousal",
        )
        self.words = gr.HTML('<p class="pad-text">Drag the point, or press a name.</p>', elem_id="pad-words")
        self.name = emotion_box(None, elem_id="name")
        self.strength = gr.Slider(0, 2, value=1, step=0.05, label="Strength", elem_id="strength", buttons=[])
        self.least = gr.Slider(
            0,
            0.95,
            value=0,
            step=0.05,
            label="Keep the person: weaken the edit until this much identity stays (0: off)",
            elem_id="least",
            buttons=[],
        )
        with gr.Accordion("A slider for each emotion", open=False, elem_id="sliders", elem_classes="grid"):
            self.sliders = [
                gr.Slider(-1, 1.5, value=0, step=0.05, label=f"emotion {n}", elem_id=f"slider-{n}", buttons=[])
                for n in range(SLIDERS)
            ]
        title = "Action units: parts of the face by themselves"
        with gr.Accordion(title, open=False, elem_id="units", elem_classes="grid"):
            self.units = [
                gr.Slider(
                    LOWEST, HIGHEST, value=0, step=0.05, label=f"{name}: {what}", elem_id=f"unit-{name}", buttons=[]
                )
                for name, what in zip(UNIT_NAMES, UNITS.values(), strict=True)
            ]
        self.editor_box = gr.Dropdown(
            self.studio.editors(), value=self.editor, label="Editor", elem_id="editor", filterable=False
        )
        self.bars = gr.HTML(elem_id="bars")

    # --- inputs and outputs

    @property
    def _inputs(self) -> list[Any]:
        return [*self.sliders, *self.units, self.strength, self.editor_box, self.least, self.face, self.close]

    @property
    def _shown(self) -> list[Any]:
        """Outputs of a slider's change: all but the sliders, which may be moving."""
        return [self.message, self.result, self.numbers, self.bars, self.words]

    @property
    def all(self) -> list[Any]:
        """Outputs of any edit."""
        return [
            *self._shown,
            self.pad,
            self.faces,
            self.face,
            *self.sliders,
            *self.units,
            self.strength,
            self.editor_box,
            self.least,
            self.close,
        ]

    def _read(self, values: Sequence[Any]) -> tuple[Settings, bool]:
        weights, units, others = values[:SLIDERS], values[SLIDERS:-5], values[-5:]
        strength, editor, least, face, close = others
        return self.tab.settings(weights, strength, editor, least, face, units), bool(close)

    def _brief(self, view: View) -> list[Any]:
        return ["", view.pictures, view.numbers, view.bars, view.words]

    def _full(self, view: View) -> list[Any]:
        settings = view.settings
        values = dict(settings.weights)
        sliders = [
            gr.update(label=view.emotions[n], value=values.get(view.emotions[n], 0.0), visible=True)
            if n < len(view.emotions)
            else gr.update(visible=False, value=0)
            for n in range(SLIDERS)
        ]
        face = ALL if settings.face is None else str(settings.face + 1)
        many = len(view.choices) > 1
        return [
            *self._brief(view),
            view.pad,
            view.faces,
            gr.update(choices=list(view.choices), value=face, visible=many),
            *sliders,
            *(dict(settings.units).get(name, 0.0) for name in UNIT_NAMES),
            settings.strength,
            settings.editor,
            settings.min_identity,
            view.close,
        ]

    # --- wiring

    def _wire(self) -> None:
        quick = {
            "api_visibility": "private",
            "show_progress": "hidden",
            "concurrency_id": "edit",
            "concurrency_limit": 1,
            "queue": True,
        }
        live = {**quick, "trigger_mode": "always_last"}
        opened = [*self.all, self.found, self.start, self.work, self.controls, self.kept, self.input]
        slow = {**quick, "show_progress": "full", "show_progress_on": [self.message]}
        self.input.input(self._open, [self.input, self.editor_box], opened, **slow)
        self.example.click(self._example, [self.editor_box], opened, **slow)
        self.another.click(self._another, None, opened, **quick)

        moving = [*self.sliders, *self.units, self.strength, self.least]
        gr.on([part.input for part in moving], self._slide, self._inputs, [*self._shown, self.pad], **live)
        gr.on([part.release for part in moving], self._settle, self._inputs, None, **quick)
        self.close.input(self._slide, self._inputs, [*self._shown, self.pad], **live)
        self.pad.move(self._move, [self.pad, *self._inputs], self.all, **live)
        self.pad.settle(self._move_and_settle, [self.pad, *self._inputs], self.all, **live)
        self.name.input(self._named, [self.name, *self._inputs], self.all, **quick)
        self.editor_box.input(self._change_editor, self._inputs, self.all, **{**quick, "show_progress": "minimal"})
        self.face.input(self._choose, self._inputs, self.all, **quick)
        self.faces.select(self._click, self._inputs, self.all, **quick)

        self.undo.click(self._undo, [self.close], self.all, **quick)
        self.keep.click(self._keep, None, [self.message, self.kept], **quick)
        self.kept.select(self._again, [self.close], self.all, **quick)
        made = [self.message, self.file]
        for button, make in ((self.download, self._download), (self.gif, self._gif), (self.mp4, self._mp4)):
            button.click(make, self._inputs, made, **slow).success(None, None, None, js=fetch_file("file"), **quick)

    # --- events

    def _start(self, session: Session, open_it: Callable[[], View]) -> list[Any]:
        """The page after a photograph was opened, or the reason why it was not, with the input emptied."""
        view = or_reason(open_it)
        if isinstance(view, str):
            return [figures.notice(view, error=True), *[gr.skip()] * (len(self.all) + 4), None]
        shown, hidden = gr.update(visible=True), gr.update(visible=False)
        several = gr.update(open=len(view.choices) > 1)
        return [*self._full(view), several, hidden, shown, shown, gr.update(value=[], visible=False), None]

    def _open(self, path: str | None, editor: str, request: gr.Request) -> list[Any]:
        session = self.studio.session(request.session_hash)
        if path is None:
            return [gr.skip()] * (len(self.all) + 6)
        return self._start(session, lambda: self.tab.open(session, Path(path), editor))

    def _example(self, editor: str, request: gr.Request) -> list[Any]:
        session = self.studio.session(request.session_hash)
        return self._start(session, lambda: self.tab.example(session, editor))

    def _another(self, request: gr.Request) -> list[Any]:
        self.studio.end(request.session_hash)
        shown, hidden = gr.update(visible=True), gr.update(visible=False)
        empty = [gr.skip()] * (len(self.all) - 1)  # and the accordion of faces
        return [figures.notice(HINT), None, *empty, shown, hidden, hidden, gr.update(value=[], visible=False), None]

    def _edited(
        self,
        request: gr.Request,
        change: Callable[[Session], tuple[Settings, bool]],
        *,
        settle: bool,
        point: tuple[float, float] | None = None,
    ) -> list[Any]:
        """The page after settings were changed; a refusal is a message and changes nothing."""
        session = self.studio.session(request.session_hash)

        def view() -> View:
            settings, close = change(session)
            found = self.tab.show(session, settings, close=close, point=point)
            if settle:
                self.tab.settle(session, settings)
            return found

        found = or_reason(view)
        if isinstance(found, str):
            return [figures.notice(found, error=True), *[gr.skip()] * (len(self.all) - 1)]
        return self._full(found)

    def opened_at(
        self, request: gr.Request, change: Callable[[Session], tuple[Settings, bool]]
    ) -> tuple[list[Any], str]:
        """The page (`all`) with settings that came from another tab.

        Args:
            request: request of the page.
            change: the settings for a session, and whether only the head is shown.

        Returns:
            The page; and the reason why nothing is changed, empty where something is.
        """
        session = self.studio.session(request.session_hash)

        def view() -> View:
            settings, close = change(session)
            found = self.tab.show(session, settings, close=close)
            self.tab.settle(session, settings)
            return found

        found = or_reason(view)
        return ([gr.skip()] * len(self.all), found) if isinstance(found, str) else (self._full(found), "")

    def _slide(self, request: gr.Request, *values: Any) -> list[Any]:
        session = self.studio.session(request.session_hash)
        settings, close = self._read(values)
        view = or_reason(lambda: self.tab.show(session, settings, close=close))
        if isinstance(view, str):
            return [figures.notice(view, error=True), *[gr.skip()] * len(self._shown)]
        return [*self._brief(view), view.pad]

    def _settle(self, request: gr.Request, *values: Any) -> None:
        session = self.studio.session(request.session_hash)
        if session.photo is not None:
            self.tab.settle(session, self._read(values)[0])

    def _moved(self, request: gr.Request, pad: dict[str, float], values: Sequence[Any], settle: bool) -> list[Any]:
        """The page after the point moved. The pad is left alone: its point may have moved since."""
        point = float(pad["v"]), float(pad["a"])

        def change(_: Session) -> tuple[Settings, bool]:
            settings, close = self._read(values)
            return self.tab.at_point(settings, *point), close

        found = self._edited(request, change, settle=settle, point=point)
        found[self.all.index(self.pad)] = gr.skip()
        return found

    def _move(self, request: gr.Request, pad: dict[str, float], *values: Any) -> list[Any]:
        return self._moved(request, pad, values, False)

    def _move_and_settle(self, request: gr.Request, pad: dict[str, float], *values: Any) -> list[Any]:
        return self._moved(request, pad, values, True)

    def _named(self, request: gr.Request, name: str | None, *values: Any) -> list[Any]:
        if not name:
            return [gr.skip()] * len(self.all)

        def change(_: Session) -> tuple[Settings, bool]:
            settings, close = self._read(values)
            return self.tab.named(settings, name), close

        return self._edited(request, change, settle=True)

    def _change_editor(self, request: gr.Request, *values: Any) -> list[Any]:
        def change(session: Session) -> tuple[Settings, bool]:
            settings, close = self._read(values)
            before = session.undo[-1] if session.undo else settings  # sliders have the names of the editor before
            return self.tab.with_editor(before, settings.editor), close

        return self._edited(request, change, settle=True)

    def _choose(self, request: gr.Request, *values: Any) -> list[Any]:
        return self._edited(request, lambda _: self._read(values), settle=True)

    def _click(self, request: gr.Request, event: gr.SelectData, *values: Any) -> list[Any]:
        session = self.studio.session(request.session_hash)
        number = figures.face_at(session.photo.faces, *event.index) if session.photo else None
        if number is None:
            return [gr.skip()] * len(self.all)
        changed = [*values[:-2], str(number + 1), values[-1]]
        return self._edited(request, lambda _: self._read(changed), settle=True)

    def _undo(self, close: bool, request: gr.Request) -> list[Any]:
        return self._edited(request, lambda session: (self.tab.undo(session), close), settle=False)

    def _keep(self, request: gr.Request) -> list[Any]:
        session = self.studio.session(request.session_hash)
        found = or_reason(lambda: self.tab.keep(session))
        if isinstance(found, str):
            return [figures.notice(found, error=True), gr.skip()]
        return ["", gr.update(value=found, visible=True)]

    def _again(self, close: bool, event: gr.SelectData, request: gr.Request) -> list[Any]:
        return self._edited(request, lambda session: (session.kept[event.index].settings, close), settle=True)

    def _made(self, request: gr.Request, values: Sequence[Any], make: Callable[[Session, Settings], Path]) -> list[Any]:
        session = self.studio.session(request.session_hash)
        found = or_reason(lambda: make(session, self._read(values)[0]))
        if isinstance(found, str):
            raise gr.Error(found, print_exception=False)
        return [figures.notice(f"{found.name} is ready."), str(found)]

    def _download(self, request: gr.Request, *values: Any) -> list[Any]:
        return self._made(request, values, self.tab.download)

    def _gif(self, request: gr.Request, progress: gr.Progress = _PROGRESS, *values: Any) -> list[Any]:
        return self._walk(values, ".gif", request, progress)

    def _mp4(self, request: gr.Request, progress: gr.Progress = _PROGRESS, *values: Any) -> list[Any]:
        return self._walk(values, ".mp4", request, progress)

    def _walk(self, values: Sequence[Any], suffix: str, request: gr.Request, progress: gr.Progress) -> list[Any]:
        def make(session: Session, settings: Settings) -> Path:
            return self.studio.walk(session, settings, suffix, callback=lambda n, of: progress((n, of), unit="frames"))

        return self._made(request, values, make)
