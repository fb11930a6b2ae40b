"""The shifts of h that an edit adds: recorded at every timestep, compared, and added to other faces.

Asyrp claims of its h-space that one shift does the same to every face (homogeneity), that a multiple of it does the
multiple (linearity), and that it hardly changes over the timesteps (Kwon et al. 2023, arXiv 2210.10960, section 5.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.editors import Editor
from emoedit.models.diffusion import DiffusionBackbone
from emoedit.steering.hspace import Directions, HSpace
from emoedit.types import Edit, EditError, HState, Inversion


@torch.no_grad()
def record_shifts(editor: Editor, inversion: Inversion, edit: Edit) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """The shift of h that an edit adds to each picture while decoding.

    Args:
        editor: editor that shifts h.
        inversion: inversion of N pictures.
        edit: the edit of all pictures.

    Returns:
        The T timesteps at which it does, ascending; ``[N, T, C, h, w]``; and what is drawn, ``[N, C, R, R]``.

    Raises:
        EditError: an editor that shifts no h, or not at this strength.
    """
    control = editor.control(inversion, [edit] * len(inversion))
    delta_h = control.delta_h
    if delta_h is None:
        raise EditError(f"{editor.name} shifts no h; {type(editor.backbone).__name__} is steered in another way")
    seen: dict[int, Tensor] = {}

    def spy(state: HState) -> Tensor:
        seen[int(state.t[0])] = shift = delta_h(state)
        return shift

    drawn = editor.backbone.decode(inversion, replace(control, delta_h=spy))
    if not seen:
        raise EditError(f"{editor.name} adds nothing to h: no timestep of its schedule is edited")
    times = tuple(sorted(seen))
    return times, torch.stack([seen[t] for t in times], 1), drawn


def with_directions(editor: Editor, directions: Mapping[str, Directions], *, name: str) -> Editor:
    """An editor with the same backbone that adds the same directions to every face, as they are.

    Args:
        editor: editor whose steerings are used.
        directions: emotion -> what strength 1 adds.
        name: name in results.

    Raises:
        EditError: an editor without h.
    """
    if not isinstance(editor.backbone, DiffusionBackbone):
        raise EditError(f"{editor.name} has no h; {type(editor.backbone).__name__} is steered in another way")
    steering = HSpace(list(directions), list(directions.values()), train_steps=editor.backbone.steps)
    return Editor(editor.backbone, [steering], name=name, compositor=editor.compositor)


def random_directions(directions: Directions, generator: torch.Generator) -> Directions:
    """One random direction with the given direction's length at each timestep, as a control.

    Args:
        directions: directions whose lengths are used.
        generator: draws the direction.
    """
    given = directions.directions
    drawn = torch.randn(given.shape[1:], generator=generator)
    lengths = given.flatten(1).norm(dim=1).view(-1, *[1] * (given.ndim - 1))
    return Directions(lengths * drawn / drawn.norm(), directions.timesteps)


def pairwise_cosines(rows: Tensor) -> Tensor:
    """Cosines between all rows of ``[N, ...]``, ``[N, N]``; 0 where a row is all zeros."""
    unit = F.normalize(rows.flatten(1).double(), dim=1)
    return (unit @ unit.mT).clamp(-1, 1).float()


def mean_cosine(rows: Tensor) -> float:
    """Mean cosine between different rows of ``[N, ...]``; NaN for fewer than two."""
    table = pairwise_cosines(rows)
    return float(table[~torch.eye(len(table), dtype=torch.bool)].mean())


def projection_onto(changes: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """How far changes lie along others, picture by picture.

    Args:
        changes: ``[N, ...]``, of an edit at some strength.
        whole: ``[N, ...]``, of the edit at strength 1.

    Returns:
        Cosine ``[N]``, and the length along ``whole`` as a multiple of it ``[N]``; of a linear edit 1 and its strength.
    """
    a, b = changes.flatten(1).double(), whole.flatten(1).double()
    dot, square = (a * b).sum(1), b.square().sum(1)
    return F.cosine_similarity(a, b, dim=1).float(), (dot / square.clamp_min(1e-12)).float()
