"""Sends hostile requests to a server: `python -m tests.fuzz.server [--requests N] [--raw N] [--calls N]`.

Schemathesis makes requests from the server's OpenAPI document, valid and invalid ones; then random and damaged bytes
are written to its sockets, and damaged messages sent over gRPC. The server must answer each request without an error
of its own (status 500), and afterwards answer a plain request as before.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

BODY = json.dumps({"inputs": "the room was good"}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
EXAMPLES = 200  # per operation and round
SERVE = "import sys; from itrex_sweet.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> int:
    """Runs the requests; returns 0 if the server survived them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="of schemathesis, at least (default: 1000)")
    parser.add_argument("--raw", type=int, default=300, help="connections with damaged bytes (default: 300)")
    parser.add_argument("--calls", type=int, default=300, help="calls of gRPC with damaged messages (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        tiny_artifact(Path(folder) / "own", tokenizer=tiny_tokenizer())
        command = [sys.executable, "-c", SERVE, "serve", f"own={folder}/own", "--hostname", "127.0.0.1", "--port", "0"]
        command += ["--grpc-port", "0"]
        log = Path(folder) / "log"
        with log.open("w") as stream, subprocess.Popen(command, stderr=stream) as process:
            try:
                port, grpc_port = ports_of(process, log)
                before = answer(port)
                failed = schemathesis(port, args.requests, args.seed, folder)
                damaged(port, args.raw, random.Random(args.seed))
                faults = damaged_calls(grpc_port, args.calls, random.Random(args.seed))
                same = answer(port) == before
            finally:
                process.terminate()
                status = process.wait(60)
        internal = log.read_text().count("Traceback")
        print(f"schemathesis: {'failures' if failed else 'no failure'}; same answer after it: {same}; ", end="")
        print(f"faults over gRPC: {faults}; tracebacks in the log: {internal}; exit status: {status}")
        if internal:
            print(log.read_text()[-4000:])
    return int(failed or faults > 0 or not same or internal > 0 or status != 0)


def ports_of(process: subprocess.Popen, log: Path) -> tuple[int, int]:
    """Waits until the server is ready; returns its ports, for HTTP and gRPC."""
    while process.poll() is None:
        text = log.read_text()
        if "ready: own" in text:
            return tuple(
                int(re.search(rf"listening on \S+ port (\d+){of}$", text, re.MULTILINE)[1]) for of in ("", " for gRPC")
            )
    raise RuntimeError(log.read_text())


def answer(port: int) -> bytes:
    """Returns the answer to a plain request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", BODY, {"content-type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == 200, content
    return content


def schemathesis(port: int, requests: int, seed: int, folder: str) -> bool:
    """Runs schemathesis in rounds; returns whether an answer is undocumented, as status 500 is; 503 and 504 are not."""
    url = f"http://127.0.0.1:{port}/openapi.json"
    checks = "status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", url]
    command += ["--checks", checks, "--phases", "fuzzing", "--mode", "all", "--workers", "1"]
    command += ["--suppress-health-check", "all"]
    sent = 0
    while sent < requests:
        examples = min(EXAMPLES, 1 + (requests - sent) // 10)  # the document has more than ten operations
        run = [*command, "--max-examples", str(examples), "--seed", str(seed)]
        result = subprocess.run(run, cwd=folder, capture_output=True, text=True)  # it writes a cache there
        generated = re.search(r"([1-9]\d*) generated", result.stdout)
        if result.returncode != 0 or generated is None:
            print(result.stdout, result.stderr)
            return True
        sent += int(generated[1])
        print(f"schemathesis: {sent} requests", flush=True)
        seed += 1
    return False


def damaged(port: int, count: int, rng: random.Random) -> None:
    """Writes damaged requests, and closes connections at random times."""
    for _ in range(count):
        data = bytearray(HEAD + BODY)
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        if rng.random() < 0.1:
            data = bytearray(rng.randbytes(rng.randrange(1, 5000)))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            try:
                client.sendall(data)
                if rng.random() < 0.5:
                    client.shutdown(socket.SHUT_WR)
                if rng.random() < 0.5:
                    client.settimeout(0.05)
                    client.recv(4096)
            except OSError:
                pass


def damaged_calls(port: int, count: int, rng: random.Random) -> int:
    """Sends damaged messages over gRPC; returns the number of answers that are the server's fault."""
    import grpc

    from itrex_sweet.serving.grpc_messages import HEALTH, MESSAGES, SERVICE
    from itrex_sweet.serving.tensors import packed

    message = MESSAGES.ModelInferRequest(model_name="own", id="7", raw_input_contents=[packed([b"the room", b"a"])])
    message.inputs.add(name="text", datatype="BYTES", shape=[2])
    message.outputs.add(name="scores").parameters["classification"].int64_param = 2
    message.parameters["max_exit"].int64_param = 1
    whole, faults = message.SerializeToString(), 0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(count):
            data = bytearray(whole[: rng.randrange(len(whole) + 1)])
            for _ in range(rng.randrange(1, 6) if data else 0):
                data[rng.randrange(len(data))] = rng.randrange(256)
            methods = ["ModelInfer", "ModelInfer", "ModelMetadata", "ModelReady", "RepositoryIndex"]
            path = rng.choice([*(f"/{SERVICE}/{method}" for method in methods), f"/{HEALTH}.Health/Check"])
            try:
                channel.unary_unary(path)(bytes(data), timeout=60)
            except grpc.RpcError as error:
                faults += error.code().name in ("INTERNAL", "UNKNOWN", "UNAVAILABLE")
    return faults


if __name__ == "__main__":
    sys.exit(main())
