"""The package imports light, carries its models and configs, and calls itself by one version."""

import re
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch

import pytest

import emoedit
from tests.fixtures.wheel import ROOT, SHIPPED, build, needs, run

CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.y*ml"))


def files(folder):
    """Relative names of the files that are neither hidden nor caches."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {n.as_posix() for n in names if not any(part.startswith((".", "__pycache__")) for part in n.parts)}


# Importing


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, emoedit; dir(emoedit); print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run(sys.executable, "-c", code).split())
    assert "emoedit" in loaded
    heavy = {"torch", "torchvision", "torchmetrics", "diffusers", "transformers", "lpips", "hydra", "gradio"}
    assert not loaded & (heavy | {"cv2", "PIL", "numpy", "pandas", "matplotlib", "jinja2"})


@pytest.mark.parametrize("name", emoedit.__all__)
def test_every_public_name_is_there(name):
    assert getattr(emoedit, name) is not None
    assert name in dir(emoedit)


def test_no_module_hides_a_public_name():
    """Python puts a submodule into the package when anything first imports it, over what is offered lazily there."""
    modules = {path.stem for path in (ROOT / "emoedit").iterdir()}
    assert not modules & set(emoedit.__all__)


def test_other_names_are_missing_in_the_usual_way():
    assert not hasattr(emoedit, "no_such_name")
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from emoedit import no_such_name")


# Metadata


def test_one_version_everywhere():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == emoedit.__version__
    needs("setuptools")
    assert run(sys.executable, "setup.py", "--version").split()[-1] == emoedit.__version__  # dynamic in pyproject.toml


def test_one_licence_everywhere(told):
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text("utf-8")
    assert told["license"] == "Apache-2.0"
    assert "\nlicense: Apache-2.0\n" in (ROOT / "CITATION.cff").read_text("utf-8")


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_parse(name):
    omegaconf = pytest.importorskip("omegaconf")  # stricter than yaml: a key that stands twice is an error
    assert omegaconf.OmegaConf.is_config(omegaconf.OmegaConf.load(ROOT / name))


@pytest.fixture(scope="module")
def told():
    """The project's metadata, and every extra with those of its own extras."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = data["project"]["optional-dependencies"]

    def whole(name):
        for line in extras[name]:
            own = re.match(r"emoedit\[(.*)\]$", line)
            yield from (found for part in own[1].split(",") for found in whole(part)) if own else [line]

    return {
        "install_requires": data["project"]["dependencies"],
        "extras_require": {name: list(whole(name)) for name in extras},
        "package_data": data["tool"]["setuptools"]["package-data"],
        "license": data["project"]["license"],
    }


def test_an_error_names_an_extra_that_brings_the_package(told):
    extras = told["extras_require"]
    asked = set()
    for path in (ROOT / "emoedit").rglob("*.py"):
        asked |= set(re.findall(r'MissingExtraError\("([\w-]+)", "(\w+)"\)', path.read_text("utf-8")))
    assert ("matplotlib", "metrics") in asked and ("pandas", "metrics") in asked
    for package, extra in asked:
        assert package in {re.match(r"[\w-]+", line)[0] for line in extras[extra]}, f"{extra} does not bring {package}"


def test_the_largest_extras_hold_the_others(told):
    extras = told["extras_require"]
    assert set(extras["metrics"]) | set(extras["train"]) <= set(extras["test"]) <= set(extras["all"])
    assert not {re.match(r"[\w-]+", line)[0] for line in extras["metrics"]} & {
        re.match(r"[\w-]+", line)[0] for line in told["install_requires"]
    }


def test_every_file_that_is_no_module_is_package_data(told):
    """The slow tests below build the wheel; this one needs no build to see that a template would be left out."""
    patterns = told["package_data"]["emoedit"]
    others = {name for name in files(ROOT / "emoedit") if not name.endswith(".py")}
    assert "report/report.html.j2" in others
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in others), others


# Building


@pytest.fixture(scope="module")
def sdist(tree, tmp_path_factory):
    """The source distribution of the copy, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, folder, cwd=tree)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(
            folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # Python 3.11.4 and later
    assert not list(folder.rglob("*.half"))
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["tree", "sdist"])
def test_the_wheel_holds_the_package_with_its_models_and_configs_and_nothing_else(source, request, tree, tmp_path):
    path = request.getfixturevalue("wheel") if source == "tree" else build(request.getfixturevalue("sdist"), tmp_path)

    expected = {f"emoedit/{name}": tree / "emoedit" / name for name in files(tree / "emoedit")}
    for folder in SHIPPED:
        expected |= {f"emoedit/{folder}/{name}": tree / folder / name for name in files(tree / folder)}
    assert {"emoedit/__init__.py", "emoedit/py.typed"} <= set(expected)

    with zipfile.ZipFile(path) as packed:
        found = {name for name in packed.namelist() if ".dist-info/" not in name}
        assert found == set(expected)
        assert all(packed.read(name) == file.read_bytes() for name, file in expected.items())
        info = f"emoedit-{emoedit.__version__}.dist-info"
        metadata = packed.read(f"{info}/METADATA").decode()
        assert "License-Expression: Apache-2.0" in metadata.splitlines()
        assert f"{info}/licenses/LICENSE" in packed.namelist()
        assert "emoedit = emoedit.cli:main" in packed.read(f"{info}/entry_points.txt").decode()


@pytest.mark.slow
def test_all_notebooks_run_with_the_installed_wheel(installed, tmp_path, monkeypatch):
    """In a folder where no checkout is: what they need comes with the package. One kernel runs them all, with names
    forgotten in between: most of each is its start."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    needs("ipykernel")
    for name, value in installed.environment(EMOEDIT_NOTEBOOK_SIZE="small").items():
        monkeypatch.setenv(name, value)
    joined, folder = nbformat.v4.new_notebook(), ROOT / "docs" / "notebooks"
    for path in sorted(folder.glob("*.ipynb")):
        joined.cells += [nbformat.v4.new_code_cell("%reset -f"), *nbformat.read(path, 4).cells]
    joined.cells.append(nbformat.v4.new_code_cell("import emoedit; print(emoedit.__file__)"))
    for number, cell in enumerate(joined.cells):
        cell["id"] = f"joined-{number}"
    nbclient.NotebookClient(joined, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *outputs, last = [output for cell in joined.cells for output in cell.get("outputs", [])]
    assert last["text"] == f"{installed.site / 'emoedit' / '__init__.py'}\n"
    data = [output.get("data", {}) for output in outputs]
    pictures = [d for d in data if "image/png" in d or "<img" in d.get("text/html", "")]
    assert len(pictures) >= 6
    assert not any("tensor([" in str(d.get("text/html", "")) for d in data)
