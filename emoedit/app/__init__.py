"""The browser app: a photograph, its faces, and controls to edit what they show. Everything stays on this machine.

    emoedit app

`settings` and `session` hold what a page has, `studio` does the work, `pad` and `figures` say what is drawn, two
modules a tab hold its callbacks and its layout, `server` puts the tabs together and opens the port, and `launch` makes
the folder that all files lie in. Only `server`, `parts` and the layouts import gradio, so that callbacks are tested
without a browser.
"""
