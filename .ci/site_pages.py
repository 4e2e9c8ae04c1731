"""A hook of mkdocs: pages of the site that lie outside docs/ in the repository, and links between all of them."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
         "benchmarks/README.md": "benchmarks.md"}  # fmt: skip
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relink(text, (ROOT / source).parent)))
    return files


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """Let links of docs/ to the other pages lead to them."""
    return relink(markdown, ROOT / "docs") if page.file.generated_by is None else markdown  # type: ignore[attr-defined]


def relink(text: str, folder: Path) -> str:
    """Return Markdown of `folder` with links to where its targets are in the site; mkdocs refuses those that are not in it."""

    def replace(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else match[2]
        return match[1] + PAGES.get(name, name.removeprefix("docs/")) + match[3]

    return LINK.sub(replace, text)
