"""Where the page's files are, and what a browser may do with them."""

from pathlib import Path

PAGE = Path(__file__).parent / "page"
"""The folder that the browser reads."""
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""The Content-Security-Policy: everything comes from the page's own place, and no script is inside of the page."""
