"""Learning the map from points of the emotion space to pseudo-words of a Stable Diffusion.

EmoGen's losses (Yang et al., CVPR 2024, arXiv 2401.04608) on an embedded model: ``diffusion``, the denoising loss of a
picture under the word of its own point; and ``emotion``, a guide's loss of the predicted edit of a neutral face under
the word of another point, against the votes at that point. ``near`` and ``outside`` penalise change, as in Asyrp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.text import fill, frozen_copy, rows_name, token_ids, with_tokens
from emoedit.models.stable_diffusion.unet import down, up
from emoedit.steering.space import SpaceWords
from emoedit.training.guides import Guide
from emoedit.training.loop import Shared


class WordTask(nn.Module):
    """Pseudo-words of points, learned from pictures.

    Args:
        backbone: its weights are shared, and left as they are.
        steering: steering whose ``words`` and ``start`` are trained.
        guide: frozen; its rows number the targets.
        weights: weights of ``diffusion``, ``near``, ``outside`` and the guide's losses.
        templates: prompts with ``{}`` where the word goes, drawn at random for pictures; edits use the steering's own.
        batch_size: pictures of each of the two parts.

    Raises:
        CheckpointError: a word that exists already, or vectors of another width than the text encoder's.
        EditError: a template without the word, or too long.
    """

    def __init__(
        self,
        backbone: StableDiffusionBackbone,
        steering: SpaceWords,
        guide: Guide,
        weights: Mapping[str, float],
        *,
        templates: Sequence[str],
        batch_size: int,
    ) -> None:
        super().__init__()
        self.words, self.start = steering.words, nn.Parameter(steering.start.clone())
        self.weights = dict(weights)
        named = {steering.TOKEN.format(n): self.start.detach() for n in range(2 * batch_size)}
        tokenizer, text_encoder = with_tokens(backbone.tokenizer, backbone.text_encoder, named)
        longest = text_encoder.config.max_position_embeddings
        prompts = [[fill(template, token, len(self.start)) for token in named]
                   for template in (*templates, steering.template)]  # fmt: skip
        table = backbone.text_encoder.get_input_embeddings().weight.detach().float()
        self._shared = Shared(
            backbone=backbone.eval().requires_grad_(False),
            guide=guide.eval().requires_grad_(False),
            unet=frozen_copy(backbone.unet),
            text_encoder=text_encoder,
            rows_name=rows_name(text_encoder),
            ids=torch.stack([token_ids(tokenizer, each, longest) for each in prompts]),
            alphas=backbone.alpha_bar.float(),
            weight=(backbone.face / backbone.face.mean()).clone(),
            neutral=backbone.context().detach(),
            gain=float(steering.gain.mean()),
            limit=float(table.norm(dim=1).max()),
        )

    def contexts(self, points: Tensor, prompts: Tensor) -> Tensor:
        """Contexts of the words of points ``[N, D]`` in the templates numbered ``[N]``: ``[N, T, D]``.

        N is twice the batch size.

        Args:
            points: ``[N, D]``.
            prompts: ``[N]`` numbers of templates.
        """
        own = self._shared
        rows = self.start + self.words(points).unflatten(1, tuple(self.start.shape))
        rows = rows * (own.limit / rows.norm(dim=2, keepdim=True).clamp_min(1e-9)).clamp_max(1)
        ids = own.ids[prompts, torch.arange(len(points))]
        return torch.func.functional_call(own.text_encoder, {own.rows_name: rows.flatten(0, 1)}, (ids,))[0]

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            batch: ``latent`` and ``plain`` ``[N, C, r, r]``, pictures and neutral faces; ``own`` and ``point`` ``[N,
                d]``: of the pictures, and where the neutral faces go; ``prompt`` ``[N]``; ``row`` ``[N]``: of the
                guide's targets.
        """
        own, count = self._shared, len(batch["latent"])
        prompts = torch.cat([batch["prompt"], torch.full((count,), len(own.ids) - 1)])
        context, towards = self.contexts(torch.cat([batch["own"], batch["point"]]), prompts).split(count)
        with torch.autocast("cpu", enabled=False):
            found = {"diffusion": self._diffusion(batch["latent"], context)}
            if any(weight for name, weight in self.weights.items() if name != "diffusion"):
                found |= self._emotion(batch["plain"], towards, batch["row"])
        parts = [weight * found[name] for name, weight in self.weights.items() if name in found]
        total = torch.stack(parts).sum()
        return {"loss": total, **{name: value.detach() for name, value in found.items()}}

    def _noisy(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.randn_like(z)
        a = self._shared.alphas[t][:, None, None, None]
        return a.sqrt() * z + (1 - a).sqrt() * noise, noise, a

    def _eps(self, x_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        h, skips, temb = down(self._shared.unet, x_t, t, context)
        return up(self._shared.unet, h, skips, temb, context).float()

    def _diffusion(self, z: Tensor, context: Tensor) -> Tensor:
        own, total = self._shared, len(self._shared.alphas)
        t = ((torch.arange(len(z)) + torch.rand(len(z))) / len(z) * total).long().clamp_max(total - 1)
        x_t, noise, _ = self._noisy(z, t)
        return ((self._eps(x_t, t, context) - noise).square() * own.weight).mean()

    def _emotion(self, z: Tensor, towards: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """What is predicted of neutral faces, under the neutral prompt and under the words."""
        own, config = self._shared, self._shared.backbone.config
        towards = own.neutral + own.gain * (towards - own.neutral)  # as far as an edit of strength 1 goes
        t = torch.randint(config.t_text_min, config.t_text_max + 1, (len(z),))
        x_t, noise, a = self._noisy(z, t)
        with torch.no_grad():
            plain = self._eps(x_t, t, own.neutral.expand(len(z), -1, -1))
        # What of the face is lost at this timestep is put back, as the exact inversion does.
        moved = config.guidance * (self._eps(x_t, t, towards) - plain) * (own.weight > 0)
        kept = z - ((1 - a) / a).sqrt() * moved
        first, last = (own.backbone.vae.decode(each / own.backbone.vae.config.scaling_factor).sample
                       for each in (z, kept))  # fmt: skip
        change = (last - first).abs()
        outer = 1 - own.backbone.oval.to(change)
        guided = own.guide(first.clamp(-1.5, 1.5), last.clamp(-1.5, 1.5), rows)
        return {**guided, "near": change.mean(), "outside": (change * outer).mean()}


class WordBatches:
    """Pictures with their points, and neutral faces with the points that they go to.

    Args:
        latents: ``[N, C, r, r]`` of pictures.
        own: ``[N, d]``: their points.
        plain: ``[M, C, r, r]`` of neutral faces.
        points: ``[P, d]``: where they go; numbers of the targets.
        to: ``[P]``: how often each is drawn.
        templates: how many prompts there are.
        batch_size: pictures, and as many neutral faces.
        seed: seed of the draws.
    """

    def __init__(
        self,
        latents: Tensor,
        own: Tensor,
        plain: Tensor,
        points: Tensor,
        to: np.ndarray,
        *,
        templates: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.latents, self.own, self.plain, self.points = latents, own, plain, points
        self.to = to / to.sum()
        self.templates, self.batch_size, self.seed = templates, batch_size, seed

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step."""
        rng, size = np.random.default_rng((self.seed, step, process)), self.batch_size
        pictures = rng.integers(len(self.own), size=size)
        rows = rng.choice(len(self.points), size, p=self.to)
        return {
            "latent": self.latents[pictures],
            "own": self.own[pictures],
            "plain": self.plain[rng.integers(len(self.plain), size=size)],
            "point": self.points[rows],
            "row": torch.from_numpy(rows),
            "prompt": torch.from_numpy(rng.integers(self.templates, size=size)),
        }
