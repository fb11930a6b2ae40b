"""The emotion space and maps out of it: shapes, the origin, files."""

import json

import pytest
import torch

from emoedit.nn.space import EmotionSpace, PointMap, SpaceConfig
from emoedit.types import CheckpointError

CONFIG = SpaceConfig(("neutral", "happy", "sad"), ("neutral", "happy"), features=5, dims=3, hidden=4)


def test_points_are_read_as_votes_and_survive_files(tmp_path):
    torch.manual_seed(0)
    space = EmotionSpace(CONFIG).eval()
    space.places.copy_(torch.tensor([[0.0, 0, 0], [1, 0.5, 0]]))
    points = space(torch.randn(4, 5))
    assert points.shape == (4, 3)
    torch.testing.assert_close(space.votes(points).exp().sum(1), torch.ones(4))
    space.save_pretrained(tmp_path / "space", card="# card", role="emotion space")
    again = EmotionSpace.from_pretrained(tmp_path / "space")
    assert again.config == CONFIG
    for name, value in space.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert torch.equal(again.place("happy"), torch.tensor([1, 0.5, 0]))
    with pytest.raises(CheckpointError, match="no place for 'sad'"):
        again.place("sad")


@pytest.mark.parametrize("change", [{"dims": 1}, {"emotions": []}, {"features": "many"}, {"dims": 4}])
def test_folders_that_hold_something_else_are_refused(tmp_path, change):
    EmotionSpace(CONFIG).save_pretrained(tmp_path / "space", card="# card")
    path = tmp_path / "space" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError):
        EmotionSpace.from_pretrained(tmp_path / "space")


def test_a_map_leads_through_its_points_and_the_origin_to_zero():
    torch.manual_seed(0)
    points, coordinates, basis = torch.randn(5, 3), torch.randn(5, 4), torch.randn(4, 7)
    made = PointMap.through(points, coordinates, basis, straight=3, width=0.7, ridge=1e-6)
    torch.testing.assert_close(made(points), coordinates @ basis, atol=2e-2, rtol=1e-2)
    straight = PointMap.through(points[:3], coordinates[:3], basis, straight=3, width=0.7)
    torch.testing.assert_close(straight(points[:3]), coordinates[:3] @ basis, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(straight(points[3:]), coordinates[3:] @ basis, atol=0.1)  # the bend reaches the others
    assert float(made(torch.zeros(1, 3)).detach().abs().max()) < 1e-6
    again = PointMap(**made.sizes, width=made.width)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(points), made(points))
