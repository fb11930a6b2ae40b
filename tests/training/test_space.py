"""The emotion space is learned from votes, names find their places in it, and coordinates are finetuned by votes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoedit.emotions import BASIC
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.nn.space import EmotionSpace, PointMap, SpaceConfig
from emoedit.steering.space import SpaceWords, placed_names
from emoedit.training import space as learning
from emoedit.training.guides import RecogniserGuide
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.space_words import WordBatches, WordTask
from tests.fixtures.stable_diffusion import tiny
from tests.fixtures.stylegan2 import tiny as tiny_stylegan

FEATURES = 9


def voted(count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Features that hold what people saw, and more."""
    generator = torch.Generator().manual_seed(0)
    votes = torch.distributions.Dirichlet(torch.full((7,), 0.3)).sample((count,)) if count else torch.zeros(0, 7)
    noise = torch.randn(2, count, FEATURES, generator=generator)
    return torch.cat([votes.expand(2, -1, -1), 0.05 * noise[..., 7:]], 2) + 0.02 * noise, votes


def test_divergence_is_a_distance_in_bits_between_0_and_1():
    one, other = torch.eye(7)[0], torch.eye(7)[1]
    assert float(learning.js_divergence(one, one)) == pytest.approx(0, abs=1e-6)
    assert float(learning.js_divergence(one, other)) == pytest.approx(1, abs=1e-5)
    half = (one + other) / 2
    assert float(learning.js_divergence(one, half)) == pytest.approx(0.3113, abs=1e-3)  # by hand


def test_a_mixture_says_what_people_would_see():
    assert learning.mixture_votes("happy").tolist() == [0, 1, 0, 0, 0, 0, 0]
    worried = learning.mixture_votes("worried")
    assert worried[BASIC.index("neutral")] == pytest.approx(0.2) and float(worried.sum()) == pytest.approx(1)
    votes = torch.stack([learning.mixture_votes(name) for name in ("happy", "worried", "angry")])
    assert learning.nearest_votes(votes, worried, 1).tolist() == [1]


def test_votes_are_learned_and_names_find_their_places(tmp_path):
    torch.manual_seed(0)
    features, votes = voted()
    space = EmotionSpace(SpaceConfig(BASIC, placed_names(BASIC), FEATURES, dims=6, hidden=24))
    task = learning.SpaceTask(space, {"votes": 1.0, "circumplex": 1.0, "order": 0.5})
    batches = learning.FeatureBatches(features, votes, batch_size=64, seed=0, noise=0.0, balance=0.5)
    assert torch.equal(batches(3)["features"], batches(3)["features"])  # a function of the step
    with torch.no_grad():
        before = float(task(batches(0))["loss"])
    config = TrainerConfig(steps=150, learning_rate=1e-2, warmup=5, precision="no", save_every=150, preview_every=10**6)
    trained = train(task, batches, tmp_path / "work", config).space
    with torch.no_grad():
        assert float(task.to("cpu")(batches(0))["loss"]) < 0.5 * before
    means = learning.fit_places(trained, features[0], votes, count=5)
    assert float(trained.place("neutral").abs().max()) == 0 and set(means) == set(trained.config.names)
    read = trained.votes(trained.place("angry")[None]).exp()[0]
    assert int(read.argmax()) == BASIC.index("angry")
    valence = [float(trained.place(name)[0]) for name in ("happy", "sad")]
    assert valence[0] > 0.3 > -0.3 > valence[1]


def recognisers() -> tuple[MeasuringNetwork, MeasuringNetwork]:
    torch.manual_seed(0)
    shape = {"resolution": 32, "widths": (8, 8, 8, 8)}
    emotions = (*BASIC[1:], BASIC[0])  # another order than the votes have
    classifier = MeasuringNetwork(NetworkConfig({"emotion": 7, "person": 4}, emotions=emotions, **shape)).eval()
    return classifier, MeasuringNetwork(NetworkConfig({"points": 68}, **shape)).eval()


def test_the_guide_compares_with_distributions_in_its_own_order():
    classifier, landmarks = recognisers()
    targets = torch.eye(7)[[2, 1]]  # sad, happy
    inner = RecogniserGuide(classifier, classifier.config.emotions, jitter=0.0, noise=0.0)
    guide = learning.VotesGuide(inner, landmarks, targets, classifier.config.emotions)
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    found = guide(x, x, torch.tensor([0, 1]))
    logits = classifier(x)["emotion"].log_softmax(1)
    wanted = (
        -(logits[0, classifier.config.emotions.index("sad")] + logits[1, classifier.config.emotions.index("happy")]) / 2
    )
    assert float(found["emotion"]) == pytest.approx(float(wanted), abs=0.02)  # the crop is resampled
    assert float(found["opened"]) == 0 and float(found["person"]) < 1e-4
    assert guide.closed.tolist() == [1, 0]


def test_coordinates_are_finetuned_at_no_higher_cost():
    backbone = tiny_stylegan()
    classifier, landmarks = recognisers()
    layers, width = backbone.latent_shape
    vectors = torch.randn(2, layers, width)
    vectors[:, -1] = 0
    free = learning.residual_directions(vectors.flatten(1), torch.randn(5, layers * width), 2)
    assert float((free @ vectors.flatten(1).T).abs().max()) < 1e-3 * float(free.norm() * vectors.norm())
    assert float(free.unflatten(1, (layers, width))[:, -1].abs().max()) == 0  # a layer that no edit touches stays
    targets = torch.eye(7)[[1, 3]]
    inner = RecogniserGuide(classifier, classifier.config.emotions, jitter=0.0, noise=0.0)
    guide = learning.VotesGuide(inner, landmarks, targets, classifier.config.emotions).eval()
    basis, latents, start = torch.cat([vectors.flatten(1), free]), torch.randn(4, layers, width), torch.full((4,), 0.2)
    how = learning.Descent(steps=6, batch_size=4, learning_rate=0.1)
    parts = backbone.requires_grad_(False), guide, latents, basis, start, 1

    def read(where: torch.Tensor) -> float:
        with torch.no_grad():
            edited = backbone.synthesis(latents + (where @ basis).unflatten(0, (layers, width)), dtype=backbone.dtype)
            return float(guide(edited, edited, torch.ones(4, dtype=torch.long))["emotion"])

    found = learning.finetune_coordinates(*parts, {"emotion": 1.0}, how)
    assert read(found) < read(start)
    again = learning.finetune_coordinates(*parts, {"emotion": 1.0}, how)
    assert torch.equal(found, again)
    still = learning.finetune_coordinates(*parts, {"near": 1.0}, how)  # what the start costs is free
    torch.testing.assert_close(still, start)


def test_words_are_finetuned():
    backbone = tiny()
    classifier, landmarks = recognisers()
    width = backbone.text_encoder.get_input_embeddings().embedding_dim
    words = PointMap.through(torch.eye(2, 3), torch.eye(2, 3), 0.1 * torch.randn(3, width), straight=2, width=0.5)
    names = ("neutral", "happy")
    steering = SpaceWords(names, torch.eye(2, 3) * torch.tensor([[0.0], [1.0]]), words, torch.randn(1, width))
    targets = torch.softmax(torch.randn(5, 7), 1)
    guide = learning.VotesGuide(
        RecogniserGuide(classifier, classifier.config.emotions), landmarks, targets, classifier.config.emotions
    )
    weights = {"diffusion": 1.0, "emotion": 1.0, "person": 1.0, "near": 1.0, "outside": 1.0}
    task = WordTask(backbone, steering, guide, weights, templates=["a {}"], batch_size=2)
    latents = torch.randn(4, *backbone.latent_shape)
    batches = WordBatches(latents, torch.randn(4, 3), latents, torch.randn(5, 3), np.ones(5), templates=1,
                          batch_size=2, seed=0)  # fmt: skip
    found = task(batches(1))
    found["loss"].backward()
    assert set(weights) < set(found) and float(words.linear.weight.grad.abs().max()) > 0
    assert task.start.grad is not None and not any(p.requires_grad for p in backbone.parameters())
