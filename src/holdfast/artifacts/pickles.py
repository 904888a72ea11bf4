"""A pickle machine that computes nothing: it follows stack and memo exactly and writes down which globals are used, and how.

Nothing is imported, called or allocated in the file's name. Instances, calls and globals are symbols; long strings and bytes
are one symbol without content. What the machine does not know for certain (a global whose name was computed, an extension
code, an out-of-band buffer, a Python 2 string) is malformed, never ignored. joblib's arrays, whose raw bytes stand in the
middle of the stream, are skipped by the size that their own header gives; object arrays among them are streams of their
own and are walked.

The machine and `artifacts.loading` read the same bytes in the same order: a frame must end where an opcode ends, and where
raw bytes or the stream's end come inside a frame, the file is refused.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast.artifacts.allowlist import key_of
from holdfast.artifacts.symbols import OPAQUE, Global, Items, Made, claims_size, fits_partial, forbidden_call
from holdfast.core.errors import InvalidModel

MOST_OPCODES = 30_000_000
MOST_STACK = 5_000_000
MOST_NESTED = 10_000
LONGEST_TEXT = 4096
KEPT_ITEMS = 64
DTYPE = re.compile(r"[<>|=]?([?bBhHiIlLqQefdgFDG]|[biufc]\d{1,2}|[SUVa]\d{1,9}|O8?|[mM]8?)")
WRAPPER = "joblib.numpy_pickle:NumpyArrayWrapper"


MARK = object()


@dataclass
class Walk:
    """What a stream refers to: the uses of each global, and where the stream ends."""

    uses: dict[str, set[str]] = field(default_factory=dict)
    end: int = 0
    opcodes: int = 0
    nested: int = 0


def walk_pickle(data: bytes, source: str, *, start: int = 0, storages: bool = False) -> Walk:
    """Follow a pickle to its end.

    Args:
        data: the unpacked bytes.
        source: what to call the file in errors.
        start: where the stream begins.
        storages: whether torch's persistent ids of storages may occur.

    Raises:
        InvalidModel: truncated, malformed, too long, or not decidable.
    """
    walk = Walk()
    machine = _Machine(data, source, walk, storages)
    try:
        walk.end = machine.run(start)
    except (IndexError, struct.error, UnicodeDecodeError, KeyError, ValueError, OverflowError) as error:
        raise InvalidModel(
            f"malformed or truncated pickle at byte {machine.position:,}", where=source, hint="Save the model again."
        ) from error
    return walk


class _Machine:
    def __init__(self, data: bytes, source: str, walk: Walk, storages: bool) -> None:
        self.data = data
        self.source = source
        self.walk = walk
        self.storages = storages
        self.position = 0
        self.frame_end: int | None = None
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, start: int) -> int:
        """The position after STOP."""
        self.position = start
        data, stack, steps = self.data, self.stack, STEPS
        while True:
            code = data[self.position]
            if self.frame_end is not None and self.position == self.frame_end:
                self.frame_end = None
            self.position += 1
            self.walk.opcodes += 1
            if self.walk.opcodes > MOST_OPCODES or len(stack) > MOST_STACK:
                raise self.refused(f"more than {MOST_OPCODES:,} instructions, or too deep")
            step = steps.get(code)
            if step is None:
                raise self.refused(f"opcode 0x{code:02x} is unknown or not needed by models")
            finished = step(self)
            if self.frame_end is not None and self.position > self.frame_end:
                raise self.refused("an instruction crosses the end of its frame")
            if finished:
                if self.frame_end is not None and self.position != self.frame_end:
                    raise self.refused("bytes after the end of the stream inside its frame")
                return self.position

    def refused(self, why: str) -> InvalidModel:
        return InvalidModel(f"cannot be judged: {why} (byte {self.position:,})", where=self.source)

    def take(self, count: int) -> bytes:
        """The next `count` bytes of an argument."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise InvalidModel(
                f"claims {count:,} bytes at byte {self.position:,}, and {len(self.data) - self.position:,} are left",
                where=self.source,
                hint="The file is truncated or forged.",
            )
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def skip(self, count: int) -> None:
        """Pass over the content of a value."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            self.take(count)
        self.position = end

    def remember(self, index: int) -> None:
        """Keep the top of the stack in the memo; the real machine's memo grows to the index, so a huge one is refused."""
        if not 0 <= index <= max(len(self.data), 255):
            raise self.refused(f"memo index {index:,} in {len(self.data):,} bytes")
        self.memo[index] = self.top()

    def line(self) -> bytes:
        end = self.data.index(b"\n", self.position, self.position + LONGEST_TEXT)
        taken = self.data[self.position : end]
        self.position = end + 1
        return taken

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self) -> Any:
        """The value on top, which stays."""
        value = self.stack[-1]
        if value is MARK:
            raise self.refused("a value is missing")
        return value

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise self.refused("a value is missing")
        return value

    def pop_used(self) -> Any:
        """A value that becomes part of something: a global in it is referred to."""
        value = self.pop()
        self.refer(value)
        return value

    def refer(self, value: Any) -> None:
        if type(value) is Global:
            self.walk.uses[value.key].add("value")

    def pop_mark(self) -> list[Any]:
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise self.refused("a mark is missing")
        values = stack[at + 1 :]
        del stack[at:]
        return values

    def use(self, key: str, use: str) -> None:
        self.walk.uses.setdefault(key, set()).add(use)

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or not module or not name:
            raise self.refused("the name of a global is computed")
        key = key_of(module, name)
        self.walk.uses.setdefault(key, set())
        self.push(Global(key))

    def call(self, function: Any, arguments: Any, kind: str) -> None:
        if type(function) is Made and type(arguments) is tuple:
            for value in arguments:
                self.refer(value)
            self.use(function.key, "call of its result")
            self.push(Made(function.key, arguments))
            return
        if type(function) is not Global or type(arguments) is not tuple:
            raise self.refused("something is called that is no global, or with arguments that are no tuple")
        key = function.key
        for value in arguments:
            self.refer(value)
        if claims_size(key, arguments):
            raise self.refused("something that claims a size before it has data")
        why = forbidden_call(key, arguments)
        if why:
            self.use(key, why)
            self.push(Made(key, arguments))
            return
        if key == "copyreg:_reconstructor":
            self.use(key, "call")
            key, arguments, kind = arguments[0].key, (), "new"
        self.use(key, kind)
        self.push(Made(key, arguments))

    def build(self) -> None:
        state = self.pop_used()
        target = self.top()
        if type(target) is not Made:
            raise self.refused("a state is given to something that is no instance")
        if target.built:
            raise self.refused("a state is given twice")
        for part in state if type(state) is tuple else ():
            self.refer(part)
        if target.key == "functools:partial" and not fits_partial(state):
            self.use(target.key, "of another function")
        self.use(target.key, "build")
        target.state, target.built = state, True
        if target.key == "numpy:dtype":
            self.item_size(target)
        if target.key == WRAPPER:
            self.stack[-1] = OPAQUE
            self.inline_array(state)

    def inline_array(self, state: Any) -> None:
        """Skip the raw bytes, or walk the nested stream, of an array that joblib wrote."""
        if type(state) is not Items or state.kind != "dict":
            raise self.refused("an array's header is no dictionary")
        header = state.known
        subclass, shape, dtype = header.get("subclass"), header.get("shape"), header.get("dtype")
        if type(subclass) is not Global or subclass.key != "numpy:ndarray":
            raise self.refused("an array of another class than numpy.ndarray")
        if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
            raise self.refused("an array without a shape")
        if header.get("order") not in ("C", "F"):
            raise self.refused("an array without an order")
        item, objects = self.item_size(dtype)
        if self.frame_end is not None:
            if self.position != self.frame_end:
                raise self.refused("an array's bytes begin inside a frame")
            self.frame_end = None
        if objects:
            self.walk.nested += 1
            if self.walk.nested > MOST_NESTED:
                raise self.refused("too many nested streams")
            inner = _Machine(self.data, self.source, self.walk, storages=False)
            self.position = inner.run(self.position)
            return
        if header.get("numpy_array_alignment_bytes") is not None:
            self.skip(self.number("<B"))
        self.skip(math.prod(shape) * item)

    def item_size(self, dtype: Any, depth: int = 0) -> tuple[int, bool]:
        """Bytes an item, and whether items are objects."""
        import numpy as np

        if type(dtype) is not Made or dtype.key != "numpy:dtype" or depth > 8:
            raise self.refused("an array without a type")
        code = dtype.arguments[0] if dtype.arguments else None
        if type(code) is not str or not DTYPE.fullmatch(code):
            raise self.refused("an array of an unknown type")
        plain = np.dtype(code)
        state = dtype.state
        if state is None:
            return plain.itemsize, plain.hasobject
        if type(state) is not tuple or len(state) < 8:
            raise self.refused("an array's type has an unknown state")
        _, _, shape, names, fields, size, _, flags = state[:8]
        if shape is not None or size not in (-1, plain.itemsize) or type(flags) is not int or (flags & 1) != plain.hasobject:
            raise self.refused("an array's type contradicts itself")
        if names is not None:
            parts = fields.known.values() if type(fields) is Items and fields.kind == "dict" else ()
            if type(names) is not tuple or len(parts) != len(names):
                raise self.refused("an array's type has unknown fields")
            fields.complete = True
            for part in parts:
                if type(part) is not tuple or len(part) < 2 or type(part[1]) is not int:
                    raise self.refused("an array's type has unknown fields")
                size, objects = self.item_size(part[0], depth + 1)
                if objects or not 0 <= part[1] <= plain.itemsize - size:
                    raise self.refused("an array's type has fields that hold objects, or lie outside its items")
        return plain.itemsize, plain.hasobject

    def store(self, key: Any, value: Any, target: Any) -> None:
        self.refer(key)
        self.refer(value)
        if type(key) is str and len(target.known) < KEPT_ITEMS:
            target.known[key] = value

    def fill(self, pairs: list[Any], use: str) -> None:
        target = self.top()
        if type(target) is Made:
            self.use(target.key, use)
            for value in pairs:
                self.refer(value)
            return
        kinds = {"items": ("dict",), "append": ("list", "set")}[use]
        if type(target) is not Items or target.kind not in kinds:
            raise self.refused("items are added to something that takes none")
        if target.complete:
            raise self.refused("items are added to something that was already used")
        if use == "append":
            for value in pairs:
                self.refer(value)
            return
        if len(pairs) % 2:
            raise self.refused("a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self.store(key, value, target)


def _text(machine: _Machine, size: int) -> None:
    if size > LONGEST_TEXT:
        machine.skip(size)
        machine.push(OPAQUE)
    else:
        machine.push(machine.take(size).decode("utf-8", "surrogatepass"))


def _text_line(machine: _Machine) -> None:
    end = machine.data.index(b"\n", machine.position)
    taken = machine.data[machine.position : min(end, machine.position + LONGEST_TEXT)]
    machine.push(taken.decode("raw-unicode-escape") if end - machine.position <= LONGEST_TEXT else OPAQUE)
    machine.position = end + 1


def _bytes(machine: _Machine, size: int) -> None:
    machine.skip(size)
    machine.push(OPAQUE)


def _long(machine: _Machine, size: int) -> None:
    content = machine.take(size)
    machine.push(int.from_bytes(content, "little", signed=True) if size <= 16 else OPAQUE)


def _int_line(machine: _Machine) -> None:
    text = machine.line()
    machine.push({b"00": False, b"01": True}.get(text) if text in (b"00", b"01") else int(text.rstrip(b"L") or b"0", 10))


def _tuple(machine: _Machine, count: int) -> None:
    values = [machine.pop_used() for _ in range(count)]
    machine.push(tuple(reversed(values)))


def _marked_tuple(machine: _Machine) -> None:
    values = machine.pop_mark()
    for value in values:
        machine.refer(value)
    machine.push(tuple(values))


def _new_object(machine: _Machine) -> None:
    arguments = machine.pop()
    machine.call(machine.pop(), arguments, "new_args" if arguments else "new")


def _new_object_with_names(machine: _Machine) -> None:
    names, arguments = machine.pop(), machine.pop()
    if type(names) is not Items or names.kind != "dict":
        raise machine.refused("keyword arguments that are no dictionary")
    machine.call(machine.pop(), arguments, "new_args")


def _reduce(machine: _Machine) -> None:
    arguments = machine.pop()
    function = machine.pop()
    if type(function) is Global and function.key == "copyreg:__newobj__" and type(arguments) is tuple and arguments:
        machine.use(function.key, "call")
        machine.call(arguments[0], arguments[1:], "new_args" if arguments[1:] else "new")
    else:
        machine.call(function, arguments, "call")


def _stack_global(machine: _Machine) -> None:
    name = machine.pop()
    machine.name(machine.pop(), name)


def _frame(machine: _Machine) -> None:
    size = machine.number("<Q")
    if machine.frame_end is not None:
        raise machine.refused("a frame inside a frame")
    if machine.position + size > len(machine.data):
        raise machine.refused("a frame that claims more than the file holds")
    machine.frame_end = machine.position + size


def _persistent(machine: _Machine) -> None:
    identity = machine.pop()
    fits = machine.storages and type(identity) is tuple and len(identity) == 5 and identity[0] == "storage"
    if not fits or type(identity[1]) is not Global or type(identity[2]) is not str:
        raise machine.refused("a persistent id that is no torch storage")
    machine.push(OPAQUE)


def _collection(machine: _Machine, kind: str) -> None:
    values = machine.pop_mark()
    machine.push(Items(kind))
    machine.fill(values, "items" if kind == "dict" else "append")


def _marked_fill(machine: _Machine, use: str) -> None:
    values = machine.pop_mark()
    machine.fill(values, use)


def _append(machine: _Machine) -> None:
    value = machine.pop()
    machine.fill([value], "append")


def _set_item(machine: _Machine) -> None:
    value = machine.pop()
    machine.fill([machine.pop(), value], "items")


def _top(machine: _Machine) -> None:
    machine.top()


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


def _stop(machine: _Machine) -> bool:
    machine.pop_used()
    if machine.stack:
        raise machine.refused("values are left over")
    return True


def _frozen(machine: _Machine) -> None:
    for value in machine.pop_mark():
        machine.refer(value)
    machine.push(Items("frozenset"))


def _protocol(machine: _Machine) -> None:
    if machine.number("<B") > 5:
        raise machine.refused("a pickle protocol above 5")


Step = Callable[[_Machine], Any]
STEPS: dict[int, Step] = {
    code[0]: step
    for code, step in {
        pickle.PROTO: _protocol,
        pickle.FRAME: _frame,
        pickle.STOP: _stop,
        pickle.MARK: lambda m: m.push(MARK),
        pickle.POP: _pop,
        pickle.POP_MARK: lambda m: m.pop_mark(),
        pickle.DUP: lambda m: m.push(m.top()),
        pickle.NONE: lambda m: m.push(None),
        pickle.NEWTRUE: lambda m: m.push(True),
        pickle.NEWFALSE: lambda m: m.push(False),
        pickle.INT: _int_line,
        pickle.LONG: _int_line,
        pickle.BININT: lambda m: m.push(m.number("<i")),
        pickle.BININT1: lambda m: m.push(m.number("<B")),
        pickle.BININT2: lambda m: m.push(m.number("<H")),
        pickle.LONG1: lambda m: _long(m, m.number("<B")),
        pickle.LONG4: lambda m: _long(m, m.number("<i")),
        pickle.FLOAT: lambda m: m.push(float(m.line())),
        pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        pickle.UNICODE: _text_line,
        pickle.SHORT_BINUNICODE: lambda m: _text(m, m.number("<B")),
        pickle.BINUNICODE: lambda m: _text(m, m.number("<I")),
        pickle.BINUNICODE8: lambda m: _text(m, m.number("<Q")),
        pickle.SHORT_BINBYTES: lambda m: _bytes(m, m.number("<B")),
        pickle.BINBYTES: lambda m: _bytes(m, m.number("<I")),
        pickle.BINBYTES8: lambda m: _bytes(m, m.number("<Q")),
        pickle.BYTEARRAY8: lambda m: _bytes(m, m.number("<Q")),
        pickle.READONLY_BUFFER: _top,
        pickle.EMPTY_TUPLE: lambda m: m.push(()),
        pickle.TUPLE1: lambda m: _tuple(m, 1),
        pickle.TUPLE2: lambda m: _tuple(m, 2),
        pickle.TUPLE3: lambda m: _tuple(m, 3),
        pickle.TUPLE: _marked_tuple,
        pickle.EMPTY_LIST: lambda m: m.push(Items("list")),
        pickle.LIST: lambda m: _collection(m, "list"),
        pickle.EMPTY_DICT: lambda m: m.push(Items("dict")),
        pickle.DICT: lambda m: _collection(m, "dict"),
        pickle.EMPTY_SET: lambda m: m.push(Items("set")),
        pickle.FROZENSET: _frozen,
        pickle.APPEND: _append,
        pickle.APPENDS: lambda m: _marked_fill(m, "append"),
        pickle.ADDITEMS: lambda m: _marked_fill(m, "append"),
        pickle.SETITEM: _set_item,
        pickle.SETITEMS: lambda m: _marked_fill(m, "items"),
        pickle.GLOBAL: lambda m: m.name(m.line().decode("utf-8"), m.line().decode("utf-8")),
        pickle.STACK_GLOBAL: _stack_global,
        pickle.REDUCE: _reduce,
        pickle.NEWOBJ: _new_object,
        pickle.NEWOBJ_EX: _new_object_with_names,
        pickle.BUILD: lambda m: m.build(),
        pickle.BINPERSID: _persistent,
        pickle.PUT: lambda m: m.remember(int(m.line())),
        pickle.BINPUT: lambda m: m.remember(m.number("<B")),
        pickle.LONG_BINPUT: lambda m: m.remember(m.number("<I")),
        pickle.MEMOIZE: lambda m: m.memo.__setitem__(len(m.memo), m.top()),
        pickle.GET: lambda m: m.push(m.memo[int(m.line())]),
        pickle.BINGET: lambda m: m.push(m.memo[m.number("<B")]),
        pickle.LONG_BINGET: lambda m: m.push(m.memo[m.number("<I")]),
    }.items()
}
