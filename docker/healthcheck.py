"""Exits with 0 if the server of this container answers GET /health with status 200.

Host and port are those of the environment variables of `itrex-sweet serve`: PORT, and SSL_CERTFILE for TLS.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Asks once; returns 0 or 1."""
    scheme = "https" if os.environ.get("SSL_CERTFILE") else "http"
    url = f"{scheme}://127.0.0.1:{os.environ.get('PORT') or 3000}/health"
    # The certificate names the service, not this address.
    handlers = [urllib.request.ProxyHandler({})]
    if scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=5) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, urllib.error.URLError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
