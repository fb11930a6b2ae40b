"""The package imports light, carries its models and configs, and calls itself by one version."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import emoedit

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("checkpoints", "configs")  # top-level folders that the wheel holds inside the package
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.y*ml"))


def run(*command, cwd=ROOT):
    """Standard output of a command, which has to succeed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder):
    """Relative names of the files that are neither hidden nor caches."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {n.as_posix() for n in names if not any(part.startswith((".", "__pycache__")) for part in n.parts)}


# Importing


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, emoedit; dir(emoedit); print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run(sys.executable, "-c", code).split())
    assert "emoedit" in loaded
    assert not loaded & {"torch", "torchvision", "diffusers", "transformers", "cv2", "PIL", "numpy", "hydra", "gradio"}


@pytest.mark.parametrize("name", emoedit.__all__)
def test_every_public_name_is_there(name):
    assert getattr(emoedit, name) is not None
    assert name in dir(emoedit)


def test_other_names_are_missing_in_the_usual_way():
    assert not hasattr(emoedit, "no_such_name")
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from emoedit import no_such_name")


# Metadata


def test_one_version_everywhere():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == emoedit.__version__
    pytest.importorskip("setuptools")
    assert run(sys.executable, "setup.py", "--version").split()[-1] == emoedit.__version__


def test_one_licence_everywhere():
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text("utf-8")
    assert 'license_expression="Apache-2.0"' in (ROOT / "setup.py").read_text("utf-8")
    assert "\nlicense: Apache-2.0\n" in (ROOT / "CITATION.cff").read_text("utf-8")


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_parse(name):
    omegaconf = pytest.importorskip("omegaconf")  # stricter than yaml: a key that stands twice is an error
    assert omegaconf.OmegaConf.is_config(omegaconf.OmegaConf.load(ROOT / name))


# Building


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what a build reads, so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
    for name in ("emoedit", *SHIPPED, "docs", "experiments", "tests"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for path in (path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")):
        shutil.copy(path, copy)
    unfinished = copy / "checkpoints" / ".vae.half"  # what saving a model leaves when it is stopped
    unfinished.mkdir(parents=True)
    (unfinished / "editor.json").write_text("{")
    return copy


@pytest.fixture(scope="module")
def sdist(tree, tmp_path_factory):
    """The source distribution of the copy, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, folder, cwd=tree)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    assert not list(folder.rglob("*.half"))
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["tree", "sdist"])
def test_the_wheel_holds_the_package_with_its_models_and_configs_and_nothing_else(source, request, tree, tmp_path):
    for module in ("pip", "setuptools"):
        pytest.importorskip(module)
    built_from = request.getfixturevalue(source)
    how = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q")
    run(sys.executable, "-m", "pip", "wheel", built_from, *how, "-w", tmp_path, cwd=tmp_path)
    assert not (built_from / "build").exists()

    expected = {f"emoedit/{name}": tree / "emoedit" / name for name in files(tree / "emoedit")}
    for folder in SHIPPED:
        expected |= {f"emoedit/{folder}/{name}": tree / folder / name for name in files(tree / folder)}
    assert {"emoedit/__init__.py", "emoedit/py.typed"} <= set(expected)

    (path,) = tmp_path.glob("emoedit-*.whl")
    with zipfile.ZipFile(path) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert found == set(expected)
        assert all(wheel.read(name) == file.read_bytes() for name, file in expected.items())
        info = f"emoedit-{emoedit.__version__}.dist-info"
        metadata = wheel.read(f"{info}/METADATA").decode()
        assert "License-Expression: Apache-2.0" in metadata.splitlines()
        assert f"{info}/licenses/LICENSE" in wheel.namelist()
        assert "emoedit = emoedit.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
