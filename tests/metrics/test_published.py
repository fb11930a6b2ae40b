"""Full-size networks are read from their published formats, agree with their own libraries, and never use the network.

The files hold random numbers under the names and shapes of the published ones.
"""

from __future__ import annotations

import json
import os
import socket
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.emotions import BASIC
from emoedit.faces.detect import Face
from emoedit.metrics import facenet, lpips
from emoedit.metrics.classifier import TransformersExpression
from emoedit.metrics.facenet import MARGIN, SIDE, FaceNet
from emoedit.metrics.lpips import LPIPSDistance
from emoedit.types import CheckpointError, ImageError, MissingExtraError, UnknownNameError


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whoever tries to reach the network fails the test, even where the attempt is caught."""
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not attempts


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def randomised(model, seed=0):
    """The model's state dict with numbers that no untrained model has."""
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator)
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1000)
        elif value.ndim > 1:
            fan_in = value[0].numel()
            state[name] = torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5
        else:
            state[name] = 0.1 * torch.randn(value.shape, generator=generator) + name.endswith("bn.weight")
    return state


# FaceNet


@pytest.fixture(scope="session")
def facenet_state():
    from facenet_pytorch import InceptionResnetV1

    with torch.device("meta"):
        network = InceptionResnetV1(classify=True, num_classes=8631)
    return randomised(network)


@pytest.fixture(scope="session")
def facenet_file(tmp_path_factory, facenet_state):
    path = tmp_path_factory.mktemp("facenet") / "20180402-114759-vggface2.pt"
    torch.save(facenet_state, path, _use_new_zipfile_serialization=False)  # as of 2019
    return path


@pytest.fixture(scope="session")
def model(facenet_file):
    return FaceNet.from_file(facenet_file)


def crops(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def test_embeddings_are_facenet_pytorchs(model, facenet_state):
    from facenet_pytorch import InceptionResnetV1, fixed_image_standardization

    with torch.device("meta"):
        reference = InceptionResnetV1(classify=True, num_classes=8631).eval()
    reference.load_state_dict(facenet_state, assign=True)
    reference.classify = False
    faces = crops(3)
    with torch.no_grad():
        expected = reference(fixed_image_standardization(torch.from_numpy(faces).permute(0, 3, 1, 2).float()))
    found = model.embed(faces)
    assert found.shape == (3, 512) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (expected - expected[0]).abs().max() > 1e-3  # pictures do differ under these weights
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_each_face_is_embedded_by_itself_and_training_mode_is_refused(model, monkeypatch):
    faces = crops(3)
    whole = model.embed(faces)
    monkeypatch.setattr(facenet, "BATCH", 2)
    torch.testing.assert_close(model.embed(faces), whole, atol=1e-5, rtol=0)
    model.train()
    torch.testing.assert_close(model.embed(torch.from_numpy(faces[2:])), whole[2:], atol=1e-5, rtol=0)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not whole.requires_grad
    assert next(model.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_crops_are_facenet_pytorchs(astronaut):
    from facenet_pytorch import extract_face

    rng = np.random.default_rng(0)
    corners = rng.uniform(-80, 400, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(100, 260, (40, 2))], 1)  # many over an edge
    for box in boxes:
        found = FaceNet.faces(astronaut, Face(tuple(box), np.zeros((5, 2)), 1.0))
        expected = extract_face(Image.fromarray(astronaut), box, SIDE, MARGIN).permute(1, 2, 0).numpy()
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_the_margin_shows_what_is_around_the_box():
    photo = np.zeros((300, 300, 3), np.uint8)
    photo[100:200, 100:200] = 255
    crop = FaceNet.faces(photo, Face((100.0, 100.0, 200.0, 200.0), np.zeros((5, 2)), 1.0))
    inside = (crop[SIDE // 2, :, 0] > 127).sum()
    assert inside == pytest.approx(SIDE - MARGIN, abs=2)
    assert crop[0, 0, 0] == 0 and crop[SIDE // 2, SIDE // 2, 0] == 255


@pytest.mark.parametrize(
    "box",
    [(600.0, 10.0, 700.0, 90.0), (-90.0, 10.0, -40.0, 90.0), (50.0, 50.0, 40.0, 90.0), (50.0, np.nan, 90.0, 90.0)],
)
def test_a_box_that_holds_nothing_of_the_photograph_is_refused(astronaut, box):
    with pytest.raises(ImageError, match="box"):
        FaceNet.faces(astronaut, Face(box, np.zeros((5, 2)), 1.0))


@pytest.mark.parametrize("photo", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)])
def test_what_is_no_photograph_is_refused(photo):
    with pytest.raises(ImageError, match=r"uint8 \[H, W, 3\]"):
        FaceNet.faces(photo, Face((0.0, 0.0, 9.0, 9.0), np.zeros((5, 2)), 1.0))


def test_what_are_no_faces_is_refused(model):
    for faces in (crops(2).astype(np.float32), crops(2)[0], crops(2)[:, :150], crops(2)[:0], crops(2)[..., :1]):
        with pytest.raises(ImageError, match=r"uint8 \[N, 160, 160, 3\]"):
            model.embed(faces)


def test_the_published_file_is_found_in_the_cache_and_its_absence_says_how_to_fetch_it(facenet_file, cache, model):
    assert not FaceNet.available()
    with pytest.raises(CheckpointError) as caught:
        FaceNet.from_file()
    target = cache / "20180402-114759-vggface2.pt"
    url = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt"
    assert str(caught.value).startswith(f"{target} is missing")
    assert str(caught.value).endswith(f"curl -fL --create-dirs -o {target} {url}")
    with pytest.raises(CheckpointError, match="elsewhere.pt is missing"):
        FaceNet.from_file(cache / "elsewhere.pt")
    os.link(facenet_file, target)
    assert FaceNet.available()
    assert torch.equal(FaceNet.from_file().embed(crops(1)), model.embed(crops(1)))


def test_safetensors_without_classes_and_counters_and_in_half_precision(tmp_path, facenet_state, model):
    from safetensors.torch import save_file

    dropped = ("num_batches_tracked", "logits.weight", "logits.bias")
    kept = {name: value.half() for name, value in facenet_state.items() if not name.endswith(dropped)}
    save_file(kept, tmp_path / "facenet.safetensors")
    half = FaceNet.from_file(tmp_path / "facenet.safetensors")
    assert {v.dtype for v in half.parameters()} == {torch.float32}
    cosine = (half.embed(crops(2)) * model.embed(crops(2))).sum(1)
    assert cosine.min() > 0.99
    kept["repeat_2.4.branch1.0.bn.running_var"][7] = -1
    save_file(kept, tmp_path / "facenet.safetensors")
    with pytest.raises(CheckpointError, match="repeat_2.4.branch1.0.bn.running_var holds a negative variance"):
        FaceNet.from_file(tmp_path / "facenet.safetensors")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "facenet.pt"
    casia = {"logits.weight": torch.zeros(10575, 512), "logits.bias": torch.zeros(10575)}
    weight = torch.zeros(32, 3, 3, 3)
    for state, message in (
        (casia, r"logits.weight is \(10575, 512\), expected \(8631, 512\)"),
        ({"conv2d_1a.conv.weight": weight[:30]}, r"conv2d_1a.conv.weight is \(30, 3, 3, 3\), expected \(32, 3, 3, 3\)"),
        ({"conv2d_1a.conv.weight": weight / 0}, r"missing.*conv2d_1a.conv.weight holds values that are not finite"),
        ({"conv1.weight": weight}, r"missing \(block8.*1 unexpected \(conv1.weight\)"),
        ({"state_dict": {"conv2d_1a.conv.weight": weight}}, "holds at 'state_dict' a dict"),
        ({"conv2d_1a.conv.weight": weight.long()}, "dense floating-point"),
        ({"conv2d_1a.conv.weight": torch.zeros(()).expand(10**6, 10**6)}, "has only 1 numbers in the file"),
        ({"conv2d_1a.conv.weight": weight.to_sparse()}, "a sparse tensor"),
        ({"conv2d_1a.conv.weight": weight.to("meta")}, "on the meta device"),
        ([weight], "holds a list"),
        ({}, "expected a state dict"),
        (Hostile(tmp_path / "ran"), "more than tensors"),
    ):
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=message) as caught:
            FaceNet.from_file(path)
        assert str(path) in str(caught.value)
    whole = path.read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2]):
        for name in ("facenet.pt", "facenet.safetensors"):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(CheckpointError, match="cannot be read"):
                FaceNet.from_file(tmp_path / name)
    assert not (tmp_path / "ran").exists()


# LPIPS


@pytest.fixture(scope="session")
def trunks(tmp_path_factory):
    """Net -> file as torchvision publishes it, made when it is first asked for."""
    import torchvision

    folder = tmp_path_factory.mktemp("trunks")

    def make(net):
        architecture, published = lpips.TRUNKS[net]
        path = folder / published.cached.name
        if not path.exists():
            with torch.device("meta"):
                network = torchvision.models.get_model(architecture)
                classifier, network.classifier = network.classifier.state_dict(), torch.nn.Identity()
            unused = {f"classifier.{name}": torch.zeros(value.shape) for name, value in classifier.items()}
            torch.save(randomised(network) | unused, path, _use_new_zipfile_serialization=net == "alex")  # both formats
        return path

    return make


def pictures(count=2, channels=3, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, channels, side, side, generator=generator) - 1


@pytest.mark.parametrize("net", ["alex", "squeeze", pytest.param("vgg", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_distances_are_those_of_lpips_with_the_same_trunk(net, trunks, cache, capsys):
    import lpips as reference

    trunk = trunks(net)
    os.link(trunk, cache / trunk.name)  # where torchvision looks before it would download
    expected = reference.LPIPS(net=net, pretrained=True, verbose=False)
    assert capsys.readouterr().out == ""
    random_state = torch.get_rng_state()
    model = LPIPSDistance(net)
    assert capsys.readouterr().out == "" and torch.equal(torch.get_rng_state(), random_state)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
    assert model.state_dict().keys() == {f"network.{name}" for name in expected.state_dict()}
    for side in (32, 75):
        a, b = pictures(side=side), pictures(side=side, seed=1)
        with torch.no_grad():
            torch.testing.assert_close(model(a, b), expected(a, b).flatten(), atol=1e-6, rtol=1e-6)
    assert model(a, b).min() > 0.01
    assert torch.equal(model(a, a), torch.zeros(2))


@pytest.fixture(scope="session")
def squeeze(trunks):
    return LPIPSDistance("squeeze", trunks("squeeze"))


def test_lpips_is_symmetric_grows_with_noise_and_reads_luminance_as_grey(squeeze):
    a, noise = pictures(), pictures(seed=1)
    levels = [squeeze(a, (1 - t) * a + t * noise) for t in (0, 0.1, 0.3, 1)]
    assert all(bool((low < high).all()) for low, high in zip(levels, levels[1:], strict=False))
    torch.testing.assert_close(squeeze(a, noise), squeeze(noise, a))
    grey, other = pictures(channels=1), pictures(channels=1, seed=1)
    expected = squeeze(grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1))
    torch.testing.assert_close(squeeze(grey, other), expected)


def test_gradients_reach_the_pictures_but_not_the_networks(squeeze):
    a = pictures(1).requires_grad_()
    squeeze(a, pictures(1, seed=1)).sum().backward()
    assert a.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in squeeze.parameters())


def test_what_lpips_cannot_compare_is_refused(squeeze):
    a = pictures()
    for x, y in ((a, pictures(3)), (a[0], a[0]), (a[:0], a[:0]), (a, a + 1), (a * torch.nan, a), (a.byte(), a.byte())):
        with pytest.raises(ImageError):
            squeeze(x, y)
    with pytest.raises(ImageError, match="at least 32 pixels"):
        squeeze(a[..., :31], a[..., :31])


@pytest.mark.parametrize(
    ("net", "name"),
    [("alex", "alexnet-owt-7be5be79.pth"), ("vgg", "vgg16-397923af.pth"), ("squeeze", "squeezenet1_1-b8a52dc0.pth")],
)
def test_a_missing_trunk_says_how_to_fetch_it(net, name, cache):
    assert not LPIPSDistance.available(net)
    with pytest.raises(CheckpointError) as caught:
        LPIPSDistance(net)
    assert str(caught.value).startswith(f"{cache / name} is missing")
    command = f"curl -fL --create-dirs -o {cache / name} https://download.pytorch.org/models/{name}"
    assert str(caught.value).endswith(command)
    (cache / name).write_bytes(b"")
    assert LPIPSDistance.available(net)
    with pytest.raises(CheckpointError, match="cannot be read"):
        LPIPSDistance(net)


def test_trunks_that_do_not_fit_are_refused_and_features_alone_do(trunks, tmp_path, squeeze):
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match="missing.*unexpected"):
        LPIPSDistance("alex", trunks("squeeze"))
    state = torch.load(trunks("squeeze"))
    features = {name: value for name, value in state.items() if name.startswith("features.")}
    save_file(features, tmp_path / "trunk.safetensors")
    alone = LPIPSDistance("squeeze", tmp_path / "trunk.safetensors")
    assert torch.equal(alone(pictures(), pictures(seed=1)), squeeze(pictures(), pictures(seed=1)))
    del features["features.12.expand3x3.bias"]
    save_file(features, tmp_path / "trunk.safetensors")
    with pytest.raises(CheckpointError, match="1 missing .features.12.expand3x3.bias"):
        LPIPSDistance("squeeze", tmp_path / "trunk.safetensors")


def test_another_net_and_a_missing_package_are_named(monkeypatch):
    for build in (LPIPSDistance, LPIPSDistance.available):
        with pytest.raises(UnknownNameError, match="unknown LPIPS net 'alexnet'.*'alex'"):
            build("alexnet")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingExtraError, match=r"lpips.*\[metrics\]"):
        LPIPSDistance("alex")


# Classifiers of transformers

LABELS = ("anger", "Contempt", "disgust", "fear", "Happiness", "neutral", "sadness", "surprise")
NAMES = ("angry", "contempt", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")


def write_classifier(folder, kind="vit", labels=LABELS, **more):
    """A tiny random model as ``save_pretrained`` writes it."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    options = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}, **more}
    if kind == "vit":
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        network = ViTForImageClassification(ViTConfig(**shape, image_size=32, patch_size=8, **options))
        processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
        processor |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2}
    else:
        shape = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
        network = ResNetForImageClassification(ResNetConfig(**shape, **options))
        processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}, "crop_pct": 0.875}
        processor |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}
    for parameter in network.parameters():
        parameter.data *= 5  # far from uniform probabilities
    network.save_pretrained(folder)
    processor |= {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return {kind: write_classifier(tmp_path_factory.mktemp(kind), kind) for kind in ("vit", "resnet")}


def faces_of(astronaut, size=(90, 80)):
    """Pictures that differ: the portrait, darker and mirrored, resized to width and height."""
    variants = [astronaut, astronaut // 2, astronaut[:, ::-1], np.roll(astronaut, 99, 0), 255 - astronaut]
    return np.stack([np.asarray(Image.fromarray(v).resize(size)) for v in variants])


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_scores_are_those_of_transformers_pipeline(folders, kind, astronaut, monkeypatch):
    from transformers import pipeline

    faces = faces_of(astronaut)
    reference = pipeline("image-classification", model=str(folders[kind]), device="cpu")
    listed = reference([Image.fromarray(face) for face in faces], top_k=len(LABELS))
    expected = [[{entry["label"]: entry["score"] for entry in row}[label] for label in LABELS] for row in listed]
    model = TransformersExpression(folders[kind])
    assert model.emotions == NAMES
    scores = model.scores(faces)
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.sum(1), torch.ones(len(faces)))
    assert (scores - scores[0]).abs().max() > 0.01 and scores.dtype == torch.float32
    monkeypatch.setattr("emoedit.metrics.classifier.BATCH", 2)
    model.train()
    torch.testing.assert_close(model.scores(torch.from_numpy(faces)), scores, atol=1e-6, rtol=0)


def test_a_narrow_picture_is_not_mistaken_for_channels(folders, astronaut):
    faces = np.ascontiguousarray(faces_of(astronaut)[:, :3])  # [N, 3, W, 3]
    assert TransformersExpression(folders["vit"]).scores(faces).shape == (5, 8)


def test_labels_become_names_and_unknown_ones_stay_apart(tmp_path, folders, astronaut):
    labels = ("joy", "angry", "happy", "blurred face", "sad", "fear", "other", "surprise")
    folder = write_classifier(tmp_path / "own", labels=labels)
    model = TransformersExpression(str(folder))
    assert model.emotions == ("happy", "angry", "other:blurred face", "sad", "fearful", "other:other", "surprised")
    each = TransformersExpression(folders["vit"]).scores(faces_of(astronaut))  # the same weights, eight names
    expected = torch.stack([each[:, 0] + each[:, 2], *each[:, [1, 3, 4, 5, 6, 7]].unbind(1)], 1)
    torch.testing.assert_close(model.scores(faces_of(astronaut)), expected)


@pytest.mark.parametrize(
    "labels",
    [("LABEL_0", "LABEL_1", "LABEL_2"), ("happy", "sad", "LABEL_2"), ("cat", "dog"), ("happy", "contempt", "smile")],
)
def test_labels_that_are_no_emotions_are_listed_with_what_is_expected(tmp_path, labels):
    folder = write_classifier(tmp_path / "own", labels=labels)
    with pytest.raises(CheckpointError) as caught:
        TransformersExpression(folder)
    assert ", ".join(labels) in str(caught.value) and ", ".join(BASIC) in str(caught.value)


def test_labels_that_do_not_exclude_each_other_are_refused(tmp_path):
    folder = write_classifier(tmp_path / "own", problem_type="multi_label_classification")
    with pytest.raises(CheckpointError, match="multi_label_classification, expected labels that exclude each other"):
        TransformersExpression(folder)


@pytest.fixture
def own(tmp_path):
    return write_classifier(tmp_path / "own")


def test_weights_in_other_formats_are_refused_unread(own, tmp_path):
    (own / "model.safetensors").unlink()
    torch.save(Hostile(tmp_path / "ran"), own / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no .safetensors file \(found .*pytorch_model.bin"):
        TransformersExpression(own)
    # nor beside a safetensors file that is not the model's
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, own / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="no image classifier that transformers reads.*no file named model.safe"):
        TransformersExpression(own)
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_are_refused_instead_of_drawn_at_random(own):
    from safetensors.torch import load_file, save_file

    path = own / "model.safetensors"
    state = load_file(path)
    for change, message in (
        ({"classifier.weight": None}, "1 weights missing or unusable, first classifier.weight"),
        ({"classifier.weight": torch.zeros(5, 32)}, "no image classifier|classifier.weight"),
        ({"classifier.bias": torch.full((8,), torch.nan)}, r"classifier.bias \(not finite\)"),
    ):
        save_file({k: v for k, v in (state | change).items() if v is not None}, path, {"format": "pt"})
        with pytest.raises(CheckpointError, match=message):
            TransformersExpression(own)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="no image classifier that transformers reads"):
        TransformersExpression(own)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_code_that_comes_with_a_model_is_not_run(own, tmp_path):
    (own / "theirs.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    names = {"AutoConfig": "theirs.C", "AutoModelForImageClassification": "theirs.M"}
    change_json(own / "config.json", auto_map=names, attn_implementation="someone/kernel")
    change_json(own / "preprocessor_config.json", auto_map={"AutoImageProcessor": "theirs.P"})
    assert TransformersExpression(own).emotions == NAMES  # the library has code of its own for this kind
    change_json(own / "config.json", model_type="theirs")
    with pytest.raises(CheckpointError, match="without running its code"):
        TransformersExpression(own)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        *((name, contents) for name in ("config.json", "preprocessor_config.json") for contents in (None, "{", "[]")),
        ("config.json", '{"model_type": "bert", "id2label": {"0": "happy", "1": "sad"}}'),  # reads text
        ("config.json", '{"model_type": "vit", "id2label": {"0": "happy", "7": "sad"}}'),
        ("preprocessor_config.json", '{"image_processor_type": "NoSuchProcessor"}'),
    ],
)
def test_folders_with_missing_or_damaged_parts_are_refused(own, name, contents):
    (own / name).unlink()
    if contents is not None:
        (own / name).write_text(contents)
    with pytest.raises(CheckpointError):
        TransformersExpression(own)


def test_a_model_of_the_hub_is_downloaded_without_what_is_not_read(folders, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        needed = [path.name for path in folders["vit"].iterdir()]
        listed = [*needed, "pytorch_model.bin", "modeling.py", "README.md", "model.onnx"]
        assert list(filter_repo_objects(listed, allow_patterns=allow_patterns)) == needed
        return str(folders["vit"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert TransformersExpression("someone/their-classifier").emotions == NAMES
    assert asked == ["someone/their-classifier"]

    def unreachable(name, allow_patterns):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="no folder 'someone/classifier' here, and the hub did not give it"):
        TransformersExpression("someone/classifier")
    for name in ("nothing", "./a/b", str(tmp_path / "none")):
        with pytest.raises(CheckpointError, match="no expression classifier"):
            TransformersExpression(name)


def test_what_are_no_pictures_is_refused(folders):
    model = TransformersExpression(folders["vit"])
    good = np.zeros((2, 40, 40, 3), np.uint8)
    for faces in (good[0], good[:0], good[..., :1], good.astype(np.float32), good[:, :0]):
        with pytest.raises(ImageError, match=r"uint8 \[N, H, W, 3\]"):
            model.scores(faces)
