"""What a config may call: this package's own names, and nothing that hides behind them."""

from __future__ import annotations

import os

import pytest

from emoedit.types import Edit, EditError, EmoEditError, Inversion
from lib.instantiate import TargetError, check_targets, find, instantiate

OURS = {
    "emoedit.types.Edit": Edit,
    "emoedit.Edit": Edit,
    "emoedit.types.Inversion.repeat": Inversion.repeat,
}


@pytest.mark.parametrize("name", OURS)
def test_names_of_this_package_are_found(name):
    assert find(name) is OURS[name]


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.exec",
        "subprocess.Popen",
        "hydra.utils.instantiate",
        "emoedit",
        "emoeditx.types.Edit",
        "",
        ".",
        "emoedit.",
        ".emoedit.types.Edit",
        "emoedit..types",
        "emoedit.types.Edit()",
        "emoedit types",
        # Of others, seen from here.
        "emoedit.io.checkpoints.os.system",
        "emoedit.io.checkpoints.shutil.rmtree",
        "emoedit.io.checkpoints.Path",
        "emoedit.io.checkpoints.Path.unlink",
        "emoedit.io.checkpoints.json.loads",
        "lib.instantiate.import_module",
        "lib.instantiate.isclass",
        "emoedit.evaluation.sweeps.dataclass",
        # Objects that only lie here.
        "emoedit.registry.BACKBONES.register",
        "emoedit.io.checkpoints.FETCHED",
        "emoedit.types.Edit.strength",
        # Private.
        "emoedit.io.checkpoints._fetch",
        "emoedit.types.Edit.__init__",
        "emoedit.types.Edit.__init__.__globals__",
        "emoedit.__main__",
        # No class, no function, not there.
        "emoedit.types",
        "emoedit.types.NoSuch",
        "emoedit.no_such.Edit",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(TargetError, match=r"_target_ .* (is refused|is no class|has no)"):
        find(name)
    with pytest.raises(TargetError):
        instantiate({"_target_": name})
    with pytest.raises(TargetError):
        check_targets({"editors": [1, {"inside": {"_target_": name}}]})


@pytest.mark.parametrize("name", [None, 3, ["emoedit.types.Edit"], {"a": 1}, Edit])
def test_a_target_is_a_name(name):
    with pytest.raises(TargetError, match="is refused"):
        instantiate({"_target_": name})


def test_what_a_config_describes():
    config = {
        "one": {"_target_": "emoedit.types.Edit", "emotion": "sad", "strength": 0.5},
        "many": [{"_target_": "emoedit.types.Edit", "emotion": "happy"}, 3],
        "plain": {"_other": "x"},
    }
    before = repr(config)
    made = instantiate(config)
    assert made == {"one": Edit("sad", 0.5), "many": [Edit("happy"), 3], "plain": {"_other": "x"}}
    assert repr(config) == before
    assert instantiate({"_target_": "emoedit.types.EditError"}).args == ()
    inner = {"_target_": "emoedit.types.Edit", "emotion": "calm"}
    assert instantiate({"_target_": "emoedit.types.Edit", "emotion": inner}).emotion == Edit("calm")


def test_arguments_that_do_not_fit():
    with pytest.raises(TargetError, match="emoedit.types.Edit does not take emotions: .*unexpected keyword"):
        instantiate({"_target_": "emoedit.types.Edit", "emotions": "sad"})
    for key in ("_args_", "_partial_", "_convert_", 3):
        with pytest.raises(TargetError, match="is no argument"):
            instantiate({"_target_": "emoedit.types.Edit", "emotion": "sad", key: []})
    with pytest.raises(EditError, match="strength"):  # what it says itself goes on
        instantiate({"_target_": "emoedit.types.Edit", "emotion": "sad", "strength": float("nan")})
    assert issubclass(TargetError, EmoEditError) and issubclass(TargetError, ValueError)


def test_nothing_is_called_before_everything_was_measure_editor(monkeypatch):
    called = []
    monkeypatch.setattr("emoedit.types.Edit.__post_init__", lambda self: called.append(self))
    with pytest.raises(TargetError):
        instantiate([{"_target_": "emoedit.types.Edit", "emotion": "sad"}, {"_target_": "os.getcwd"}])
    assert not called and os.getcwd()
