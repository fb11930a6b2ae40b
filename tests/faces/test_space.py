"""Where faces lie in the embedded emotion space, and what is read there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emoedit.emotions import BASIC
from emoedit.faces.space import NAME, FaceSpace
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.nn.space import EmotionSpace, SpaceConfig
from emoedit.types import CheckpointError, NoFaceError

PEOPLE = Path(__file__).parents[1] / "golden" / "sources"


@pytest.fixture(scope="module")
def space() -> FaceSpace:
    if not (checkpoints.embedded_root() / NAME).is_dir():
        pytest.skip("no embedded space here")
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


def tiny_trunk(folder: Path, seed: int = 0) -> MeasuringNetwork:
    torch.manual_seed(seed)
    network = MeasuringNetwork(NetworkConfig({"emotion": 2}, 16, widths=(8, 8, 8, 8), emotions=("neutral", "happy")))
    network.save_pretrained(folder, card="# trunk")
    return network


def tiny_space(folder: Path, trunk: Path, fingerprint: str) -> Path:
    config = SpaceConfig(("neutral", "happy"), features=8, trunk=str(trunk), trunk_fingerprint=fingerprint)
    EmotionSpace(config).save_pretrained(folder, card="# space")
    return folder


def test_a_space_is_read_only_from_the_network_it_was_learned_from(tmp_path):
    network = tiny_trunk(tmp_path / "trunk")
    folder = tiny_space(tmp_path / "space", tmp_path / "trunk", network.trunk_fingerprint())
    loaded = FaceSpace.load(folder)
    assert loaded.space.config.trunk_fingerprint == loaded.trunk.network.trunk_fingerprint()
    with torch.no_grad():
        network.heads["emotion"][-1].bias += 1  # the space reads no head
    network.save_pretrained(tmp_path / "trunk", card="# trunk")
    FaceSpace.load(folder)
    other = tiny_trunk(tmp_path / "trunk", seed=1)
    with pytest.raises(
        CheckpointError, match=f"other weights of .*found {other.trunk_fingerprint()}.*emoedit train space"
    ):
        FaceSpace.load(folder)


def test_a_space_without_a_fingerprint_is_read_with_a_warning(tmp_path):
    fingerprint = tiny_trunk(tmp_path / "trunk").trunk_fingerprint()
    folder = tiny_space(tmp_path / "space", tmp_path / "trunk", "")
    config = checkpoints.read_json(folder / checkpoints.CONFIG)
    del config["trunk_fingerprint"]
    checkpoints.write_config(folder, config)
    with pytest.warns(UserWarning, match=f'"trunk_fingerprint": "{fingerprint}"'):
        assert FaceSpace.load(folder).space.config.trunk_fingerprint == ""


def test_the_embedded_space_names_its_network(space):
    assert space.space.config.trunk_fingerprint == space.trunk.network.trunk_fingerprint()
