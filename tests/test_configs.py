"""Every config file composes, with some script's config that takes it, and every job of a sweep's is one that can be
run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from emoedit.evaluation.sweeps import Job
from emoedit.io import checkpoints

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
MAIN = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
GROUPS = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.glob("*/**/*.yaml"))
EXPERIMENTS = [name for name in GROUPS if name.startswith("experiment/")]
NEEDS = {"launcher/joblib": "joblib", "launcher/submitit_local": "submitit", "launcher/submitit_slurm": "submitit"}
NEEDS["launcher/ray"] = "ray"


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path) -> Path:
    """Where data sets would be: the names are there, and a photograph each."""
    for folder in ("london-pairs/neutral", "london-pairs/smiling", "expressions-in-the-wild", "portraits"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "001.jpg")
    (tmp_path / "london-pairs" / "info.csv").write_text("face_id,split\n001,test\n")
    (tmp_path / "expressions-in-the-wild" / "labels.csv").write_text("image,emotion\n001.jpg,neutral\n")
    monkeypatch.setenv("EMOEDIT_DATA", str(tmp_path))
    return tmp_path


def composed(name: str, *overrides: str) -> tuple[dict, DictConfig]:
    """A script's config with everything in it resolved, Hydra's own part apart, and all of it. What a user has to say
    is said."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(name, overrides=list(overrides), return_hydra_config=True)
    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    for key in unsaid(OmegaConf.to_container(own)):
        OmegaConf.update(own, key, "said")
    return OmegaConf.to_container(own, resolve=True), config


def unsaid(config: dict, above: str = "") -> Iterator[str]:
    """Dotted names of what has no value."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from unsaid(value, f"{above}{key}.")
        elif value == "???":
            yield f"{above}{key}"


def takers(group: str) -> Iterator[tuple[str, str]]:
    """The scripts' configs that have this group, and the override that chooses this option."""
    folder, _, option = group.rpartition("/")
    for name in MAIN:
        for default in OmegaConf.load(CONFIGS / f"{name}.yaml").get("defaults", []):
            for key in default if OmegaConf.is_dict(default) else ():
                bare = key.removeprefix("override ").removeprefix("optional ").strip("/")
                if bare.partition("@")[0] == folder:
                    yield name, f"{bare}={option}"


@pytest.mark.parametrize("name", MAIN)
def test_every_script_has_a_whole_config(name, data):
    plain, _ = composed(name)
    assert plain and (ROOT / "experiments" / f"{name}.py").is_file()


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group_composes(group):
    """With one of the scripts at least: a trainer of one model is none of another's."""
    if group in NEEDS:
        pytest.importorskip(NEEDS[group])
    why = []
    for name, override in takers(group):
        try:
            plain, config = composed(name, override)
        except (HydraException, OmegaConfBaseException) as error:
            why.append(f"{name}: {error}")
            continue
        assert plain
        if group.startswith("launcher/") and group != "launcher/basic":
            assert group.removeprefix("launcher/").partition("_")[0] in config.hydra.launcher._target_
        if group.startswith("data/") and name == "sweep" and group != "data/faces":
            assert Job.from_config(plain).data.path
        break
    else:
        pytest.fail(f"no script takes configs/{group}.yaml: {why}")


@pytest.mark.skipif(
    not {"asyrp", "vae"} <= set(checkpoints.embedded_names()), reason="no embedded editors in this checkout"
)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_job_of_an_experiment_can_be_run(experiment, data, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    from hydra_plugins.emoedit_together import Together

    name = experiment.removeprefix("experiment/")
    _, config = composed("sweep", f"experiment={name}")
    assert str(config.hydra.mode).endswith("MULTIRUN")
    arguments = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    (jobs,) = Together.split_arguments(OverridesParser.create().parse_overrides(arguments), None)
    assert len(jobs) > 1
    keys = set()
    for overrides in jobs:
        job = Job.from_config(composed("sweep", f"experiment={name}", *overrides)[0])
        job.check()
        keys.add(job.key)
        assert job.output.name == name
    assert len(keys) == len(jobs)


@pytest.mark.slow
@pytest.mark.skipif(
    not {"asyrp", "vae"} <= set(checkpoints.embedded_names()), reason="no embedded editors in this checkout"
)
def test_hydra_tells_what_an_experiment_would_do(tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / "sweep.py"), "experiment=steps", "--cfg", "job"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "output: outputs/steps" in done.stdout


CHECKS = """
import argparse, runpy, sys
def check(self, action):
    if action.help:
        try:
            self._get_formatter()._expand_help(action) if '%' in action.help else action.help
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError('badly formed help string') from error
if not hasattr(argparse.ArgumentParser, '_check_help'):
    argparse.ArgumentParser._check_help = check
    add = argparse._ActionsContainer.add_argument
    def checked(self, *names, **options):
        action = add(self, *names, **options)
        if hasattr(self, '_check_help'):
            self._check_help(action)
        return action
    argparse._ActionsContainer.add_argument = checked
"""


@pytest.mark.slow
def test_hydra_starts_where_argparse_looks_into_help(tmp_path):
    """Python 3.14's argparse does; on others its check is put in."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
    script = ROOT / "experiments" / "sweep.py"
    start = f"sys.argv = ['sweep.py', '--cfg', 'job']; runpy.run_path({str(script)!r}, run_name='__main__')"
    plain = "from hydra._internal.utils import get_args_parser; get_args_parser()"
    for code, fails in ((CHECKS + start, False), (CHECKS + plain, True)):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert bool(done.returncode) == fails, done.stderr
        assert ("badly formed help string" in done.stderr) == fails
    for path in sorted((ROOT / "experiments").glob("*.py")):
        text = path.read_text("utf-8")
        assert ("@hydra.main" in text) == ("    run(main)\n" in text), path.name
