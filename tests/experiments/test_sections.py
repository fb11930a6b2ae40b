"""A page of sections, and lines in panels."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from emoedit.types import DataError
from lib.lines import Panel, line_plot
from lib.sections import read_sections, write_section

HOW = {"head": "# Page\n\nGenerated.", "order": ("first", "second", "third")}


def test_a_section_is_replaced_alone(tmp_path):
    page = tmp_path / "docs" / "page.md"
    write_section(page, "second", "## Two\n\n| a |\n| --- |\n", **HOW)
    write_section(page, "first", "## One", **HOW)
    write_section(page, "second-more", "## Two and more", **HOW)
    write_section(page, "zebra", "## Last", **HOW)
    write_section(page, "third", "## Three", **HOW)
    before = read_sections(page.read_text())
    assert list(before) == ["first", "second", "second-more", "third", "zebra"]
    text = page.read_text()
    assert text.startswith("# Page\n\nGenerated.\n\n<!-- begin first -->\n\n## One\n\n<!-- end first -->\n")
    write_section(page, "second", "## Other", **HOW)
    after = read_sections(page.read_text())
    assert after == {**before, "second": "## Other"}
    assert page.read_text() == text.replace(before["second"], "## Other")
    write_section(page, "second", before["second"], **HOW)
    assert page.read_text() == text
    assert [path.name for path in page.parent.iterdir()] == ["page.md"]


def test_a_new_head_leaves_the_sections(tmp_path):
    page = tmp_path / "page.md"
    write_section(page, "first", "## One", **HOW)
    write_section(page, "second", "## Two", head="# Renamed", order=())
    assert page.read_text().startswith("# Renamed\n\n<!-- begin first")
    assert list(read_sections(page.read_text())) == ["first", "second"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("<!-- end first -->", ""),
        lambda text: text.replace("<!-- begin first -->", ""),
        lambda text: text + text,
        lambda text: text + "\nwritten by hand\n",
        lambda text: text.replace("<!-- begin second", "by hand\n<!-- begin second"),
        lambda text: text.replace("<!-- end first -->", "").replace("<!-- end second -->", "<!-- end first -->"),
    ],
)
def test_a_damaged_page_is_refused_and_kept(tmp_path, damage):
    page = tmp_path / "page.md"
    for name in ("first", "second"):
        write_section(page, name, f"## {name}", **HOW)
    page.write_text(damage(page.read_text()))
    text = page.read_text()
    with pytest.raises(DataError, match="page.md"):
        write_section(page, "third", "## Three", **HOW)
    assert page.read_text() == text


@pytest.mark.parametrize("name", ["", "A", "a b", "a--b", "a -->", "../a"])
def test_names_of_sections(tmp_path, name):
    with pytest.raises(DataError, match="name"):
        write_section(tmp_path / "page.md", name, "x", **HOW)


def test_text_with_a_mark_is_refused(tmp_path):
    with pytest.raises(DataError, match="mark"):
        write_section(tmp_path / "page.md", "first", "x\n<!-- end first -->\ny", **HOW)
    assert not (tmp_path / "page.md").exists()


def test_lines_are_drawn_the_same_every_time():
    pytest.importorskip("matplotlib")
    panels = {
        "one <&$": Panel(
            {"a": ([0, 1, 2], [0.0, 0.5, 0.2]), "b$": ([0, 2], [1.0, float("nan")])}, "t", "y", {".3": 0.3}
        ),
        "two": Panel({"a": ([0, 1], [3.0, 4.0])}, "t", "z"),
    }
    svg = line_plot(panels)
    assert svg == line_plot(panels) and "<g id=" not in svg
    words = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]
    assert {"one <&$", "two", "a", "b$", "t", "y", "z", ".3"} <= set(words)
    assert "font" not in [node.tag for node in ElementTree.fromstring(svg)]
    with pytest.raises(DataError, match="at least one"):
        line_plot({"none": Panel({}, "t", "y")})
    with pytest.raises(DataError, match="2 places and 1 heights"):
        line_plot({"x": Panel({"a": ([0, 1], [1])}, "t", "y")})
