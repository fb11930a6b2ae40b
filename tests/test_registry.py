"""Parts are found by name, imported when asked for, and a broken plugin harms nobody who does not use it."""

import sys
import types
import warnings
from importlib.metadata import EntryPoint

import pytest

from emoedit import registry
from emoedit.registry import BACKBONES, METRICS, STEERINGS, Registry, RegistryError
from emoedit.types import MissingExtraError, UnknownNameError


@pytest.fixture
def parts():
    return Registry("part", "emoedit.no_such_group")


@pytest.fixture
def plugins(monkeypatch):
    """Offers entry points: ``plugins(name="module:attribute", ...)``."""

    def offer(*pairs):
        monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(*pair, group) for pair in pairs])
        return Registry("part", "emoedit.parts")

    return offer


def test_the_decorator_returns_what_it_decorates(parts):
    @parts.register("style gan")
    class Part:
        pass

    assert Part.__name__ == "Part"
    for name in ("style gan", "STYLE GAN", "style-gan", " Style_Gan "):
        assert parts.get(name) is Part
    assert parts.names() == ("style gan",)


def test_an_object_can_be_passed_directly(parts):
    recipe = {"size": 96}
    parts.register("small", recipe)
    assert parts.get("small") is recipe


def test_a_string_is_imported_once_and_only_when_asked_for(parts, monkeypatch):
    parts.register("lazy", "emoedit_lazy_part:outer.inner")
    assert parts.names() == ("lazy",)
    module = types.ModuleType("emoedit_lazy_part")
    module.outer = types.SimpleNamespace(inner=object())
    monkeypatch.setitem(sys.modules, "emoedit_lazy_part", module)
    value = parts.get("lazy")
    monkeypatch.delitem(sys.modules, "emoedit_lazy_part")
    assert parts.get("lazy") is value is module.outer.inner


@pytest.mark.parametrize("target", ["", "module", "module:", ":attribute", "a:b:c", "a b:c", "module.attribute"])
def test_a_malformed_string_is_refused_at_once(parts, target):
    with pytest.raises(RegistryError, match="expected 'module:attribute'"):
        parts.register("part", target)
    assert parts.names() == ()


@pytest.mark.parametrize("name", ["the first", "THE FIRST", "the-first"])
def test_duplicates_are_refused_and_leave_no_trace(parts, name):
    parts.register("the first", object())
    with pytest.raises(RegistryError, match="already taken by 'the first'"):
        parts.register(name, object())
    assert parts.names() == ("the first",)


def test_an_empty_name_is_refused(parts):
    with pytest.raises(RegistryError, match="empty name"):
        parts.register(" ", object())


def test_unknown_names_are_answered_with_the_nearest(parts):
    parts.register("directions", object())
    parts.register("closed form", object())
    for typo, meant in (("direction", "directions"), ("close form", "closed form")):
        with pytest.raises(UnknownNameError, match=f"unknown part '{typo}'; did you mean '{meant}'"):
            parts.get(typo)
    with pytest.raises(UnknownNameError, match="known: none"):
        Registry("part", "emoedit.no_such_group").get("x")
    with pytest.raises(UnknownNameError, match="must be a string"):
        parts.get(None)


@pytest.mark.parametrize("target", ["emoedit_no_such_module:x", "json:no_such_attribute"])
def test_a_part_that_cannot_be_imported_says_which_and_why(parts, target):
    parts.register("broken", target)
    with pytest.raises(RegistryError, match=f"part 'broken' .{target}. cannot be loaded: .*Error: .*no_such") as caught:
        parts.get("broken")
    assert caught.value.__cause__ is not None


def test_a_missing_extra_is_passed_on_as_it_is(parts, monkeypatch):
    class NeedsExtra(types.ModuleType):
        def __getattr__(self, name):
            raise MissingExtraError("diffusers", "diffusion")

    parts.register("heavy", "emoedit_heavy:Part")
    monkeypatch.setitem(sys.modules, "emoedit_heavy", NeedsExtra("emoedit_heavy"))
    with pytest.raises(MissingExtraError, match="diffusion"):
        parts.get("heavy")


def test_plugins_are_found_and_a_broken_one_hurts_only_who_asks_for_it(plugins):
    parts = plugins(("encoder", "json:JSONEncoder"), ("broken", "emoedit_no_such_module:x"))
    own = object()
    parts.register("own", own)
    assert parts.names() == ("broken", "encoder", "own")
    assert parts.get("own") is own
    assert parts.get("Encoder").__name__ == "JSONEncoder"
    with pytest.raises(RegistryError, match="part 'broken' .emoedit_no_such_module:x. cannot be loaded"):
        parts.get("broken")


def test_a_plugin_cannot_take_a_name(plugins):
    parts = plugins(("own", "json:JSONEncoder"), ("other", "json:JSONDecoder"))
    own = object()
    parts.register("own", own)
    with pytest.warns(UserWarning, match="ignoring json:JSONEncoder: the part name 'own' is already taken"):
        parts.names()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parts.names() == ("other", "own")
    assert parts.get("own") is own


@pytest.mark.parametrize("parts", [BACKBONES, STEERINGS, METRICS], ids=["backbones", "steerings", "metrics"])
def test_everything_in_the_package_can_be_loaded(parts):
    pytest.importorskip("torch")
    for name in parts.names():
        assert parts.get(name) is not None


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_says_what_it_is(name):
    pytest.importorskip("torch")
    from emoedit.metrics.measure import Measure

    metric = METRICS.get(name)
    assert isinstance(metric, Measure) and metric.key == name
    assert metric.higher_is_better in (True, False, None) and metric.digits in (1, 2, 3)
    assert metric.title and metric.units and len(metric.help) > 10
