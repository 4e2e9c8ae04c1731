"""Content credentials, signed here by a certificate of our own, are read with the check of their signature."""

import datetime

import numpy as np
import pytest
from PIL import Image

from tfdetect.data.origin.read import read_origin

c2pa = pytest.importorskip("c2pa", reason="pip install 'tfdetect[c2pa]'")
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ACTIONS = {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCE}]}
MANIFEST = {"claim_generator_info": [{"name": "Painter", "version": "1"}],
            "assertions": [{"label": "c2pa.actions", "data": ACTIONS}]}  # fmt: skip


@pytest.fixture(scope="module")
def signer():
    """A signer of the organisation Studio, whose certificate is signed by a root that nobody trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def certificate(common_name, key, is_root):
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio")
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), organisation])
                           for name in (common_name, "root"))  # fmt: skip
        use = x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(),
                                          datetime.datetime(2024, 1, 1), datetime.datetime(2124, 1, 1))  # fmt: skip
        for extension, is_critical in ((x509.BasicConstraints(is_root, None), True), (use, True),
                                       (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
                                       (x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False),
                                       (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)):  # fmt: skip
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def sign(data):
        numbers = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return b"".join(number.to_bytes(32, "big") for number in numbers)

    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("leaf", key, False) + certificate("root", root, True)
    return c2pa.Signer.from_callback(sign, c2pa.C2paSigningAlg.ES256, chain)


@pytest.mark.parametrize("ext", ["jpeg", "png", "webp", "avif"])
def test_credentials_are_read_and_checked(tmp_path, signer, ext, rng):
    plain, signed = tmp_path / f"plain.{ext}", tmp_path / f"signed.{ext}"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(plain)
    with open(plain, "rb") as source, open(signed, "w+b") as target:
        c2pa.Builder(MANIFEST).sign(signer, f"image/{ext}", source, target)
    assert not [each for each in read_origin(plain).statements if each.kind in ("credentials", "generator")]
    origin = read_origin(signed)
    credentials, declared = origin.statements[:2]
    assert credentials.kind == "credentials" and not origin.notes
    assert credentials.text == "made by Painter, signed by leaf of Studio"
    assert credentials.meaning.startswith("the signature fits the file; whether its signer is to be trusted")
    assert (declared.kind, declared.place, declared.text) == ("generator", "C2PA c2pa.created", SOURCE)
    data = bytearray(signed.read_bytes())
    data[data.index(plain.read_bytes()[-300:-250])] ^= 1  # among the pixels
    signed.write_bytes(data)
    assert "does NOT fit" in read_origin(signed).statements[0].meaning
