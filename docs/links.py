"""For the documentation site: a link to a file outside of `docs/` becomes its text and the file's path."""

import re


def on_page_markdown(markdown: str, **context: object) -> str:
    """Called by mkdocs for every page; returns its Markdown."""
    return re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)", r"\1 (`\2` in the repository)", markdown)
