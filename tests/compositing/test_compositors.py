"""Compositors: by name or description, with other settings, without a part; and what all of them hold to."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.compositing.composite import Composite
from emoedit.compositing.compositors import Compositor, compositor
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import LUMA
from emoedit.registry import COMPOSITOR_PARTS, COMPOSITORS
from emoedit.types import Change, CheckpointError, EditError, UnknownNameError
from tests.fixtures.faces import SPEC, analysis_of, face_of, lips, photo_of, placed, points_of, scene_of

HUE = np.array([1.3, 0.9, 0.75])
CLOSED, OPEN = face_of(), points_of(48, 72, apart=9)


def scene(name: str, after: np.ndarray | None = None):
    """A photograph and an edit of it that the compositor of this name is for: everything is lit and moves down."""
    crop = lips(48, 72)
    photo = photo_of(crop, HUE, grain=4.0)
    edited = np.roll(crop, 2, 0) + 10 if after is None else after
    if name in ("rgb", "coloured"):
        crop, edited = (p[..., None] * (HUE / (HUE @ LUMA)).astype(np.float32) for p in (crop, edited))
    flow = np.zeros((96, 96, 2), np.float32)
    flow[..., 1] = -2
    points = (CLOSED, CLOSED + [0, 2])
    known = None
    if name in ("moved", "landmarks") and after is None:  # for backbones that say themselves what they move
        known = Change(flow, np.full((96, 96), 10, np.float32), np.stack(points) if name == "landmarks" else None)
    return photo, scene_of(analysis_of(photo, CLOSED), crop, edited, points, known=known)


@pytest.mark.parametrize("name", COMPOSITORS.names())
def test_only_the_face_changes_and_nothing_is_modified(name):
    photo, edit = scene(name)
    kept = [array.copy() for array in (photo, edit.drawing.before, edit.drawing.after, edit.face.crop)]
    made = compositor(name)
    result, notes = made(photo, edit)
    assert isinstance(notes, tuple) and result.shape == photo.shape and result.dtype == np.uint8
    for before, now in zip(kept, (photo, edit.drawing.before, edit.drawing.after, edit.face.crop), strict=True):
        assert np.array_equal(before, now)
    mask = cv2.dilate((face_masks(SPEC).face > 0).astype(np.uint8), np.ones((3, 3)))
    reach = cv2.warpAffine(mask, placed().inverse, (300, 300), flags=cv2.INTER_LINEAR)
    outside = cv2.dilate(reach, np.ones((9, 9))) == 0
    assert outside.mean() > 0.3 and np.array_equal(result[outside], photo[outside])
    assert (result != photo).any(-1)[150:200, 130:170].mean() > 0.5
    again, _ = made(photo, edit)
    assert np.array_equal(again, result)  # nothing is kept from one edit to the next


@pytest.mark.parametrize("name", ["drawn", "coloured", "rgb", "replace"])
def test_a_drawing_that_is_its_reconstruction_gives_the_photo_bit_for_bit(name):
    photo, edit = scene(name, lips(48, 72))
    assert np.array_equal(compositor(name)(photo, edit)[0], photo)


@pytest.mark.parametrize("name", COMPOSITORS.names())
def test_a_part_that_is_taken_out_does_not_work(name):
    photo, edit = scene(name)
    made = compositor(name)
    names = [part for part, _ in made.parts]
    for part in names:
        rest = made.without(part)
        assert [n for n, _ in rest.parts] == [n for n in names if n != part] and rest.name == name
    assert [n for n, _ in made.parts] == names
    assert np.array_equal(made.without(*names)(photo, edit)[0], photo)


def test_every_part_is_registered_and_takes_and_returns_the_same_kind_of_value():
    for name in ("movement", "skin", "eyes", "mouth", "light"):
        _, edit = scene("drawn")
        composite = COMPOSITOR_PARTS.get(name)()(edit, Composite.empty(96))
        assert isinstance(composite, Composite) and composite.flow.shape == (96, 96, 2)
        assert composite.change.shape[:2] == (96, 96) and np.isfinite(composite.change).all()


def test_settings_are_other_constants_of_a_part():
    made = compositor({"name": "drawn", "settings": {"skin": {"restored": 0.25}, "light": {"edge": [5, 20]}}})
    parts = dict(made.parts)
    assert parts["skin"].restored == 0.25 and parts["light"].edge == (5, 20)
    plain = dict(compositor("drawn").parts)
    assert plain["skin"].restored != 0.25 and parts["movement"] == plain["movement"]
    photo, edit = scene("drawn")
    edit = scene_of(edit.face, lips(48, 72), lips(48, 72, light=40) + 30, (CLOSED, CLOSED))
    results = [compositor("drawn").with_settings({"mouth": {"kept": k}})(photo, edit)[0] for k in (0.0, 1.0)]
    assert not np.array_equal(*results)


def test_a_compositor_of_some_parts():
    made = compositor({"name": "plain", "parts": ["movement", "light"]})
    assert isinstance(made, Compositor) and made.name == "plain" and [n for n, _ in made.parts] == ["movement", "light"]
    assert compositor({"parts": ["movement"]}).parts[0][1] == COMPOSITOR_PARTS.get("movement")()


@pytest.mark.parametrize(
    ("description", "error", "says"),
    [
        ("drawm", UnknownNameError, "drawn"),
        ({"parts": ["movement", "skim"]}, UnknownNameError, "skin"),
        ({"parts": "movement"}, CheckpointError, "list"),
        ({"parts": 3}, CheckpointError, "list"),
        ({}, CheckpointError, "name or its parts"),
        (None, CheckpointError, "name or its parts"),
        ({"name": "drawn", "settings": 3}, CheckpointError, "mapping"),
        ({"name": "drawn", "settings": {"new_edges": {}}}, CheckpointError, "no part 'new_edges'"),
        ({"name": "drawn", "settings": {"skin": 0.5}}, CheckpointError, "mapping"),
        ({"name": "drawn", "settings": {"skin": {"restore": 0.5}}}, CheckpointError, "no setting 'restore'"),
        ({"name": "drawn", "settings": {"skin": {"restored": True}}}, CheckpointError, "skin.restored"),
        ({"name": "drawn", "settings": {"skin": {"restored": float("nan")}}}, CheckpointError, "skin.restored"),
        ({"name": "drawn", "settings": {"light": {"edge": 5}}}, CheckpointError, "light.edge"),
        ({"name": "drawn", "settings": {"light": {"edge": [5]}}}, CheckpointError, "light.edge"),
        ({"name": "drawn", "settings": {"light": {"edge": [5, "x"]}}}, CheckpointError, "light.edge"),
        ({"name": "drawn", "settings": {"mouth": {"teeth": 3}}}, CheckpointError, "mouth.teeth"),
    ],
)
def test_a_description_that_makes_no_sense_is_a_typed_error(description, error, says):
    with pytest.raises(error, match=says):
        compositor(description)


# The compositor, whose drawings it gets, and what to do instead.
REFUSED = [
    ("drawn", "rgb", "use 'coloured' or 'rgb'"),
    ("rgb", "drawn", "use 'drawn'"),
    ("coloured", "drawn", "use 'drawn'"),
    ("moved", "drawn", "leave it out"),
]


@pytest.mark.parametrize(("name", "drawn", "advice"), REFUSED)
def test_drawings_that_a_compositor_is_not_for_are_refused(name, drawn, advice):
    photo, edit = scene(drawn)
    with pytest.raises(EditError, match=advice):
        compositor(name)(photo, edit)
