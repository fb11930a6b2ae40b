"""Where faces lie in the embedded emotion space, and what is read there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emoedit.emotions import BASIC
from emoedit.faces.space import NAME, FaceSpace
from emoedit.io import checkpoints
from emoedit.nn.space import EmotionSpace, SpaceConfig
from emoedit.types import CheckpointError, NoFaceError

PEOPLE = Path(__file__).parents[1] / "golden" / "sources"
pytestmark = pytest.mark.skipif(not (checkpoints.embedded_root() / NAME).is_dir(), reason="no embedded space here")


@pytest.fixture(scope="module")
def space() -> FaceSpace:
    return FaceSpace.load()


def test_a_smile_lies_where_happy_lies_and_a_neutral_face_near_the_origin(space):
    neutral, smiling = (space.point(PEOPLE / name) for name in ("001-neutral.jpg", "010-smiling.jpg"))
    assert neutral.shape == smiling.shape == (space.space.config.dims,)
    assert smiling[0] > 0.5 > abs(float(neutral[0]))  # valence
    votes = space.votes(smiling)
    assert max(votes, key=votes.__getitem__) == "happy" and sum(votes.values()) == pytest.approx(1, abs=1e-4)
    assert set(votes) == set(BASIC)
    assert "happy" in [name for name, _ in space.nearest(smiling, 12)]
    distances = [distance for _, distance in space.nearest(neutral, 5)]
    assert distances == sorted(distances)


def test_places_are_ordered_by_valence_and_arousal(space):
    places = {name: space.space.place(name) for name in space.names}
    assert float(places["neutral"].abs().max()) == 0
    assert places["happy"][0] > 0.5 and places["angry"][0] < -0.2 and places["sad"][0] < -0.2
    assert places["surprised"][1] > 0.4 > places["sad"][1]
    for name, parts in {"awe": ("surprised", "happy"), "hurt": ("sad", "angry")}.items():  # between what they mix
        read = space.votes(places[name])
        assert min(read[part] for part in parts) > 0.03


def test_what_cannot_be_read_is_refused(space, tmp_path):
    with pytest.raises(NoFaceError):
        space.point(torch.zeros(3, 96, 96).numpy().astype("uint8").transpose(1, 2, 0))
    with pytest.raises(CheckpointError):
        FaceSpace.load(tmp_path)
    with pytest.raises(CheckpointError, match="features"):
        FaceSpace(EmotionSpace(SpaceConfig(BASIC, features=3)), space.trunk)
