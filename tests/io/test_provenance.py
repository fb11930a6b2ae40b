"""Content credentials: signed, kept with the photograph's own, and read back."""

from __future__ import annotations

import datetime
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoedit.io.metadata import EDITED
from emoedit.io.output import SUFFIXES
from emoedit.io.provenance import Signer, read_credentials, sign
from emoedit.io.saving import encode_picture
from emoedit.types import CheckpointError, ImageError, MissingExtraError, OutputError

pytest.importorskip("c2pa")


@pytest.fixture(scope="module")
def signer(tmp_path_factory) -> Signer:
    """A certificate for a day, vouched for by another that nobody knows."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key, issuer: str, issued_by, ca: bool) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            parts = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "Tests of emoedit"))
            return x509.Name([x509.NameAttribute(*part) for part in parts])

        builder = (
            x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issued_by.public_key()), False)
            .add_extension(x509.KeyUsage(True, *[False] * 4, ca, ca, False, False), True)
        )
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(issued_by, hashes.SHA256())

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = certificate("signer", own, "root", root, False), certificate("root", root, "root", root, True)
    folder = tmp_path_factory.mktemp("keys")
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(b"".join(each.public_bytes(pem) for each in chain))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(own.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return Signer(folder / "cert.pem", folder / "key.pem")


def picture(seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    return bytes(encode_picture(Image.fromarray(pixels), kind))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_credentials_are_signed_and_read_back(tmp_path, signer, suffix):
    kind = SUFFIXES[suffix]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(sign(picture(1, kind), kind, signer, picture(2), path.name, "happy"))
    found = read_credentials(path)
    assert found["state"] == "Valid" and found["issuer"] == "Tests of emoedit" and found["generator"] == ["emoedit"]
    assert [each["action"] for each in found["actions"]] == ["c2pa.opened", "c2pa.edited"]
    assert found["actions"][1]["source"] == EDITED
    assert found["ingredients"] == [{"title": "the photograph", "credentials": False}]
    with Image.open(path) as image, Image.open(io.BytesIO(picture(1, kind))) as plain:
        assert np.array_equal(np.asarray(image), np.asarray(plain))
    # A byte of a pixel changed afterwards is told.
    data = bytearray(path.read_bytes())
    data[-40 if suffix != ".tif" else data.find(bytes(np.asarray(plain)[20].tobytes()[:30]))] ^= 1
    path.write_bytes(data)
    try:
        assert read_credentials(path)["state"] == "Invalid"
    except ImageError as error:
        assert "damaged" in str(error)


def test_the_photographs_own_credentials_are_kept_and_no_thumbnail_is_added(tmp_path, signer):
    source = sign(picture(1), "JPEG", signer, picture(2), "source.jpg", "taken")
    path = tmp_path / "x.png"
    path.write_bytes(sign(picture(3, "PNG"), "PNG", signer, source, path.name, "sad"))
    assert read_credentials(path)["ingredients"] == [{"title": "the photograph", "credentials": True}]
    assert b"c2pa.thumbnail" not in path.read_bytes()


def test_without_credentials_and_without_the_extra(tmp_path, signer, monkeypatch):
    import sys

    (tmp_path / "x.jpg").write_bytes(picture(1))
    assert read_credentials(tmp_path / "x.jpg") is None
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtraError, match=r"\[provenance\]'"):
        read_credentials(tmp_path / "x.jpg")
    with pytest.raises(MissingExtraError, match=r"\[provenance\]'"):
        signer.check()


def test_what_cannot_be_signed_is_told(tmp_path, signer):
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        Signer(Path("/nowhere/cert.pem"), signer.key).check()
    (tmp_path / "key.pem").write_text("no key", "ascii")
    with pytest.raises(CheckpointError, match="nothing can be signed with .*PKCS#8"):
        Signer(signer.certificate, tmp_path / "key.pem").check()
    with pytest.raises(OutputError, match="x.jpg cannot be signed: .*format that C2PA does not know"):
        sign(picture(1), "JPEG", signer, b"BM rest of a bitmap", "x.jpg", "happy")
    with pytest.raises(ImageError, match="format that C2PA does not know"):
        (tmp_path / "x.bmp").write_bytes(b"BM")
        read_credentials(tmp_path / "x.bmp")


def test_inspect_reads_them_on_the_command_line(tmp_path, signer, capsys):
    from emoedit.cli import main

    path = tmp_path / "x.jpg"
    path.write_bytes(sign(picture(1), "JPEG", signer, picture(2), path.name, "happy"))
    assert main(["inspect", str(path)]) == 0
    told = capsys.readouterr().out
    assert "64 x 48, 8 bits" in told and "signed by Tests of emoedit" in told and "made from the photograph" in told
    assert main(["inspect", str(tmp_path / "none.jpg"), str(path), "--json"]) == 1
    assert '"state": "Valid"' in capsys.readouterr().out
