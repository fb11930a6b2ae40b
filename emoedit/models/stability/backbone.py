"""Stability AI's service as a backbone: what a crop becomes under a prompt is drawn elsewhere.

The aligned colour crop of a face is sent with the control's prompt; the answer is the edited crop. Nothing is
inverted and nothing is kept: each edit of each face is one request.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emoedit.faces.masks import face_masks
from emoedit.models.base import Backbone, Callback
from emoedit.models.stability.client import MAX_SEED, StabilityClient
from emoedit.types import Control, CropSpec, EditError, Inversion

CROP = CropSpec(768, "ffhq")


class StabilityBackbone(Backbone):
    """Draws by asking the service; the latent of a crop is the crop. Building one needs neither key nor network.

    ``extras`` of an inversion: ``seed``, ``[N]``: of the noise that the service draws. In place of 0, which the service
    takes for another seed each time, 4,294,967,294 is sent.

    Args:
        client: client of the service.
        crop: crop of a photograph that is sent.
    """

    channels = 3
    compositor = "replace"
    batches_edits = False  # a request that failed is not made again: it may have been charged

    def __init__(self, client: StabilityClient | None = None, *, crop: CropSpec = CROP) -> None:
        super().__init__()
        self.client, self.crop = client or StabilityClient(), crop

    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The crops themselves.

        Args:
            x: ``[N, 3, R, R]`` in [-1, 1].
            generator: gives the seed it was started with; default: 0.
            callback: not called: nothing is computed.

        Raises:
            EditError: a seed that the service does not take.
        """
        seed = 0 if generator is None else generator.initial_seed()
        if seed > MAX_SEED:
            raise EditError(f"the service takes seeds of 0 to {MAX_SEED}, not {seed}")
        return Inversion(x, {"seed": torch.full((len(x),), seed, dtype=torch.int64)})

    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The service's edit of each crop, ``[N, 3, R, R]`` in [-1, 1]; the crop itself without a prompt.

        Args:
            inversion: the crops.
            control: its ``prompt`` and ``prompt_strength`` (0 the crop, 1 as if there were none) are sent.
            callback: called with (pictures done, pictures in all).

        Raises:
            ImageError: the service does not take such a picture; nothing was sent for it.
            MissingExtraError: ``requests`` is not installed.
            RemoteError: no key, no answer, a refusal, or no picture of the same proportions.
        """
        if control.prompt is None:
            return inversion.latent
        count = len(inversion)
        strengths = [1.0] * count if control.prompt_strength is None else control.prompt_strength.tolist()
        rows = []
        for n, (x, prompt, strength) in enumerate(zip(inversion.latent, control.prompt, strengths, strict=True)):
            seed = int(inversion.extras["seed"][n]) or MAX_SEED
            rows.append(self._redrawn(x, prompt, strength, seed) if strength else x)
            if callback is not None:
                callback(n + 1, count)
        return torch.stack(rows)

    def _redrawn(self, x: Tensor, prompt: str, strength: float, seed: int) -> Tensor:
        levels = ((x + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        mask = None
        if self.client.method == "inpaint":  # the face, as far as an edit is pasted
            mask = Image.fromarray((255 * (face_masks(self.crop).face > 0)).astype(np.uint8))
        made = self.client.redraw(Image.fromarray(levels), prompt, strength=strength, seed=seed, mask=mask)
        return torch.from_numpy(np.asarray(made, np.float32) / 127.5 - 1).permute(2, 0, 1).to(x.device)
