"""An endpoint that is hostile, slow, or answers anything at all: only a clear error comes out, and in time."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import ConfigurationError, HoldfastError, InvalidModel
from holdfast.models.answers import Context
from holdfast.models.remote import TOKEN_VARIABLE, RemoteModel

httpx = pytest.importorskip("httpx")
X = np.random.default_rng(0).normal(size=(8, 3))
INPUT = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
METADATA = {"name": "m", "inputs": [INPUT], "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]}
REPLY = {"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [8, 2], "data": [0.25, 0.75] * 8}]}


def model(metadata: Any, reply: Any) -> RemoteModel:
    def answer(request: Any) -> Any:
        document = metadata if request.method == "GET" else reply
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        return httpx.Response(200, stream=httpx.ByteStream(content))

    context = Context(sample=X, labels=("0", "1"), source="endpoint")
    return RemoteModel("https://host/v2/models/m", context, transport=httpx.MockTransport(answer))


Drip = Callable[[Any], None]


@pytest.fixture
def dripping() -> Iterator[tuple[str, list[Drip]]]:
    drips: list[Drip] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                drips[0](self)
            except OSError:
                self.close_connection = True

        def log_message(self, *arguments: Any) -> None:
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.daemon_threads = True
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_address[1]}/v2/models/m", drips
    service.shutdown()
    service.server_close()


def drip_body(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    drip(handler, b" ")


def drip_headers(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
    drip(handler, b"a")


def drip_chunks(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    drip(handler, b"1\r\n \r\n")


def drip(handler: Any, content: bytes) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        handler.wfile.write(content)
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("kind", [drip_body, drip_headers, drip_chunks])
def test_a_server_that_drips_is_given_up(kind: Drip, dripping: tuple[str, list[Drip]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.models.remote.SECONDS", 0.4)
    endpoint, drips = dripping
    drips.append(kind)
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            RemoteModel(endpoint, Context(sample=X, labels=("0", "1"), source="endpoint"))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(15)
    assert not thread.is_alive()
    assert isinstance(raised[0], InvalidModel)
    assert "did not answer within" in str(raised[0])


@pytest.mark.parametrize(
    "change",
    [
        {"datatype": ["x"]},
        {"datatype": {}},
        {"datatype": None},
        {"name": ["x"]},
        {"name": "a\x1b[2Jb"},
        {"shape": 3},
        {"shape": None},
        {"shape": [-2, 3]},
        {"shape": [True, 3]},
        {"shape": [1.5]},
        {"shape": [10**30]},
        {"shape": ["3"]},
        {"shape": [1] * 1000},
    ],
)
def test_metadata_of_another_form_are_refused(change: dict[str, Any]) -> None:
    for key in ("inputs", "outputs"):
        with pytest.raises(InvalidModel, match="metadata"):
            model({**METADATA, key: [{**METADATA[key][0], **change}]}, REPLY)  # type: ignore[dict-item,index]
    with pytest.raises(InvalidModel, match="one name"):
        model({**METADATA, "inputs": [INPUT, INPUT]}, REPLY)


@pytest.mark.parametrize(
    "change",
    [{"datatype": ["FP32"]}, {"shape": [True, 16]}, {"shape": [10**30, 0]}, {"data": [{}] * 16}],
)
def test_answers_of_another_form_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel):
        model(METADATA, {"outputs": [{**REPLY["outputs"][0], **change}]})


def test_a_compressed_answer_is_refused() -> None:
    def answer(request: Any) -> Any:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"\x1f\x8b"))

    with pytest.raises(InvalidModel, match="encoding"):
        RemoteModel("https://host/v2/models/m", Context(sample=X, labels=("0", "1")), transport=httpx.MockTransport(answer))


@pytest.mark.parametrize("token", ["pässwört", "sec\nret", "s\x00x", "\u2019quoted\u2019", "\udcff"])
def test_a_token_that_no_header_can_carry_is_refused_unseen(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.models.remote.os.environ", {TOKEN_VARIABLE: token})
    with pytest.raises(ConfigurationError) as caught:
        model(METADATA, REPLY)
    assert token not in str(caught.value)
    assert TOKEN_VARIABLE in str(caught.value)
    assert caught.value.__cause__ is None


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["FP32", "BYTES", "x"])
ANYTHING = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["inputs", "outputs", "name", "datatype", "shape", "data", "parameters"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": ANYTHING | st.just("x"),
        "datatype": ANYTHING | st.sampled_from(["FP32", "FP16", "BOOL", "BYTES", "UINT8", "INT64"]),
        "shape": ANYTHING | st.lists(st.integers(-2, 9), max_size=3) | st.just([8, 2]) | st.just([8]),
        "data": ANYTHING | st.lists(ATOMS, min_size=16, max_size=16) | st.lists(st.integers(0, 1), min_size=8, max_size=8),
    },
)
DOCUMENT = ANYTHING | st.fixed_dictionaries({"inputs": st.lists(TENSOR, max_size=2), "outputs": st.lists(TENSOR, max_size=2)})


@settings(max_examples=300, deadline=None)
@given(DOCUMENT | st.just(METADATA), DOCUMENT | st.just(REPLY))
def test_whatever_a_server_answers_only_a_clear_error_comes_out(metadata: Any, reply: Any) -> None:
    try:
        served = model(metadata, reply)
        served.labels(X)
        _ = served.digest
    except HoldfastError:
        return


@settings(max_examples=100, deadline=None)
@given(TENSOR)
def test_whatever_an_output_holds_only_a_clear_error_comes_out(output: Any) -> None:
    try:
        model(METADATA, {"outputs": [output]}).labels(X)
    except HoldfastError:
        return


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_end_in_a_clear_error(content: bytes) -> None:
    with pytest.raises(HoldfastError):
        model(content, content)


@pytest.mark.parametrize("shape", [[4, 2], [16, 1], [1, 8]])
def test_an_answer_about_other_rows_than_asked_is_told_as_such(shape: list[int]) -> None:
    values = shape[0] * shape[1]
    output = {"name": "probabilities", "datatype": "FP32", "shape": shape, "data": [0.5] * values}
    with pytest.raises(InvalidModel, match=rf"answered {values} values of shape \[{shape[0]}, {shape[1]}\] for 8 rows"):
        model(METADATA, {"outputs": [output]}).scores(X)
