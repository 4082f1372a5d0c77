"""A page that shows what masks do: a small server for any model, and a folder of static files for one of ours.

`page/` has what the browser runs; both versions have the same page. Only cli/ knows of this folder.
"""

from .loading import load_explored_model
from .run import serve
from .static_site import write_static

__all__ = ["load_explored_model", "serve", "write_static"]
