"""Every Python example in README and docs runs as it stands, and every picture and page they point to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest
from PIL import Image

from emoedit.io import checkpoints

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SKIP = "<!-- not run"


def examples(page: Path) -> list[str]:
    found = re.finditer(r"(<!--[^\n]*-->\n)?[ ]*```python\n(.*?)```", page.read_text(), re.S)
    return [dedent(match[2]) for match in found if not (match[1] or "").startswith(SKIP)]  # tabs indent theirs


@pytest.mark.slow
@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.stem)
def test_examples_run(page, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "me.jpg", quality=95)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "\n".join(examples(page))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
def test_command_lines_of_the_readme_run(tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "me.jpg", quality=95)
    Image.fromarray(astronaut).save(tmp_path / "group.jpg", quality=95)
    (tmp_path / "photos").mkdir()
    Image.fromarray(astronaut).save(tmp_path / "photos" / "me.jpg", quality=95)
    lines = re.findall(r"^emoedit [^\n]*$", (ROOT / "README.md").read_text(), re.M)
    lines = [line for line in lines if not line.startswith("emoedit app")]  # serves until it is stopped: tests/app
    assert len(lines) >= 5
    env = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = line.split("  #")[0].replace("emoedit ", f"{sys.executable} -m emoedit ", 1)
        return subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, env=env)

    with ThreadPoolExecutor(2) as pool:  # none needs another's files, and half of each is start-up
        for line, done in zip(lines, pool.map(run, lines), strict=True):
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "me_happy.jpg").is_file()
    assert len(list((tmp_path / "edits").iterdir())) == 9
    assert {path.name for path in (tmp_path / "compared").iterdir()} == {"results.jsonl", "grid.png", "report.html"}
    assert (tmp_path / "results" / "report.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    made = r"(?!https?:|reference/|cards/)"  # pages that docs/hooks.py makes; a strict build of the site follows them
    for target in re.findall(rf"\]\({made}([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page}: {target}"
