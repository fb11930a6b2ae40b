"""Edited pictures in response to the expression in a camera or a video.

The loop of VAHA (a student project: webcam, emotion, picture, ranking) with edits of the person in front of the camera:
the response shows that person with the same emotion, stronger, or with its opposite.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from emoedit.evaluation.best import Best, best
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.types import EmoEditError, NoFaceError

SMOOTHING = 0.7  # share of the last reading in the next one: at ten frames a second it follows within half a second
NEUTRAL = 0.6  # probability from which a face is taken for neutral; below it the strongest emotion is
# Opposites of everyday language. Points mirrored on the circumplex would make boredom the opposite of fear.
OPPOSITES: Mapping[str, str] = {
    "neutral": "happy",
    "happy": "sad",
    "sad": "happy",
    "angry": "happy",
    "surprised": "neutral",
    "fearful": "happy",
    "disgusted": "happy",
}


class VideoError(EmoEditError, OSError):
    """A camera or a video that gives no picture."""


@dataclass(frozen=True)
class Reading:
    """What one frame shows.

    Args:
        frame: its number, from 0.
        rgb: uint8 ``[H, W, 3]``.
        face: the largest one; None where there is none.
        scores: emotion -> probability, smoothed over time; of the frames before where this one shows no face.
    """

    frame: int
    rgb: np.ndarray
    face: Face | None
    scores: Mapping[str, float]

    @property
    def emotion(self) -> str | None:
        """What is read; None before a face was seen."""
        if not self.scores:
            return None
        others = {name: p for name, p in self.scores.items() if name != "neutral"}
        return "neutral" if self.scores.get("neutral", 0.0) >= NEUTRAL else max(others, key=others.__getitem__)


@dataclass(frozen=True)
class Mirror:
    """The result of [mirror][emoedit.evaluation.mirror.mirror].

    Args:
        reading: the frame that was answered.
        shown: the emotion that was read.
        answered: the emotion of the pictures.
        best: the pictures, ranked.
        frames: how many frames were read.
        faceless: how many of them showed no face.
    """

    reading: Reading
    shown: str
    answered: str
    best: Best
    frames: int
    faceless: int


def frames(source: int | str | os.PathLike[str], *, limit: int | None = None) -> Iterator[np.ndarray]:
    """The frames of a camera or of a video file.

    Args:
        source: the number of a camera, or a file.
        limit: the most frames; None for all of a file, and for a camera until it stops.

    Yields:
        uint8 ``[H, W, 3]`` RGB.

    Raises:
        VideoError: no such camera or file, or one that gives no frame.
    """
    where = f"camera {source}" if isinstance(source, int) else f"the video {os.fspath(source)}"
    if not isinstance(source, int) and not os.path.isfile(source):
        raise VideoError(f"{where} is not there")
    capture = cv2.VideoCapture(source if isinstance(source, int) else os.fspath(source))
    try:
        if not capture.isOpened():
            raise VideoError(f"{where} cannot be opened; is it plugged in, and is no other program using it?")
        count = 0
        while limit is None or count < limit:
            there, frame = capture.read()
            if not there or frame is None:
                break
            count += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if count == 0:
            raise VideoError(f"{where} gives no frame")
    finally:
        capture.release()


def read_expressions(pictures: Iterable[np.ndarray], *, device: str = "cpu") -> Iterator[Reading]:
    """The expression of the largest face of every frame, smoothed over time.

    A frame without a face keeps the last reading.

    Args:
        pictures: uint8 ``[H, W, 3]`` each.
        device: device of the networks.
    """
    detector = FaceDetector(device)
    network = EmbeddedNetwork.load("expression", device=device)
    smooth: dict[str, float] = {}
    for number, rgb in enumerate(pictures):
        try:
            face = detector.choose(rgb, "largest")[0]
        except NoFaceError:
            yield Reading(number, rgb, None, dict(smooth))
            continue
        scores = network.scores(network.faces(rgb, face)[None])[0]
        now = {name: float(p) for name, p in zip(network.emotions, scores, strict=True)}
        smooth = {name: SMOOTHING * smooth.get(name, p) + (1 - SMOOTHING) * p for name, p in now.items()}
        yield Reading(number, rgb, face, dict(smooth))


@dataclass(frozen=True)
class Observation:
    """The expression observed by a camera.

    Args:
        reading: the frame in which the emotion is read most surely.
        shown: the emotion that was read at the end.
        frames: how many frames were read.
        faceless: how many of them showed no face.
    """

    reading: Reading
    shown: str
    frames: int
    faceless: int

    def answer(self, *, opposite: bool = False, emotion: str | None = None) -> str:
        """The emotion to answer with.

        Args:
            opposite: the opposite of what is shown.
            emotion: this one, whatever is shown.
        """
        return emotion or (OPPOSITES[self.shown] if opposite else self.shown)


def observe(
    source: int | str | os.PathLike[str],
    *,
    limit: int = 50,
    callback: Callable[[Reading], None] | None = None,
    device: str = "cpu",
) -> Observation:
    """Watch a face for a while.

    Args:
        source: the number of a camera, or a video file.
        limit: how many frames are read.
        callback: is called with every reading.
        device: device of the networks.

    Raises:
        VideoError: no such camera or video, or one that gives no frame.
        NoFaceError: no frame shows a face.
    """
    seen: list[Reading] = []
    total = 0
    for reading in read_expressions(frames(source, limit=limit), device=device):
        total += 1
        if callback is not None:
            callback(reading)
        if reading.face is not None:
            seen.append(reading)
    if not seen:
        raise NoFaceError(f"none of {total} frames shows a face; sit nearer, and in the light")
    shown = seen[-1].emotion
    assert shown is not None  # a frame with a face has scores
    chosen = max(seen, key=lambda reading: reading.scores[shown] * reading.face.confidence if reading.face else 0.0)
    return Observation(chosen, shown, total, total - len(seen))


def mirror(
    source: int | str | os.PathLike[str],
    *,
    opposite: bool = False,
    emotion: str | None = None,
    limit: int = 50,
    callback: Callable[[Reading], None] | None = None,
    device: str = "cpu",
    **options: Any,
) -> Mirror:
    """Watch a face and answer its expression with pictures of it.

    The frame that is answered is the one in which the emotion is read most surely.

    Args:
        source: the number of a camera, or a video file.
        opposite: answer with the opposite emotion.
        emotion: answer with this one, whatever is read.
        limit: how many frames are read.
        callback: is called with every reading.
        device: device of the editors and networks.
        options: options of [best][emoedit.evaluation.best.best].

    Raises:
        VideoError: no such camera or video, or one that gives no frame.
        NoFaceError: no frame shows a face.
        EmoEditError: as ``best`` raises.
    """
    found = observe(source, limit=limit, callback=callback, device=device)
    answered, reading = found.answer(opposite=opposite, emotion=emotion), found.reading
    pictures = best(reading.rgb, answered, face=reading.face or "largest", device=device, **options)
    return Mirror(reading, found.shown, answered, pictures, found.frames, found.faceless)
