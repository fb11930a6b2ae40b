"""Every picture and page that README and docs point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    made = r"(?!https?:|reference/|cards/)"  # pages that docs/hooks.py makes; a strict build of the site follows them
    for target in re.findall(rf"\]\({made}([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page}: {target}"
