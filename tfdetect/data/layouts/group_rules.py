"""Groups by a rule of the user (`--data.group`), and descriptions of groups that a manifest or a public data set defines."""

import os
import re

import pandas as pd

from tfdetect.data.layouts.grouping import CLASS_FOLDER, NO_GROUPS, NUMBER, stem, strip_structure, video_name
from tfdetect.errors import UserError
from tfdetect.files import plural

RULES = ("auto", "folder", "stem", "file")


def group_by_rule(table: pd.DataFrame, root: str, rule: str) -> tuple[list[str], str]:
    """Return the groups by `--data.group RULE` and a sentence about them. Raises UserError if a pattern matches no file."""
    relative = [os.path.relpath(path, root) if path.startswith(root) else path for path in table["path"]]
    if rule == "file":
        return list(table["path"]), f"{plural(len(table), 'group')}: each file is a group, by --data.group file."
    if rule in ("folder", "stem"):
        groups = [_group_of(path, rule) for path in relative]
        return groups, f"{plural(len(table), 'file')} in {plural(len(set(groups)), 'group')}, by --data.group {rule}."
    try:
        pattern = re.compile(rule)
    except re.error as error:
        names = ", ".join(RULES)
        raise UserError(f"--data.group {rule!r} is neither one of {names} nor a regular expression: {error}.") from error
    matches = [pattern.search(path) for path in relative]
    if not any(matches):
        raise UserError(f"--data.group {rule!r} matches no file; paths look like {relative[0]!r}. Change the pattern.")
    groups = [(match[1] or match[0] if match.re.groups else match[0]) if match else path
              for match, path in zip(matches, table["path"], strict=True)]  # fmt: skip
    unmatched = matches.count(None)
    remark = f"; {plural(unmatched, 'file')} without a match, each a separate group" if unmatched else ""
    return groups, f"{plural(len(table), 'file')} in {plural(len(set(groups)), 'group')}, by --data.group {rule}{remark}."


def _group_of(path: str, rule: str) -> str:
    """Return the innermost folder, or the name without its number; folders that name the class are ignored."""
    folder, _ = os.path.split(path)
    folders = tuple(part for part in folder.split(os.sep) if not CLASS_FOLDER.search(part))
    if rule == "folder":
        return "/".join(strip_structure(folders)) or "."
    name = stem(path)
    match = NUMBER.match(name)
    return (match and video_name(match[1])) or name


def describe_given_groups(table: pd.DataFrame, how: str) -> str:
    """Return a sentence about groups that a manifest or a public data set defines."""
    count = table["group"].nunique()
    if (table["group"] == table["path"]).all():
        return NO_GROUPS
    return f"{plural(len(table), 'file')} in {plural(count, 'group')}, {how}."
