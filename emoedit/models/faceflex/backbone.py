"""The VAE of face-flex (github.com/leon-schi/face-flex, 2019), read from weight files a user has of it.

It is the full-size relative of ``emoedit.models.vae.backbone``: a convolutional VAE (Kingma & Welling 2014, arXiv
1312.6114) on 128-pixel RGB crops with a latent of 500. That project carries no licence, so nothing of its code or
weights is part of this package; only the tensor names of its files are kept, so that a file can be loaded by path.

Three differences from face-flex are on purpose: ``invert`` gives the mean of the latent, not a random sample; the
decoded crop gets back the brightness that was divided out; features are normalised by running statistics unless
``batch_statistics`` is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io.checkpoints import read_weights
from emoedit.io.weights import read_torch
from emoedit.models.base import Backbone, Callback
from emoedit.types import CheckpointError, Control, CropSpec, Inversion

SLOPE = 0.2  # of the leaky ReLUs
MIN_PEAK = 1 / 255  # a black picture is not divided by zero
COUNTER = ".num_batches_tracked"  # a buffer that inference never reads, and that files from before PyTorch 0.4.1 lack


class FaceFlexVAE(Backbone):
    """face-flex's VAE as a backbone; its ``state_dict`` has the names and shapes of face-flex's.

    ``train()`` and ``eval()`` change nothing: ``batch_statistics`` alone says which statistics normalise the features,
    and no buffer is ever written.

    Args:
        width: channels of the finest level of encoder and decoder; 128 in the original.
        latent: length of z; 500 in the original.
        batch_statistics: normalise each picture by its own statistics, as face-flex does, which never leaves training
            mode and edits one picture at a time. The default normalises by the running statistics of the training set.
            Either way a batch gives what its pictures give one by one.
    """

    channels = 3
    # face-flex pads the box of jaw and brows by .3 of its larger side, makes it square and moves it up by .15 of that.
    # Over 7,662 frontal faces (muxspace/facial_expressions, 68 landmarks by face-api.js) the side is .926 +- .038 of
    # FFHQ's and the centre .00 +- .01 of it below FFHQ's; by the mean shape of dlib's landmarks (OpenFace's template),
    # and dlib is what face-flex uses, .926 and .019.
    crop = CropSpec(128, "ffhq", scale=0.925, down=0.02)

    def __init__(self, width: int = 128, latent: int = 500, *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.width, self.latent, self.batch_statistics = width, latent, batch_statistics
        down = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
        up = [16 * width, 8 * width, 4 * width, 2 * width, width]
        for i in range(1, 6):
            self.add_module(f"e{i}", nn.Conv2d(down[i - 1], down[i], 4, stride=2, padding=1))
            self.add_module(f"bn{i}", _Norm(down[i]))
        self.fc1 = nn.Linear(down[-1] * 4 * 4, latent)
        self.fc2 = nn.Linear(down[-1] * 4 * 4, latent)
        self.d1 = nn.Linear(latent, up[0] * 4 * 4)
        for i in range(2, 6):
            self.add_module(f"d{i}", nn.Conv2d(up[i - 2], up[i - 1], 3, padding=1, padding_mode="replicate"))
            self.add_module(f"bn{i + 4}", _Norm(up[i - 1], eps=1e-3))
        self.d6 = nn.Conv2d(width, 3, 3, padding=1, padding_mode="replicate")
        self.eval()

    @classmethod
    def from_file(cls, path: str | Path, *, batch_statistics: bool = False) -> FaceFlexVAE:
        """The model of a weight file; width and latent length are read off the shapes.

        Args:
            path: ``.safetensors``, or a bare state dict as ``torch.save`` writes it (either format). Weights of any
                floating-point type become float32. Nothing in the file is executed.
            batch_statistics: whether batch normalisation uses those of the batch.

        Raises:
            CheckpointError: no such file; not a state dict of tensors (a whole pickled module is refused); tensors that
                are missing, unknown, of another shape or not finite; a negative variance. All are listed at once.
        """
        path = Path(path)
        state, width, latent = _checked(_read(path), path)
        with torch.device("meta"):  # 86 million random numbers would be drawn for nothing
            model = cls(width, latent, batch_statistics=batch_statistics)
        model.load_state_dict(state, assign=True)
        return model

    @classmethod
    def load(cls, name_or_path: str | Path, *, revision: str | None = None, **settings: Any) -> FaceFlexVAE:
        """As ``from_file``; the hub has no such model, so ``revision`` is ignored.

        Args:
            name_or_path: path of the file.
            revision: ignored.
            **settings: settings of the configuration, instead of the file's.
        """
        return cls.from_file(name_or_path, **settings)

    def to_config(self) -> dict[str, Any]:
        """What ``from_config`` needs to build the same, as json."""
        return {"width": self.width, "latent": self.latent, "batch_statistics": self.batch_statistics}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture with fresh weights.

        Raises:
            CheckpointError: an entry is missing or unknown.
        """
        try:
            return cls(**config)
        except (TypeError, RuntimeError) as error:
            raise CheckpointError(f"not a configuration of face-flex's VAE: {error}") from error

    def encoder(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, 3, 128, 128]`` in [0, 1], maximum 1 each -> mean and log-variance of z, ``[N, latent]`` each."""
        for i in range(1, 6):
            x = F.leaky_relu(self._normalise(i, self.get_submodule(f"e{i}")(x)), SLOPE)
        x = x.flatten(1)
        return self.fc1(x), self.fc2(x)

    def decoder(self, z: Tensor) -> Tensor:
        """``[N, latent]`` -> ``[N, 3, 128, 128]`` in [0, 1]."""
        h = F.relu(self.d1(z)).unflatten(1, (-1, 4, 4))
        for i in range(2, 7):
            h = self.get_submodule(f"d{i}")(F.interpolate(h, scale_factor=2.0))
            if i < 6:
                h = F.leaky_relu(self._normalise(i + 4, h), SLOPE)
        return h.sigmoid()

    def _normalise(self, i: int, h: Tensor) -> Tensor:
        return self.get_submodule(f"bn{i}")(h, by_picture=self.batch_statistics)

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The mean of z.

        ``extras["peak"]``, ``[N, 1, 1, 1]``, is each picture's maximum over pixels and colours in [0, 1], which is
        divided out.

        Args:
            x: ``[N, 3, 128, 128]`` in [-1, 1].
            generator: ignored, nothing is drawn.
            callback: called with (1, 1).
        """
        light = (x + 1) / 2
        peak = light.amax((1, 2, 3), keepdim=True).clamp_min(MIN_PEAK)
        mean, _ = self.encoder(light / peak)
        if callback:
            callback(1, 1)
        return Inversion(mean.float(), {"peak": peak})

    @torch.no_grad()
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The drawing of latents under a control; see ``Backbone.decode``."""
        z = inversion.latent if control.shift is None else inversion.latent + control.shift
        light = self.decoder(z).float() * inversion.extras["peak"]
        if callback:
            callback(1, 1)
        return 2 * light - 1


class _Norm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of training, or by those of each picture."""

    def forward(self, h: Tensor, *, by_picture: bool = False) -> Tensor:
        if by_picture:  # what statistics of a batch are when the batch is one picture
            return F.instance_norm(h, weight=self.weight, bias=self.bias, eps=self.eps)
        return F.batch_norm(h, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def _read(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    return read_weights(path) if path.suffix.lower() == ".safetensors" else read_torch(path)


def _checked(state: object, path: Path) -> tuple[dict[str, Tensor], int, int]:
    """The state as dense float32 tensors that fit, with the width and latent length they fit to."""
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict (names -> tensors)")
    for key, value in state.items():
        if isinstance(value, Mapping):
            raise CheckpointError(
                f"{path} is no bare state dict but wraps one: load it, and save its entry {key!r} alone with torch.save"
            )
    if state and all(key.startswith("module.") for key in state):
        raise CheckpointError(
            f"{path}: all names begin with 'module.', as torch.nn.DataParallel writes them; save "
            "model.module.state_dict() instead"
        )

    def first_side(key: str, default: int) -> int:
        value = state.get(key)
        return value.shape[0] if _dense(value) and value.ndim and value.numel() else default

    width, latent = first_side("e1.weight", 128), first_side("fc1.weight", 500)
    with torch.device("meta"):
        expected = FaceFlexVAE(width, latent).state_dict()
    known = {key: value for key, value in state.items() if key in expected}
    weights = {key: value for key, value in known.items() if not key.endswith(COUNTER)}
    plain = {key: value for key, value in weights.items() if _dense(value)}
    shapes = {key: tuple(value.shape) for key, value in known.items() if isinstance(value, Tensor)}
    # Copies, since a tensor can lie in the mapped file, where the file's later changes and its alignment (in the last
    # bits) would tell.
    fitting = {
        key: value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for key, value in plain.items()
        if shapes[key] == tuple(expected[key].shape)
    }
    faults = {
        "missing": [key for key in expected if key not in state and not key.endswith(COUNTER)],
        "unexpected": [key for key in state if key not in expected],
        "not a plain floating-point tensor": [key for key in weights if key not in plain],
        "wrong shape": [
            f"{key} (expected {tuple(expected[key].shape)}, got {shape})"
            for key, shape in shapes.items()
            if shape != tuple(expected[key].shape)
        ],
        "not finite": [key for key, value in fitting.items() if not value.isfinite().all()],
        "negative variance": [key for key, value in fitting.items() if "running_var" in key and (value < 0).any()],
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault}: {_shortened(names)}" for fault, names in faults.items() if names)
        raise CheckpointError(f"{path} is no face-flex VAE (of width {width} and latent {latent}): {listed}")
    counters = {key: torch.zeros((), dtype=torch.int64) for key in expected if key.endswith(COUNTER)}
    return fitting | counters, width, latent


def _dense(value: object) -> TypeGuard[Tensor]:
    """Whether it is an ordinary floating-point tensor with all its numbers in memory.

    An expanded one could be a few bytes in a file and claim any size.
    """
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.is_floating_point()
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
