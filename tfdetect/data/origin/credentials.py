"""Content credentials (C2PA): signed accounts of how a file came about, read by c2pa-python where it is installed.

Nothing is fetched: credentials that are stored elsewhere stay unread, and whether a signer is to be trusted is not looked up.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tfdetect.data.origin.meaning import digital_source
from tfdetect.data.origin.statement import Statement, shorten

UNREAD = "content credentials are there, but unread: pip install 'tfdetect[c2pa]'"
MAX_MANIFESTS = 32  # of a file: its own, and those of the files that it was made of
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False}}
STATES = {"Valid": "the signature fits the file; whether its signer is to be trusted, and whether the certificate was revoked, "
                   "was not checked",
          "Trusted": "the signature fits the file, and its signer is trusted",
          "Invalid": "the signature or a hash does NOT fit: the file or its credentials were changed"}  # fmt: skip


def statements(path: str) -> Iterator[Statement]:
    """Yield the statements of the content credentials in a file that has some. Raises errors of many types if they are broken."""
    try:
        import c2pa
    except ImportError:
        yield Statement("credentials", "C2PA", UNREAD)
        return
    with open(path, "rb") as file:
        reader = c2pa.Reader(None, file, context=c2pa.Context(c2pa.Settings.from_dict(SETTINGS)))
        with reader:
            store = json.loads(reader.json())
    state = STATES.get(store.get("validation_state", ""), "the signature was not checked")
    manifests, active = store.get("manifests", {}), store.get("active_manifest", "")
    for name in sorted(manifests, key=lambda name: name != active)[:MAX_MANIFESTS]:
        place, checked = ("C2PA", state) if name == active else ("C2PA of an ingredient", "")
        yield from _manifest(manifests[name], place, checked)


def _manifest(manifest: Mapping[str, Any], place: str, state: str) -> Iterator[Statement]:
    signature = manifest.get("signature_info") or {}
    program = next((info.get("name") for info in manifest.get("claim_generator_info") or ()), manifest.get("claim_generator"))
    names = dict.fromkeys(filter(None, (signature.get("common_name"), signature.get("issuer"))))
    text = f"made by {program or 'a program without a name'}, signed by {' of '.join(names) or 'a signer without a name'}"
    yield Statement("credentials", place, shorten(text + (f" on {signature['time']}" if signature.get("time") else "")), state)
    for assertion in manifest.get("assertions", ()):
        if assertion.get("label", "").startswith("c2pa.actions"):
            for action in assertion.get("data", {}).get("actions", ())[:MAX_MANIFESTS]:
                if source := action.get("digitalSourceType"):
                    yield digital_source(f"{place} {action.get('action', '')}", str(source))
