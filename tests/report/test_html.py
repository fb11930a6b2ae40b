"""The comparison page and its plots: what they hold, what they must not hold, and what a real browser makes of them."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageCms

from emoedit.report.html import Column, Figure, ReportEntry, Sheet, Table, comparison_html, write_comparison
from emoedit.report.plots import Curve, pareto_grid
from emoedit.types import DataError, MissingExtraError, OutputError

BLUE, GREEN, RED = (20, 40, 220), (30, 180, 60), (210, 30, 40)
HOSTILE = "<script>window.hacked = 1</script>\"' onerror=alert(1) </style> {{ 7 * 7 }} &amp; \udcff\x00"
HOSTILE_SHOWN = HOSTILE.replace("\udcff\x00", r"\udcff\x00")
TARGET = Column("target", "target score", 2, True, "0 to 1")
COST = Column("lpips", "LPIPS", 3, False, "0 is equal")
VALENCE = Column("valence", "valence", 2)


def tile(colour=BLUE, size=(60, 80)) -> Image.Image:
    return Image.new("RGB", size, colour)


def entry(editor="vae", emotion="happy", strength=1.0, image=GREEN, error=None, **values) -> ReportEntry:
    row = {"photo": "p", "editor": editor, "emotion": emotion, "strength": strength, "seconds": None, "error": error}
    return ReportEntry({**row, **values}, None if image is None else tile(image))


class Page(HTMLParser):
    """Every element with its attributes, and the text of each, in order."""

    VOID = {"meta", "img", "input", "br"}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {[element[0] for element in self._open]}"

    def handle_starttag(self, tag, attrs) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in self.VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs) -> None:  # SVG
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag) -> None:
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data) -> None:
        for element in self._open:
            element[2].append(data)

    def all(self, tag=None, name=None) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attrs, " ".join("".join(text).split()))
            for found, attrs, text in self.elements
            if (tag is None or found == tag) and (name is None or name in (attrs.get("class") or "").split())
        ]

    def texts(self, tag=None, name=None) -> list[str]:
        return [text for _, text in self.all(tag, name)]


def render(*entries: ReportEntry, columns=(TARGET, COST, VALENCE), **options) -> Page:
    return Page(comparison_html([Sheet("photo", tile(), entries)], columns, title="t", **options))


def rows(page: Page) -> list[list[str]]:
    """The cells of the table of all numbers."""
    found, current = [], None
    for tag, attrs, words in page.elements:
        if tag == "tr":
            current = [] if "data-emotion" in attrs else None
            if current is not None:
                found.append(current)
        elif tag == "td" and current is not None:
            current.append(" ".join("".join(words).split()))
    return found


def decode(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1], validate=True)))


def many() -> list[Sheet]:
    """Two photographs, two emotions, editors with other strengths each, a reference, a failure."""
    sheets = []
    for name in ("first", "second"):
        entries = []
        for number, emotion in enumerate(("happy", "sad")):
            for strength in (0.5, 1.0, 2.0):
                target = 0.2 + 0.3 * strength + 0.01 * number
                entries.append(entry("vae", emotion, strength, target=target, lpips=0.1 * strength, seconds=0.25))
            entries.append(entry("asyrp", emotion, 1.0, target=0.7, lpips=math.nan))
            entries.append(entry("asyrp", emotion, 2.0, None, "EditError: no <h>", target=None))
            entries.append(entry("nothing", emotion, None, BLUE, target=0.05, lpips=0.0, reference=True))
        sheets.append(Sheet(name, tile(), entries))
    return sheets


# ---------------------------------------------------------------------------------------------------- what a page holds


def test_the_page_needs_nothing_but_itself() -> None:
    curve = Curve("vae", [1.0], [0.5], [0.5], [0.4], [0.6], [0.4], [0.6])
    pytest.importorskip("matplotlib")
    figures = [Figure("first", panel([curve], title="a")), Figure("second", panel([curve], title="b"))]
    text = comparison_html(many(), [TARGET, COST], title="t", notes=["n"], figures=figures)
    page = Page(text)
    for tag, attrs, _ in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attrs if name.startswith("on") or name in ("srcset", "action", "data", "poster")]
        for name in ("src", "href", "xlink:href"):
            assert attrs.get(name, "#").startswith(("#", "data:image/jpeg;base64,")), attrs[name]
    assert all(address.startswith(("data:image/jpeg", "#")) for address in re.findall(r"url\([\"']?([^)\"']*)", text))
    assert "@import" not in text
    assert {*re.findall(r"\w+://[^\"\s<]+", text)} == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    policy = next(attrs["content"] for attrs, _ in page.all("meta") if "http-equiv" in attrs)
    assert "default-src 'none'" in policy and "http" not in policy
    ids = Counter(attrs["id"] for attrs, _ in page.all() if "id" in attrs)
    assert ids and max(ids.values()) == 1
    linked = {attrs["href"] for attrs, _ in page.all("a")} | {"#" + attrs["for"] for attrs, _ in page.all("label")}
    assert linked <= {"#" + name for name in ids}


def test_every_picture_is_inline_with_its_source_beside_it() -> None:
    page = render(entry("vae", strength=0.5), entry("vae", strength=1), entry("asyrp"), entry("x", image=None))
    pictures = [attrs for attrs, _ in page.all("img")]
    assert len(pictures) == 3 and all(attrs["alt"] for attrs in pictures)
    for attrs in pictures:
        colour = np.asarray(decode(attrs["src"]).convert("RGB"), float).mean((0, 1))
        assert np.abs(colour - GREEN).max() < 3
    css = page.texts("style")[0]
    source = decode(re.search(r'\.source-1 \{ background-image: url\("([^"]+)"\)', css)[1])
    assert source.size == (60, 80)
    assert np.abs(np.asarray(source, float).mean((0, 1)) - BLUE).max() < 3
    assert len(page.all(None, "state")) == 4
    shown = [attrs for attrs, _ in page.all("span", "source-1") if "over" not in attrs["class"]]
    assert len(shown) == 4 + 1  # one a state, one in the heading
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in shown)


def test_every_number_stands_in_its_card_and_in_the_table() -> None:
    page = render(
        entry("vae", strength=0.5, target=0.123, lpips=0.0456, valence=-0.5, seconds=1.5),
        entry("vae", strength=1.0, target=0.876, lpips=0.2, valence=-0.001),
        entry("other", target=float("inf"), lpips=np.float32(0.25), valence=math.nan),
    )
    assert rows(page) == [
        ["photo", "happy", "vae", "0.5", "0.12", "0.046 (best)", "-0.50", "1.50"],
        ["photo", "happy", "vae", "1", "0.88", "0.200", "0.00", "–"],
        ["photo", "happy", "other", "1", "∞ (best)", "0.250", "–", "–"],
    ]
    assert page.texts("dd")[-12:] == [cell for row in rows(page) for cell in row[4:]]
    assert page.texts("th") == [
        "photograph",
        "emotion",
        "editor",
        "strength",
        "target score ↑, higher is better",
        "LPIPS ↓, lower is better",
        "valence",
        "seconds ↓, lower is better",
    ]
    assert "0 is equal" in page.texts("dd")


def test_a_page_opens_at_the_fitted_strength() -> None:
    entries = [entry("vae", strength=s) for s in (2, 0.25, 0.9, 1.2)] + [entry("b", strength=s) for s in (3, -1)]
    page = render(*entries)
    states = [(attrs["data-strength"], "hidden" in attrs) for attrs, _ in page.all(None, "state")]
    assert states == [
        ("0.25", True),
        ("0.9", False),
        ("1.2", True),
        ("2.0", True),
        ("-1.0", False),  # as near to 0.9 as 3 is: -1 is nearer by 0.2
        ("3.0", True),
    ]
    slider = next(attrs for attrs, _ in page.all("input") if "strength" in attrs["id"] and "photo" in attrs["id"])
    assert slider["data-strengths"].split() == ["-1.0", "0.25", "0.9", "1.2", "2.0", "3.0"]
    assert slider["value"] == "2" and slider["aria-valuetext"] == "0.9"
    assert list(page.texts("div", "ticks")) == ["-10.250.91.223"] * 2


def test_one_strength_needs_no_slider() -> None:
    page = render(entry("vae"), entry("asyrp"))
    assert [attrs["id"] for attrs, _ in page.all("input")] == ["size"]
    assert not page.all("select")


def test_what_has_no_strength_is_always_shown() -> None:
    page = render(entry("vae", strength=1), entry("vae", strength=2), entry("photograph", strength=None))
    states = [(attrs["data-strength"], "hidden" in attrs) for attrs, _ in page.all(None, "state")]
    assert states == [("1.0", False), ("2.0", True), ("", False)]


def test_the_best_is_marked_where_there_is_something_to_compare() -> None:
    page = render(
        entry("a", target=0.901, lpips=0.5, valence=0.1),
        entry("b", target=0.899, lpips=0.4, valence=0.9),  # 0.90 as shown: a tie
        entry("c", target=0.5, lpips=math.nan, valence=0.2),
        entry("nothing", target=0.9, lpips=0.0, valence=0.3, reference=True),
        entry("a", "sad", target=0.3, lpips=0.2),  # the only one of its kind: nothing to win
    )
    marked = [[cell.endswith("(best)") for cell in row[4:]] for row in rows(page)]
    assert marked == [
        [True, False, False],
        [True, True, False],
        [False, False, False],
        [False, False, False],
        [False, False, False],
    ]
    assert not render(entry("a", target=0.5), entry("b", target=0.5)).all(None, "best")


def test_references_are_marked() -> None:
    page = render(entry("vae"), entry("nothing", reference=True))
    cards = page.all("article")
    assert ["reference" in attrs["class"].split() for attrs, _ in cards] == [False, True]
    assert [text.startswith("nothing reference") or "nothingreference" in text for _, text in cards] == [False, True]
    assert len(page.all("tr", "reference")) == 1


def test_an_error_stands_in_its_card_and_in_the_table() -> None:
    message = "EditError: strength <3>\nis too much"
    page = render(entry("vae"), entry("asyrp", image=None, error=message), entry("c", image=None))
    assert page.texts("p", "error") == [" ".join(message.split()), "no picture"]
    assert [row[-1] for row in rows(page)] == ["", " ".join(message.split()), ""]
    assert "error" in page.texts("th") and "error" not in render(entry()).texts("th")


@pytest.mark.parametrize("sheets", [[], [Sheet("empty", tile(), [])]])
def test_nothing_to_show(sheets) -> None:
    page = Page(comparison_html(sheets, [TARGET], title="t"))
    assert not page.all("table") and not page.all("article")
    assert ("This photograph has no edits." in page.texts("p")) == bool(sheets)


def test_hostile_text_stays_text() -> None:
    row = entry(HOSTILE, HOSTILE, error=HOSTILE, target=0.5)
    text = comparison_html(
        [Sheet(HOSTILE, tile(), [row, entry(HOSTILE, HOSTILE, 2.0), entry("b", "x")]), Sheet("s", tile(), [])],
        [Column("target", HOSTILE, 2, True, HOSTILE)],
        title=HOSTILE,
        notes=[HOSTILE],
        tables=[Table(HOSTILE, [HOSTILE], [[HOSTILE]], HOSTILE)],
        figures=[Figure(HOSTILE, "<svg></svg>")],
    )
    text.encode("utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and len(page.all("style")) == 2
    plain = " ".join(HOSTILE_SHOWN.split())
    for tag in ("title", "h1", "h2", "h3", "h4", "li", "td", "option", "figcaption"):
        assert plain in page.texts(tag), tag
    assert page.texts("p", "error") == [plain]
    assert any(plain in text for text in page.texts("th"))
    attributes = [value for _, attrs, _ in page.elements for name, value in attrs.items() if name in ("title", "alt")]
    assert any(HOSTILE_SHOWN in value for value in attributes)
    assert not [attrs for attrs, _ in page.all() if "onerror" in attrs]
    assert "49" not in page.texts("h1")[0]


def test_the_same_input_gives_the_same_page() -> None:
    assert comparison_html(many(), [TARGET], title="t") == comparison_html(many(), [TARGET], title="t")


def test_summaries() -> None:
    numbers = [["vae", 0.12345, 45], ["b", math.nan, 3], ["c", None, 4]]
    table = Table("S", ["editor", "score", "n"], numbers, "per person")
    page = Page(comparison_html([], [], title="t", tables=[table], figures=[Figure("F", "<svg><g></g></svg>")]))
    assert page.texts("td") == ["vae", "0.123", "45", "b", "–", "3", "c", "–", "4"]
    assert [attrs.get("data-value") for attrs, _ in page.all("td")][1::3] == ["0.12345", "", ""]
    assert "per person" in page.texts("p") and page.texts("figcaption") == ["F"] and len(page.all("svg")) == 1
    with pytest.raises(DataError, match="'S' has 2 columns and a row of 1"):
        comparison_html([], [], title="t", tables=[Table("S", ["a", "b"], [["x"]])])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"editor": "vae"}, "'emotion'"),
        ({"emotion": "happy", "editor": None}, "'editor'"),
        ({"emotion": "happy", "editor": "vae", "target": "high"}, "'target' is 'high'"),
        ({"emotion": "happy", "editor": "vae", "strength": [1]}, "'strength' is"),
    ],
)
def test_rows_that_are_none(row, message) -> None:
    with pytest.raises(DataError, match=message):
        render(ReportEntry(row, tile()))


def test_pictures_of_any_kind(astronaut) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tagged = Image.fromarray(astronaut).resize((2000, 1000))
    tagged.info["icc_profile"] = profile
    exif = Image.Exif()
    exif[0x013B] = "somebody"
    tagged.info["exif"] = exif.tobytes()
    clear = Image.new("RGBA", (30, 30), (*RED, 0))
    deep = Image.fromarray(np.full((20, 20), 30000, np.uint16))
    images = [tagged, clear, deep, Image.new("L", (3, 900), 90)]
    entries = [ReportEntry({"editor": str(i), "emotion": "e", "strength": 1}, image) for i, image in enumerate(images)]
    large, white, grey, thin = (decode(attrs["src"]) for attrs, _ in render(*entries).all("img"))
    assert large.size == (512, 256) and thin.size == (2, 512)
    assert large.info["icc_profile"] == profile and not large.getexif()
    assert np.asarray(white).min() > 252
    assert abs(float(np.asarray(grey).mean()) - 30000 / 257) < 2


def test_sixty_edits_of_a_photograph_stay_small(astronaut) -> None:
    source = Image.fromarray(astronaut)
    entries = [
        ReportEntry({"editor": f"e{i % 5}", "emotion": f"m{i % 4}", "strength": i // 20, "target": i / 60}, source)
        for i in range(60)
    ]
    text = comparison_html([Sheet("astronaut", source, entries)], [TARGET], title="t")
    assert len(rows(Page(text))) == 60
    assert len(text) < 10_000_000


def test_writing_is_all_or_nothing(tmp_path) -> None:
    path = tmp_path / "new" / "page.html"
    write_comparison(path, many(), [TARGET], title="t \udcff")
    assert path.read_text("utf-8") == comparison_html(many(), [TARGET], title="t \udcff")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        write_comparison(path, [], [], title="other")
    with pytest.raises(DataError):
        write_comparison(path, [Sheet("s", tile(), [ReportEntry({}, None)])], [], title="other", overwrite=True)
    assert path.read_bytes() == before
    write_comparison(path, [], [], title="other", overwrite=True)
    assert "other" in path.read_text("utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


# ------------------------------------------------------------------------------------------------------------ the plots


def curve(name="vae", points=3, reference=False, start=0.9) -> Curve:
    x = [start - 0.1 * i for i in range(points)]
    y = [0.2 + 0.2 * i for i in range(points)]
    low, high = (lambda values, by: [v + by for v in values]), 0.03
    return Curve(
        name,
        [0.5 + 0.75 * i for i in range(points)],
        x,
        y,
        low(x, -high),
        low(x, high),
        low(y, -high),
        low(y, high),
        reference,
    )


def svg_texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


def panel(curves: list[Curve], *, title: str) -> str:
    return pareto_grid({"": curves}, title=title)


def svg_colours(svg: str) -> set[str]:
    return {found.lower() for found in re.findall(r"(?:stroke|fill): (#[0-9a-fA-F]{6})", svg)}


def test_a_plot_names_its_curves_and_strengths() -> None:
    pytest.importorskip("matplotlib")
    svg = panel([curve(), curve("mean_warp", reference=True, start=0.8)], title="All")
    texts = svg_texts(svg)
    assert {"All", "identity to the source", "target score", "vae", "mean_warp"} <= {*texts}
    assert all(texts.count(strength) >= 2 for strength in ("0.5", "1.25", "2"))
    assert svg.startswith("<svg") and "<metadata" not in svg and "<script" not in svg
    assert {*re.findall(r"\w+://[^\"\s<]+", svg)} == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_references_are_grey_and_dashed() -> None:
    pytest.importorskip("matplotlib")
    editor, reference = panel([curve()], title=""), panel([curve(reference=True)], title="")
    assert "stroke-dasharray" not in editor and "stroke-dasharray" in reference

    def grey(colour: str) -> bool:
        return colour[1:3] == colour[3:5] == colour[5:7]

    assert all(grey(colour) for colour in svg_colours(reference))
    assert not all(grey(colour) for colour in svg_colours(editor))


def test_a_grid_has_a_panel_an_emotion_and_one_legend() -> None:
    pytest.importorskip("matplotlib")
    names = [f"editor {i}" for i in range(9)]
    panels = {
        emotion: [curve(name, points=2) for name in order]
        for emotion, order in zip("abcde", [names, names[::-1], names[:1], names, []], strict=True)
    }
    texts = svg_texts(pareto_grid(panels, title="by emotion"))
    assert all(texts.count(emotion) == 1 for emotion in panels)
    assert all(texts.count(name) == 1 for name in names)


def test_a_name_looks_alike_in_every_panel() -> None:
    pytest.importorskip("matplotlib")
    one = pareto_grid({"a": [curve("x"), curve("y")], "b": [curve("y")]}, title="")
    lines = re.findall(r"stroke: (#[0-9a-f]{6}); stroke-width: 1\.4", one)
    assert Counter(lines).most_common() == [("#d55e00", 3), ("#0072b2", 2)]  # two panels and the legend; one and it


def test_intervals_are_drawn_where_there_are_any() -> None:
    pytest.importorskip("matplotlib")
    nan = [math.nan]

    def bars(*ends) -> int:
        root = ElementTree.fromstring(panel([Curve("a", [1.0], [0.5], [0.5], *ends)], title=""))
        return sum("opacity: 0.55" in e.get("style", "") and "L" in e.get("d", "") for e in root.iter())

    assert bars([0.4], [0.6], [0.3], [0.55]) == 2
    assert bars([0.4], [0.6], nan, nan) == 1
    assert bars(nan, nan, nan, nan) == 0


def test_points_that_are_nan_are_left_out() -> None:
    pytest.importorskip("matplotlib")
    whole, holed = curve(), curve()
    holed.y[1] = math.nan
    assert svg_texts(panel([whole], title="")).count("1.25") == 1
    assert svg_texts(panel([holed], title="")).count("1.25") == 0
    nothing = Curve("none", [None], [math.nan], [math.nan], [math.nan], [math.nan], [math.nan], [math.nan])
    assert "none" in svg_texts(panel([nothing], title=""))


def test_names_in_a_plot_are_text() -> None:
    pytest.importorskip("matplotlib")
    name = r"$\frac$ <b>&amp;" + HOSTILE
    texts = svg_texts(pareto_grid({name: [curve(name)]}, title=name))
    assert texts.count(r"$\frac$ <b>&amp;" + HOSTILE_SHOWN) == 3


def test_a_plot_has_the_same_bytes_under_any_settings() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    arguments = {"a": [curve(), curve("b", reference=True)], "b": [curve()]}
    first = pareto_grid(arguments, title="t")
    with matplotlib.rc_context({"lines.linewidth": 7, "axes.facecolor": "red", "svg.hashsalt": None}):
        settings = dict(matplotlib.rcParams)
        assert pareto_grid(arguments, title="t") == first
        assert dict(matplotlib.rcParams) == settings


def test_plots_leave_pyplot_alone_and_importing_them_loads_no_matplotlib() -> None:
    pytest.importorskip("matplotlib")
    code = """
import sys
from emoedit.report.plots import Curve, pareto_grid
assert "matplotlib" not in sys.modules and "torch" not in sys.modules
pareto_grid({"": [Curve("a", *[[1.0]] * 7)]}, title="t")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_makes_no_plot(monkeypatch) -> None:
    with pytest.raises(DataError, match="at least one curve"):
        pareto_grid({}, title="t")
    with pytest.raises(DataError, match="'vae'.*'y': 1"):
        panel([Curve("vae", [1, 2], [1, 2], [1], [1, 2], [1, 2], [1, 2], [1, 2])], title="t")
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"\[metrics\]"):
        panel([curve()], title="t")


# ---------------------------------------------------------------------------------------------------- in a real browser


@pytest.fixture
def act(browser, tmp_path):
    """Lets a script loose on a page and returns what it returns; any error of the page's own script is a failure."""

    def run(text: str, script: str, width: int = 1280):
        recorder = (
            "<script>window.failures = [];"
            "addEventListener('error', (event) => failures.push(event.message || String(event.target)), true);"
            "addEventListener('securitypolicyviolation', (event) => failures.push(event.blockedURI));</script>"
        )
        actor = f"""<pre id="outcome"></pre><script>
const all = (selector) => [...document.querySelectorAll(selector)];
const shown = (element) => element.checkVisibility();
const move = (slider, value) => {{ slider.value = value; slider.dispatchEvent(new Event("input")); }};
const perform = () => {{ {script} }};
addEventListener("load", () => setTimeout(() => {{
  let value = null;
  try {{ value = perform(); }} catch (error) {{ failures.push(String(error)); }}
  const outcome = encodeURIComponent(JSON.stringify({{ value, failures }}));
  document.getElementById("outcome").textContent = outcome;
}}, 100));
</script></body>"""
        path = tmp_path / "acted.html"
        assert text.count("</body>") == 1 and text.count('<meta charset="utf-8">') == 1
        path.write_text(
            text.replace("</body>", actor).replace('<meta charset="utf-8">', '<meta charset="utf-8">' + recorder),
            "utf-8",
        )
        dom = browser(f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom", path.as_uri())
        outcome = json.loads(unquote(re.search(r'<pre id="outcome">([^<]*)</pre>', dom)[1]))
        assert not outcome["failures"], "\n".join(outcome["failures"])
        return outcome["value"]

    return run


def near(pixels: np.ndarray, colour, tolerance: int = 12) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour) <= tolerance).all(-1)


@pytest.mark.parametrize(("width", "scheme", "ground"), [(1280, "1", "light"), (420, "0", "dark")])
def test_source_and_edit_are_seen_side_by_side(browser, tmp_path, width, scheme, ground) -> None:
    path, shot = tmp_path / "page.html", tmp_path / "shot.png"
    write_comparison(path, [Sheet("photo", tile(), [entry(target=0.5)])], [TARGET], title="A title")
    browser(
        f"--window-size={width},700",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--screenshot={shot}",
        path.as_uri(),
    )
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    blue, green = near(pixels, BLUE), near(pixels, GREEN)
    assert green.sum() > 10_000 and blue.sum() > 10_000
    (top, bottom), columns = np.nonzero(green.any(1))[0][[0, -1]], np.nonzero(green.any(0))[0]
    beside = blue[top : bottom + 1]
    assert abs(int(beside.sum()) - int(green.sum())) < 0.03 * green.sum()  # the same size, at the same height
    gap = columns[0] - np.nonzero(beside.any(0))[0][-1]
    assert 0 < gap < 20
    assert columns[-1] < width
    corner = pixels[-5:, -5:].mean()
    assert corner > 220 if ground == "light" else corner < 40
    heading = pixels[: top // 4].astype(int)
    assert np.ptp(heading) > 150  # letters stand out from the ground


def test_sliders_choose_the_nearest_strength(act) -> None:
    script = """
const state = () => all(".emotion").map((group) => [...group.querySelectorAll(".card")].map(
  (card) => [...card.querySelectorAll(".state")].filter(shown).map((state) => state.dataset.strength)));
const labels = () => all(".slider").map((slider) => [slider.querySelector("output").textContent,
  slider.querySelector("input").getAttribute("aria-valuetext"), slider.querySelector("input").value]);
const own = all(".emotion .slider input"), everywhere = document.getElementById("strength");
const result = [[state(), labels()]];
move(own[0], 0); result.push([state(), labels()]);
move(everywhere, 2); result.push([state(), labels()]);
const box = (element) => JSON.stringify(element.getBoundingClientRect());
const held = all(".edit").filter(shown).every((edit) => {
  const over = edit.querySelector(".over");
  return getComputedStyle(over).visibility === "hidden" && box(over) === box(edit.querySelector("img"));
});
return { result, held, focusable: all("input, select, button").every((part) => part.tabIndex === 0) };
"""
    outcome = act(comparison_html(many(), [TARGET, COST], title="t"), script)
    opened, moved, everywhere = outcome["result"]
    assert opened[0] == [[["1.0"], ["1.0"], [""]]] * 4
    assert opened[1] == [["1", "1", "1"]] * 5
    assert moved[0] == [[["0.5"], ["1.0"], [""]]] + [[["1.0"], ["1.0"], [""]]] * 3
    assert moved[1][1] == ["0.5", "0.5", "0"] and moved[1][0] == ["1", "1", "1"]
    assert everywhere[0] == [[["2.0"], ["2.0"], [""]]] * 4
    assert everywhere[1] == [["2", "2", "2"]] * 5
    assert outcome["focusable"] and outcome["held"]


def test_headings_sort_and_emotions_filter(act) -> None:
    values = {"a": 0.9, "b": None, "c": 10.0, "d": -2.0, "e": math.inf}
    entries = [entry(name, "happy", target=value) for name, value in values.items()] + [entry("F", "sad", target=1)]
    table = Table("S", ["editor", "score"], [["x10", 0.5], ["x9", math.nan], ["y", 3]])
    script = """
const editor = (row) => row.cells[row.cells.length > 2 ? 2 : 0].textContent;
const order = (table) => [...table.tBodies[0].rows].filter(shown).map(editor);
const numbers = document.getElementById("numbers"), summary = all("table")[0];
const press = (table, column) => {
  const button = table.querySelectorAll("th button")[column];
  button.focus();
  document.activeElement.click();
  return [order(table).join(" "), [...table.querySelectorAll("th")].map((th) => th.getAttribute("aria-sort"))[column],
          table.querySelectorAll("[aria-sort]").length];
};
const result = [[numbers, 4], [numbers, 4], [numbers, 2], [numbers, 2], [summary, 0], [summary, 1]].map(
  (where) => press(...where));
const select = document.getElementById("emotion");
const filter = (value) => {
  select.value = value;
  select.dispatchEvent(new Event("change"));
  return [order(numbers).length, all(".emotion").filter(shown).length, all(".card").filter(shown).length];
};
return { result, filtered: [filter("1"), filter("")], options: [...select.options].map((option) => option.text) };
"""
    page = comparison_html([Sheet("p", tile(), entries)], [TARGET], title="t", tables=[table])
    outcome = act(page, script)
    assert outcome["result"] == [
        ["e c F a d b", "descending", 1],
        ["d a F c e b", "ascending", 1],
        ["a b c d e F", "ascending", 1],
        ["F e d c b a", "descending", 1],
        ["x9 x10 y", "ascending", 1],
        ["y x10 x9", "descending", 1],
    ]
    assert outcome["filtered"] == [[1, 1, 1], [6, 2, 6]]
    assert outcome["options"] == ["all", "happy", "sad"]


def test_a_hostile_narrow_page_runs_nothing_and_fits(act) -> None:
    entries = [entry(HOSTILE * 3, HOSTILE, s, target=0.5, error=HOSTILE * 9 if s > 1 else None) for s in (1, 2)]
    columns = [Column("target", HOSTILE, help=HOSTILE), *(Column(f"c{i}", f"column {i}", 2, True) for i in range(20))]
    sheets = [Sheet(HOSTILE * 3, tile(size=(900, 100)), [*entries, entry("b", "x")]), Sheet("n" * 300, tile(), [])]
    table = Table("w" * 100, ["h" * 30] * 9, [["c" * 30] * 9])
    page = comparison_html(sheets, columns, title=HOSTILE * 3, notes=["n" * 200], tables=[table])
    script = """
all("button").forEach((button) => button.click());
const loaded = performance.getEntriesByType("resource").map((r) => r.name).filter((name) => !/^data:/.test(name));
return { hacked: "hacked" in window, narrow: matchMedia("(max-width: 640px)").matches,
         over: document.documentElement.scrollWidth - innerWidth, loaded };
"""
    outcome = act(page, script, width=420)
    assert outcome == {"hacked": False, "narrow": True, "over": 0, "loaded": []}


def test_the_check_itself_notices_what_goes_wrong(act) -> None:
    page = comparison_html(many(), [TARGET], title="t")
    page = page.replace('"use strict";', 'throw new Error("broken on purpose");')
    page = page.replace("<footer>", '<img src="https://example.invalid/x.png"><footer>')
    with pytest.raises(AssertionError) as failure:
        act(page, "return 1;")
    assert "broken on purpose" in str(failure.value) and "example.invalid" in str(failure.value)
