"""The vocabulary is consistent, the algebra is linear, and no text makes it fail in an untyped way."""

import importlib.util
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emoedit.emotions import BASIC, canonical, fold_name, get, list_emotions, parse, resolve, smile_reduction
from emoedit.types import EditError, EmoEditError, UnknownNameError

NUANCED = [name for name in list_emotions() if name not in BASIC]
SPELLINGS = [(alias, name) for name in list_emotions() for alias in (name, *get(name).aliases)]


# The vocabulary


def test_basic_names_come_first():
    assert list_emotions()[: len(BASIC)] == BASIC
    assert len(NUANCED) >= 40


def test_no_two_emotions_share_a_spelling():
    folded = [fold_name(spelling) for spelling, _ in SPELLINGS]
    assert len(folded) == len(set(folded))


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS)
def test_every_spelling_leads_to_its_emotion_everywhere(spelling, name):
    joined = (spelling.replace(" ", joint) for joint in "-_")
    for written in (spelling, spelling.upper(), f"  {spelling}\n", *joined):
        assert canonical(written) == name
        assert parse(written) == {name: 1.0}
        assert parse(f"2*{written}-0.5 {written}") == {name: 1.5}


def test_a_hyphen_in_a_name_is_never_a_hidden_subtraction():
    names = {fold_name(spelling) for spelling, _ in SPELLINGS}
    for name in names:
        words = name.split(" ")
        assert not any({" ".join(words[:at]), " ".join(words[at:])} <= names for at in range(1, len(words)))


@pytest.mark.parametrize("name", list_emotions())
def test_entries_are_in_range_and_worded_alike(name):
    emotion = get(name)
    assert emotion.name == name == canonical(name)
    assert -1 <= emotion.valence <= 1 and -1 <= emotion.arousal <= 1
    assert emotion.phrase.endswith(" face")
    assert emotion.prompt.startswith(("a photo of a ", "a photo of an "))
    article, word = emotion.prompt.split()[3:5]
    assert (article == "an") == (word[0] in "aeiou")
    hash(emotion)


@pytest.mark.parametrize("name", NUANCED)
def test_mixtures_hold_basic_emotions_and_agree_with_the_valence(name):
    emotion = get(name)
    assert emotion.mixture and set(emotion.mixture) <= set(BASIC) - {"neutral"}
    assert all(0 < abs(weight) <= 1.5 for weight in emotion.mixture.values())
    assert resolve(name, BASIC) == pytest.approx(dict(emotion.mixture))
    mixed = sum(weight * get(part).valence for part, weight in emotion.mixture.items())
    if abs(emotion.valence) > 0.3:
        assert math.copysign(1, mixed) == math.copysign(1, emotion.valence)


def test_basic_emotions_are_not_mixed():
    assert not any(get(name).mixture for name in BASIC)


@pytest.mark.parametrize(
    ("label", "name"),
    [("Happiness", "happy"), ("joy", "happy"), ("smiling", "happy"), ("Anger", "angry"), ("fear", "fearful"),
     ("Surprise", "surprised"), ("SADNESS", "sad"), ("disgust", "disgusted"), ("Contempt", "contempt"),
     ("neutral expression", "neutral"), ("scared", "fearful"), ("ashamed", "shame"), ("calm", "serene")],
)  # fmt: skip
def test_labels_of_data_sets(label, name):
    assert canonical(label) == name


# Unknown names


@pytest.mark.parametrize(("typo", "meant"), [("hapy", "happy"), ("happines", "happiness"), ("ashmed", "ashamed")])
@pytest.mark.parametrize("ask", [canonical, get, parse, lambda name: resolve(name, BASIC)])
def test_unknown_names_are_answered_with_the_nearest(ask, typo, meant):
    with pytest.raises(UnknownNameError, match=f"unknown emotion '{typo}'; did you mean '{meant}'"):
        ask(typo)


def test_unknown_name_without_a_near_one_still_lists_what_exists():
    with pytest.raises(UnknownNameError, match="unknown emotion 'qqq'; known: neutral, "):
        canonical("qqq")


@pytest.mark.parametrize("name", ["", "-sad", "- sad", "sad-", "<sad>", "sad\0", None, 3, "x" * 100_000])
def test_what_is_not_a_name_is_unknown(name):
    with pytest.raises(UnknownNameError) as caught:
        canonical(name)
    assert len(str(caught.value)) < 2000


# The algebra


@pytest.mark.parametrize(
    ("expression", "weights"),
    [
        ("happy", {"happy": 1}),
        ("-sad", {"sad": -1}),
        ("+ sad", {"sad": 1}),
        ("happy - 0.4*surprised", {"happy": 1, "surprised": -0.4}),
        ("0.5 happy + sad", {"happy": 0.5, "sad": 1}),
        ("0.5happy", {"happy": 0.5}),
        ("happy * .5-2.*sad", {"happy": 0.5, "sad": -2}),
        ("-1e-1 Joy", {"happy": -0.1}),
        ("happy-sad", {"happy": 1, "sad": -1}),
        ("shame + ashamed", {"shame": 2}),
        ("happy - happiness", {"happy": 0}),
        ("pleasantly-surprised - surprised", {"pleasantly surprised": 1, "surprised": -1}),
        ("ｈａｐｐｙ\t+\nsad", {"happy": 1, "sad": 1}),
        ("2excited", {"excited": 2}),
    ],
)
def test_parse(expression, weights):
    assert parse(expression) == weights


@pytest.mark.parametrize(
    "expression",
    ["", "  ", "+", "-", "happy +", "happy*", "*happy", "happy ++ sad", "happy - -sad", "--sad", "2**happy",
     "happy sad", "0.4", "2 3 happy", "2*3*happy", "2*happy*3", "happy 2", "(happy", "happy)", "2*(happy + sad)",
     "happy/2", "0,4 happy", "nan", "nan*happy", "inf happy", "-Infinity*sad", "1e999 happy", "happy = 1",
     "1e308 happy + 1e308 happy", "__import__('os')", "happy; sad", "0.5.5 happy", "🙂", None, 0.5],
)  # fmt: skip
def test_what_does_not_parse_is_refused(expression):
    with pytest.raises(EditError):
        parse(expression)
    with pytest.raises(EditError):
        resolve(expression, BASIC)


def test_a_refusal_shows_where_reading_stopped():
    with pytest.raises(EditError, match=r"'happy \+\+ sad': stopped at '\+\+ sad'.*as in 'happy - 0.4\*surprised'"):
        parse("happy ++ sad")


def random_expression(rng):
    terms = [(rng.choice(list_emotions()), round(rng.uniform(-2, 2), 3)) for _ in range(rng.randint(1, 5))]
    return " ".join(f"{'-' if weight < 0 else '+'} {abs(weight)}*{name}" for name, weight in terms)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("read", [parse, lambda expression: resolve(expression, BASIC[1:])])
def test_the_algebra_is_linear(seed, read):
    rng = random.Random(seed)
    # neutral is in no mixture, so an editor without it cannot express it
    first, second = (random_expression(rng).replace("neutral", "happy") for _ in range(2))
    one, two, both = read(first), read(second), read(f"{first} {second}")
    assert both == pytest.approx({key: one.get(key, 0) + two.get(key, 0) for key in both}, abs=1e-12)
    assert {key for key in {**one, **two} if abs(one.get(key, 0) + two.get(key, 0)) > 1e-12} <= set(both)


PIECES = ["happy", "sad", "pleasantly", "surprised", "nan", "1e999", "0.4", "1", ".", "e5", "+", "-", "*", " ", "  ",
          "(", ")", "_", "<", ">", "my-emotion", "\0", "\n", "ß", "İ", "ﬁ", "\u0345", "\ud800", "𝔥", "²"]  # fmt: skip
READERS = {
    "canonical": canonical,
    "parse": parse,
    "parse as an own name": lambda text: parse(text, extra=(text,)),
    "resolve": lambda text: resolve(text, ("happy", "<my-emotion>")),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_any_text_is_read_or_refused_by_a_typed_error(read):
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choices(PIECES, k=rng.randint(0, 8)))
        noise = "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(0, 12)))
        for attempt in (text, noise, text + noise):
            try:
                result = read(attempt)
            except EmoEditError as error:
                assert str(error)
            else:
                assert isinstance(result, str) or all(math.isfinite(weight) for weight in result.values())


# What an editor has


def test_a_name_the_editor_has_is_used_as_its_own():
    assert resolve("shame", (*BASIC, "shame")) == {"shame": 1}
    assert resolve("shame + sad", (*BASIC, "shame")) == {"shame": 1, "sad": 1}


def test_an_editor_may_spell_its_emotions_as_its_data_set_did():
    assert resolve("happy - 0.5*sadness", ("Happiness", "Sad")) == {"Happiness": 1, "Sad": -0.5}
    assert resolve("joy + happy", ("joy", "happy")) == {"joy": 1, "happy": 1}
    assert resolve("melancholy", ("sadness",)) == {"sadness": 0.6}


OWN = ["<irritated>", "my-emotion", "my emotion", "Smirk_2", "happy-sad", "-x", "a+b", "<a> <b>"]


@pytest.mark.parametrize("name", OWN)
def test_an_editors_own_names(name):
    available = ("happy", "sad", name)
    assert parse(name, extra=available) == {name: 1}
    assert resolve(f"happy - 0.5*{name.upper()}", available) == {"happy": 1, name: -0.5}
    assert resolve(f"0.5 {name} + 2*sad", available) == {name: 0.5, "sad": 2}


def test_a_spaced_minus_is_never_part_of_an_own_name():
    assert resolve("happy - sad", ("happy", "sad", "happy-sad")) == {"happy": 1, "sad": -1}


def test_an_own_name_is_unknown_elsewhere_and_offered_where_it_is_near():
    with pytest.raises(UnknownNameError):
        parse("smirk")
    with pytest.raises(UnknownNameError, match="did you mean '<smirk>'"):
        resolve("smirk", ("happy", "<smirk>"))


def test_own_names_that_read_the_same_are_refused():
    with pytest.raises(EditError, match="cannot be told apart"):
        resolve("happy", ("happy", "My-smile", "my smile"))


def test_zero_weights_are_dropped():
    assert resolve("happy - happy + 0*sad", BASIC) == {}
    assert resolve("furious - 1.3 angry + sad", BASIC) == {"sad": 1}


@pytest.mark.parametrize("expression", ["angry", "0*angry", "happy + irritated", "neutral"])
def test_what_the_editor_cannot_do_is_said_with_what_it_can(expression):
    with pytest.raises(UnknownNameError, match="this editor cannot do .*it has: happy, sad"):
        resolve(expression, ("sad", "happy"))


def test_the_missing_part_of_a_mixture_is_named():
    with pytest.raises(
        UnknownNameError, match="'guilty': it is mixed from sad, fearful, and fearful is missing; it has"
    ):
        resolve("guilt", ("sad",))


def test_overflow_in_an_expansion_is_refused():
    with pytest.raises(EditError, match="not a finite number"):
        resolve("1.7e308*furious", BASIC)


# Around it


def test_the_page_is_what_the_script_writes():
    script = Path(__file__).parents[1] / "docs" / "make_emotions.py"
    spec = importlib.util.spec_from_file_location("make_emotions", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run: python docs/make_emotions.py"


def test_only_the_standard_library_is_imported():
    code = "import sys, emoedit.emotions, emoedit.registry; print({'torch', 'numpy', 'diffusers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         cwd=Path(__file__).parents[1])  # fmt: skip
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("expression", "strength", "least", "most"),
    [
        ("happy", 1.0, 0, 0),
        ("happy", -1.0, 1, 1),
        ("angry", 1.0, 1, 1),
        ("anger", 0.5, 0.5, 1),
        ("angry", 0.25, 0.1, 0.6),
        ("angry", 0.0, 0, 0),
        ("neutral", 1.0, 1, 1),
        ("neutral", 0.5, 0.4, 0.7),
        ("surprised", 1.0, 1, 1),
        ("melancholy", 1.0, 0.7, 1),
        ("pleasantly surprised", 1.0, 0, 0),
        ("angry + 0.1*happy", 1.0, 0, 0),
        ("0.3*sad - 0.3*happy", 1.0, 0.7, 1),
        ("-surprised", 1.0, 0, 0),
        ("smirk", 1.0, 0, 0),
        ("angry + smirk", 1.0, 0, 0),
    ],
)
def test_how_much_of_a_smile_an_edit_ends(expression, strength, least, most):
    share = smile_reduction(expression, strength, ["happy", "smirk"])
    assert least - 1e-9 <= share <= most + 1e-9


@pytest.mark.parametrize("name", ["sad", "neutral", "melancholy"])
def test_a_smile_goes_by_degrees(name):
    shares = [smile_reduction(name, strength, ["happy"]) for strength in np.linspace(0, 1.5, 61)]
    steps = np.diff(shares)
    assert shares[0] == 0 and shares[-1] == pytest.approx(1) and (steps >= 0).all() and steps.max() < 0.1


def test_an_unknown_word_has_no_smile_to_speak_of():
    with pytest.raises(UnknownNameError):
        smile_reduction("hapy", 1.0, ["happy"])
