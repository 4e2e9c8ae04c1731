"""Miniature trees for tests of layouts, which look at names and tables and never at pixels."""

from tfdetect.data.layouts import detect


def plant(root, *files):
    """Files below root, empty ones or (name, text)."""
    for file in files:
        name, text = (file, "") if isinstance(file, str) else file
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def rows(root, **wanted):
    """File below root -> row."""
    return {row.path.removeprefix(f"{root}/"): row for row in detect.read(root, **wanted).itertuples()}


def said(found):
    """File -> (label, split, source)."""
    return {name: (row.label, row.split, row.source) for name, row in found.items()}
