"""A small U-Net that predicts the change of light on a face by a smile.

A smile that is removed from the lips still shows in the cheeks: they bulge and catch the light, and shadows run
beside the nose and under the eyes. The network learns from smiles whose landmarks were moved to a neutral face, and the
neutral photograph of the same person.
"""

from __future__ import annotations

from torch import Tensor, nn

from emoedit.nn.unet import UNet, UNetConfig

DIM = 8.0  # grey levels that are added before a logarithm is taken, so that the noise of dark places stays small


class RelightingNetwork(UNet):
    """A face whose smile is gone from its landmarks -> how the light on it changes, as an expression ratio image.

    Source: Liu, Shan and Zhang 2001, Expressive expression mapping with ratio images.

    Args:
        config: see [UNetConfig][emoedit.nn.unet.UNetConfig].
    """

    inputs = 1

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)  # before anything is learned light stays as it is

    def forward(self, x: Tensor) -> Tensor:
        """Natural logarithms of the ratio, ``[N, 1, R, R]``.

        Args:
            x: logarithms of crops' grey levels (and ``DIM``), ``[N, 1, R, R]``, less their median inside the face.
        """
        return self.answer(x)
