"""A small U-Net that segments what is in front of a face."""

from __future__ import annotations

from torch import Tensor

from emoedit.nn.unet import UNet


class OcclusionNetwork(UNet):
    """Colour crops -> logits of what is in front of the face.

    Args:
        config: see [UNetConfig][emoedit.nn.unet.UNetConfig].
    """

    inputs = 3

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, 1, R, R]``.

        Args:
            x: RGB crops ``[N, 3, R, R]`` in [-1, 1]; each is brought to mean 0 and deviation 1.
        """
        x = x - x.mean((1, 2, 3), keepdim=True)
        x = x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(0.02)
        return self.answer(x)
