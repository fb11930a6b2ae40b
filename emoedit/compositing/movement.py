"""The first part of a composite: the photograph's own pixels move as the drawing's do.

Landmarks give the flow of lips, lids and brows, which move by more than their height and change their light; dense
optical flow gives the rest. Optical flow is used where both pictures have edges and interpolated smoothly between them:
an even cheek matches everywhere, and a change of its light would be taken for movement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from emoedit.compositing.composite import Composite, Scene
from emoedit.compositing.lips import LipReading
from emoedit.faces.curves import smoothstep
from emoedit.faces.layout import BROWS, EYES, LIPS, LOWER, LOWER_EDGE, UPPER, UPPER_EDGE
from emoedit.faces.warp import landmark_flow, pixel_grid, sample, unfold
from emoedit.types import EditError

SIDE = 192  # flow is found at this side: at 96 pixels its windows would span half a mouth
# Chosen on 24 edits of 8 faces among 60 settings: it explains more of a change than dense inverse search, and noise of
# .15 levels on both pictures changes the flow by .01 pixels on average in place of .04.
EXPANSION = {"pyr_scale": 0.5, "levels": 4, "winsize": 33, "iterations": 1, "poly_n": 7, "poly_sigma": 1.5}
PASSES, ITERATIONS = 3, 2  # of the refinement, which linearises anew in every pass
SMOOTH, EQUAL = 30.0, 20.0  # weights of smoothness and of equal levels
UPPER_FACE = [i for part in (*BROWS, *EYES) for i in range(part.start, part.stop)]


@dataclass(frozen=True)
class Movement:
    """Finds the flow. Fractions are of the crop's side; all were chosen on 34 people who are in no reported result.

    Args:
        lip_reach: how far around a lip the skin moves along.
        jaw_reach: the same for a lower lip that leaves the upper one: the jaw moves along.
        lid_reach: the same for lids and brows.
        noise: error expected of lip landmarks, as the regularisation of ``landmark_flow``.
        parted_noise: the same, where each lip moves by its own landmarks alone.
        lid_noise: the same for lids and brows.
        longest: largest movement of a lip or a brow; more is a mismatch.
        rest: largest movement that optical flow adds near landmarks.
        edges: slopes, in the face's contrast a pixel, between which edges begin to count.
        spread: how far around edges optical flow is used.
        still: weight of no movement far from all edges.
        held: share of the change that is removed from the nose: directions fitted on other people widen it more than
            the expression does, and a nose is part of a person's identity.
        faded: share of the change that fades with the face mask: small models are wrong near its edge.
    """

    lip_reach: float = 0.07
    jaw_reach: float = 0.11
    lid_reach: float = 0.05
    noise: float = 0.2
    parted_noise: float = 0.05
    lid_noise: float = 0.3
    longest: float = 0.11
    rest: float = 0.02
    edges: tuple[float, float] = (0.014, 0.041)
    spread: float = 0.06
    still: float = 0.02
    held: float = 0.6
    faded: float = 1.0

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with a flow, and with the change of luminance that the flow does not explain."""
        before, after = scene.drawing.luma
        masks = scene.face.masks
        flow = self.find(before, after, masks.face, self._landmark_flow(scene.lips, len(after)))
        # Blending two pictures would show edges twice: the nose moves less and changes less instead.
        share = 1 - self.held * masks.nose
        less = unfold(flow * share[..., None])
        change = (after - sample(before, flow)) * share * (1 - self.faded * (1 - masks.face))
        return replace(composite, flow=less, change=change)

    def _landmark_flow(self, lips: LipReading, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        """The landmarks' backward flow ``[S, S, 2]`` in pixels of SIDE, and its certainty ``[S, S]``."""
        before, after, shape = lips.before, lips.after, (resolution, SIDE)
        lids, near_lids = landmark_flow(before, after, UPPER_FACE, *shape, reach=self.lid_reach, noise=self.lid_noise)
        flow, near = landmark_flow(before, after, LIPS, *shape, reach=self.lip_reach, noise=self.noise)
        if lips.opens > 0:
            parted, near_parted = self._parted(lips, shape)
            flow, near = flow + lips.opens * (parted - flow), near + lips.opens * (near_parted - near)
        return flow + lids, np.maximum(near, near_lids)

    def _parted(self, lips: LipReading, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """A flow for each lip, divided along the middle of the gap between them."""
        before, after, noise = lips.before, lips.after, self.parted_noise
        above, near_above = landmark_flow(before, after, UPPER, *shape, reach=self.lip_reach, noise=noise)
        below, near_below = landmark_flow(before, after, LOWER, *shape, reach=self.jaw_reach, noise=noise)
        x, y = pixel_grid(*shape)
        middle = sum(np.interp(x[0], *after[edge].T) for edge in (UPPER_EDGE, LOWER_EDGE)) / 2
        soft = 0.004 * shape[0]  # of the side: about half a pixel of a small model's crop
        lower = smoothstep(y - middle, -soft, soft).astype(np.float32)
        return above + (below - above) * lower[..., None], np.maximum(near_above, near_below)

    def find(
        self,
        before: np.ndarray,
        after: np.ndarray,
        mask: np.ndarray,
        known: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """The flow between two pictures of a face, bounded and without folds.

        Args:
            before: float32 ``[R, R]`` grey levels.
            after: float32 ``[R, R]``.
            mask: float32 ``[R, R]`` in [0, 1]: where anything moves.
            known: the landmarks' flow, ``[S, S, 2]`` in pixels of SIDE, and its certainty, ``[S, S]``.

        Returns:
            float32 ``[R, R, 2]`` in pixels of the crop, as [Composite][emoedit.compositing.composite.Composite] has it.
        """
        size = (SIDE, SIDE)
        first, last, large = (cv2.resize(p, size, interpolation=cv2.INTER_CUBIC) for p in (before, after, mask))
        large = large.clip(0, 1)
        low, high = np.percentile(before[mask > 0.5], (1, 99))
        levels = float(low), float(high)
        if known is None:
            flow = self._bounded(self._supported(_dense(first, last, large, levels), first, last, large, levels))
        else:
            coarse, sure = known
            length = np.linalg.norm(coarse, axis=-1, keepdims=True)
            bound = np.minimum(1, self.longest * SIDE / np.maximum(length, 1e-6))
            coarse = unfold(coarse * large[..., None] * bound)
            moved = sample(first, coarse)
            rest = self._supported(_dense(moved, last, large, levels), moved, last, large, levels)
            rest = self._bounded(rest, (self.longest + (self.rest - self.longest) * sure)[..., None])
            flow = unfold(rest + sample(coarse, rest))
        side = len(before)
        return cv2.resize(flow, (side, side), interpolation=cv2.INTER_AREA) * (side / SIDE)

    def _supported(
        self, flow: np.ndarray, before: np.ndarray, after: np.ndarray, mask: np.ndarray, levels: tuple[float, float]
    ) -> np.ndarray:
        """The flow ``[S, S, 2]`` where both pictures have edges, and smooth between them."""
        contrast = max(levels[1] - levels[0], 1.0)

        def edges(picture: np.ndarray) -> np.ndarray:
            dy, dx = np.gradient(cv2.GaussianBlur(picture / contrast, (0, 0), 1.5))
            return cv2.GaussianBlur(np.hypot(dx, dy), (0, 0), 2.0)

        sure = smoothstep(np.minimum(sample(edges(before), flow), edges(after)), *self.edges).astype(np.float32) * mask
        around = _wide_blur(np.dstack([flow * sure[..., None], sure]), self.spread * SIDE)
        around = around[..., :2] / (around[..., 2:] + self.still)
        return (around + (flow - around) * sure[..., None]) * mask[..., None]

    def _bounded(self, flow: np.ndarray, bound: float | np.ndarray | None = None) -> np.ndarray:
        """The flow, no longer than a bound in crop sides, and without folds."""
        length = np.linalg.norm(flow, axis=-1, keepdims=True)
        most = (self.longest if bound is None else bound) * SIDE
        return unfold(flow * (most * np.tanh(length / most) / np.maximum(length, 1e-6)))


def _dense(first: np.ndarray, second: np.ndarray, mask: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Backward flow from the second picture to the first, float32 ``[S, S, 2]``.

    Polynomial expansion (Farnebäck 2003), refined by a variational method (Brox et al. 2004; both OpenCV), then
    smoothed and faded by the mask. Both read floating point: one of 8 bits lets a rounded level move a cheek.
    """
    low, high = levels

    def prepared(picture: np.ndarray) -> np.ndarray:
        # The refinement's weights are for pictures of 0 to 255: a dark face would be all smoothness.
        return ((picture - low) * (220.0 / max(high - low, 1.0)) + 18).clip(0, 255).astype(np.float32)

    new, old = prepared(second), prepared(first)
    flow = cv2.calcOpticalFlowFarneback(new, old, None, **EXPANSION, flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN)
    finder = cv2.VariationalRefinement_create()
    finder.setFixedPointIterations(ITERATIONS)
    finder.setAlpha(SMOOTH)
    finder.setDelta(EQUAL)
    for _ in range(PASSES):
        flow = finder.calc(new, old, flow)
    return cv2.GaussianBlur(flow, (0, 0), 1.0) * mask[..., None]


def _wide_blur(picture: np.ndarray, spread: float) -> np.ndarray:
    """A wide Gaussian blur, computed at a quarter of the side."""
    small = cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), spread / 4)
    return cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class KnownMovement:
    """The backbone's own movement and light; no optical flow."""

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with the backbone's own flow and light.

        Raises:
            EditError: the backbone only draws pictures.
        """
        known = scene.drawing.known
        if known is None:
            raise EditError("the compositor 'moved' is for backbones that know what they move; leave it out")
        return replace(composite, flow=known.flow, change=known.remainder)
