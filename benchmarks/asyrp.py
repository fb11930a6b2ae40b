"""What Asyrp costs and how well it inverts: edits beside a plain implementation of the same method, reconstruction and
edits at few steps, achieved over possible FLOP/s, bfloat16 beside float32. Ratios come from one run, the two sides of
each in turns.

python -m benchmarks.asyrp [--editor FOLDER] [--photos FILE ...] [--full]
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from PIL import Image
from skimage.data import astronaut
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.edit import seconds
from emoedit import sampling
from emoedit.editors import Editor, as_crops
from emoedit.metrics.quality import psnr
from emoedit.models.ddpm.backbone import DDPMBackbone, DDPMConfig
from emoedit.photo import PhotoEditor
from emoedit.steering.hspace import ShiftBlock
from emoedit.types import Control, Edit, HState, Inversion

STEPS = (10, 20, 25, 40, 100)
TRUTH = 200  # steps of the edit that others are held against
ALIKE = 40  # steps at which a plain edit, its residual added, is as near to that as emoedit's at 25 (:func:`fidelity`)
STRENGTHS = (0.5, 0.75, 1.0, 1.25, 1.5)

# google/ddpm-ema-celebahq-256
FULL = {
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
# Seconds of a plain and of an asymmetric step of the official code (kwonminki/Asyrp_official) on this layout with
# random weights, on two cores. They were measured in another run: ratios to them depend on the machine, too.
OFFICIAL = {"plain": 11.0, "asymmetric": 16.7}


def alternately(runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median time of each call, taken in turns, so that other work on the machine slows all of them."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]


def full_pass(
    unet: nn.Module, x: Tensor, t: int, patch: int, delta_h: Callable[[HState], Tensor] | None = None
) -> Tensor:
    """The noise in x_t by ``UNet2DModel.forward``, h shifted by a hook: what whoever has only diffusers would write."""

    def shift(_: nn.Module, __: object, h: Tensor) -> Tensor:
        times = torch.full((len(x),), t)
        return h + delta_h(HState(x, times, h, unet.time_embedding(unet.time_proj(times))))

    hook = None if delta_h is None else unet.mid_block.register_forward_hook(shift)
    try:
        return F.pixel_shuffle(unet(F.pixel_unshuffle(x, patch), t).sample, patch)
    finally:
        if hook is not None:
            hook.remove()


@torch.no_grad()
def plain_edit(unet: nn.Module, backbone: DDPMBackbone, x: Tensor, control: Control, *, always: bool) -> Tensor:
    """Asyrp without any thought of speed: DDIM inversion, then two whole passes of the U-Net a step. Nothing is shared
    or kept.

    Args:
        always: two passes below ``t_edit`` too, where h is not shifted; else one there, as the official code does.
        unet: in float32, its layout diffusers' own.
        backbone: gives schedule, ``t_edit`` and the crop's contrast; its sampler is not used.
        x: ``[N, C, R, R]`` in [-1, 1].
    """
    schedule, config = backbone.schedule, backbone.config
    x_t, mean, gain = backbone.normalise(x)
    steps = zip(schedule.timesteps, schedule.alpha_bar, (*schedule.alpha_bar[1:], None), strict=True)
    for t, a_t, a_next in steps:
        eps = full_pass(unet, x_t, t, config.patch)
        if a_next is not None:
            x_t = sampling.ddim_step(x_t, eps, a_t, a_next)
    for k in reversed(range(len(schedule))):
        t = schedule.timesteps[k]
        eps = full_pass(unet, x_t, t, config.patch)
        delta_h = control.delta_h if t >= config.t_edit else None
        shifted = full_pass(unet, x_t, t, config.patch, delta_h) if always or delta_h is not None else None
        x_t = sampling.ddim_step(x_t, eps, schedule.alpha_bar[k], schedule.below(k), eps_shifted=shifted)
    return (x_t if config.std is None else x_t - config.mean) * gain + mean


class PlainEditor(Editor):
    """An editor's weights and shifts, run by :func:`plain_edit`: every edit inverts anew.

    Args:
        editor: of a :class:`DDPMBackbone`; it is left as it is.
        always: of :func:`plain_edit`.
    """

    def __init__(self, editor: Editor, *, always: bool = True) -> None:
        super().__init__(editor.backbone, editor.steerings, name="plain")
        self.always = always
        self.unet = plain_unet(editor.backbone)

    def invert(self, images: Tensor, **_: object) -> Inversion:
        """Nothing but the crops."""
        x = as_crops(images, self.backbone)
        return Inversion(x, {"source": x, "reconstruction": x})

    def decode(self, inversion: Inversion, edits: Sequence[Edit], **_: object) -> Iterator[Tensor]:
        """``[N, C, R, R]`` for each edit."""
        for edit in edits:
            control = self.control(inversion, [edit] * len(inversion))
            yield plain_edit(self.unet, self.backbone, inversion.latent, control, always=self.always)


def plain_unet(backbone: DDPMBackbone) -> nn.Module:
    """A copy of the U-Net as diffusers loads it."""
    return copy.deepcopy(backbone.unet).to(memory_format=torch.contiguous_format)


def sampled(editor: Editor, **settings: object) -> Editor:
    """The editor with other settings of sampling."""
    return Editor(editor.backbone.with_sampling(**settings), editor.steerings, name=editor.name)


def emotions(editor: Editor) -> list[str]:
    """Its emotions, neutral, which does little to a neutral face, at the end."""
    return sorted(editor.emotions, key=lambda name: name == "neutral")[:5]


def shifts_a_little(state: HState) -> Tensor:
    """A ``delta_h`` that costs nothing beside the up path."""
    return torch.full_like(state.h, 0.01)


def decibels(one: Tensor, other: Tensor) -> float:
    """Mean PSNR; :func:`emoedit.metrics.quality.psnr` gives no picture more than 100."""
    return float(psnr(one.clamp(-1, 1), other.clamp(-1, 1)).mean())


def size(change: Tensor) -> float:
    """Root mean square over all pixels."""
    return float(change.square().mean().sqrt())


def convolution_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of three large convolutions."""
    best = 0.0
    for channels, side in ((128, 64), (256, 32), (512, 16)):
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
        x = torch.randn(4, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            best = max(best, 2 * 9 * channels**2 * 4 * side**2 / seconds(lambda conv=conv, x=x: conv(x)))
    return best


def flops(run: Callable[[], object]) -> int:
    """Floating point operations of a call, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def passes(
    backbone: DDPMBackbone, batch: int, delta_h: Callable[[HState], Tensor] | None = None
) -> Callable[[], object]:
    """One pass of the U-Net on noise: with ``delta_h`` the asymmetric one."""
    x = torch.randn(batch, *backbone.latent_shape)
    eps_at, t = backbone.eps_at(delta_h), backbone.schedule.timesteps[-1]

    def run() -> object:
        with torch.no_grad():
            return eps_at(x, t)

    return run


def cost(photos: PhotoEditor, photo: object, repeats: int) -> None:
    """Seconds of one edit, of the crop and of the photograph around it, and of 25 edits of the photograph."""
    editor, config = photos.editor, photos.editor.backbone.config
    plain = PlainEditor(editor)

    def around(other: Editor) -> PhotoEditor:
        return PhotoEditor(other, detector=photos.detector, compositor=photos.compositor)

    plain_photos = around(plain)
    x, names = photos.open(photo).inversion.extras["source"], emotions(editor)
    one, many = Edit(names[0]), [Edit(names[k % len(names)], s) for k in range(5) for s in STRENGTHS]

    def drawn(by: Editor) -> Tensor:
        return next(by.decode(by.invert(x), [one]))

    def edited(by: PhotoEditor, edits: Sequence[Edit]) -> list[object]:
        return list(by.edit(by.open(photo), edits))

    same = sampled(editor, exact=False, precision="float32", t_boost=0, symmetric=False)
    agreement = decibels(drawn(plain), drawn(same))
    print(f"without exact inversion, in float32, emoedit agrees with the plain implementation: {agreement:.0f} dB")
    edited(photos, [one])
    crop, plain_crop, photograph, plain_photograph = alternately(
        [
            lambda: drawn(editor),
            lambda: drawn(plain),
            lambda: edited(photos, [one]),
            lambda: edited(plain_photos, [one]),
        ],
        repeats,
    )
    low = around(sampled(editor, precision="bfloat16"))
    edited(low, [one])
    sides = {
        "two passes at every step": plain_photos,
        "one pass below t_edit": around(PlainEditor(editor, always=False)),
        f"{ALIKE} steps, whose edit errs about as much as emoedit's by {config.steps}": around(
            PlainEditor(sampled(editor, steps=ALIKE))
        ),
    }
    together, rounded, *apart = alternately(
        [
            lambda: edited(photos, many),
            lambda: edited(low, many),
            *(lambda by=by: [edited(by, [wanted]) for wanted in many] for by in sides.values()),
        ],
        1,
    )
    how = f"{config.steps} steps, {config.precision}, {'exact' if config.exact else 'plain'} inversion"
    for what, ours, theirs in (
        (f"one warm edit of the crop ({how})", crop, plain_crop),
        ("one warm edit of the photograph, with detection and compositing", photograph, plain_photograph),
    ):
        print(f"{what}: emoedit {ours:.2f} s; plain {theirs:.2f} s; ratio {theirs / ours:.2f}")
    print(
        f"{len(many)} edits of the photograph: {together:.2f} s, in bfloat16 {rounded:.2f} s; {len(many)} plain runs:"
    )
    for what, theirs in zip(sides, apart, strict=True):
        print(f"  {what}: {theirs:.2f} s; ratio {theirs / together:.2f}, to bfloat16 {theirs / rounded:.2f}")


@torch.no_grad()
def fidelity(editor: Editor, x: Tensor) -> None:
    """What few steps lose: of the picture, and of an edit, at strength 1."""
    edit = Edit(emotions(editor)[0])

    def drawn(steps: int, exact: bool) -> tuple[Tensor, Tensor]:
        """Reconstruction, through the network, and edit."""
        there = sampled(editor, steps=steps, exact=exact, t_boost=0, precision="float32")
        inversion = there.backbone.invert(x)
        control = there.control(inversion, [edit] * len(x))
        # A shift by nothing: without any control an exact inversion would leave out the network.
        unedited = there.backbone.decode(inversion, Control(shift=torch.zeros_like(inversion.latent)))
        return unedited, there.backbone.decode(inversion, control)

    _, truth = drawn(TRUTH, True)
    whole = size(truth - x)
    print(f"{len(x)} crops; the edit ({edit.emotion}, strength 1) by {TRUTH} steps has size {whole:.4f}")
    print(
        "steps | reconstruction, dB: plain, emoedit | error of the edit: plain, its residual added, emoedit | its size"
    )
    for steps in STEPS:
        (plain, plain_edited), (exact, edited) = drawn(steps, False), drawn(steps, True)
        put_back = plain_edited + x - plain
        errors = " ".join(f"{size(picture - truth) / whole:8.3f}" for picture in (plain_edited, put_back, edited))
        print(
            f"{steps:5d} | {decibels(x, plain):6.1f} {decibels(x, exact):6.1f} | {errors} | "
            f"{size(edited - x) / whole:.3f}"
        )


def throughput(backbone: DDPMBackbone, repeats: int) -> None:
    """Achieved FLOP/s over the peak of convolutions."""
    for precision in ("float32", "bfloat16"):
        there = backbone.with_sampling(precision=precision)
        peak = convolution_peak(getattr(torch, precision))
        print(f"{precision}: convolutions reach {peak / 1e9:.0f} GFLOP/s")
        for batch in (1, 8):
            for what, delta_h in (("plain", None), ("asymmetric", shifts_a_little)):
                run = passes(there, batch, delta_h)
                operations, taken = flops(run), seconds(run, repeats)
                print(
                    f"  {what} pass of {batch}: {operations / 1e9:.2f} GFLOP in {taken * 1e3:.1f} ms, "
                    f"{operations / taken / 1e9:.0f} GFLOP/s, {operations / taken / peak:.0%} of that"
                )


def precision(editor: Editor, x: Tensor, repeats: int) -> None:
    """bfloat16 beside float32: of one edit of one crop, without noise."""
    edit = Edit(emotions(editor)[0])
    kinds = [sampled(editor, precision=name, t_boost=0) for name in ("float32", "bfloat16")]

    def edited(there: Editor) -> Tensor:
        return next(there.edit(there.invert(x), [edit]))

    high, low = (edited(there) for there in kinds)
    slow, fast = alternately([lambda there=there: edited(there) for there in kinds], repeats)
    print(
        f"bfloat16: {slow / fast:.2f} times as fast ({fast:.2f} s an edit, {slow:.2f}); the edited picture differs by "
        f"{decibels(high, low):.1f} dB, {size(high - low) / size(high - x):.1%} of the edit"
    )


def full_size(steps: int, repeats: int) -> None:
    """Seconds a step on the layout of CelebA-HQ at 256 pixels, random weights, and what an edit adds up to."""
    backbone = DDPMBackbone(DDPMConfig(unet=FULL, steps=steps, precision="bfloat16")).eval().requires_grad_(False)
    block = ShiftBlock(backbone.h_shape[0], backbone.temb_dim).eval().requires_grad_(False)
    unet, x = plain_unet(backbone), torch.randn(1, 3, 256, 256)
    t = backbone.schedule.timesteps[-1]

    def whole() -> Tensor:
        with torch.no_grad():
            return full_pass(unet, x, t, 1)

    once, twice = passes(backbone, 1), passes(backbone, 1, block)
    once()  # the first pass makes the copy in bfloat16
    operations = flops(whole)
    plain, one, asymmetric = alternately([whole, once, twice], repeats)
    print(f"CelebA-HQ 256, random weights: {operations / 1e9:.0f} GFLOP a pass")
    for what, taken in (("plain implementation, float32", plain), ("emoedit, bfloat16", one)):
        print(f"  a pass, {what}: {taken:.2f} s, {operations / taken / 1e9:.0f} GFLOP/s")
    print(f"  an asymmetric step: plain {2 * plain:.2f} s (two passes); emoedit {asymmetric:.2f} s")

    def edit(count: int, step: float, shifted: float) -> float:
        """Seconds of inversion and decoding."""
        timesteps = backbone.with_sampling(steps=count).schedule.timesteps
        edited = sum(t >= backbone.config.t_edit for t in timesteps)
        return (2 * count - edited) * step + edited * shifted

    for name, slow in (
        ("the plain implementation, this run", edit(steps, plain, 2 * plain)),
        ("the official code, MEASURED IN ANOTHER RUN", edit(steps, OFFICIAL["plain"], OFFICIAL["asymmetric"])),
    ):
        equal, half = (edit(count, one, asymmetric) for count in (steps, steps // 2))
        print(
            f"  an edit by {steps} steps, {name}: {slow:.0f} s; emoedit {equal:.0f} s, ratio {slow / equal:.1f}; by "
            f"{steps // 2} steps {half:.0f} s, ratio {slow / half:.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="asyrp", help="an embedded name or a folder")
    parser.add_argument("--photos", nargs="+", metavar="FILE", help="photographs of a face (default: one of skimage's)")
    parser.add_argument("--repeats", type=int, default=3, help="of what takes a second or so")
    parser.add_argument("--full", action="store_true", help="the full-size layout instead (3 GB, minutes)")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    if args.full:
        full_size(40, 1)
        return
    photos = PhotoEditor(args.editor)
    editor = photos.editor
    pictures = args.photos or [Image.fromarray(astronaut()).resize((768, 768), Image.Resampling.LANCZOS)]
    x = torch.cat([photos.open(picture).inversion.extras["source"] for picture in pictures])
    cost(photos, pictures[0], args.repeats)
    precision(editor, x[:1], args.repeats)
    throughput(editor.backbone, args.repeats)
    fidelity(editor, x)


if __name__ == "__main__":
    main()
