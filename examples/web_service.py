"""Answers HTTP requests with an early-exit classifier: the standard library's web server, one model for all threads.

    python examples/web_service.py my-classifier-int8 --port 8000
    curl -d '{"texts": ["a fine phone"], "deadline_ms": 20}' http://127.0.0.1:8000/classify

Loading and answering need the light installation only (`pip install itrex-sweet`): no PyTorch, no transformers.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import itrex_sweet
from itrex_sweet.errors import SweetError

OPTIONS = ("threshold", "quality", "max_exit", "deadline_ms", "top_k")
MAX_BYTES = 1_000_000


def make_server(directory: str, host: str, port: int) -> ThreadingHTTPServer:
    """Loads the model and returns a server that is ready to run."""
    classifier = itrex_sweet.load(directory)
    classifier.predict(["a first text"])  # loads everything before the first request

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path != "/classify":
                return self.answer(404, {"error": "POST /classify"})
            try:
                length = int(self.headers.get("Content-Length", 0))
                if not 0 <= length <= MAX_BYTES:
                    return self.answer(413, {"error": f"0 to {MAX_BYTES} bytes"})
                request = json.loads(self.rfile.read(length))
                options = {name: request[name] for name in OPTIONS if name in request}
                answers = classifier.predict(request["texts"], errors="mark", **options)
            except (ValueError, KeyError, TypeError, RecursionError, SweetError) as error:
                return self.answer(400, {"error": str(error)})
            self.answer(200, {"answers": answers})

        def do_GET(self) -> None:
            if self.path != "/health":
                return self.answer(404, {"error": "GET /health"})
            self.answer(200, {"exits": list(classifier.artifact.exits)})

        def answer(self, status: int, content: dict) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Prints nothing per request."""

    return ThreadingHTTPServer((host, port), Handler)


def main(argv: list[str] | None = None) -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="artifact of a model with exits")
    parser.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="(default: 8000)")
    args = parser.parse_args(argv)
    with make_server(args.model, args.host, args.port) as server:
        print(f"http://{args.host}:{server.server_address[1]}/classify")
        server.serve_forever()


if __name__ == "__main__":
    main()
