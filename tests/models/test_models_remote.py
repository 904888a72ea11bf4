"""A model behind the Open Inference Protocol: a real server on this machine, friendly and hostile."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdfast.core.errors import ConfigurationError, Inconclusive, InvalidModel
from holdfast.core.oracle import Access
from holdfast.models.answers import Context
from holdfast.models.remote import TOKEN_VARIABLE, RemoteModel, checked_endpoint

pytest.importorskip("httpx")
X = np.random.default_rng(0).normal(size=(600, 3))
METADATA = {
    "name": "m",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
    ],
}


class Server:
    """What it answers, and what it was asked."""

    def __init__(self) -> None:
        self.metadata: Any = METADATA
        self.infer: Callable[[Any], Any] = answer
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[Any] = []
        self.seen: list[dict[str, str]] = []
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/models/m"


def answer(request: Any) -> Any:
    x = np.array(request["inputs"][0]["data"]).reshape(request["inputs"][0]["shape"])
    p = 1 / (1 + np.exp(-x[:, 0]))
    rows = np.c_[1 - p, p]
    return {"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}]}


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, document: Any) -> None:
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(state.status)
            for name, value in {"content-length": str(len(content)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            state.seen.append(dict(self.headers))
            self.reply(state.metadata)

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.asked.append(request)
            self.reply(state.infer(request))

        def log_message(self, *arguments: Any) -> None:
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = service.server_address[1]
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield state
    service.shutdown()
    service.server_close()


def remote(server: Server, sample: Any = X[:8]) -> RemoteModel:
    return RemoteModel(server.endpoint, Context(sample=sample, labels=("0", "1"), source="endpoint"))


def test_scores_come_in_batches(server: Server) -> None:
    model = remote(server)
    assert model.access == Access.SCORES
    assert (model.labels(X) == (X[:, 0] > 0)).all()
    assert [request["inputs"][0]["shape"][0] for request in server.asked] == [8, 256, 256, 88]
    assert server.asked[0]["outputs"] == [{"name": "probabilities"}]


def test_several_inputs_are_columns_by_name(server: Server) -> None:
    server.metadata = {
        **METADATA,
        "inputs": [
            {"name": "kind", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "size", "datatype": "FP64", "shape": [-1, 1]},
        ],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
    }

    def echo(request: Any) -> Any:
        kinds = request["inputs"][0]["data"]
        return {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [len(kinds)], "data": kinds}]}

    server.infer = echo
    frame = pd.DataFrame({"size": [1.0, 2.0], "kind": ["1", "0"]})
    model = remote(server, frame)
    assert model.access == Access.LABELS
    assert model.labels(frame).tolist() == [1, 0]
    assert [tensor["name"] for tensor in server.asked[0]["inputs"]] == ["kind", "size"]


def test_the_token_goes_out_as_a_header_and_into_no_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    remote(server)
    assert server.seen[0]["authorization"] == "Bearer s3cret"
    server.status = 401
    with pytest.raises(InvalidModel) as caught:
        remote(server)
    assert "s3cret" not in str(caught.value)
    assert TOKEN_VARIABLE in str(caught.value)


def test_redirects_are_not_followed(server: Server) -> None:
    server.status, server.headers = 302, {"location": "http://127.0.0.1:1/v2/models/other"}
    with pytest.raises(InvalidModel, match="302"):
        remote(server)


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    "metadata", [b"{", b"[1]", {"inputs": []}, {"inputs": [{"name": "x", "datatype": "EXEC"}]}, {"inputs": "x"}, b"[" * 100_000]
)
def test_hostile_metadata_are_refused(server: Server, metadata: Any) -> None:
    server.metadata = metadata
    with pytest.raises(InvalidModel):
        remote(server)


def tensor(**changes: Any) -> Any:
    return {"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [8, 2], "data": [0.5] * 16, **changes}]}


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({}, InvalidModel),
        ({"outputs": [3]}, InvalidModel),
        (tensor(shape=[9, 2], data=[0.5] * 18), InvalidModel),
        (tensor(shape=[10**12, 2]), InvalidModel),
        (tensor(shape=[-8, -2]), InvalidModel),
        (tensor(data=["x"] * 16), InvalidModel),
        (tensor(data="AAAA"), InvalidModel),
        (tensor(data=[float("nan")] * 16), Inconclusive),
    ],
)
def test_hostile_answers_are_refused(server: Server, reply: Any, error: type[Exception]) -> None:
    server.infer = lambda request: reply
    with pytest.raises(error):
        remote(server).scores(X[:9])


def test_an_endless_answer_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.models.remote.MOST_BYTES", 1000)
    server.metadata = {**METADATA, "padding": "x" * 5000}
    with pytest.raises(InvalidModel, match="more than"):
        remote(server)


def test_nobody_there() -> None:
    with pytest.raises(InvalidModel, match="cannot be reached"):
        RemoteModel("http://127.0.0.1:9/v2/models/m", Context(sample=X[:2], labels=("0", "1")))


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://host/v2/models/m",
        "https://host/other",
        "https://user:pass@host/v2/models/m",
        "https://host/v2/models/m?x=1",
        "https://host/a/../v2/models/m",
        "https://host:notaport/v2/models/m",
        "file:///v2/models/m",
        "https:///v2/models/m",
    ],
)
def test_addresses_of_another_form_are_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError):
        checked_endpoint(endpoint)


def test_a_token_never_goes_out_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_endpoint("http://host/v2/models/m/versions/2/") == "http://host/v2/models/m/versions/2"
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    with pytest.raises(ConfigurationError, match="clear"):
        checked_endpoint("http://host/v2/models/m")
    assert checked_endpoint("https://host/v2/models/m")
