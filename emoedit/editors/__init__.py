"""An editor: one frozen backbone plus one or more fitted steerings."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor

from emoedit.editors import files as editor_files
from emoedit.editors.crops import as_crops
from emoedit.io import checkpoints
from emoedit.models.base import Backbone, Callback
from emoedit.models.devices import choose_device, in_batches
from emoedit.registry import DEFAULT_EDITOR
from emoedit.steering.base import Steering
from emoedit.types import Change, Control, CropSpec, Edit, EditError, Inversion

if TYPE_CHECKING:
    from emoedit.editors.units import AddedUnits, Sums
    from emoedit.models.stability.client import StabilityClient

Parts = str | os.PathLike[str] | Mapping[str, Any]  # emotion -> file, or a folder of files


@dataclass(frozen=True)
class EditOutput:
    """Edited aligned crops.

    Args:
        images: PIL pictures, edit by edit and in each picture by picture, or (``output_type="pt"``) float ``[E, N, C,
            R, R]`` in [-1, 1].
        edits: the E edits.
        inversion: inversion for the next call with the same pictures.
    """

    images: list[Image.Image] | Tensor
    edits: tuple[Edit, ...]
    inversion: Inversion

    def _repr_png_(self) -> bytes:
        from emoedit.report.display import edit_output_png

        return edit_output_png(self)


class Editor:
    """Edits aligned crops; ``emoedit.photo.PhotoEditor`` edits photographs with it.

    Args:
        backbone: frozen; never changed by an edit.
        steerings: their controls add.
        name: name in results.
        compositor: puts its edits into a photograph: a name, or a description as in ``editor.json``
            ([emoedit.compositing.compositors][]); default: the backbone's.
        units: action units that are added to the backbone's output: emotion -> unit -> weight at strength 1.

    Raises:
        EditError: no steering.
    """

    def __init__(
        self,
        backbone: Backbone,
        steerings: Sequence[Steering],
        *,
        name: str = "custom",
        compositor: str | Mapping[str, Any] | None = None,
        units: Sums | None = None,
    ) -> None:
        if not steerings:
            raise EditError("an editor needs at least one steering")
        self.backbone = backbone.eval().requires_grad_(False)
        self.steerings = [steering.eval().requires_grad_(False) for steering in steerings]
        self.name = name
        self.compositor = self.backbone.compositor if compositor is None else compositor
        self.units = _added_units(self, units) if units else None
        self.batch: int | None = None  # pictures at once; None: what suits the backbone

    @property
    def emotions(self) -> tuple[str, ...]:
        """Names that need no mixture: every steering has them."""
        first, *rest = self.steerings
        return tuple(name for name in first.emotions if all(name in other.emotions for other in rest))

    @property
    def batches_edits(self) -> bool:
        """Whether edits are drawn in common batches, so that one that fails takes others with it."""
        return self.backbone.batches_edits

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.backbone.device

    def _repr_html_(self) -> str:
        from emoedit.report.display import editor_html

        return editor_html(self)

    def to(self, device: str | torch.device) -> Self:
        """Move the weights; returns itself.

        Args:
            device: a name that ``torch.device`` takes.
        """
        self.backbone.to(device)
        for steering in self.steerings:
            steering.to(device)
        return self

    def with_sampling(self, **settings: Any) -> Self:
        """This editor at other settings of sampling (``steps``, ``guidance``, ...); weights and steerings are shared.

        Args:
            **settings: settings of the backbone (``emoedit.models.base.Backbone.settings``).

        Raises:
            EditError: settings that the backbone does not have, or that make no sense.
        """
        other = copy.copy(self)
        other.backbone = self.backbone.with_sampling(**settings)
        return other

    @property
    def batch_size(self) -> int:
        """How many pictures are drawn at once."""
        return self.batch or self.backbone.batch_size

    @torch.no_grad()
    def invert(
        self, images: Any, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """Invert crops, once for any number of edits.

        Args:
            images: aligned crops (``as_crops``); not modified.
            generator: random generator, for backbones that draw noise.
            callback: called with (steps done, steps in all).

        Returns:
            An inversion whose extras also hold ``source`` and ``reconstruction``, ``[N, C, R, R]`` in [-1, 1]. Its
            fingerprint is the same for the same crops, backbone (kind, settings, and a sample of its weights) and
            generator's state.
        """
        x = as_crops(images, self.backbone)
        digest = hashlib.sha256(self.backbone.identity().encode())
        digest.update(b"" if generator is None else generator.get_state().numpy().tobytes())
        digest.update(x.cpu().numpy().tobytes())
        state = None if generator is None else generator.get_state()

        def taken_apart(part: slice) -> Inversion:
            if state is not None and generator is not None:
                generator.set_state(state)  # a picture's noise does not depend on its batch
            found = self.backbone.invert(x[part], generator=generator, callback=callback)
            return replace(found, extras={**found.extras, "reconstruction": self.backbone.decode(found)})

        done = list(in_batches(len(x), self.batch_size, taken_apart, halved=self._halved))
        extras = {name: torch.cat([part.extras[name] for part in done]) for name in done[0].extras}
        latent = torch.cat([part.latent for part in done])
        return Inversion(latent, {**extras, "source": x}, digest.hexdigest()[:16])

    def _halved(self, size: int) -> None:
        """Go on with batches of a size that fits."""
        self.batch = min(size, self.batch_size)

    def control(self, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """The sum of the steerings' controls, with one edit for each picture.

        Args:
            inversion: inversion of N pictures.
            edits: one for each picture.
        """
        total = Control()
        for steering in self.steerings:
            total = total + steering.control(self.backbone, inversion, edits)
        return total

    @torch.no_grad()
    def decode(self, inversion: Inversion, edits: Sequence[Edit], *, batch_size: int | None = None) -> Iterator[Tensor]:
        """The backbone's output for each edit, ``[N, C, R, R]`` each.

        Compare it with the reconstruction, not with the source. A strength of 0 gives the reconstruction itself.

        Args:
            inversion: inversion of N pictures.
            edits: each for all pictures.
            batch_size: pictures in one pass of the model; None for its own.
        """
        drawings = self._drawn(inversion, edits, batch_size)
        for edit, drawn in zip(edits, drawings, strict=True):
            yield drawn if self.units is None or not edit.strength else self.units(drawn, edit)

    def _drawn(self, inversion: Inversion, edits: Sequence[Edit], batch_size: int | None) -> Iterator[Tensor]:
        """What the backbone draws, without units."""
        count = len(inversion)
        if not self.backbone.batches_edits:
            controls = [self.control(inversion, [edit] * count) if edit.strength else None for edit in edits]
            for control in controls:  # what makes no sense was refused before anything is drawn
                drawn = None if control is None else self.backbone.decode(inversion, control)
                yield inversion.extras["reconstruction"] if drawn is None else drawn
            return
        jobs = [(e, n) for e, edit in enumerate(edits) if edit.strength for n in range(count)]
        reconstruction = inversion.extras["reconstruction"]
        done: dict[int, list[Tensor]] = {e: [] for e in range(len(edits))}

        def draw(which: slice) -> tuple[list[tuple[int, int]], Tensor]:
            batch = jobs[which]
            pick = torch.tensor([n for _, n in batch], device=inversion.latent.device)
            part = replace(
                inversion,
                latent=inversion.latent[pick],
                extras={k: v[pick] for k, v in inversion.extras.items()},
            )
            return batch, self.backbone.decode(part, self.control(part, [edits[i] for i, _ in batch]))

        drawing = in_batches(len(jobs), batch_size or self.batch_size, draw, halved=self._halved)
        for e, edit in enumerate(edits):
            if not edit.strength:
                yield reconstruction
                continue
            while len(done[e]) < count:
                batch, drawn = next(drawing)
                for (i, _), picture in zip(batch, drawn, strict=True):
                    done[i].append(picture)
            yield torch.stack(done.pop(e))

    @torch.no_grad()
    def changes(self, inversion: Inversion, edit: Edit) -> list[Change] | None:
        """The flow and light of an edit for each picture; None if the backbone only draws pictures.

        Args:
            inversion: inversion of N pictures.
            edit: the edit of all pictures.
        """
        if type(self.backbone).changes is Backbone.changes:
            return None  # and no control is computed
        edits = [edit] * len(inversion)
        return self.backbone.changes(inversion, self.control(inversion, edits))

    def edit(self, inversion: Inversion, edits: Sequence[Edit], *, batch_size: int | None = None) -> Iterator[Tensor]:
        """The edited source for each edit in turn, ``[N, C, R, R]`` in [-1, 1].

        The residual of the reconstruction is added, so strength 0 gives the source.

        Args:
            inversion: inversion of N pictures.
            edits: each for all pictures.
            batch_size: pictures in one pass of the model; None for its own.
        """
        lost = inversion.extras["source"] - inversion.extras["reconstruction"]
        for edit, drawn in zip(edits, self.decode(inversion, edits, batch_size=batch_size), strict=True):
            yield inversion.extras["source"].clone() if not edit.strength else (drawn + lost).clamp(-1, 1)

    def __call__(
        self,
        images: Any = None,
        emotions: str | Sequence[str] = "happy",
        *,
        strength: float | Sequence[float] = 1.0,
        inversion: Inversion | None = None,
        generator: torch.Generator | None = None,
        output_type: Literal["pil", "pt"] = "pil",
    ) -> EditOutput:
        """Edit aligned crops: every emotion at every strength.

        Args:
            images: aligned crops (``as_crops``); may be left out when ``inversion`` is given.
            emotions: names of emotions.
            strength: 0 is the source, 1 the fitted effect.
            inversion: inversion of an earlier call with the same pictures.
            generator: draws the noise, where a model draws any.
            output_type: ``"pil"`` or ``"pt"`` (tensors in [-1, 1]).
        """
        if inversion is None:
            if images is None:
                raise EditError("give images or an inversion")
            inversion = self.invert(images, generator=generator)
        names = [emotions] if isinstance(emotions, str) else list(emotions)
        strengths = [strength] if isinstance(strength, int | float) else list(strength)
        edits = tuple(Edit(name, s) for name in names for s in strengths)
        stacked = torch.stack(list(self.edit(inversion, edits)))
        if output_type == "pt":
            return EditOutput(stacked, edits, inversion)
        if output_type != "pil":
            raise EditError(f"output_type must be 'pil' or 'pt', not {output_type!r}")
        levels = ((stacked + 1) * 127.5).round().clamp(0, 255).byte().cpu().flatten(0, 1).permute(0, 2, 3, 1).numpy()
        pictures = [Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row) for row in levels]
        return EditOutput(pictures, edits, inversion)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        card: str | None = None,
        backbone_of: str | os.PathLike[str] | None = None,
        **info: Any,
    ) -> Path:
        """Write a folder that ``from_pretrained`` reads: ``editor.json``, a folder for each part, ``README.md``.

        A model of others is named and not copied: ``editor.json`` says where its weights come from.

        Args:
            folder: path of the folder.
            card: the model card (Markdown).
            backbone_of: another editor (a name, a folder) with the same backbone, which is not written twice then;
                settings of sampling may differ.
            **info: more entries of ``editor.json``: ``role`` (in a few words, for lists of editors), ``licence``,
                ``reference`` (whether other editors are compared with it).

        Raises:
            EditError: a part of a class that no name is registered for, so that it could not be found again; another
                backbone than that of ``backbone_of``.
            OutputError: it cannot be written. An older folder of that name is kept in both cases.
        """
        return editor_files.write_editor(self, Path(folder), card=card, backbone_of=backbone_of, info=info)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, revision: str | None = None, backbone: str | None = None
    ) -> Self:
        """An editor by embedded name, folder, or ``owner/name`` on the hub.

        Args:
            name_or_path: which.
            revision: revision of a repository on the hub.
            backbone: where the weights are, of an editor that names a model and does not hold it; default: where it
                says.

        Raises:
            UnknownNameError: no such name.
            CheckpointError: not there, damaged, or another format; weights whose checksum differs are refused.
        """
        model, steerings, found = editor_files.read_parts(name_or_path, revision=revision, backbone=backbone)
        return cls(model, steerings, name=found["name"], compositor=found.get("compositor"), units=found.get("units"))

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, card: str | None = None
    ) -> str:
        """Upload to the Hugging Face hub; returns the address of the commit.

        Args:
            repo_id: ``owner/name``.
            private: whether only its owner sees a new repository.
            token: token of the hub; None for the one that is stored.
            card: text of ``README.md``; None for a short one.
        """
        return editor_files.upload(self, repo_id, private=private, token=token, card=card)


def _added_units(editor: Editor, units: Sums) -> AddedUnits:
    from emoedit.editors.units import AddedUnits  # only where there are some: it loads SciPy

    return AddedUnits(units, editor.emotions, editor.backbone)


def load_editor(
    name_or_path: str | os.PathLike[str] = DEFAULT_EDITOR,
    *,
    device: str = "auto",
    precision: str | None = None,
    batch: int | None = None,
    offload: bool = False,
    compile: bool = False,
    model: str | os.PathLike[str] | None = None,
    tokens: Parts | None = None,
    shifts: Parts | None = None,
    boundaries: Parts | None = None,
    layers: Sequence[int] | None = None,
    revision: str | None = None,
    name: str | None = None,
    **settings: Any,
) -> Editor:
    """An editor, loaded once and used for many photographs.

    Args:
        name_or_path: an embedded name (``list_editors``); a full-size one (``"sd15"``, ``"celebahq"``, ...: see
            ``emoedit.models.pretrained.TABLE``); a folder of an editor, or of a model in the layout of diffusers; a
            single weight file; ``owner/name`` on the hub; or a registered editor (``emoedit.registry.EDITORS``: a
            service, or one of an installed plugin).
        device: ``"auto"`` (CUDA, then MPS, then CPU), ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:1"``.
        precision: ``"auto"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``; default: auto for full-size models, what
            their folder says for embedded ones.
        batch: how many pictures are drawn at once, at most; default: what suits the model. A batch that does not fit
            into memory is halved.
        offload: parts of the model that are not at work wait on the CPU.
        compile: ``torch.compile`` translates what runs in every step: slower at first, faster later.
        model: the weights of a full-size editor: a folder, a file, or ``owner/name``.
        tokens: emotion -> file or folder of a learned token.
        shifts: emotion -> file of a shift of h (Asyrp), or a folder with files under their published names.
        boundaries: emotion -> file of a boundary in W, or (file, how far strength 1 goes).
        layers: layers of W+ that boundaries may change: from the first to before the second.
        revision: revision of a repository on the hub.
        name: name in results; default: its own name.
        **settings: settings of the model (``steps=20``, ``guidance=5.0``, ...).

    Raises:
        UnknownNameError: no such editor.
        CheckpointError: weights or parts that are missing, damaged, unsafe, or of another kind.
        EditError: a device that is not there; settings that the model does not have, or that make no sense.
        DeviceMemoryError: the weights do not fit on the device.
    """
    from emoedit.full_size import Request  # which builds on this module

    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise EditError(f"batch is a whole number from 1 on, not {batch!r}")
    device = choose_device(device)
    weights, only = None if model is None else os.fspath(model), None if layers is None else tuple(layers)
    parts: dict[str, Any] = {"tokens": tokens, "shifts": shifts, "boundaries": boundaries, "revision": revision}
    request = Request(os.fspath(name_or_path), model=weights, layers=only, settings=settings, **parts)
    editor = request.load(device, precision=precision, offload=offload, compile=compile)
    editor.batch = batch
    editor.name = name or editor.name
    return editor


def stability_editor(
    client: StabilityClient | None = None, *, crop: CropSpec | None = None, name: str = "stability"
) -> Editor:
    """Stability AI's service as an editor (``load_editor("stability")``). Building one needs neither key nor network.

    Args:
        client: client of the service; default: one with its defaults.
        crop: crop of a photograph that is sent; default: 768 px, as FFHQ's.
        name: name in results.
    """
    from emoedit.models.stability.backbone import CROP, StabilityBackbone
    from emoedit.steering.prompts import Prompts

    return Editor(StabilityBackbone(client, crop=crop or CROP), [Prompts()], name=name)


def list_editors() -> tuple[str, ...]:
    """Names of the editors that come with this package, without the references that others are compared with.

    An embedded editor is described by its folder (``editor.json``) alone; each folder is an editor.
    """
    return checkpoints.editor_names()
