"""FaceNet: identity embeddings by a published full-size network.

The network is Inception-ResNet v1 (Szegedy et al. 2016, arXiv 1602.07261) used as FaceNet uses it (Schroff et al. 2015,
arXiv 1503.03832), in the port and with the VGGFace2 weights of facenet-pytorch. That package brings the architecture;
the weights are a file its authors publish, and nothing here downloads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from emoedit.faces.detect import Face
from emoedit.io import checkpoints
from emoedit.metrics.published import PublishedFile
from emoedit.types import CheckpointError, ImageError

SIDE = 160  # pixels
MARGIN = 14  # pixels of the crop; with it the port's authors measured .9965 on LFW (their examples/lfw_evaluate.ipynb)
BATCH = 32  # faces through the network at once: memory stays flat however many there are
LOGITS = {"logits.weight": (8631, 512), "logits.bias": (8631,)}  # the people of VGGFace2, of no use to an embedding
COUNTER = ".num_batches_tracked"  # a buffer that inference never reads, and that files from before PyTorch 0.4.1 lack


WEIGHTS = PublishedFile(
    "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt"
)


class FaceNet(nn.Module):
    """Crops faces as the network expects them and embeds them. Always in inference mode, whatever ``train()`` asks for.

    Args:
        network: ``[N, 3, 160, 160]`` -> unit-length embeddings ``[N, 512]``; see ``from_file``.
    """

    name = "vggface2"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last).requires_grad_(False)
        self.eval()

    @classmethod
    def from_file(cls, path: str | Path | None = None) -> Self:
        """The network of a weight file.

        Args:
            path: path of the published ``20180402-114759-vggface2.pt`` or a ``.safetensors`` of the same names, with or
                without the classification layer, which is not used. Default: the published file in torch.hub's cache.
                (facenet-pytorch's own download is in another folder, ``checkpoints`` of TORCH_HOME: give its path.)

        Raises:
            CheckpointError: no such file, with the command that fetches it; damaged; tensors that are missing, unknown,
                of another shape or not finite; a negative variance.
        """
        from facenet_pytorch import InceptionResnetV1

        path, found = WEIGHTS.read(path)
        with torch.device("meta"):  # 23 million random numbers would be drawn for nothing
            network = InceptionResnetV1()
            expected = network.state_dict()
            if LOGITS.keys() & found.keys():
                expected |= {name: torch.empty(shape) for name, shape in LOGITS.items()}
        counters = {name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith(COUNTER)}
        found = counters | found
        checkpoints.check_state(expected, found, path)
        negative = [name for name, value in found.items() if name.endswith("running_var") and bool((value < 0).any())]
        if negative:
            raise CheckpointError(f"{path} does not fit: {negative[0]} holds a negative variance")
        network.load_state_dict({k: v for k, v in found.items() if k not in LOGITS}, assign=True)
        return cls(network)

    @staticmethod
    def available() -> bool:
        """Whether the published file is in torch.hub's cache."""
        return WEIGHTS.cached.is_file()

    def train(self, mode: bool = True) -> Self:
        """Stays in inference mode, whatever is asked for.

        Args:
            mode: ignored.
        """
        return super().train(False)

    @staticmethod
    def faces(photo: np.ndarray, face: Face) -> np.ndarray:
        """The crop of one face, stretched to a square with bilinear filtering.

        It is the face's box, widened by the margin and cut at the photograph's edges (facenet_pytorch's
        ``extract_face`` of a PIL picture).

        Args:
            photo: uint8 ``[H, W, 3]``, RGB.
            face: the face in the photograph.

        Returns:
            uint8 ``[160, 160, 3]``.

        Raises:
            ImageError: no such photograph, or the box does not lie in it.
        """
        from PIL import Image

        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise ImageError(f"a photograph is uint8 [H, W, 3], found {photo.dtype} {photo.shape}")
        height, width = photo.shape[:2]
        x0, y0, x1, y1 = face.box
        if not np.isfinite(face.box).all():
            raise ImageError(f"a face's box is four finite numbers, found {face.box}")
        x_margin, y_margin = (MARGIN * side / (SIDE - MARGIN) / 2 for side in (x1 - x0, y1 - y0))
        left, top = int(max(x0 - x_margin, 0)), int(max(y0 - y_margin, 0))
        right, bottom = int(min(x1 + x_margin, width)), int(min(y1 + y_margin, height))
        if left >= right or top >= bottom:
            box = ", ".join(f"{v:.1f}" for v in face.box)
            raise ImageError(f"the box ({box}) has nothing of a photograph of {width} x {height} pixels in it")
        crop = Image.fromarray(photo[top:bottom, left:right])
        return np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    @torch.no_grad()
    def embed(self, faces: np.ndarray | Tensor) -> Tensor:
        """Who each face is: unit vectors; the cosine of two is their dot product.

        Args:
            faces: uint8 ``[N, 160, 160, 3]``, RGB.

        Returns:
            ``[N, 512]`` float32, on the network's device.

        Raises:
            ImageError: pictures of another type or shape, or none at all.
        """
        faces = torch.as_tensor(faces)
        if faces.dtype != torch.uint8 or faces.ndim != 4 or faces.shape[1:] != (SIDE, SIDE, 3) or not len(faces):
            raise ImageError(f"faces are uint8 [N, {SIDE}, {SIDE}, 3], found {faces.dtype} {tuple(faces.shape)}")
        device = next(self.network.parameters()).device
        embedded = []
        for batch in faces.split(BATCH):
            x = (batch.to(device).float() - 127.5) / 128
            embedded.append(self.network(x.permute(0, 3, 1, 2)))
        return torch.cat(embedded)
