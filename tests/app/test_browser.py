"""The page in a real browser: upload, drag, faces, webcam, files, hostile uploads, two visitors, narrow and dark."""

from __future__ import annotations

import io
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
).split()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of a running app, and the folder of its files."""
    from emoedit.app.launch import launch
    from emoedit.app.privacy import Access

    root = tmp_path_factory.mktemp("served")
    before = set(root.iterdir())
    ready, stop, said = threading.Event(), threading.Event(), []
    patch = pytest.MonkeyPatch()
    patch.setattr("tempfile.tempdir", str(root))
    thread = threading.Thread(
        target=launch,
        kwargs={
            "access": Access(port=free_port()),
            "device": "cpu",
            "ready": lambda address: (said.append(address), ready.set()),
            "stop": stop,
        },
        daemon=True,
    )
    thread.start()
    assert ready.wait(120), "the app did not start"
    (folder,) = [path for path in root.iterdir() if path not in before and path.name.startswith("emoedit-app-")]
    yield said[0], folder
    stop.set()
    thread.join(30)
    patch.undo()
    assert not folder.exists(), "the app leaves files behind"


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A film for the fake camera: the astronaut's head, standing still (Motion JPEG, as Chromium takes it)."""
    from skimage.data import astronaut

    head = Image.fromarray(astronaut()[0:300, 80:380]).resize((640, 640)).crop((0, 80, 640, 560))
    buffer = io.BytesIO()
    head.save(buffer, "JPEG", quality=95)
    path = tmp_path_factory.mktemp("video") / "camera.mjpeg"
    path.write_bytes(buffer.getvalue() * 30)
    return path


@pytest.fixture(scope="module")
def browser(video) -> Iterator[object]:
    with playwright.sync_playwright() as started:
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={video}"]
        chromium = started.chromium.launch(executable_path=BROWSER, args=flags)
        yield chromium
        chromium.close()


class Visitor:
    """One open page, and what it asked for."""

    def __init__(self, browser, address: str, **how) -> None:
        self.address = address
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
        self.context.grant_permissions(["camera"])
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("#example")

    def upload(self, content: bytes, name: str = "me.jpg", kind: str = "image/jpeg") -> None:
        self.page.set_input_files("#photo input[type=file]", {"name": name, "mimeType": kind, "buffer": content})

    def opened(self) -> None:
        self.page.wait_for_selector("#result img", timeout=60_000)

    def shown(self) -> list[str]:
        """Addresses of the photograph and the edit."""
        return [image.get_attribute("src") for image in self.page.query_selector_all("#result img")]

    def edited(self, before: list[str]) -> list[str]:
        """The addresses once they are others than before."""
        for _ in range(200):
            if self.shown() != before and len(self.shown()) == 2:
                return self.shown()
            self.page.wait_for_timeout(50)
        raise AssertionError("the edit did not change")

    def picture(self, url: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.context.request.get(url).body())).convert("RGB"), int)

    def elsewhere(self) -> list[str]:
        return [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))]


@pytest.fixture
def visit(browser, server):
    visitors = []

    def open_page(**how) -> Visitor:
        visitors.append(Visitor(browser, server[0], **how))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()


def jpeg(pixels: np.ndarray, **how) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **how)
    return buffer.getvalue()


def test_from_upload_to_download_and_nothing_is_asked_elsewhere(visit, server, astronaut) -> None:
    visitor = visit()
    page = visitor.page
    exif = Image.Exif()
    exif[0x010E] = "kept"
    visitor.upload(jpeg(astronaut, exif=exif), "my holiday.jpg")
    visitor.opened()
    assert not list(server[1].rglob("my*holiday.jpg")), "the upload stays on the disk"
    first = visitor.shown()
    before, after = (visitor.picture(url) for url in first)
    assert before.shape == after.shape and (np.abs(before - after).max(-1) > 12).mean() > 0.005

    box = page.locator(".pad-plane").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    for step in range(1, 9):  # to the upper middle, which is surprise
        page.mouse.move(box["x"] + box["width"] * (0.5 + 0.0125 * step), box["y"] + box["height"] * (0.5 - 0.05 * step))
        page.wait_for_timeout(40)
    page.mouse.up()
    second = visitor.edited(first)
    page.wait_for_function("document.querySelector('.pad-text').textContent.includes('surprised')")
    page.wait_for_timeout(300)
    assert page.input_value("#strength input[type=number]") == "1"

    page.locator("#strength input[type=range]").focus()
    second = visitor.shown()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    third = visitor.edited(second)
    with page.expect_download(timeout=60_000) as download:
        page.click("#download")
    assert download.value.suggested_filename == "my_holiday_surprised.jpg"
    with Image.open(download.value.path()) as image:
        assert image.size == (512, 512) and image.format == "JPEG" and image.getexif()[0x010E] == "kept"

    page.click("#undo")
    visitor.edited(third)
    assert visitor.errors == [] and visitor.elsewhere() == []


def test_the_pad_by_keyboard_and_by_name(visit) -> None:
    visitor = visit()
    page = visitor.page
    page.click("#example")
    visitor.opened()
    page.wait_for_function("document.querySelector('.pad-text').textContent.includes('neutral')")
    shown = visitor.shown()
    page.get_by_role("button", name="sad", exact=True).focus()
    page.keyboard.press("Enter")
    shown = visitor.edited(shown)
    page.wait_for_function("document.querySelector('.pad-text').textContent.includes('Near sad')")
    page.locator(".pad-plane").focus()
    page.keyboard.press("ArrowRight")
    visitor.edited(shown)
    page.wait_for_function("document.querySelector('.pad-text').textContent.includes('valence -0.60')")
    page.click("#keep")
    page.wait_for_selector("#kept img")
    for name in ("strength", "least", "editor", "name"):
        assert page.locator(f"#{name} label, #{name} [aria-label]").count() > 0
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, [role=slider], [role=tab]')].filter(e => e.checkVisibility() && "
        "!(e.innerText || '').trim() && !e.ariaLabel && !e.title && !(e.labels && e.labels.length) && "
        "!e.getAttribute('aria-labelledby')).map(e => e.outerHTML.slice(0, 160))"
    )
    assert nameless == []


def test_a_face_is_chosen_by_a_click(visit, astronaut) -> None:
    visitor = visit()
    page = visitor.page
    pair = np.concatenate([astronaut[:300, 80:380], astronaut[:300, 80:380][:, ::-1]], 1)
    visitor.upload(jpeg(pair))
    visitor.opened()
    page.wait_for_selector("#faces img")
    page.wait_for_selector("#face input[value='2']", state="attached")
    if page.is_checked("#close input"):
        shown = visitor.shown()
        page.uncheck("#close input")
        visitor.edited(shown)

    def halves() -> list[bool]:
        before, after = (visitor.picture(url) for url in visitor.shown())
        moved = np.abs(before - after).max(-1) > 24
        return [bool(moved[:, :300].mean() > 0.002), bool(moved[:, 300:].mean() > 0.002)]

    assert sorted(halves()) == [False, True]
    first = halves()
    box = page.locator("#faces img").bounding_box()
    for side in (0.25, 0.75):  # one of them is the other face
        shown = visitor.shown()
        page.mouse.click(box["x"] + box["width"] * side, box["y"] + box["height"] * 0.45)
        visitor.edited(shown)
        page.wait_for_timeout(200)
        if halves() != first:
            break
    assert halves() == first[::-1]
    shown = visitor.shown()
    page.check("#face input[value='all']")
    visitor.edited(shown)
    assert halves() == [True, True]


def test_a_selfie_by_webcam(visit) -> None:
    visitor = visit()
    page = visitor.page
    page.get_by_label("Capture from camera").click()
    page.locator("#photo button", has_text=re.compile("Webcam", re.I)).click()
    page.wait_for_function(
        "document.querySelector('#photo video') && document.querySelector('#photo video').videoWidth > 0"
    )
    page.wait_for_timeout(500)
    page.get_by_label("capture photo").click()
    visitor.opened()
    assert len(visitor.shown()) == 2 and visitor.errors == []


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("x.svg", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.hacked=1'/>"),
        ("<img src=x onerror=window.hacked=1>.png", "image/png", b"\x89PNG\r\n\x1a\n" + b"\0" * 99),
        ("bomb.gif", "image/gif", b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 20),
        ("page.jpg", "image/jpeg", b"<script>window.hacked=1</script>"),
    ],
)
def test_a_hostile_upload_is_refused_with_a_reason(visit, server, name, kind, content) -> None:
    visitor = visit()
    visitor.upload(content, name, kind)
    notice = visitor.page.locator("#message .notice.error")
    notice.wait_for(timeout=30_000)
    assert len(notice.inner_text()) > 20
    assert visitor.page.evaluate("window.hacked") is None
    assert visitor.page.locator("#result img").count() == 0
    visitor.page.click("#example")  # and the page goes on working
    visitor.opened()


def test_two_visitors_never_see_each_other_s_pictures(visit, server, astronaut) -> None:
    one, two = visit(), visit()
    one.upload(jpeg(astronaut), "one.jpg")
    two.upload(jpeg(astronaut[:, ::-1].copy()), "two.jpg")
    one.opened(), two.opened()
    mine, other = one.shown(), two.shown()
    assert not set(mine) & set(other)
    first, second = (visitor.picture(urls[0])[:230, :230] for visitor, urls in ((one, mine), (two, other)))
    assert np.abs(first - second).mean() > 5
    one.page.get_by_role("button", name="surprised", exact=True).click()
    one.edited(mine)
    two.page.wait_for_timeout(500)
    assert two.shown() == other
    assert not any(url in one.asked for url in two.asked if "file=" in url)
    folders = len(list((server[1] / "sessions").iterdir()))
    one.context.close()
    for _ in range(100):  # the page is gone, and what it had goes with it
        if len(list((server[1] / "sessions").iterdir())) < folders:
            break
        two.page.wait_for_timeout(100)
    assert len(list((server[1] / "sessions").iterdir())) == folders - 1
    assert two.context.request.get(mine[0]).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=" + str(Path(__file__)),
        "gradio_api/file=https://example.org/",
        "gradio_api/proxy=https://example.org/",
        "docs",
        "openapi.json",
        "gradio_api/info",
        "gradio_api/runs",
    ],
)
def test_nothing_else_is_served(server, path) -> None:
    try:
        with urllib.request.urlopen(server[0] + path, timeout=10) as answer:
            body = answer.read().decode("utf-8", "replace")
            assert "root:" not in body and "pytest" not in body and "Example Domain" not in body
            assert answer.headers.get_content_type() in ("text/html", "application/json")
            if answer.headers.get_content_type() == "application/json":
                assert '"named_endpoints":{}' in body.replace(" ", "")
    except urllib.error.HTTPError as error:
        assert error.code in (401, 403, 404, 405)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_holds_everything(visit, scheme) -> None:
    visitor = visit(viewport={"width": 420, "height": 900}, color_scheme=scheme)
    page = visitor.page
    page.click("#example")
    visitor.opened()
    shown = visitor.shown()
    page.uncheck("#close input")  # a picture of 512 pixels
    visitor.edited(shown)
    page.click("#keep")
    page.wait_for_selector("#kept img")
    for tab in ("Compare", "Candidates", "Batch", "Edit"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert page.evaluate(BEYOND) == [], tab


def test_candidates_and_action_units(visit) -> None:
    visitor = visit()
    page = visitor.page
    page.click("#example")
    visitor.opened()
    page.click("#units button")
    shown = visitor.shown()
    page.locator("#unit-AU4 input[type=range]").focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    visitor.edited(shown)
    page.get_by_role("tab", name="Candidates").click()
    page.fill("#candidates-count input[type=number]", "2")
    page.get_by_label("vae", exact=True).last.uncheck()
    page.get_by_label("stylegan", exact=True).last.uncheck()
    page.fill("#candidates-least input[type=number]", "0.3")
    page.click("#candidates-run")
    page.wait_for_selector("#candidates-table td", timeout=60_000)
    assert page.locator("#candidates-table tr").count() == 3 and page.locator("#candidates-sheet img").count() == 1
    assert page.evaluate(LOW_CONTRAST) == []
    with page.expect_download(timeout=60_000) as download:
        page.click("#candidates-zip")
    assert download.value.suggested_filename == "candidates.zip"
    page.locator("#candidates-kept img").first.click()
    page.wait_for_selector("#result img")
    page.wait_for_function("document.querySelector('#unit-AU4 input').value == 0")  # those of the candidate: none
    assert visitor.errors == [] and visitor.elsewhere() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(visit, scheme) -> None:
    visitor = visit(color_scheme=scheme)
    visitor.page.click("#example")
    visitor.opened()
    visitor.page.wait_for_timeout(300)
    assert visitor.page.evaluate(LOW_CONTRAST) == []


# What is shown and reaches over the right edge, where a page that does not scroll sideways cuts it off.
BEYOND = """() => [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() &&
  e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 120))"""

# Text whose colour and the nearest opaque background below it differ by less than 4.5 to 1 (3 to 1 for large text).
LOW_CONTRAST = """() => {
  const parse = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return c.startsWith('color(') ?
    [n[0] * 255, n[1] * 255, n[2] * 255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1]; };
  const light = (c) => { const f = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
  const below = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] > 0.9) return c; } return [255, 255, 255, 1]; };
  const found = new Set();
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && /[\\p{L}\\d]/u.test(n.textContent));
    if (!own || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (e.closest('[disabled], .pad-plane, script, style, noscript')) continue;
    const style = getComputedStyle(e), a = light(parse(style.color)), b = light(below(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) found.add(`${e.tagName} ${e.textContent.trim().slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return [...found];
}"""
