"""Groups that are not found but given: by `--data.group`, by a table, or by a public set."""

import os
import re

import pandas as pd

from tfdetect.data.layouts.grouping import CLASS_FOLDER, NO_GROUPS, NUMBER, stem, strip_structure, video_name
from tfdetect.errors import UserError
from tfdetect.files import plural

RULES = ("auto", "folder", "stem", "file")


def group_by_rule(table: pd.DataFrame, root: str, rule: str) -> tuple[list[str], str]:
    """The groups that `--data.group RULE` makes, and a sentence. UserError where a pattern fits no file."""
    below = [os.path.relpath(path, root) if path.startswith(root) else path for path in table["path"]]
    if rule == "file":
        return list(table["path"]), f"{plural(len(table), 'group')}: each file is its own, as --data.group file asks."
    if rule in ("folder", "stem"):
        groups = [_asked(path, rule) for path in below]
        return groups, f"{plural(len(table), 'file')} in {plural(len(set(groups)), 'group')}, by --data.group {rule}."
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(f"--data.group {rule!r} is none of {', '.join(RULES)}, and no regular expression: {error}.") from error
    found = [pattern.search(path) for path in below]
    if not any(found):
        raise UserError(f"--data.group {rule!r} fits no file; it is sought in paths such as {below[0]!r}.")
    groups = [(match[1] or match[0] if match.re.groups else match[0]) if match else path
              for match, path in zip(found, table["path"], strict=True)]  # fmt: skip
    alone = found.count(None)
    more = f"; {plural(alone, 'file')} that it does not fit stand alone" if alone else ""
    return groups, f"{plural(len(table), 'file')} in {plural(len(set(groups)), 'group')}, by --data.group {rule}{more}."


def _asked(path: str, rule: str) -> str:
    """The leaf folder, or the name without its number, but for the folders that tell the class."""
    folder, name = os.path.split(path)
    place = tuple(part for part in folder.split(os.sep) if not CLASS_FOLDER.search(part))
    if rule == "folder":
        return "/".join(strip_structure(place)) or "."
    match = NUMBER.match(own := stem(name))
    return (match and video_name(match[1])) or own


def describe_given_groups(table: pd.DataFrame, how: str) -> str:
    """What is to be said of groups that a table or a public set gave."""
    count = table["group"].nunique()
    if (table["group"] == table["path"]).all():
        return NO_GROUPS
    return f"{plural(len(table), 'file')} in {plural(count, 'group')}, {how}."


