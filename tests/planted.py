"""Miniature data sets for tests of layouts, which read names and tables but no pixels."""

from tfdetect.data.layouts import detect


def plant(root, *files):
    """Create files below root: empty ones, or (name, text)."""
    for file in files:
        name, text = (file, "") if isinstance(file, str) else file
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def rows(root, **options):
    """Return path below root -> row."""
    return {row.path.removeprefix(f"{root}/"): row for row in detect.read(root, **options).itertuples()}


def label_split_source(rows_by_path):
    """Return path -> (label, split, source)."""
    return {path: (row.label, row.split, row.source) for path, row in rows_by_path.items()}
