"""Edits by points: at first they are mixtures; a bent map gives shades edits of their own; words; files; bad points."""

from __future__ import annotations

import json

import pytest
import torch

from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.nn.space import PointMap
from emoedit.steering.combined import TokenAndShift, TokenShift
from emoedit.steering.directions import LatentDirections, class_statistics, fit_directions
from emoedit.steering.space import SpaceDirections, SpaceWords, basic_shares, placed_names
from emoedit.steering.wspace import WDirections
from emoedit.types import CheckpointError, Edit, EditError, Inversion
from tests.fixtures.stable_diffusion import tiny

BASIC = ("neutral", "happy", "surprised")
NAMES = placed_names(BASIC)
LAYERS, DIM = 3, 4


def mixed() -> LatentDirections:
    """Directions that also read what the source shows."""
    torch.manual_seed(0)
    centres = {"neutral": torch.zeros(DIM), "happy": 4 * torch.eye(DIM)[0], "surprised": 4 * torch.eye(DIM)[1]}
    labels = [name for name in centres for _ in range(30)]
    w = torch.stack([centres[name] for name in labels]) + torch.randn(len(labels), DIM)
    stats = {"samples": class_statistics(w, labels)}
    fitted = fit_directions(stats, BASIC, trust={"samples": 1.0}, gains={"happy": 1.5})
    return WDirections.in_layers(fitted, LAYERS, (0, 2))


def directions(steering: LatentDirections) -> SpaceDirections:
    """The places of names are what they are mixed from, in a space of two more coordinates."""
    shares = basic_shares(NAMES, steering.emotions)
    basis = torch.tensor([[0.0, 0, 0, 0], [0.8, 0.4, 0.3, 0], [0.2, 0.8, 0, 0.5]])
    vectors = (steering.gain[:, None] * steering.directions)[1:]
    places, coordinates = (shares @ basis)[1:], torch.cat([shares[1:, 1:], torch.zeros(len(NAMES) - 1, 2)], 1)
    vectors = torch.cat([vectors, torch.randn(2, vectors.shape[1])])
    made = PointMap.through(places, coordinates, vectors, straight=2, width=0.5)
    return SpaceDirections(NAMES, shares @ basis, shares, made, steering).eval()


def faces() -> Inversion:
    """One that shows nothing, and a smile."""
    torch.manual_seed(1)
    latent = 0.1 * torch.randn(2, LAYERS, DIM)
    latent[1, :, 0] += 4
    return Inversion(latent)


EDITS = [Edit("happy"), Edit("pleasantly surprised", 0.5)]


def test_names_of_the_vocabulary_that_these_emotions_make_have_a_place():
    assert NAMES[0] == "neutral" and {"happy", "awe", "excited"} & set(NAMES) == {"happy", "excited"}
    shares = basic_shares(NAMES, BASIC)
    assert shares[NAMES.index("excited")].tolist() == pytest.approx([0, 0.8, 0.5])


def test_at_first_points_do_what_mixtures_do_and_what_is_shown_is_left_out():
    steering = mixed()
    space, inversion = directions(steering), faces()
    for edits in (EDITS, [Edit("neutral"), Edit("neutral")], [Edit("happy - 0.5*surprised", 1.4), Edit("surprised")]):
        expected = steering.control(Backbone, inversion, edits).shift
        torch.testing.assert_close(space.control(Backbone, inversion, edits).shift, expected, atol=1e-4, rtol=1e-4)
    nothing = space.control(Backbone, inversion, [Edit("happy", 0), Edit("happy", 0)]).shift.detach()
    assert float(nothing.abs().max()) == 0


def test_a_shade_has_an_edit_of_its_own():
    space, inversion = directions(mixed()), faces()[:1]
    with torch.no_grad():
        space.directions.pull.normal_()
    alone = [space.control(Backbone, inversion, [Edit(name)]).shift.detach() for name in ("0.6*happy", "0.7*surprised")]
    both = space.control(Backbone, inversion, [Edit("pleasantly surprised")]).shift.detach()
    assert float((both - sum(alone)).abs().max()) > 0.01
    same = space.control(Backbone, inversion, [Edit("0.6*happy + 0.7*surprised")]).shift
    torch.testing.assert_close(both, same)  # the name and its algebra are one point


def test_directions_are_saved_and_wrong_folders_refused(tmp_path):
    space, inversion = directions(mixed()), faces()
    space.save_pretrained(tmp_path)
    again = SpaceDirections.from_pretrained(tmp_path)
    assert again.emotions == space.emotions
    first, second = (each.control(Backbone, inversion, EDITS).shift for each in (space, again))
    assert torch.equal(first, second)
    path = tmp_path / checkpoints.CONFIG
    config = json.loads(path.read_text())
    wrong = [{"emotions": "happy"}, {"map": {"dims": 4}}, {"map": config["map"] | {"out": 2**30}},
             {"map": config["map"] | {"out": 2**20, "rank": 2**20}}, {"map": config["map"] | {"width": 0}},
             {"mixed": 3},
             {"map": config["map"] | {"out": 5}}, {"emotions": list(NAMES[:-1])}]  # fmt: skip
    for change in wrong:
        path.write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError):
            SpaceDirections.from_pretrained(tmp_path)


def test_any_point_can_be_given_a_name_and_bad_ones_are_refused():
    space, inversion = directions(mixed()), faces()[:1]
    named = space.with_point("mine", 0.5 * space.places[NAMES.index("happy")])
    assert "mine" in named.emotions and "mine" not in space.emotions
    one, other = (
        each.control(Backbone, inversion, [edit]).shift
        for each, edit in ((named, Edit("mine")), (space, Edit("0.5*happy")))
    )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    for point in (torch.zeros(3), torch.tensor([0, float("nan"), 0, 0]), torch.tensor([0, 99.0, 0, 0])):
        with pytest.raises(EditError, match="point"):
            space.with_point("mine", point)
    with pytest.raises(CheckpointError, match="latents of"):
        space.control(Backbone, Inversion(torch.zeros(1, DIM)), [Edit("happy")])
    with pytest.raises(CheckpointError, match="expected"):
        SpaceDirections(NAMES[:-1], space.places, space.shares, space.directions, space.mixed)


# Words


@pytest.fixture(scope="module")
def backbone():
    return tiny()


def words(backbone) -> SpaceWords:
    torch.manual_seed(2)
    width = backbone.text_encoder.get_input_embeddings().embedding_dim
    shares = basic_shares(NAMES, BASIC)
    points, vectors = torch.eye(2, 3), 0.1 * torch.randn(2, width)
    made = PointMap.through(points, torch.eye(2, 3), torch.cat([vectors, torch.randn(1, width)]), straight=2, width=0.5)
    with torch.no_grad():
        made.pull.normal_(std=0.3)
    gain = torch.full((len(NAMES),), 2.0)
    return SpaceWords(NAMES, shares[:, 1:] @ points, made, torch.randn(1, width), gain=gain).eval()


def latents(backbone, count: int) -> Inversion:
    return Inversion(torch.zeros(count, *backbone.latent_shape))


def test_every_point_has_a_word_and_strength_moves_the_context_straight(backbone):
    steering = words(backbone)
    edits = [Edit("happy", s) for s in (0.0, 0.5, 1.0)] + [Edit("0.5*happy + 0.5*surprised")]
    context = steering.control(backbone, latents(backbone, 4), edits).context
    neutral = backbone.context()
    torch.testing.assert_close(context[:1], neutral)
    torch.testing.assert_close(2 * (context[1] - neutral[0]), context[2] - neutral[0], atol=1e-4, rtol=1e-4)
    away = steering.control(backbone, latents(backbone, 1), [Edit("happy", -0.5)]).context
    torch.testing.assert_close(away[0] - neutral[0], neutral[0] - context[1], atol=1e-4, rtol=1e-4)
    between = steering.contexts_at(backbone, steering.places[[NAMES.index("happy")]])
    torch.testing.assert_close(context[2], neutral[0] + 2 * (between[0] - neutral[0]), atol=1e-4, rtol=1e-4)
    sums = [steering.control(backbone, latents(backbone, 1), [Edit(name, 0.5)]).context for name in BASIC[1:]]
    assert float((context[3] - sum(sums) + neutral).abs().max()) > 1e-4  # a word of its own, no sum of contexts
    assert not any("emotion-" in token for token in backbone.tokenizer.get_vocab())  # the model's own stays as it is


def test_words_combine_with_shifts_and_are_saved(backbone, tmp_path):
    steering = words(backbone)
    both = TokenAndShift(steering, TokenShift(steering, train_steps=backbone.steps))
    asked = both.control(backbone, latents(backbone, 1), [Edit("excited")])
    assert asked.context is not None and asked.delta_h is not None
    steering.save_pretrained(tmp_path / "words")
    again = SpaceWords.from_pretrained(tmp_path / "words")
    one, other = (each.control(backbone, latents(backbone, 1), [Edit("excited")]).context for each in (steering, again))
    assert torch.equal(one, other)
    named = again.with_point("mine", torch.tensor([0.1, 0.2, 0.0]))
    assert named.control(backbone, latents(backbone, 1), [Edit("mine")]).context.shape == one.shape
    path = tmp_path / "words" / checkpoints.CONFIG
    config = json.loads(path.read_text())
    for change in ({"start": [1]}, {"template": "no place"}, {"emotions": []}, {"start": [2, 3]}):
        path.write_text(json.dumps(config | change))
        with pytest.raises((CheckpointError, EditError)):
            SpaceWords.from_pretrained(tmp_path / "words")
    with pytest.raises(CheckpointError, match="has no text input"):
        steering.moved(None, torch.ones(1, len(NAMES)))
