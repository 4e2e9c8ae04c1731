"""export --push_to_hub: which files of a run go to the Hugging Face Hub, and their push once it is asked for."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from tfdetect import artifact as artifacts
from tfdetect import config, files, hashes
from tfdetect.artifact import Artifact
from tfdetect.errors import UserError
from tfdetect.workflow.console import console

# What judging files takes, and what the model card is about. All else of a run names the files of its data set or shows them.
PUSHED = ("README.md", "SERVING.md", *hashes.FILES, "metrics.json", "shortcuts.json", "history.csv", "cost.json")
ADDRESS = "https://huggingface.co/{}"
LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"


@dataclass(frozen=True)
class Push:
    """What a push consists of."""

    repository: str
    """Such as "me/cnn", or "cnn" in the name space of whoever is logged in."""
    content: Mapping[str, Path | bytes]
    """Name in the repository -> the file, or what it holds."""
    left_out: tuple[str, ...]
    """Files and folders of the run that stay here."""
    licence: str | None
    """That of the model card."""

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each file."""
        return {name: len(item) if isinstance(item, bytes) else item.stat().st_size for name, item in self.content.items()}


def run(folder: Path, repository: str, yes: bool, private: bool) -> int:
    """Print what would be pushed; with `yes`, push it. Return the exit code."""
    found = plan(folder, repository)
    show(found)
    if not yes:
        console.print("Nothing was pushed. The same command with --yes pushes it.")
        return 0
    console.print(f"Pushed      {push(found, private)}")
    return 0


def plan(run: Path, repository: str) -> Push:
    """Return what would be pushed; nothing is asked of the network.

    Raises UserError for a name that the Hub refuses, and if the run has no model card or one that the Hub would not read.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push_to_hub takes a repository such as me/cnn, got {repository!r}: {error}") from None
    artifact = artifacts.find(run, "model")
    licence = read_card(artifact)
    names = [artifact.saved_model.name, *PUSHED, hashes.NAME]
    kept = sorted(path.name for path in artifact.folder.iterdir() if path.name not in names)
    return Push(repository, dict(content_of(artifact)), tuple(kept), licence)


def read_card(artifact: Artifact) -> str | None:
    """Return the licence in the model card, None if none is stated. Raises UserError unless the Hub reads the card."""
    from huggingface_hub import ModelCard

    if not artifact.card.exists():
        raise UserError(f"{artifact.folder} has no {artifact.card.name}, the model card, which train and calibrate write: repeat "
                        "one of them.")  # fmt: skip
    try:
        data = ModelCard.load(artifact.card).data
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"The Hub would not read the front matter of {artifact.card} ({reason}): correct it.") from error
    licence = data.to_dict().get("license")
    return None if licence is None else str(licence)


def content_of(artifact: Artifact) -> Iterator[tuple[str, Path | bytes]]:
    """Yield the name of each file in the repository, and the file; config.yaml without the folders of this machine, and with it
    SHA256SUMS."""
    for name in (artifact.saved_model.name, *PUSHED):
        path = artifact.folder / name
        if path.is_dir():
            inside = (each for each in sorted(path.rglob("*")) if each.is_file())
            yield from ((each.relative_to(artifact.folder).as_posix(), each) for each in inside)
        elif path == artifact.config:
            plain = yaml.safe_dump(without_folders(config.load_yaml(path)), sort_keys=False, allow_unicode=True)
            content = plain.encode(errors="backslashreplace")
            yield name, content
            if (sums := artifact.folder / hashes.NAME).exists():
                own = f"{hashlib.sha256(content).hexdigest()}  {name}"
                yield sums.name, re.sub(rf"^[0-9a-f]{{64}}  {re.escape(name)}$", own, sums.read_text(), flags=re.M).encode()
        elif path.exists():
            yield name, path


def without_folders(value: Any) -> Any:
    """Return settings in which absolute paths are names alone, also those inside a value, such as `hf-clip:/home/me/clip`."""
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    return PureWindowsPath(value).name if re.match(r"[/~]|[A-Za-z]:[\\/]", value) else files.without_folders(value, r"/\\,+@|")


def show(push: Push) -> None:
    """Print the target, the files with their sizes, what is left out, and what the model card lacks."""
    console.print(f"Target      {ADDRESS.format(push.repository)}")
    for name, size in push.sizes.items():
        console.print(f"  {files.format_bytes(size):>9}  {files.printable(name)}")
    console.print(f"Files       {files.plural(len(push.content), 'file')}, {files.format_bytes(sum(push.sizes.values()))}")
    if push.left_out:
        console.print(f"Left out    {files.printable(', '.join(push.left_out))}: not needed, or names or shows your files")
    licence = push.licence or "none, add one to its front matter"
    console.print(f"Model card  README.md, which the Hub can read; licence: {licence}")


def push(found: Push, private: bool) -> str:
    """Create the repository unless it exists, push the files as one commit, and return its address.

    Raises UserError if the Hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(name, item) for name, item in found.content.items()]
    try:
        api = HfApi(library_name="tfdetect")
        created = api.create_repo(found.repository, private=private or None, exist_ok=True)
        made = api.create_commit(created.repo_id, operations, commit_message="Push a detector trained with tfdetect")
        return str(made.commit_url)
    except Exception as error:  # those of the Hub, of tokens, of the network and of files have no base in common
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{found.repository} could not be pushed to the Hub ({reason}): {LOGIN}.") from error
