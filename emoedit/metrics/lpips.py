"""LPIPS: how different two pictures look (Zhang et al. 2018, arXiv 1801.03924, equation 1; version 0.1).

The package ``lpips`` brings the method and its calibrated linear layers; the trunks are torchvision's ImageNet weights,
files that its authors publish. Nothing here downloads them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from emoedit.emotions import unknown_name
from emoedit.io import checkpoints
from emoedit.metrics.base import check_pictures
from emoedit.metrics.published import PublishedFile
from emoedit.types import ImageError, MissingExtraError

SMALLEST = 32  # pixels a side: AlexNet's second pooling has nothing left of less than 31
TRUNKS = {  # net -> torchvision's name of the architecture and its weights
    "alex": ("alexnet", PublishedFile("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")),
    "vgg": ("vgg16", PublishedFile("https://download.pytorch.org/models/vgg16-397923af.pth")),
    "squeeze": ("squeezenet1_1", PublishedFile("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth")),
}


class LPIPSDistance(nn.Module):
    """The distance as a module, frozen and always in inference mode; gradients reach the pictures, so it is a loss too.

    Args:
        net: ``"alex"`` (what the authors report with), ``"vgg"`` (their choice as a loss) or ``"squeeze"``. Values of
            different nets do not compare.
        trunk: torchvision's state dict (``.pth`` or ``.safetensors``), with or without its classifier, which is not
            used. Default: the published file in torch.hub's cache.

    Raises:
        UnknownNameError: another net.
        MissingExtraError: the package ``lpips`` is not installed.
        CheckpointError: no such trunk, with the command that fetches it; damaged; tensors that are missing, unknown, of
            another shape or not finite.
    """

    def __init__(self, net: str = "alex", trunk: str | Path | None = None) -> None:
        super().__init__()
        architecture, published = _trunk(net)
        try:
            import lpips
        except ImportError as error:
            raise MissingExtraError("lpips", "metrics") from error
        import torchvision

        self.net = net
        path, found = published.read(trunk)
        # Meta: neither random numbers nor memory for what the files replace. pnet_rand: lpips must not fetch the trunk.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The parameter 'pretrained'|Arguments other than a weight enum")
            network = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
            expected = torchvision.models.get_model(architecture, weights=None).state_dict()
        if not any(name.startswith("classifier.") for name in found):
            expected = {name: value for name, value in expected.items() if not name.startswith("classifier.")}
        checkpoints.check_state(expected, found, path)
        # lpips cuts ``features`` into slices that keep its indices: net.slice2.3.weight is features.3.weight
        state = {f"net.{name}": found[f"features.{name.split('.', 1)[1]}"] for name in network.net.state_dict()}
        linear = torch.load(Path(lpips.__file__).parent / f"weights/v0.1/{net}.pth", "cpu", weights_only=True)
        state |= linear | {name.replace("lin", "lins.", 1): value for name, value in linear.items()}  # two names of one
        network.scaling_layer = lpips.ScalingLayer()  # constants, which meta may not have kept
        state |= {f"scaling_layer.{name}": value for name, value in network.scaling_layer.state_dict().items()}
        network.load_state_dict(state, assign=True)
        self.network = network.requires_grad_(False)
        self.eval()

    @staticmethod
    def available(net: str = "alex") -> bool:
        """Whether the published trunk is in torch.hub's cache.

        Args:
            net: ``alex``, ``vgg`` or ``squeeze``.

        Raises:
            UnknownNameError: no such net.
        """
        return _trunk(net)[1].cached.is_file()

    def train(self, mode: bool = True) -> Self:
        """Stays in inference mode, whatever is asked for.

        Args:
            mode: ignored.
        """
        return super().train(False)  # the linear layers have a dropout

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS of pairs of pictures (Zhang et al. 2018, equation 1).

        Squared differences of unit-normalised features, weighted by channel, averaged over places and summed over
        layers. Luminance is read as a grey RGB picture.

        Args:
            a: ``[N, 1 or 3, H, W]`` in [-1, 1], at least 32 pixels a side.
            b: as ``a``.

        Returns:
            ``[N]`` float32, 0 for equal pictures.

        Raises:
            ImageError: shapes or values that are none of these.
        """
        check_pictures(a.detach(), b.detach())
        if min(a.shape[2:]) < SMALLEST:
            raise ImageError(f"LPIPS needs pictures of at least {SMALLEST} pixels a side, found {tuple(a.shape)}")
        a, b = (x.float().expand(-1, 3, -1, -1) for x in (a, b))
        return self.network(a, b).flatten()


def _trunk(net: str) -> tuple[str, PublishedFile]:
    if net not in TRUNKS:
        raise unknown_name("LPIPS net", str(net), {name: name for name in TRUNKS})
    return TRUNKS[net]
