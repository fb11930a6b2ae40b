"""CLIP's view of an edit, with a tiny random CLIP in transformers' full layout, read the way a real one is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from emoedit.metrics.clip import (
    VIT_L_14,
    AestheticPredictor,
    Clip,
    directional_similarity,
)
from emoedit.types import CheckpointError, DataError, ImageError
from tests.fixtures.clip import SIDE, STD, TOKENS, WIDTH, transformers, write_clip

FACES = ["a photo of a sad face", "a photo of a smiling face", "smiling face", "face"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder):
    return Clip.from_pretrained(folder)


@pytest.fixture(scope="module")
def reference(folder):
    """transformers' own way from 8-bit pictures and words to scores."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    return model, tokenizer, transformers.CLIPImageProcessor.from_pretrained(folder)


def copy(folder, target):
    return Path(shutil.copytree(folder, target / "clip"))


def tensor(pixels):
    return torch.tensor(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None] / 127.5 - 1


def noise(count, side=SIDE, channels=3, seed=0):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# Embeddings


@pytest.mark.parametrize(
    "crop",
    [np.s_[:300, :300], np.s_[:200, :301], np.s_[:333, 90:180], np.s_[::20, ::20], np.s_[:32, :32]],
    ids=["square", "wide", "tall", "enlarged", "as it is"],
)
def test_pictures_are_seen_as_transformers_shows_them(clip, reference, astronaut, crop):
    pixels = astronaut[crop]
    model, _, processor = reference
    expected = processor(images=Image.fromarray(np.ascontiguousarray(pixels)), return_tensors="pt").pixel_values
    difference = (clip.pixels(tensor(pixels)) - expected).abs()
    assert difference.max() < 1 / 255 / min(STD) + 1e-4  # one 8-bit level
    assert difference.mean() < 0.3 / 255 / min(STD)
    with torch.no_grad():
        found = model.get_image_features(pixel_values=expected)
    found = nn.functional.normalize(getattr(found, "pooler_output", found), dim=1)
    assert (clip.image_embeddings(tensor(pixels)) @ found.T).item() > 0.999


def test_scores_agree_with_transformers(clip, reference, astronaut):
    model, tokenizer, _ = reference
    pictures = torch.cat([tensor(astronaut[top : top + SIDE, 200 : 200 + SIDE]) for top in (0, 60, 120, 300)])
    with torch.no_grad():
        both = model(pixel_values=clip.pixels(pictures), **tokenizer(FACES, padding=True, return_tensors="pt"))
    expected = both.logits_per_image.diag() / model.logit_scale.exp()
    found = F.cosine_similarity(clip.image_embeddings(pictures), clip.text_embeddings(FACES))
    assert expected.std() > 0.01  # else agreement says nothing
    assert torch.allclose(found, expected, atol=1e-5)


def test_embeddings_are_unit_vectors_that_do_not_depend_on_the_batch(clip):
    pictures = noise(5)
    images, texts = clip.image_embeddings(pictures), clip.text_embeddings(FACES)
    assert images.shape == (5, WIDTH) and texts.shape == (len(FACES), WIDTH)
    assert images.dtype == texts.dtype == torch.float32 and not images.requires_grad
    for unit in (images, texts):
        assert torch.allclose(unit.norm(dim=1), torch.ones(len(unit)), atol=1e-5)
        assert float((unit @ unit.T).fill_diagonal_(0).max()) < 0.99  # different things look different
    assert torch.allclose(images[3:4], clip.image_embeddings(pictures[3:4]), atol=1e-5)
    assert torch.allclose(texts[3:4], clip.text_embeddings(FACES[3:4]), atol=1e-5)
    again = [FACES[2], FACES[0], FACES[2]]
    assert torch.allclose(clip.text_embeddings(again), texts[[2, 0, 2]], atol=1e-5)


def test_luminance_is_grey(clip):
    grey = noise(2, side=40, channels=1)
    assert torch.allclose(clip.image_embeddings(grey), clip.image_embeddings(grey.expand(-1, 3, -1, -1)), atol=1e-6)


@pytest.mark.parametrize(
    "pictures",
    [torch.zeros(3, 8, 8), torch.zeros(1, 2, 8, 8), torch.zeros(0, 3, 8, 8), torch.full((1, 3, 8, 8), 255.0),
     torch.full((1, 3, 8, 8), torch.nan), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)],
    ids=["one", "channels", "empty", "range", "nan", "bytes"],
)  # fmt: skip
def test_what_is_no_batch_of_pictures_is_refused(clip, pictures):
    with pytest.raises(ImageError):
        clip.image_embeddings(pictures)


def test_what_is_no_list_of_texts_is_refused(clip):
    for texts in ("a face", [], ["a face", None]):
        with pytest.raises(DataError, match="list of at least one string"):
            clip.text_embeddings(texts)
    with pytest.raises(DataError, match=f"tokens, this CLIP reads {TOKENS}"):
        clip.text_embeddings(["face", "face " * TOKENS])
    assert clip.text_embeddings(["face " * (TOKENS - 2)]).isfinite().all()  # start and end take a place each


# Scores


def test_directional_similarity_in_closed_form():
    e = torch.eye(4)
    before, after = e[[0, 0, 0, 0, 0]], e[[1, 0, 1, 1, 0]]
    text_before, text_after = e[[0, 1, 2, 2, 2]], e[[1, 0, 3, 2, 3]]
    found = directional_similarity(before, after, text_before, text_after)
    assert found.tolist() == pytest.approx([1, 0, 0, 0, 0], abs=1e-6)  # along, no change, across, no text, neither
    assert directional_similarity(after, before, text_before, text_after)[0] == pytest.approx(-1)
    assert directional_similarity(e[:1], e[1:2], e[:1], e[2:3]).item() == pytest.approx(0.5)
    almost = e[:1] + torch.tensor([[0, 1e-7, 0, 0]])  # what is left of nothing in float32 has a direction too
    assert directional_similarity(e[:1], almost, e[:1], e[1:2]).item() == 0


def test_directional_similarity_agrees_with_numpy():
    parts = [nn.functional.normalize(noise(1, side=12, channels=1, seed=s)[0, 0], dim=1) for s in range(4)]
    image, text = (b.double().numpy() - a.double().numpy() for a, b in (parts[:2], parts[2:]))
    expected = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    found = directional_similarity(*parts)
    assert found.shape == (12,) and found.dtype == torch.float32
    assert np.allclose(found, expected, atol=1e-5)


def test_embeddings_that_do_not_match_are_refused():
    with pytest.raises(DataError, match=r"\(2, 4\), \(2, 5\)"):
        directional_similarity(*[torch.zeros(2, 4)] * 3, torch.zeros(2, 5))
    with pytest.raises(DataError):
        directional_similarity(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(1, 4), torch.zeros(2, 4))
    with pytest.raises(DataError):
        directional_similarity(*[torch.zeros(4)] * 4)


def test_doing_nothing_goes_nowhere(clip):
    pictures = noise(3)
    same, other = clip.image_embeddings(pictures), clip.image_embeddings(-pictures)
    face, smiling = (clip.text_embeddings([text] * 3) for text in ("face", "smiling face"))
    assert directional_similarity(same, same.clone(), face, smiling).tolist() == [0, 0, 0]
    assert directional_similarity(same, other, face, face).tolist() == [0, 0, 0]


# Aesthetic predictors

FIVE = {"0": (1024, WIDTH), "2": (128, 1024), "4": (64, 128), "6": (16, 64), "7": (1, 16)}


def linear_state():
    return {"weight": noise(1, WIDTH, 1)[0, 0, :1] * 3, "bias": torch.tensor([5.0])}


def five_state():
    torch.manual_seed(0)
    state = {}
    for place, (outputs, inputs) in FIVE.items():
        state[f"layers.{place}.weight"] = torch.randn(outputs, inputs) / inputs**0.5 * 3
        state[f"layers.{place}.bias"] = torch.randn(outputs)
    return state


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("aesthetic") / "linear.pth"
    torch.save(linear_state(), path)
    return AestheticPredictor.from_file(path)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("state", [linear_state, five_state])
def test_both_layouts_agree_with_a_direct_computation(tmp_path, state, ending):
    path, weights = tmp_path / f"predictor{ending}", state()
    (torch.save if ending == ".pth" else save_file)(weights, path)
    embeddings = noise(6, WIDTH, 1)[:, 0, 0] * 7
    x = embeddings.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    for key in weights:
        if key.endswith("weight"):
            bias = weights[key.removesuffix("weight") + "bias"]
            x = x @ weights[key].double().numpy().T + bias.double().numpy()
    model = AestheticPredictor.from_file(path)
    assert model.width == WIDTH
    for mode in (model.eval(), model.train()):  # no dropout in either
        found = mode(embeddings)
        assert found.shape == (6,) and found.dtype == torch.float32
        assert np.allclose(found, x[:, 0], rtol=1e-4, atol=1e-4)
    assert np.ptp(x) > 0.1


def replaced(state, **parts):
    return {**state, **{key.replace("__", "."): value for key, value in parts.items()}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no aesthetic predictor: found nothing, expected weight"),
        ({"fc.weight": torch.zeros(1, WIDTH)}, r"found fc.weight \(1, 768\), expected weight"),
        ({"weight": torch.zeros(1, WIDTH)}, r"1 missing \(bias\)"),
        (replaced(linear_state(), bias=torch.zeros(2)), r"bias is \(2,\), expected \(1,\)"),
        (replaced(linear_state(), weight=torch.zeros(WIDTH)), r"found weight \(768,\)"),
        (replaced(linear_state(), bias=torch.tensor([torch.nan])), "not finite"),
        (replaced(five_state(), layers__4__weight=torch.zeros(64, 99)), r"layers.4.weight is \(64, 99\)"),
        ({k.replace("2", "3").replace("4", "6"): v for k, v in five_state().items()}, "missing.*unexpected"),
        ({"state_dict": linear_state()}, "holds a dict, expected names -> tensors"),
        ([torch.zeros(1, WIDTH)], "holds a list"),
        (nn.Linear(WIDTH, 1), "holds more than tensors"),
    ],
    ids=["empty", "keys", "missing", "bias", "flat", "nan", "hidden", "with activations", "nested", "list", "pickle"],
)
def test_files_of_another_layout_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message):
        AestheticPredictor.from_file(tmp_path / "file.pth")


def test_files_that_are_missing_or_damaged_are_refused(tmp_path):
    torch.save(five_state(), tmp_path / "whole.pth")
    for ending in (".pth", ".safetensors"):
        with pytest.raises(CheckpointError, match="no such file.*github.com/LAION-AI"):
            AestheticPredictor.from_file(tmp_path / f"none{ending}")
        (tmp_path / f"half{ending}").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
        with pytest.raises(CheckpointError, match="damaged"):
            AestheticPredictor.from_file(tmp_path / f"half{ending}")


def test_a_predictor_of_another_clip_is_refused(clip, tmp_path):
    torch.save({"weight": torch.zeros(1, 512), "bias": torch.zeros(1)}, tmp_path / "b32.pth")
    other = AestheticPredictor.from_file(tmp_path / "b32.pth")
    with pytest.raises(CheckpointError, match=r"\[N, 512\], found \(3, 768\)"):
        other(torch.zeros(3, 768))


# Loading


def test_weights_are_frozen_and_in_single_precision(folder, clip, tmp_path):
    half = copy(folder, tmp_path)
    state = {key: value.half() if value.is_floating_point() else value for key, value in stored(half).items()}
    save_file(state, half / "model.safetensors", {"format": "pt"})
    model = Clip.from_pretrained(half)
    for each in (model, clip):
        assert not each.training
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in each.parameters())
    assert torch.allclose(model.image_embeddings(noise(2)), clip.image_embeddings(noise(2)), atol=0.02)


def stored(folder):
    return load_file(folder / "model.safetensors")


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def with_weights(change):
    return lambda folder: save_file(change(stored(folder)), folder / "model.safetensors", {"format": "pt"})


def with_text(name, text):
    return lambda folder: (folder / name).write_text(text)


VISUAL = "visual_projection.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("config.json"), "config.json is missing"),
        (without("model.safetensors"), "cannot be read as a CLIP.*model.safetensors"),
        (without("preprocessor_config.json"), "cannot be read as a CLIP"),
        (without("vocab.json", "merges.txt"), "cannot be read|tokenizer has 2 tokens and the model 519"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\1\2\3"), "cannot be read as a CLIP"),
        (with_weights(lambda s: {k: v for k, v in s.items() if k != VISUAL}), f"1 of its weights.*{VISUAL}"),
        (with_weights(lambda s: s | {VISUAL: torch.zeros(5, 5)}), f"1 of its weights.*{VISUAL}"),
        (with_weights(lambda s: s | {VISUAL: s[VISUAL] * torch.inf}), f"1 of its weights.*not finite.*{VISUAL}"),
        (with_text("config.json", '{"model_type": "bert"}'), "model_type is 'bert', expected 'clip'"),
        (with_text("preprocessor_config.json", '{"image_mean": [0.5], "image_std": [0.5]}'), "3 numbers each"),
    ],
    ids=["config", "weights", "preprocessor", "words", "cut", "lacks", "shape", "infinite", "kind", "mean"],
)  # fmt: skip
def test_folders_that_are_no_whole_clip_are_refused(folder, tmp_path, damage, message):
    broken = copy(folder, tmp_path)
    damage(broken)
    with pytest.raises(CheckpointError, match=message):
        Clip.from_pretrained(broken)


@pytest.mark.parametrize("name", ["/no/such/folder", "clip", "./clip", "a/b/c"])
def test_what_is_neither_folder_nor_name_is_refused_without_asking_the_hub(name, monkeypatch):
    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", None)
    with pytest.raises(CheckpointError, match="no folder, and no owner/name"):
        Clip.from_pretrained(name)


@pytest.fixture
def hub(folder, monkeypatch):
    """A hub that has ``here``, on this machine already, and ``there``; who was asked for what is in the list."""
    asked, load = [], transformers.CLIPModel.from_pretrained

    def weights(name, local_files_only, **options):
        asked.append((name, local_files_only))
        if name == "someone/here" or name == "someone/there" and not local_files_only:
            return load(folder, **options)
        raise OSError("no such thing\nand a long explanation")

    def rest(kind):
        load = getattr(transformers, kind).from_pretrained
        return lambda name, local_files_only: load(folder)

    for kind in ("CLIPTokenizer", "CLIPImageProcessor"):
        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", rest(kind))
    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", weights)
    return asked


def test_a_name_is_looked_for_here_first_and_then_on_the_hub(hub):
    assert Clip.from_pretrained("someone/here").width == WIDTH
    assert hub == [("someone/here", True)]
    assert Clip.from_pretrained("someone/there").width == WIDTH
    assert hub[1:] == [("someone/there", True), ("someone/there", False)]


def test_a_name_that_cannot_be_had_says_what_to_run(hub):
    with pytest.raises(CheckpointError, match=f"no such thing\\).*hf download {VIT_L_14}"):
        Clip.from_pretrained()
    assert hub == [(VIT_L_14, True), (VIT_L_14, False)]
