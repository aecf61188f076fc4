"""A FastAPI server with dynamic batching around ONNX Runtime or OpenVINO, as their guides recommend.

    uvicorn --app-dir benchmarks/serving --loop uvloop --http httptools batching_app:app

Settings are environment variables: `ENGINE` (`onnxruntime` or `openvino`), `MODEL` (the converted file), `TOKENIZER`
(`tokenizer.json`), `LABELS` (JSON list), `THREADS`, `BATCH` (rows at most), `WAIT_MS` (how long the first row of a
batch waits for others), `MAX_LENGTH`, `MULTIPLE` (padding).

A queue collects the rows of all requests; a batch goes to the engine when it is full, or its first row has waited
`WAIT_MS`, or at once if an engine is idle and `WAIT_MS` is 0. Rows of a batch are those with similar lengths among the
waiting ones.

Tokenization is the `tokenizers` library, in a thread beside the event loop; padding is to the longest row.
ONNX Runtime runs one session with all threads; OpenVINO an asynchronous queue with a stream per thread.
"""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from tokenizers import Tokenizer

ENGINE, THREADS = os.environ["ENGINE"], int(os.environ.get("THREADS", "2"))
BATCH, WAIT = int(os.environ.get("BATCH", "32")), float(os.environ.get("WAIT_MS", "0")) / 1000
LABELS = json.loads(os.environ["LABELS"])
MULTIPLE = int(os.environ.get("MULTIPLE", "1"))
PINNING = os.environ.get("PINNING", "YES")  # of OpenVINO; several processes would pin their threads to the same core
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxRuntime:
    """One session with all threads."""

    concurrency = 1

    def __init__(self, path: str):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        options.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._types = {port.name: np.int32 if "int32" in port.type else np.int64 for port in self._session.get_inputs()}

    def __call__(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        return self._session.run(None, {name: arrays[name].astype(type_) for name, type_ in self._types.items()})[0]


class OpenVino:
    """A compiled model for throughput, with a request per stream and thread."""

    def __init__(self, path: str):
        import openvino

        self.concurrency = THREADS
        compiled = openvino.Core().compile_model(
            path,
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_NUM_THREADS": THREADS,
                "NUM_STREAMS": THREADS,
                "ENABLE_CPU_PINNING": PINNING,
            },
        )
        self._requests = [compiled.create_infer_request() for _ in range(THREADS)]
        self._names = [port.get_any_name() for port in compiled.inputs]

    def __call__(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        request = self._requests.pop()
        try:
            return (
                request.infer([arrays[name] for name in INPUTS[: len(self._names)]], share_inputs=True)
                .to_tuple()[0]
                .copy()
            )
        finally:
            self._requests.append(request)


class Batcher:
    """Rows waiting, and the tasks that run batches of them."""

    def __init__(self, engine: Any):
        self._engine = engine
        self._threads = ThreadPoolExecutor(engine.concurrency)
        self._rows: list[tuple[float, Any, asyncio.Future]] = []
        self._arrived = asyncio.Event()

    def start(self) -> list[asyncio.Task]:
        return [asyncio.create_task(self._work()) for _ in range(self._engine.concurrency)]

    async def submit(self, encoding: Any) -> np.ndarray:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._rows.append((loop.time(), encoding, future))
        self._arrived.set()
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._rows:
                self._arrived.clear()
                await self._arrived.wait()
            while self._rows and len(self._rows) < BATCH and (rest := self._rows[0][0] + WAIT - loop.time()) > 0:
                await asyncio.sleep(rest)
            batch = self._take()
            if batch:
                try:
                    logits = await loop.run_in_executor(self._threads, self._run, [row[1] for row in batch])
                except Exception as error:  # a failed batch answers its requests
                    for _, _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, _, future), row in zip(batch, logits, strict=True):
                    if not future.done():
                        future.set_result(row)

    def _take(self) -> list[tuple[float, Any, asyncio.Future]]:
        """Takes the rows that are nearest in length to the one that has waited longest."""
        if len(self._rows) <= BATCH:
            taken, self._rows = self._rows, []
            return taken
        length = len(self._rows[0][1].ids)
        near = sorted(range(1, len(self._rows)), key=lambda place: abs(len(self._rows[place][1].ids) - length))
        chosen = {0, *near[: BATCH - 1]}
        taken = [self._rows[place] for place in sorted(chosen)]
        self._rows = [row for place, row in enumerate(self._rows) if place not in chosen]
        return taken

    def _run(self, encodings: list[Any]) -> np.ndarray:
        columns = -(-max(len(each.ids) for each in encodings) // MULTIPLE) * MULTIPLE
        ids = np.zeros((len(encodings), columns), dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, each in enumerate(encodings):
            ids[row, : len(each.ids)], mask[row, : len(each.ids)] = each.ids, 1
        return self._engine(dict(zip(INPUTS, (ids, mask, types), strict=True)))


class Texts(BaseModel):
    """The body of a request."""

    texts: list[str]


@asynccontextmanager
async def lifespan(app: FastAPI) -> Any:
    app.state.tokenizer = Tokenizer.from_file(os.environ["TOKENIZER"])
    app.state.tokenizer.enable_truncation(int(os.environ.get("MAX_LENGTH", "512")))
    app.state.tokenizer.no_padding()
    app.state.batcher = Batcher((OnnxRuntime if ENGINE == "onnxruntime" else OpenVino)(os.environ["MODEL"]))
    tasks = app.state.batcher.start()
    yield
    for task in tasks:
        task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/classify")
async def classify(body: Texts) -> JSONResponse:
    tokenizer = app.state.tokenizer
    if len(body.texts) == 1:  # microseconds: cheaper than a change of threads
        encodings = [tokenizer.encode(body.texts[0])]
    else:
        encodings = await asyncio.to_thread(tokenizer.encode_batch_fast, body.texts)
    logits = np.stack(await asyncio.gather(*map(app.state.batcher.submit, encodings)))
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores = shifted / shifted.sum(axis=-1, keepdims=True)
    best = scores.argmax(axis=-1)
    return JSONResponse(
        {
            "labels": [LABELS[place] for place in best.tolist()],
            "scores": scores.max(axis=-1).tolist(),
        }
    )
