"""A model behind an endpoint that speaks the Open Inference Protocol v2 (KServe, Triton, Seldon, MLServer) over HTTP.

The endpoint is `https://HOST[/PREFIX]/v2/models/NAME[/versions/VERSION]`. Certificates are verified, redirects and proxies
are not followed, answers are limited in size and time. A credential comes from the environment variable
`HOLDFAST_ENDPOINT_TOKEN` alone, goes out as a bearer token over TLS or to this machine only, and appears in no message.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import ssl
import threading
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.errors import ConfigurationError, InvalidData, InvalidModel, MissingExtra
from holdfast.models.adapter import Adapter, match_columns
from holdfast.models.answers import Context, class_name

TOKEN_VARIABLE = "HOLDFAST_ENDPOINT_TOKEN"  # noqa: S105
SECONDS = 30.0
"""How long a whole request may take, and each wait within it."""
ROWS_A_REQUEST = 256
MOST_BYTES = 64 << 20
MOST_TENSORS = 10_000
MOST_AXES = 16
LARGEST = 1 << 40
PATH = re.compile(r"(/[\w.~%-]+)*/v2/models/[\w.~%-]+(/versions/[\w.~%-]+)?/?")
DATATYPES: dict[str, type] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


class RemoteModel(Adapter):
    """A served classifier.

    A model with one input gets the whole table or array, one with several gets a column each, by name. Of several outputs
    the one named like scores (`probabilities`, `scores`, `logits`) counts, then the first of decimals, then the first.

    Args:
        endpoint: as above.
        context: as for every adapter.
        transport: an httpx transport, for tests.

    Raises:
        ConfigurationError: the address is not of that form, or would send the token in the clear.
        InvalidModel: the server cannot be reached, refuses, or answers in another form.
        MissingExtra: httpx is not installed.
    """

    framework = "remote"

    def __init__(self, endpoint: str, context: Context, transport: Any = None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra.of("httpx", "remote", "A remote model") from error
        self._httpx = httpx
        self.endpoint = checked_endpoint(endpoint)
        self.source = context.source
        self._transport = transport
        self._client = self._new_client()
        self.metadata = self._ask_json("GET", "")
        self._inputs = self._tensors("inputs")
        self._output = self._pick_output()
        super().__init__(context)

    @property
    def digest(self) -> str:
        """Of the address and of what the server says about the model; the weights themselves cannot be seen."""
        text = json.dumps([self.endpoint, self.metadata], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The columns it takes one by one; None when it takes one array."""
        return None if len(self._inputs) == 1 else tuple(given["name"] for given in self._inputs)

    def answer(self, x: Any) -> NDArray[Any]:
        """The chosen output, (n, ...)."""
        parts = []
        for start in range(0, len(x), ROWS_A_REQUEST):
            part = x.iloc[start : start + ROWS_A_REQUEST] if isinstance(x, pd.DataFrame) else x[start : start + ROWS_A_REQUEST]
            parts.append(self._infer(part))
        return np.concatenate(parts)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _new_client(self) -> Any:
        token = checked_token(os.environ.get(TOKEN_VARIABLE, ""))
        return self._httpx.Client(
            timeout=SECONDS,
            verify=ssl.create_default_context(),
            follow_redirects=False,
            trust_env=False,
            transport=self._transport,
            headers={"authorization": f"Bearer {token}", "accept-encoding": "identity"}
            if token
            else {"accept-encoding": "identity"},
        )

    def _infer(self, x: Any) -> NDArray[Any]:
        request = {"inputs": self._feed(x), **({"outputs": [{"name": self._output}]} if self._output else {})}
        document = self._ask_json("POST", "/infer", request)
        outputs = document.get("outputs")
        if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs) or not outputs:
            raise self._invalid("answered without outputs")
        return self._decoded(next((output for output in outputs if output.get("name") == self._output), outputs[0]), len(x))

    def _feed(self, x: Any) -> list[dict[str, Any]]:
        if len(self._inputs) == 1:
            (given,) = self._inputs
            return [self._tensor(given, x.to_numpy() if isinstance(x, pd.DataFrame) else np.asarray(x))]
        if not isinstance(x, pd.DataFrame):
            raise InvalidData(f"an array where the model takes {len(self._inputs)} columns by name", where=self.source)
        places = match_columns(x.columns, [given["name"] for given in self._inputs], self.source)
        tensors = []
        for given, place in zip(self._inputs, places, strict=True):
            column = x[place].to_numpy()
            tensors.append(self._tensor(given, column if len(given.get("shape", [1])) == 1 else column[:, None]))
        return tensors

    def _tensor(self, given: dict[str, Any], values: NDArray[Any]) -> dict[str, Any]:
        kind = given["datatype"]
        if kind == "BYTES":
            data: list[Any] = [class_name(value) for value in values.ravel()]
        else:
            try:
                flat: Any = values.astype(DATATYPES[kind]).ravel()
            except (ValueError, TypeError) as error:
                raise InvalidData(
                    f"input {given['name']!r} takes {kind}, and the data have something else", where=self.source
                ) from error
            if flat.dtype.kind == "f" and not np.isfinite(flat).all():
                raise InvalidData("missing or infinite numbers cannot be sent as JSON", where=self.source)
            data = flat.tolist()
        return {"name": given["name"], "datatype": kind, "shape": list(values.shape), "data": data}

    def _decoded(self, output: dict[str, Any], rows: int) -> NDArray[Any]:
        kind, shape, data = output.get("datatype"), output.get("shape"), output.get("data")
        if not _is_datatype(kind) or not _is_shape(shape, least=0):
            raise self._invalid("answered an output without datatype and shape")
        if not isinstance(data, list):
            raise self._invalid("answered an output without JSON data")
        try:
            values: NDArray[Any] = np.array(data, dtype=str if kind == "BYTES" else DATATYPES[kind])
        except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
            raise self._invalid(f"answered data that are not {kind}") from error
        if values.size != math.prod(shape) or not shape or shape[0] != rows:
            raise self._invalid(f"answered {values.size} values of shape {shape} for {rows} rows")
        return values.reshape(shape)

    def _tensors(self, key: str) -> list[dict[str, Any]]:
        tensors = self.metadata.get(key)
        if not isinstance(tensors, list) or not 0 < len(tensors) <= MOST_TENSORS:
            raise self._invalid(f"its metadata name no {key}, or more than {MOST_TENSORS:,}")
        if not all(_is_tensor(tensor) for tensor in tensors):
            raise self._invalid(f"its metadata describe {key} in a form the protocol does not have")
        if len({tensor["name"] for tensor in tensors}) != len(tensors):
            raise self._invalid(f"its metadata give two {key} one name")
        return tensors

    def _pick_output(self) -> str | None:
        if not self.metadata.get("outputs"):
            return None
        outputs = self._tensors("outputs")
        scored = [o for o in outputs if any(word in o["name"].lower() for word in ("prob", "score", "logit"))]
        decimals = [o for o in outputs if o["datatype"].startswith("FP")]
        return str((scored or decimals or outputs)[0]["name"])

    def _ask_json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        content = self._within_time(method, path, body)
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._invalid("answered something that is not JSON") from error
        if not isinstance(document, dict):
            raise self._invalid("answered JSON that is no object")
        return document

    def _within_time(self, method: str, path: str, body: Any) -> bytes:
        """The answer's content. A server that keeps sending a little is waited for no longer than a silent one."""
        outcome: list[bytes | Exception] = []

        def exchange(client: Any) -> None:
            try:
                outcome.append(self._exchange(client, method, path, body))
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=exchange, args=(self._client,), daemon=True)
        thread.start()
        thread.join(SECONDS)
        if not outcome:
            self._client.close()
            self._client = self._new_client()
            raise self._invalid(f"did not answer within {SECONDS:g} seconds")
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def _exchange(self, client: Any, method: str, path: str, body: Any) -> bytes:
        httpx = self._httpx
        content = bytearray()
        try:
            with client.stream(method, self.endpoint + path, json=body) as response:
                if response.status_code != 200:
                    raise self._invalid(
                        f"answered status {response.status_code} to {method} {path or 'metadata'}", response.status_code
                    )
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise self._invalid("answered in an encoding that was not asked for")
                for chunk in response.iter_raw():
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise self._invalid(f"answered more than {MOST_BYTES >> 20} MiB")
        except httpx.TimeoutException as error:
            raise self._invalid(f"did not answer within {SECONDS:g} seconds") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._invalid(f"cannot be reached: {type(error).__name__}: {error}") from None
        except UnicodeError:
            raise self._invalid("cannot be asked: what is sent holds text that is no Unicode") from None
        return bytes(content)

    def _invalid(self, what: str, status: int = 0) -> InvalidModel:
        hints = {
            401: f"Put the token into the environment variable {TOKEN_VARIABLE}.",
            403: f"Put a token with access into the environment variable {TOKEN_VARIABLE}.",
            404: "Is the model's name right? The address ends in /v2/models/NAME.",
            429: "The service limits requests; lower the budget or raise the limit for this client.",
        }
        redirected = "Redirects are not followed; give the final address." if 300 <= status < 400 else None
        return InvalidModel(f"{self.endpoint} {what}", where=self.source, hint=hints.get(status, redirected))


def _is_tensor(tensor: Any) -> bool:
    """Whether it is described as the protocol does: a name, a known datatype, a shape whose axes may be open (-1)."""
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str) or not tensor["name"].isprintable():
        return False
    return _is_datatype(tensor.get("datatype")) and ("shape" not in tensor or _is_shape(tensor["shape"], least=-1))


def _is_datatype(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value in DATATYPES


def _is_shape(value: Any, least: int) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= MOST_AXES and all(type(n) is int and least <= n <= LARGEST for n in value)


def checked_token(token: str) -> str:
    """The token, which is text that a header can carry.

    Raises:
        ConfigurationError: it holds something else; the message does not show it.
    """
    token = token.strip()
    if not token.isascii() or not token.isprintable():
        raise ConfigurationError(
            "the token holds characters that no header can carry",
            where=TOKEN_VARIABLE,
            hint="A bearer token is printable ASCII. Was a line or a quotation mark copied along?",
        )
    return token


def checked_endpoint(endpoint: str) -> str:
    """The address without a trailing slash.

    Raises:
        ConfigurationError: it is not `http(s)://HOST/…/v2/models/NAME`, holds credentials, or would send the token in the clear.
    """
    hint = "Form: https://HOST/v2/models/NAME or .../NAME/versions/VERSION."
    parts = urlsplit(endpoint)
    try:
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError("the address has no valid port", where="model.endpoint", hint=hint) from error
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            "the address holds credentials", where="model.endpoint", hint=f"Use the environment variable {TOKEN_VARIABLE}."
        )
    if parts.scheme not in ("http", "https") or not host or not PATH.fullmatch(parts.path) or parts.query or parts.fragment:
        raise ConfigurationError("not an address of the Open Inference Protocol v2", where="model.endpoint", hint=hint)
    if ".." in parts.path.split("/"):
        raise ConfigurationError("the address climbs out of its path", where="model.endpoint", hint=hint)
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1") and os.environ.get(TOKEN_VARIABLE):
        raise ConfigurationError("http would send the token in the clear", where="model.endpoint", hint="Use https.")
    return endpoint.rstrip("/")
