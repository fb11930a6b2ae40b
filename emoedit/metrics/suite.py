"""All metrics of an edit; the networks are loaded once, and the source is embedded once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from emoedit.faces.align import align
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.masks import face_masks
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.metrics.expression import target_classes
from emoedit.metrics.measure import EditViews, View, measures
from emoedit.metrics.perceptual import perceptual_distance
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.types import CheckpointError, CropSpec, ImageError, UnknownNameError

QUALITY_CROP = CropSpec(256, "stable", 0.66, 0.074)  # where picture quality is measured
SURROUNDINGS = 2.6  # side of the measured region, in sides of the detector's box
CONFIDENCE_SIDE = 224  # pixels of that square for the detector: small, since it shows one large face


class Recogniser(Protocol):
    """A network that reads expressions: the crop it wants, and probabilities of its emotions."""

    name: str

    @property
    def emotions(self) -> tuple[str, ...]:
        """What it scores."""

    def faces(self, photo: np.ndarray, face: Face) -> np.ndarray:
        """The crop of a photograph, uint8 ``[H, W, 3]``, that the network takes.

        Args:
            photo: uint8 ``[H, W, 3]``.
            face: the face in the photograph.
        """

    def scores(self, faces: np.ndarray) -> Tensor:
        """Probabilities of the emotions, ``[N, E]``.

        Args:
            faces: N crops.
        """


@dataclass(frozen=True)
class Subject:
    """A source photograph, embedded once and compared with any number of its edits.

    Args:
        photo: uint8 ``[H, W, 3]``.
        face: the edited face.
        view: outputs of the networks.
        truth: the same person really showing the emotion, where there is a photograph.
    """

    photo: np.ndarray
    face: Face
    view: View
    truth: View | None = None


class Suite:
    """All measures of an edit.

    Source and edit are cropped alike, by the source's landmarks: an edit does not move a face, and a detector's jitter
    would count as change.

    Args:
        identity: ``"embedded"``, ``"vggface2"``, or ``"auto"``: VGGFace2 where its weights are on disk, else embedded.
        perceptual: ``"embedded"``, ``"lpips-alex"``, ``"lpips-vgg"``, ``"lpips-squeeze"``, or ``"auto"``: LPIPS (alex)
            where its trunk is on disk, else embedded.
        expression: ``"embedded"``, or a folder or hub name of a transformers image-classification model.
        device: device of the networks.

    Raises:
        UnknownNameError: no such network, weights that are not there, a package that is not installed.
        CheckpointError: no such network, weights that are not there, a package that is not installed.
        MissingExtraError: no such network, weights that are not there, a package that is not installed.
    """

    def __init__(
        self, *, identity: str = "auto", perceptual: str = "auto", expression: str = "embedded", device: str = "cpu"
    ) -> None:
        self.identity = _identity(identity, device)
        self.perceptual = _perceptual(perceptual, device)
        self.expression = _expression(expression, device)
        self.landmarks = EmbeddedNetwork.load("landmarks", device=device)
        self._detector = FaceDetector(device, min_confidence=0.0)
        self._inside = torch.from_numpy(face_masks(QUALITY_CROP).face)

    @property
    def backends(self) -> dict[str, str]:
        """Which networks measure: ``identity_backend``, ``perceptual_backend``, ``expression_backend``."""
        return {
            "identity_backend": self.identity.name,
            "perceptual_backend": self.perceptual.name,
            "expression_backend": self.expression.name,
        }

    @property
    def emotions(self) -> tuple[str, ...]:
        """The recogniser's classes; a row holds ``score_NAME`` for each."""
        return self.expression.emotions

    def views(self, photos: Sequence[np.ndarray], face: Face) -> list[View]:
        """Outputs of the networks for photographs of one size, uint8 ``[H, W, 3]``, with the face in one place.

        Args:
            photos: uint8 ``[H, W, 3]`` each.
            face: found in the source.
        """
        cut, face = _surroundings(photos, face)
        if not cut:
            return []
        identity = self.identity.embed(np.stack([self.identity.faces(p, face) for p in cut])).cpu()
        scores = self.expression.scores(np.stack([self.expression.faces(p, face) for p in cut])).cpu()
        points = self.landmarks.points(np.stack([self.landmarks.faces(p, face) for p in cut]))
        alignment = align(face.landmarks, QUALITY_CROP)
        grey = np.stack([cv2.cvtColor(alignment.crop(p), cv2.COLOR_RGB2GRAY) for p in cut])
        luminance = torch.from_numpy(grey)[:, None].float() / 127.5 - 1
        return [
            View(
                p,
                identity[i].cpu(),
                scores[i],
                points[i],
                self.perceptual.faces(p, face),
                luminance[i],
                self._confidence(p),
            )
            for i, p in enumerate(cut)
        ]

    def _confidence(self, photo: np.ndarray) -> float:
        """The detector's confidence in the middle face, 0 where it finds none."""
        small = cv2.resize(photo, (CONFIDENCE_SIDE, CONFIDENCE_SIDE), interpolation=cv2.INTER_AREA)
        middle = CONFIDENCE_SIDE / 2
        sure = [
            f.confidence
            for f in self._detector(small)
            if f.box[0] < middle < f.box[2] and f.box[1] < middle < f.box[3] and f.area > 0.04 * CONFIDENCE_SIDE**2
        ]
        return max(sure, default=0.0)

    def subject(self, photo: np.ndarray, face: Face, truth: tuple[np.ndarray, Face] | None = None) -> Subject:
        """Embed a source.

        Args:
            photo: uint8 ``[H, W, 3]``.
            face: the face that will be edited.
            truth: a photograph of the same person really showing the emotion, and the face in it.
        """
        view = self.views([photo], face)[0]
        return Subject(photo, face, view, None if truth is None else self.views([truth[0]], truth[1])[0])

    @torch.no_grad()
    def measure(
        self,
        subject: Subject,
        edited: Sequence[np.ndarray],
        emotions: Sequence[str],
        *,
        only: Collection[str] | None = None,
    ) -> list[dict[str, Any]]:
        """A row of numbers for each edit.

        Args:
            subject: the source.
            edited: photographs of the source's size, uint8 ``[H, W, 3]``.
            emotions: target emotion of each edit.
            only: keys of the metrics that are computed; None: all.

        Returns:
            For each edit the value of every registered metric (``emoedit.metrics.measure.measures``; None where it
            does not apply), ``score_NAME`` for each class of the recogniser, ``top1``, ``hit`` (1 where the intended
            emotion is read, None where the recogniser has no class of that name) and ``backends``.

        Raises:
            ImageError: a photograph of another size; not one emotion a photograph.
            UnknownNameError: an emotion that the recogniser has no class for.
        """
        if len(edited) != len(emotions):
            raise ImageError(f"{len(emotions)} emotions for {len(edited)} photographs")
        for picture in edited:
            if picture.shape != subject.photo.shape or picture.dtype != np.uint8:
                raise ImageError(
                    f"an edit has the size of its source, uint8 {subject.photo.shape}; found {picture.dtype} "
                    f"{picture.shape}"
                )
        if not edited:
            return []
        return self._rows(subject, self.views(edited, subject.face), emotions, photos=edited, only=only)

    def measure_other(self, subject: Subject, photo: np.ndarray, face: Face, emotion: str) -> dict[str, Any]:
        """A row for another photograph of the same person, taken from another place.

        Metrics that compare pixels place by place (``same_place``) are None.

        Args:
            subject: the source as the suite sees it.
            photo: uint8 ``[H, W, 3]``.
            face: found in it.
            emotion: the emotion it shows.
        """
        return self._rows(subject, self.views([photo], face), [emotion], photos=None)[0]

    def _rows(
        self,
        subject: Subject,
        edits: Sequence[View],
        emotions: Sequence[str],
        photos: Sequence[np.ndarray] | None,
        only: Collection[str] | None = None,
    ) -> list[dict[str, Any]]:
        views = EditViews(
            source=subject.view,
            edits=edits,
            emotions=emotions,
            classes=self.emotions,
            distance=self._distance,
            inside=self._inside,
            crop=self.landmarks.network.crop,
            truth=subject.truth,
            photo=subject.photo,
            face=subject.face,
            photos=photos,
        )
        columns = {m.key: m(views) for m in measures() if only is None or m.key in only}
        rows = []
        for i, emotion in enumerate(emotions):
            scores = views.scores[i]
            top = self.emotions[int(scores.argmax())]
            row: dict[str, Any] = {key: values[i] for key, values in columns.items()}
            row |= {f"score_{name}": round(float(scores[k]), 6) for k, name in enumerate(self.emotions)}
            row |= {"top1": top, "hit": int(top == emotion) if emotion in self.emotions else None}
            rows.append(row | self.backends)
        return rows

    def _distance(self, first: Sequence[View], second: Sequence[View]) -> Tensor:
        a, b = (np.stack([v.perceptual for v in views]) for views in (first, second))
        return self.perceptual.distance(a, b)

    def check_emotions(self, emotions: Sequence[str]) -> None:
        """Refuse emotions that the recogniser has no class for.

        Args:
            emotions: names of emotions.

        Raises:
            UnknownNameError: an emotion that the recogniser has no class for.
        """
        for emotion in emotions:
            target_classes(emotion, self.emotions)


def _surroundings(photos: Sequence[np.ndarray], face: Face) -> tuple[list[np.ndarray], Face]:
    """The surroundings of a face in each photograph, and the face in them: what lies further away is ignored."""
    if not photos:
        return [], face
    height, width = photos[0].shape[:2]
    x0, y0, x1, y1 = face.box
    half = SURROUNDINGS / 2 * max(x1 - x0, y1 - y0)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, int(cx - half)), max(0, int(cy - half))
    right, bottom = min(width, int(np.ceil(cx + half))), min(height, int(np.ceil(cy + half)))
    if right - left < 8 or bottom - top < 8:
        raise ImageError(
            f"the face's box {tuple(round(v, 1) for v in face.box)} has too little of the photograph in it"
        )
    shift = np.array([left, top], float)
    moved = Face((x0 - left, y0 - top, x1 - left, y1 - top), face.landmarks - shift, face.confidence)
    return [np.ascontiguousarray(photo[top:bottom, left:right]) for photo in photos], moved


class _EmbeddedPerceptual:
    """The embedded perceptual distance over uint8 crops."""

    name = "embedded"

    def __init__(self, device: str) -> None:
        self._network = EmbeddedNetwork.load("perceptual", device=device)
        trunk = self._network.network
        if not isinstance(trunk, PerceptualNetwork):
            raise CheckpointError("the embedded network 'perceptual' has heads: it is no trunk")
        self._trunk = trunk
        self.faces = self._network.faces

    def distance(self, first: np.ndarray, second: np.ndarray) -> Tensor:
        a, b = self._network.tensor(first), self._network.tensor(second)
        return perceptual_distance(a, b, self._trunk).cpu()


class _LPIPSPerceptual:
    """LPIPS over colour crops of ``QUALITY_CROP``."""

    def __init__(self, net: str, device: str) -> None:
        from emoedit.metrics.lpips import LPIPSDistance

        self.name = f"lpips-{net}"
        self._model = LPIPSDistance(net).to(device)
        self._device = device

    def faces(self, photo: np.ndarray, face: Face) -> np.ndarray:
        return align(face.landmarks, QUALITY_CROP).crop(photo)

    @torch.no_grad()
    def distance(self, first: np.ndarray, second: np.ndarray) -> Tensor:
        a, b = (torch.from_numpy(x).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (first, second))
        return torch.cat([self._model(p, q) for p, q in zip(a.split(16), b.split(16), strict=True)]).cpu()


class _TransformersRecogniser:
    """A transformers classifier over colour crops."""

    def __init__(self, name: str, device: str) -> None:
        from emoedit.metrics.classifier import TransformersExpression

        self.name = name
        self._model = TransformersExpression(name).to(device)
        self.scores = self._model.scores

    @property
    def emotions(self) -> tuple[str, ...]:
        return self._model.emotions

    def faces(self, photo: np.ndarray, face: Face) -> np.ndarray:
        return align(face.landmarks, QUALITY_CROP).crop(photo)


IDENTITY = ("auto", "embedded", "vggface2")
PERCEPTUAL = ("auto", "embedded", "lpips-alex", "lpips-vgg", "lpips-squeeze")


def _identity(name: str, device: str) -> Any:
    from emoedit.metrics.facenet import FaceNet

    if name not in IDENTITY:
        raise UnknownNameError(f"no identity network {name!r}; there are {', '.join(IDENTITY)}")
    if name == "vggface2" or name == "auto" and FaceNet.available():
        return FaceNet.from_file().to(device)
    return EmbeddedNetwork.load("identity", device=device)


def _perceptual(name: str, device: str) -> Any:
    if name not in PERCEPTUAL:
        raise UnknownNameError(f"no perceptual distance {name!r}; there are {', '.join(PERCEPTUAL)}")
    from emoedit.metrics.lpips import LPIPSDistance

    if name.startswith("lpips-") or name == "auto" and LPIPSDistance.available("alex"):
        return _LPIPSPerceptual(name.removeprefix("lpips-") if name != "auto" else "alex", device)
    return _EmbeddedPerceptual(device)


def _expression(name: str, device: str) -> Recogniser:
    if name == "embedded":
        return EmbeddedNetwork.load("expression", device=device)
    return _TransformersRecogniser(name, device)
