"""Parts by name: editors, backbones, steerings, metrics and data readers, of this package or of an installed plugin.

Nothing is imported before it is asked for, so that ``import emoedit`` loads no deep-learning framework.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from emoedit.emotions import fold_name, unknown_name
from emoedit.types import EmoEditError

if TYPE_CHECKING:
    from emoedit.editors import Editor
    from emoedit.metrics.measure import Measure
    from emoedit.models.base import Backbone
    from emoedit.steering.base import Steering
    from emoedit.training.readers import Sample

T = TypeVar("T")


class RegistryError(EmoEditError):
    """A name that is registered twice, or whose object cannot be imported."""


class Registry(Generic[T]):
    """A mapping from names to objects that are imported when they are first asked for.

    Names are compared without regard to case, spaces, hyphens and underscores. What is registered precedes plugins: one
    that claims a taken name is ignored with a warning.

    Args:
        kind: kind of what is registered, for messages ("backbone").
        group: the entry-point group in which other distributions offer theirs ("emoedit.backbones").
    """

    def __init__(self, kind: str, group: str) -> None:
        self._kind = kind
        self._group = group
        self._names: dict[str, str] = {}  # folded name -> name
        self._values: dict[str, T | EntryPoint] = {}
        self._discovered = False

    def register(self, name: str, target: T | str | None = None) -> Callable[[T], T]:
        """Add an object, or where to import it from; without a target, a decorator that adds what it decorates.

        Args:
            name: what ``names`` lists.
            target: the object, or ``"module:attribute"``, which is imported by the first ``get``.

        Returns:
            The decorator, which hands back what it is given; to be ignored where a target was passed.

        Raises:
            RegistryError: the name is taken, or a string is not of the form ``"module:attribute"``.
        """

        def add(value: T) -> T:
            self._add(name, value)
            return value

        if isinstance(target, str):
            if not all(part.isidentifier() for part in target.replace(":", ".", 1).split(".")) or ":" not in target:
                raise RegistryError(f"{self._kind} {name!r}: expected 'module:attribute', not {target!r}")
            self._add(name, EntryPoint(name, target, self._group))
        elif target is not None:
            add(target)
        return add

    def get(self, name: str) -> T:
        """The object of a name, imported if it has not been yet.

        Args:
            name: or alias.

        Raises:
            UnknownNameError: there is none; the message holds the nearest names.
            RegistryError: it is known, but importing it fails.
        """
        self.check(name)
        found = self._names[fold_name(name)]
        value = self._values[found]
        if isinstance(value, EntryPoint):
            value = self._values[found] = self._load(value)
        return value

    def check(self, name: str) -> None:
        """Whether there is such a name; imports nothing.

        Args:
            name: or alias.

        Raises:
            UnknownNameError: there is none; the message holds the nearest names.
        """
        if fold_name(name) not in self._names:
            self._discover()
        if fold_name(name) not in self._names:
            raise unknown_name(self._kind, name, self._names)

    def names(self, *, alphabetical: bool = True) -> tuple[str, ...]:
        """All names, those of plugins included; imports nothing.

        Args:
            alphabetical: whether they are sorted; else they stand in the order of registration, plugins last.
        """
        self._discover()
        return tuple(sorted(self._values)) if alphabetical else tuple(self._values)

    def _add(self, name: str, value: T | EntryPoint) -> None:
        key = fold_name(name)
        if not key:
            raise RegistryError(f"a {self._kind} cannot have an empty name")
        if key in self._names:
            raise RegistryError(f"the {self._kind} name {name!r} is already taken by {self._names[key]!r}")
        self._values[name], self._names[key] = value, name

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        for plugin in entry_points(group=self._group):
            try:
                self._add(plugin.name, plugin)
            except RegistryError as error:
                warnings.warn(f"ignoring {_describe(plugin)}: {error}", stacklevel=3)

    def _load(self, entry: EntryPoint) -> Any:
        try:
            return entry.load()
        except EmoEditError:  # already says what to do, such as which extra to install
            raise
        except Exception as error:  # a plugin can fail in any way
            why = f"{type(error).__name__}: {error}"
            raise RegistryError(f"{self._kind} {entry.name!r} ({_describe(entry)}) cannot be loaded: {why}") from error


def _describe(entry: EntryPoint) -> str:
    return entry.value if entry.dist is None else f"{entry.value} of the installed package {entry.dist.name}"


DEFAULT_EDITOR = "stylegan"  # what edits where none is named

EDITORS: Registry[Callable[[], Editor]] = Registry("editor", "emoedit.editors")  # those that no folder describes
BACKBONES: Registry[type[Backbone]] = Registry("backbone", "emoedit.backbones")
STEERINGS: Registry[type[Steering]] = Registry("steering", "emoedit.steerings")
READERS: Registry[Callable[[Path], Sequence[Sample]]] = Registry("data reader", "emoedit.readers")
METRICS: Registry[Measure] = Registry("metric", "emoedit.metrics")  # columns of every row, in this order
COMPOSITORS: Registry[Callable[[], Any]] = Registry("compositor", "emoedit.compositors")  # functions without arguments
COMPOSITOR_PARTS: Registry[type] = Registry("compositor part", "emoedit.compositor_parts")

EDITORS.register("stability", "emoedit.editors:stability_editor")
BACKBONES.register("vae", "emoedit.models.vae.backbone:VAEBackbone")
BACKBONES.register("ddpm", "emoedit.models.ddpm.backbone:DDPMBackbone")
BACKBONES.register("stylegan2", "emoedit.models.stylegan2.backbone:StyleGAN2Backbone")
BACKBONES.register("stable_diffusion", "emoedit.models.stable_diffusion.backbone:StableDiffusionBackbone")
BACKBONES.register("pixels", "emoedit.models.pixels.backbone:PixelBackbone")
BACKBONES.register("faceflex", "emoedit.models.faceflex.backbone:FaceFlexVAE")
BACKBONES.register("instruct", "emoedit.models.instruct.backbone:InstructBackbone")
BACKBONES.register("landmarks", "emoedit.models.landmarks.backbone:LandmarkBackbone")
STEERINGS.register("directions", "emoedit.steering.directions:LatentDirections")
STEERINGS.register("hspace", "emoedit.steering.hspace:HSpace")
STEERINGS.register("instructions", "emoedit.steering.instructions:Instructions")
STEERINGS.register("words", "emoedit.steering.words:Words")
STEERINGS.register("tokens", "emoedit.steering.tokens:EmotionTokens")
STEERINGS.register("token_shift", "emoedit.steering.combined:TokenShift")
STEERINGS.register("token_and_shift", "emoedit.steering.combined:TokenAndShift")
STEERINGS.register("wspace", "emoedit.steering.wspace:WDirections")
STEERINGS.register("space", "emoedit.steering.space:SpaceDirections")
STEERINGS.register("space_words", "emoedit.steering.space:SpaceWords")
STEERINGS.register("prompts", "emoedit.steering.prompts:Prompts")
STEERINGS.register("units", "emoedit.steering.units:ActionUnits")
READERS.register("labels_csv", "emoedit.training.readers:read_labels_csv")
READERS.register("class_folders", "emoedit.training.readers:read_class_folders")
READERS.register("fer_csv", "emoedit.training.readers:read_fer_csv")
READERS.register("ferplus", "emoedit.training.votes:read_ferplus")
READERS.register("celeba", "emoedit.training.readers:read_celeba")
READERS.register("pairs", "emoedit.training.readers:read_pairs")
READERS.register("faces", "emoedit.training.readers:read_faces")
METRICS.register("target_score", "emoedit.metrics.expression:TARGET_SCORE")
METRICS.register("identity", "emoedit.metrics.identity:IDENTITY")
METRICS.register("hes", "emoedit.metrics.expression:HES")
METRICS.register("perceptual", "emoedit.metrics.perceptual:PERCEPTUAL")
METRICS.register("expression_change", "emoedit.metrics.expression:EXPRESSION_CHANGE")
METRICS.register("paired_perceptual", "emoedit.metrics.paired:PAIRED_PERCEPTUAL")
METRICS.register("paired_identity", "emoedit.metrics.paired:PAIRED_IDENTITY")
METRICS.register("paired_landmarks", "emoedit.metrics.paired:PAIRED_LANDMARKS")
METRICS.register("confidence", "emoedit.metrics.confidence:CONFIDENCE")
METRICS.register("fold_free", "emoedit.metrics.quality:FOLD_FREE")
METRICS.register("sharpness_kept", "emoedit.metrics.quality:SHARPNESS_KEPT")
METRICS.register("ssim", "emoedit.metrics.quality:SSIM")
METRICS.register("ms_ssim", "emoedit.metrics.quality:MS_SSIM")
METRICS.register("psnr", "emoedit.metrics.quality:PSNR")
METRICS.register("background_change", "emoedit.metrics.quality:BACKGROUND_CHANGE")
METRICS.register("landmark_drift", "emoedit.metrics.landmarks:LANDMARK_DRIFT")
METRICS.register("pose_drift", "emoedit.metrics.landmarks:POSE_DRIFT")
METRICS.register("eye_opening_change", "emoedit.metrics.landmarks:EYE_OPENING_CHANGE")
METRICS.register("mouth_opening_change", "emoedit.metrics.landmarks:MOUTH_OPENING_CHANGE")
METRICS.register("mouth_width_change", "emoedit.metrics.landmarks:MOUTH_WIDTH_CHANGE")
METRICS.register("mouth_corners_change", "emoedit.metrics.landmarks:MOUTH_CORNERS_CHANGE")
METRICS.register("inner_brow_change", "emoedit.metrics.landmarks:INNER_BROW_CHANGE")
METRICS.register("outer_brow_change", "emoedit.metrics.landmarks:OUTER_BROW_CHANGE")
METRICS.register("entropy", "emoedit.metrics.quality:ENTROPY")
METRICS.register("noise", "emoedit.metrics.quality:NOISE")
COMPOSITORS.register("drawn", "emoedit.compositing.compositors:drawn")
COMPOSITORS.register("coloured", "emoedit.compositing.compositors:coloured")
COMPOSITORS.register("rgb", "emoedit.compositing.compositors:rgb")
COMPOSITORS.register("moved", "emoedit.compositing.compositors:moved")
COMPOSITORS.register("landmarks", "emoedit.compositing.known:landmarks")
COMPOSITORS.register("added", "emoedit.compositing.compositors:added")
COMPOSITORS.register("replace", "emoedit.compositing.compositors:replaced")
COMPOSITOR_PARTS.register("movement", "emoedit.compositing.movement:Movement")
COMPOSITOR_PARTS.register("known_movement", "emoedit.compositing.movement:KnownMovement")
COMPOSITOR_PARTS.register("skin", "emoedit.compositing.skin:Skin")
COMPOSITOR_PARTS.register("eyes", "emoedit.compositing.eyes:Eyes")
COMPOSITOR_PARTS.register("mouth", "emoedit.compositing.mouth:Mouth")
COMPOSITOR_PARTS.register("known_mouth", "emoedit.compositing.known:KnownMouth")
COMPOSITOR_PARTS.register("light", "emoedit.compositing.light:Light")
COMPOSITOR_PARTS.register("colour", "emoedit.compositing.colour:Colour")
COMPOSITOR_PARTS.register("front", "emoedit.compositing.front:Front")
COMPOSITOR_PARTS.register("new_edges", "emoedit.compositing.rgb:NewEdges")
COMPOSITOR_PARTS.register("added_change", "emoedit.compositing.added:AddedChange")
COMPOSITOR_PARTS.register("whole_drawing", "emoedit.compositing.rgb:WholeDrawing")
