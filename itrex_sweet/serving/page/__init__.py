"""The live page: one HTML file without references to other files, and the headers that it is served with."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources


@functools.cache
def page() -> str:
    """Returns the page."""
    return resources.files(__name__).joinpath("live.html").read_text(encoding="utf-8")


@functools.cache
def page_headers() -> dict[str, str]:
    """Returns headers that let a browser run the script of the page only, and connect to this server only."""
    script = re.search(r"<script>(.*?)</script>", page(), re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
