"""For the documentation site: a link to a file outside of `docs/` becomes its text and the file's path."""

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **context: Any) -> str:
    """Called by mkdocs for every page; returns its Markdown."""
    folder = posixpath.dirname(page.file.src_uri)

    def outside(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        return link[0] if path.startswith("docs/") else f"{link[1]} (`{path}` in the repository)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)[^)]*\)", outside, markdown)
