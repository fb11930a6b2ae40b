"""The recipe of the embedded Stable Diffusion, part by part at tiny widths: captions and vocabulary, the contrastive
towers, the autoencoder, the U-Net that starts from an unconditional one."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emoedit.emotions import BASIC, list_emotions
from emoedit.metrics.clip import Clip
from emoedit.models.stable_diffusion import files
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.config import StableDiffusionConfig
from emoedit.models.stable_diffusion.text import token_ids
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.steering.tokens import EmotionTokens
from emoedit.training.augment import Augment
from emoedit.training.autoencoder import START, AutoencoderTask, face_psnr
from emoedit.training.captions import (
    ADJECTIVES,
    LOOKS,
    CaptionedBatches,
    learn_tokenizer,
    vocabulary_texts,
    write_caption,
)
from emoedit.training.contrastive import ContrastiveTask, new_clip, text_config, text_tower, write_clip, zero_shot
from emoedit.training.data import CropSet, MixtureBatches
from emoedit.training.guides import ClipGuide, word_embeddings
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.text_to_image import TextToImageTask, copy_unconditional_weights, draw, held_out_losses
from emoedit.training.tokens import pick_pictures, read_emotions
from emoedit.types import CheckpointError, DataError
from tests.fixtures.stable_diffusion import TINY_TEXT, TINY_UNET, TINY_VAE, smooth

KINDS = {"sharp": ("photo", "close-up photo"), "soft": ("small soft picture",)}
SKELETON = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
PLAIN = {
    **SKELETON,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "attention_head_dim": 8,
}
TEXTUAL = {
    **SKELETON,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [8, 2, 8],
    "cross_attention_dim": 16,
}
CLIP = {
    "text": {**{k: v for k, v in TINY_TEXT.items() if k != "max_position_embeddings"}},
    "vision": {
        "num_channels": 1,
        "image_size": 16,
        "patch_size": 4,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "projection_dim": 8,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return learn_tokenizer(vocabulary_texts(KINDS, 400), tmp_path_factory.mktemp("tokenizer"), merges=200, length=24)


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> CropSet:
    """Forty crops of 16 pixels in two data sets; happy ones are bright below, sad ones dark."""
    folder, rng = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    x = rng.integers(96, 160, (40, 16, 16)).astype(np.uint8)
    x[0::2, 8:] += 80
    x[1::2, 8:] -= 80
    np.save(folder / "crops.npy", x)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "name", "emotion", "split"])
        for n in range(40):
            writer.writerow(["soft" if n % 4 < 2 else "sharp", n, "sad" if n % 2 else "happy", "train"])
    return CropSet(folder)


def drawn(crops: CropSet, count: int = 8, **how) -> MixtureBatches:
    how = {"batch_size": count, "resolution": 16, "split": "train", "seed": 0, **how}
    return MixtureBatches(crops, {"sharp": 1, "soft": 1}, **how)


def model(tokenizer, **settings) -> StableDiffusionBackbone:
    torch.manual_seed(0)
    parts = {
        "unet": TEXTUAL,
        "vae": {**TINY_VAE, "latent_channels": 4, "mid_block_add_attention": False, "scaling_factor": 1.0},
        "text_encoder": text_config(TINY_TEXT, tokenizer),
    }
    how = {"steps": 4, "t_last": 600, "t_text_max": 450, "t_edit": 300, **parts, **settings}
    return StableDiffusionBackbone(StableDiffusionConfig(**how), tokenizer).eval()


# Captions


def test_a_caption_is_true_of_its_picture_and_says_so():
    rng = np.random.default_rng(0)
    texts = set()
    for n in range(4000):
        emotion, data = BASIC[n % 7], ("sharp", "soft")[n % 2]
        caption = write_caption(rng, emotion, data, KINDS)
        texts.add(caption.text)
        assert caption.fits(emotion, data)
        said = {name for name, words in ADJECTIVES.items() if any(word in caption.text.split() for word in words)}
        assert said == ({caption.emotion} if caption.emotion else set())
        kinds = {name for name, phrases in KINDS.items() if any(f"{phrase} of" in caption.text for phrase in phrases)}
        assert kinds == ({caption.data} if caption.data else set())
        assert caption.fits("other", data) is (caption.emotion == "")
        assert caption.fits(emotion, "other") is (caption.data == "")
    assert {"", "smiling face", "a face", "a small soft picture of an angry person"} <= texts
    assert any(" with raised brows" in text for text in texts)
    assert set(ADJECTIVES) == set(BASIC) and set(LOOKS) <= set(BASIC)


def test_a_share_of_captions_is_empty_and_unknown_labels_are_left_out():
    rng = np.random.default_rng(0)
    captions = [write_caption(rng, "contempt", "elsewhere", KINDS, empty=0.25) for _ in range(2000)]
    assert np.mean([caption.text == "" for caption in captions]) == pytest.approx(0.25, abs=0.03)
    assert {caption.text for caption in captions} == {"", "face", "person", "a face", "a person"}
    assert {(caption.emotion, caption.data) for caption in captions} == {("", "")}


def test_the_vocabulary_reads_any_text_and_captions_word_by_word(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    assert len(tokenizer) == 714 and tokenizer.model_max_length == 24
    assert tokenizer.tokenize("a photo of a happy face") == [f"{w}</w>" for w in "a photo of a happy face".split()]
    start, *inner, end = tokenizer("Ünïcode 😀 «x» \t12%")["input_ids"]
    assert (start, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id) and tokenizer.unk_token_id not in inner
    assert tokenizer.decode(inner).startswith("ünïcode")
    for name in list_emotions():
        assert tokenizer.unk_token_id not in tokenizer(name, add_special_tokens=False)["input_ids"]
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again("a <happy> face!")["input_ids"] == tokenizer("a <happy> face!")["input_ids"]
    assert files.read_tokenizer(tmp_path).model_max_length == 24


def test_captioned_batches_are_a_function_of_the_step(crops, tokenizer):
    batches = CaptionedBatches(drawn(crops), tokenizer, KINDS)
    first, again, other = batches(3), batches(3), batches(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["ids"], other["ids"]) and not torch.equal(first["ids"], batches(3, 1)["ids"])
    assert torch.equal(first["x"], drawn(crops)(3))  # the pictures are those without captions
    assert first["ids"].shape == (8, 24) and first["fits"].shape == (8, 8)
    assert bool(first["fits"].diagonal().all()) and not bool(first["fits"].all())
    changed = CaptionedBatches(drawn(crops), tokenizer, KINDS, how=Augment())(3)
    assert changed["x"].shape == first["x"].shape and not torch.equal(changed["x"], first["x"])
    assert torch.equal(changed["ids"], first["ids"])


# Contrastive towers


def test_true_pairs_are_not_punished(crops, tokenizer):
    """The loss is 0 where every true pair is as likely as the others and no other pair is likely at all."""
    task = ContrastiveTask(new_clip(CLIP, tokenizer))
    batch = CaptionedBatches(drawn(crops), tokenizer, KINDS, empty=0.0)(0)
    classes = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])

    class Known(nn.Module):
        def forward(self, x):
            return F.one_hot(classes, 8).float()

    task.clip.visual_projection = task.clip.text_projection = Known()
    nn.init.constant_(task.clip.logit_scale, 4.6)
    with torch.no_grad():
        alike = task({**batch, "fits": classes[:, None] == classes[None]})
        single = task({**batch, "fits": torch.eye(8, dtype=torch.bool)})
    assert float(alike["loss"]) == pytest.approx(0, abs=1e-5) and float(alike["hit"]) == 1
    assert float(single["loss"]) == pytest.approx(np.log(2), abs=1e-4)


def test_the_towers_learn_words_and_are_read_as_clip(crops, tokenizer, tmp_path):
    torch.manual_seed(0)
    how = TrainerConfig(steps=40, learning_rate=5e-3, warmup=2, ema=0.5, precision="no", save_every=40)
    batches = CaptionedBatches(drawn(crops, 16), tokenizer, KINDS, empty=0.0)
    trained = train(ContrastiveTask(new_clip(CLIP, tokenizer)), batches, tmp_path / "run", how)
    write_clip(tmp_path / "clip", trained.clip.half().float(), tokenizer)
    clip = Clip.from_pretrained(tmp_path / "clip")
    read = zero_shot(clip, crops, np.arange(40), ["sad", "happy"])
    assert (read == (np.arange(40) + 1) % 2).mean() > 0.9
    assert clip.pixels(smooth(2)).shape == (2, 1, 16, 16)
    grey = smooth(2)
    torch.testing.assert_close(clip.image_embeddings(grey.expand(-1, 3, -1, -1)), clip.image_embeddings(grey))
    guide = ClipGuide(clip, ["happy", "sad"])
    edited = (grey * 0.5).requires_grad_()
    guide(grey, edited, torch.tensor([0, 1]))["emotion"].backward()
    assert float(edited.grad.abs().max()) > 0
    # A word that is spelled by known rows is what it spells; the guide goes from the prompt without to the one with it.
    table = clip.model.text_model.get_input_embeddings().weight
    spelled = tokenizer("happy", add_special_tokens=False)["input_ids"]
    words = EmotionTokens(
        {"happy": table[spelled], "sad": torch.randn(2, table.shape[1])}, template="a photo of a {} face"
    )
    texts = clip.text_embeddings(["a photo of a happy face", "a photo of a face"])
    torch.testing.assert_close(word_embeddings(clip, words, ["happy"]), texts[:1], atol=1e-5, rtol=1e-4)
    guide = ClipGuide(clip, ["sad", "happy"], tokens=words)
    torch.testing.assert_close(guide.after[1], texts[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(guide.before, texts[1:].expand(2, -1))
    assert float((guide.after[0] - guide.after[1]).norm()) > 0.01
    with pytest.raises(DataError, match="no word for angry; there are happy, sad"):
        ClipGuide(clip, ["angry"], tokens=words)
    # transformers' own reading, and the text tower alone, give the same
    from transformers import CLIPModel

    ids = token_ids(tokenizer, ["a happy face", ""], 24)
    with torch.no_grad():
        theirs = CLIPModel.from_pretrained(tmp_path / "clip").text_model(input_ids=ids)[0]
        ours = text_tower(clip.model)(ids)[0]
    torch.testing.assert_close(ours, theirs.float())
    assert (tmp_path / "clip" / "model.safetensors").stat().st_size < 2.4 * sum(
        p.numel() for p in clip.model.parameters()
    )


# Autoencoder


def test_the_latent_is_pulled_to_the_pixels(crops, tokenizer, tmp_path):
    backbone = model(tokenizer, std=0.45)
    task = AutoencoderTask(backbone, beta=1e-6, pull=1.0)
    x = crops.pixels(np.arange(8), 16)
    before = {name: float(value.detach()) for name, value in task(x).items()}
    assert before["deviation"] == pytest.approx(np.exp(START / 2), rel=0.5)
    how = TrainerConfig(steps=80, learning_rate=5e-3, warmup=2, ema=0.5, precision="no", save_every=80)
    trained = train(task, drawn(crops), tmp_path, how)
    after = trained(x)
    assert float(after["far"].detach()) < 0.4 * before["far"] and float(after["rms"].detach()) < 0.5 * before["rms"]
    assert all(name.startswith("vae.") for name in trained.state_dict() if name != "weight")
    backbone.vae = trained.vae
    face, latent = face_psnr(backbone, crops, np.arange(40))
    z, _, _ = backbone.to_latent(x)
    squares = F.pixel_unshuffle(backbone.normalise(x)[0], 2)
    errors = (z - squares).square().mean((1, 2, 3)).detach()
    assert face > 15 and latent == pytest.approx(float((10 * (4 / errors).log10()).mean()), abs=1.5)


def test_a_latent_that_cannot_hold_the_pixels_is_refused(tokenizer):
    small = {"unet": {**TINY_UNET}, "vae": {**TINY_VAE}}
    with pytest.raises(CheckpointError, match="expected 4 channels"):
        AutoencoderTask(model(tokenizer, **small), beta=0.0, pull=1.0)


# The U-Net


def sources(**changes):
    from diffusers import UNet2DModel

    torch.manual_seed(1)
    return UNet2DModel(**{**PLAIN, **changes}).eval()


def test_the_start_is_the_unconditional_net_whatever_the_text_says():
    source, unet = sources(), files.new_unet(TEXTUAL).eval()
    fresh = copy_unconditional_weights(unet, source)
    assert all("attentions" in name for name in fresh)
    for name, value in unet.state_dict().items():
        if name not in fresh:
            assert torch.equal(value, source.state_dict()[name]), name
    # The source without the one part that has no place: attention in its mid block.
    nn.init.zeros_(source.mid_block.attentions[0].to_out[0].weight)
    nn.init.zeros_(source.mid_block.attentions[0].to_out[0].bias)
    x, t = torch.randn(3, 4, 8, 8), torch.tensor([3, 400, 900])
    with torch.no_grad():
        plain = source(x, t).sample
        for seed in (0, 1):
            text = torch.randn(3, 24, 16, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(unet(x, t, text).sample, plain, atol=1e-5, rtol=1e-5)
    task_text = torch.randn(3, 24, 16)
    loss = unet(x, t, task_text).sample.square().mean()
    loss.backward()
    last = unet.mid_block.attentions[0].proj_out
    assert float(last.weight.grad.abs().max()) > 0  # zero at the start, and free to leave it


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"block_out_channels": [8, 16, 24]}, "conv"),
        ({"norm_num_groups": 2}, "norm_num_groups"),
        ({"attention_head_dim": 4}, "heads"),
        ({"down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]}, "attentions"),
    ],
)
def test_another_skeleton_is_refused(changes, match):
    unet = files.new_unet(TEXTUAL)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with pytest.raises(CheckpointError, match=match):
        copy_unconditional_weights(unet, sources(**changes))
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_the_loss_is_that_of_denoising_under_the_caption(crops, tokenizer):
    backbone = model(tokenizer, std=0.45)
    task = TextToImageTask(backbone)
    batch = CaptionedBatches(drawn(crops, 3), tokenizer, KINDS)(0)
    torch.manual_seed(5)
    found = task(batch)
    torch.manual_seed(5)
    a = backbone.alpha_bar[:601].float()
    t = ((torch.arange(3) + torch.rand(3)) / 3 * 601).long()
    with torch.no_grad():
        x = backbone.normalise(batch["x"])[0].clamp(-2.5, 2.5)
        z = backbone.vae.encode(x).latent_dist.mean
        context = backbone.text_encoder(batch["ids"])[0]
    noise = torch.randn_like(z)
    root, rest = (part[:, None, None, None] for part in (a[t].sqrt(), (1 - a[t]).sqrt()))
    eps = backbone.unet(root * z + rest * noise, t, context).sample
    snr = a[t] / (1 - a[t])
    error = ((eps - noise).square() * task.weight).mean((1, 2, 3))
    torch.testing.assert_close(found["loss"], (error * snr.clamp_max(5) / snr).mean(), atol=1e-5, rtol=1e-4)
    found["loss"].backward()
    assert all(p.grad is None for p in backbone.vae.parameters())
    assert all(p.grad is None for p in backbone.text_encoder.parameters())
    assert all(name.startswith("unet.") for name in task.state_dict())
    v = model(tokenizer, scheduler={"prediction_type": "v_prediction"})
    with pytest.raises(CheckpointError, match="v_prediction"):
        TextToImageTask(v)


def test_captions_that_help_show_in_the_held_out_loss(crops, tokenizer, tmp_path):
    backbone = model(tokenizer, std=0.45)
    copy_unconditional_weights(backbone.unet, sources())
    task = TextToImageTask(backbone)
    batches = CaptionedBatches(drawn(crops), tokenizer, KINDS, empty=0.0)
    empty = token_ids(tokenizer, [""], 24)
    before = held_out_losses(task, batches, empty, 2)
    assert before["true"] == pytest.approx(before["another"], abs=1e-7)
    assert before["true"] == pytest.approx(before["empty"], abs=1e-7)
    how = TrainerConfig(steps=6, learning_rate=2e-2, warmup=1, ema=0.5, precision="no", save_every=6)
    trained = train(task, batches, tmp_path, how)
    after = held_out_losses(trained, batches, empty, 2)
    assert after["true"] < before["true"] and after["true"] != after["empty"]


def test_drawing_goes_from_noise_to_pictures(tokenizer):
    backbone = model(tokenizer, std=0.45)
    first = draw(backbone, ["a happy face", "a face"], torch.Generator().manual_seed(0), steps=3)
    again = draw(backbone, ["a happy face", "a face"], torch.Generator().manual_seed(0), steps=3)
    other = draw(backbone, ["a sad face", "a face"], torch.Generator().manual_seed(0), steps=3)
    assert first.shape == (2, 1, 16, 16) and torch.equal(first, again)
    torch.testing.assert_close(first[1], other[1])
    assert not torch.equal(first[0], other[0])


# Pictures for a token


def test_pictures_are_picked_by_label_and_by_score(crops):
    torch.manual_seed(0)
    names = ("neutral", "happy", "sad", "angry", "disgusted")
    network = MeasuringNetwork(NetworkConfig({"emotion": 5}, 32, widths=(8, 8, 8, 8), emotions=names)).eval()
    scores, labels = read_emotions(network, crops, np.arange(40)), crops.column("emotion")
    x = crops.pixels(np.arange(40), 32)
    with torch.no_grad():
        log = network(x)["emotion"].log_softmax(1) + network(x.flip(-1))["emotion"].log_softmax(1)
    torch.testing.assert_close(scores, log / 2)
    nobody = np.full(40, "")
    happy = pick_pictures(scores, names, labels, nobody, "happy", 5)
    assert len(happy) == 5 and set(labels[happy]) == {"happy"}
    assert happy.tolist() == sorted((log[::2, 1].argsort(descending=True)[:5] * 2).tolist())
    irritated = pick_pictures(scores, names, labels, nobody, "irritated", 7)
    nearest = (0.5 * log[:, 3] + 0.2 * log[:, 4] + 0.3 * log[:, 0]).argsort(descending=True)
    assert irritated.tolist() == sorted(nearest[:7].tolist())
    people = np.array([["ann", "ben", "", "eve"][n // 2 % 4] for n in range(40)])
    happy = pick_pictures(scores, names, labels, people, "happy", 8)
    assert sorted(people[happy]) == [""] * 5 + ["ann", "ben", "eve"]
    for name in ("ann", "ben", "eve"):
        own = np.flatnonzero((people == name) & (labels == "happy"))
        assert own[log[own, 1].argmax()] in happy
    with pytest.raises(DataError, match="does not read fearful"):
        pick_pictures(scores, names, labels, nobody, "worried", 5)
    with pytest.raises(DataError, match="8 people show 'happy', 9 pictures"):
        pick_pictures(scores, names, labels, people, "happy", 9)
