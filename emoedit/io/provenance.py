"""Content credentials (C2PA 2.x): a signed statement in the file of what was done to which photograph.

Needs the extra ``provenance`` (``c2pa-python``). Nothing is asked over the network: no time stamp is fetched, and no
certificate is looked up.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from emoedit.io.metadata import EDITED
from emoedit.types import CheckpointError, ImageError, MissingExtraError, OutputError

MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "TIFF": "image/tiff"}
_HEADS = {  # first bytes of a file -> what C2PA calls it
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"GIF8": "image/gif",
}
_SETTINGS = {
    # Thumbnails would show the face as it was before the edit.
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


@dataclass(frozen=True)
class Signer:
    """A certificate and its key.

    Args:
        certificate: PEM, the signer's first, then those that vouch for it; C2PA wants an end-entity certificate for
            e-mail protection or document signing.
        key: PEM, PKCS#8, without a passphrase: EC (P-256, P-384, P-521), Ed25519, or RSA (PSS).
    """

    certificate: Path
    key: Path

    def check(self) -> None:
        """Whether something can be signed with it.

        Raises:
            MissingExtraError: ``c2pa-python`` is not installed.
            CheckpointError: a file is missing or damaged, or no certificate and key that C2PA allows.
        """
        self._made(_library())

    def _made(self, c2pa: ModuleType) -> Any:
        try:
            certificate, key = self.certificate.expanduser().read_bytes(), self.key.expanduser().read_bytes()
            algorithm = _algorithm(key)
            return c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm.encode(), certificate, key, None))
        except OSError as error:
            raise CheckpointError(f"{error.filename} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # the library and the parsers of keys have errors of their own
            raise CheckpointError(
                f"nothing can be signed with {self.certificate} and {self.key}: {str(error)[:200]}; expected a "
                "certificate chain and an unencrypted PKCS#8 key, both PEM"
            ) from error


def _library() -> ModuleType:
    try:
        import c2pa
    except ImportError as error:
        raise MissingExtraError("c2pa-python", "provenance") from error
    return c2pa


def _algorithm(key: bytes) -> str:
    """C2PA's name of the algorithm that a private key is for."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found = load_pem_private_key(key, None)
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.key_size in (256, 384, 521):
        return {256: "es256", 384: "es384", 521: "es512"}[found.curve.key_size]
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(found, rsa.RSAPrivateKey):
        return "ps256"
    raise ValueError(f"a key of the kind {type(found).__name__} is not one that C2PA allows")


def sign(data: bytes | memoryview, kind: str, signer: Signer, source: bytes, title: str, edit: str) -> bytes:
    """A picture's file with credentials in it: opened, then edited by a model, and signed.

    Args:
        data: the file of the edited picture.
        kind: ``PNG``, ``JPEG``, ``WEBP`` or ``TIFF``.
        signer: who says so.
        source: the file of the photograph; its own credentials are kept whole, as those of an ingredient.
        title: name of the file.
        edit: description of the edit.

    Raises:
        MissingExtraError: ``c2pa-python`` is not installed.
        CheckpointError: nothing can be signed with ``signer``.
        OutputError: the photograph is of a format that C2PA does not know, or signing fails.
    """
    from emoedit import __version__

    c2pa = _library()
    made = signer._made(c2pa)
    action = {
        "action": "c2pa.edited",
        "digitalSourceType": EDITED,
        "softwareAgent": {"name": "emoedit", "version": __version__},
        "description": edit,
    }
    manifest = {
        "claim_generator_info": [{"name": "emoedit", "version": __version__}],
        "title": title,
        "format": MIME[kind],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    signed = io.BytesIO()
    try:
        builder = c2pa.Builder(json.dumps(manifest), context=c2pa.Context(c2pa.Settings.from_dict(_SETTINGS)))
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        mime = _mime_of(source)
        builder.add_ingredient({"title": "the photograph", "relationship": "parentOf"}, mime, io.BytesIO(source))
        builder.sign(made, MIME[kind], io.BytesIO(data), signed)
    except ImageError as error:
        raise OutputError(f"{title} cannot be signed: {error}") from error
    except Exception as error:  # the library has an error of its own for each failure
        raise OutputError(f"{title} cannot be signed: {str(error)[:300]}") from error
    return signed.getvalue()


def _mime_of(data: bytes) -> str:
    for head, mime in _HEADS.items():
        if data.startswith(head):
            return mime
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic"}.get(data[8:12], "image/heif")
    raise ImageError("the photograph is of a format that C2PA does not know; save it as PNG, JPEG, TIFF or WebP first")


def read_credentials(path: Path) -> Mapping[str, Any] | None:
    """The content credentials of a file.

    Args:
        path: path of a picture.

    Returns:
        None where there are none; else ``state`` (``Valid``: the file is as it was signed; ``Trusted``: and the signer
        is known to the library; ``Invalid``), ``problems``, ``issuer``, ``generator``, ``actions`` (name and digital
        source type), and ``ingredients`` (title and whether they have credentials of their own).

    Raises:
        MissingExtraError: ``c2pa-python`` is not installed.
        ImageError: the file cannot be read, or is of a format that C2PA does not know.
    """
    c2pa = _library()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))
        reader = c2pa.Reader(_mime_of(data), io.BytesIO(data), context=context)
        store, state = json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError.ManifestNotFound:
        return None
    except ImageError:
        raise
    except Exception as error:  # the library has an error of its own for each failure
        raise ImageError(f"{path}: its content credentials are damaged ({str(error)[:200]})") from error
    manifest = store["manifests"][store["active_manifest"]]
    actions = [
        {"action": action.get("action"), "source": action.get("digitalSourceType")}
        for assertion in manifest.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
    return {
        "state": str(state),
        "problems": [str(status.get("code")) for status in store.get("validation_status", [])],
        "issuer": manifest.get("signature_info", {}).get("issuer"),
        "generator": [entry.get("name") for entry in manifest.get("claim_generator_info", [])],
        "actions": actions,
        "ingredients": [
            {"title": each.get("title"), "credentials": "active_manifest" in each}
            for each in manifest.get("ingredients", [])
        ],
    }
