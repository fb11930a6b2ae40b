"""A small U-Net that predicts how the light on a face changes when its smile is removed.

A smile that is removed from the lips still shows in the cheeks: they are bright where they bulge, and shadows run
beside the nose and under the eyes. Training pairs are smiling photographs with neutral landmarks, and neutral
photographs of the same people.
"""

from __future__ import annotations

from torch import Tensor, nn

from emoedit.nn.unet import UNet, UNetConfig

DIM = 8.0  # grey levels added before the logarithm, so that noise in dark places stays small


class RelightingNetwork(UNet):
    """A smiling face with neutral landmarks -> the change of its light, as an expression ratio image.

    Source: Liu, Shan and Zhang 2001, Expressive expression mapping with ratio images.

    Args:
        config: see [UNetConfig][emoedit.nn.unet.UNetConfig].
    """

    inputs = 1

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)  # untrained, it changes nothing

    def forward(self, x: Tensor) -> Tensor:
        """Natural logarithms of the ratio of neutral to present light, ``[N, 1, R, R]``.

        Args:
            x: ``log(grey level + DIM)`` of crops, ``[N, 1, R, R]``, minus its median inside the face.
        """
        return self.answer(x)
