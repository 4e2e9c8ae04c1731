"""The part of a page that says what a file says of its own origin, beside the verdict and apart from it."""

from html import escape

from tfdetect.data.origin.statement import CAVEAT, KINDS, NOTHING, Origin
from tfdetect.files import format_bytes
from tfdetect.pages import html


def origin_section(origin: Origin) -> str:
    """Return the section as HTML: hash, size and format, a table of what the file says, and what kind of evidence each row is."""
    facts = html.table(("format", "size", "SHA-256"), [(origin.format, format_bytes(origin.bytes), origin.sha256)])
    rows = [(each.kind, each.place, each.text, each.meaning or None) for each in origin.statements]
    found = html.table(("evidence", "where in the file", "what it says", "what that is"), rows) if rows else f"<p>{NOTHING}</p>"
    kinds = html.bullet_list([f"{kind}: {KINDS[kind]}" for kind in KINDS if any(row[0] == kind for row in rows)])
    return (f"<section><h2>What the file says of its origin</h2><p>{escape(CAVEAT)}</p>{facts}{found}{kinds}"
            f"{html.bullet_list(origin.notes)}</section>")  # fmt: skip
