"""Broken and hostile variants of a valid ONNX file, the same for the same seed.

As a script, ``python mutants.py FIRST STOP FOLDER FILE...`` audits mutants FIRST to STOP - 1 of the
files by the command line, in this process, and prints a line of JSON for each and one for what they
took together.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from tests.onnx.processes import children

#: Seconds and bytes that an audit may take, whatever the file.
SECONDS, MEMORY = 60, 3 * 10**9

_HUGE = (2**16, 2**24, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -1, -(2**63), 0)
_TEXTS = (
    "",
    "scores",
    "images",
    "Conv",
    "evil.ops",
    "../../etc/passwd",
    "\0",
    "é" * 1000,
    "{" * 99,
)


def mutant(content: bytes, seed: int) -> tuple[str, bytes]:
    """The kind of damage, and the damaged file."""
    rng = random.Random(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    return kind, KINDS[kind](content, rng)


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        # The weights are most of a file, and the least interesting: half of the flips go elsewhere.
        place = rng.randrange(len(changed)) if rng.random() < 0.5 else _structural(content, rng)
        changed[place] ^= rng.choice((1, 0x80, 0xFF, 1 << rng.randrange(8)))
    return bytes(changed)


def _structural(content: bytes, rng: random.Random) -> int:
    """A place at the start or the end, or beside a name."""
    names = [
        i for word in (b"images", b"Conv", b"scores", b"weight") for i in _places(content, word)
    ]
    near = rng.choice(names) + rng.randrange(-12, 24) if names else 0
    place = rng.choice((rng.randrange(200), len(content) - 1 - rng.randrange(400), near))
    return place % len(content)


def _places(content: bytes, word: bytes) -> Iterator[int]:
    place = content.find(word)
    while place >= 0:
        yield place
        place = content.find(word, place + 1)


def _cut(content: bytes, rng: random.Random) -> bytes:
    """Without an end, or without a piece, or with a piece twice."""
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice((1, 7, 100, 5000)))
    return rng.choice(
        (content[:start], content[:start] + content[stop:], content[:stop] + content[start:])
    )


def _changed_field(content: bytes, rng: random.Random) -> bytes:
    """A few fields anywhere set to odd values, taken away, or doubled."""
    model = onnx.load_from_string(content)
    for _ in range(rng.choice((1, 1, 3))):
        message, field, value = rng.choice(list(_fields(model)))
        if _repeated(value):
            values = list(value)
            action = rng.choice(("drop", "double", "shuffle"))
            if action == "drop":
                values.pop(rng.randrange(len(values)))
            elif action == "double":
                values.append(rng.choice(values))
            else:
                rng.shuffle(values)
            message.ClearField(field)
            getattr(message, field).extend(values)
        elif isinstance(value, int | float | str | bytes) and rng.random() < 0.8:
            odd: Any = rng.choice(_TEXTS)
            if isinstance(value, bytes):
                odd = rng.randbytes(rng.choice((0, 3, 1000)))
            elif not isinstance(value, str):
                odd = rng.choice(_HUGE)
            try:
                setattr(message, field, type(value)(odd))
            except (ValueError, TypeError):  # smaller than 64 bits, or an enumeration
                setattr(message, field, rng.choice((0, 1, 7)))
        else:
            message.ClearField(field)
    return bytes(model.SerializeToString())


def _fields(message: Any) -> Iterator[tuple[Any, str, Any]]:
    """Every field that is set, of a message and of those within it."""
    for descriptor, value in message.ListFields():
        yield message, descriptor.name, value
        inner = value if _repeated(value) else [value]
        for item in inner:
            if hasattr(item, "ListFields"):
                yield from _fields(item)


def _repeated(value: Any) -> bool:
    return hasattr(value, "extend") and not isinstance(value, bytes)


def _huge(content: bytes, rng: random.Random) -> bytes:
    """Huge, negative or no sizes: of the input, the output, a weight, or the metadata."""
    model = onnx.load_from_string(content)
    for _ in range(rng.choice((1, 1, 2))):
        size = rng.choice(_HUGE)
        where = rng.choice(("input", "input", "output", "weight", "metadata"))
        if where == "metadata":
            found = [p for p in model.metadata_props if p.key == "captum_lie.preprocessing"]
            about = {**json.loads(found[0].value), "size": [size, 32]}
            found[0].value = json.dumps(about)
            for dim in list(model.graph.input[0].type.tensor_type.shape.dim)[2:]:
                dim.dim_param = "any"
        elif where == "weight":
            weight = rng.choice(model.graph.initializer)
            if weight.dims:
                weight.dims[rng.randrange(len(weight.dims))] = size
        else:
            value = rng.choice(getattr(model.graph, where))
            rng.choice(value.type.tensor_type.shape.dim).dim_value = size
    return bytes(model.SerializeToString())


def _cycle(content: bytes, rng: random.Random) -> bytes:
    """A node that waits for itself or for a later one, or a function that calls itself."""
    model = onnx.load_from_string(content)
    nodes = model.graph.node
    if rng.random() < 0.3:
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        body = [helper.make_node("f", ["x"], ["y"], domain="own")]
        model.functions.append(helper.make_function("own", "f", ["x"], ["y"], body, opsets))
        model.opset_import.append(helper.make_opsetid("own", 1))
        nodes.insert(0, helper.make_node("f", ["images"], ["moved"], domain="own"))
        nodes[1].input[0] = "moved"
        return bytes(model.SerializeToString())
    first, later = sorted((rng.randrange(len(nodes)), rng.randrange(len(nodes))))
    if nodes[first].input and nodes[later].output:
        nodes[first].input[0] = nodes[later].output[0]
    return bytes(model.SerializeToString())


def _wrong_type(content: bytes, rng: random.Random) -> bytes:
    """Another element type, rank, operator or kind of attribute than belongs there."""
    model = onnx.load_from_string(content)
    types = (*TensorProto.DataType.values(), 99)
    graph = model.graph
    where = rng.choice(("input", "output", "weight", "attribute", "operator", "rank", "sequence"))
    if where in ("input", "output"):
        getattr(graph, where)[0].type.tensor_type.elem_type = rng.choice(types)
    elif where == "weight":
        rng.choice(graph.initializer).data_type = rng.choice(types)
    elif where == "attribute":
        attributes = [a for node in graph.node for a in node.attribute]
        rng.choice(attributes).type = rng.choice(range(15))
    elif where == "operator":
        rng.choice(graph.node).op_type = rng.choice(
            ("Loop", "If", "Scan", "NonZero", "SequenceEmpty", "ArgMax", "Cast", "Shape", "Conv")
        )
    elif where == "rank":
        shape = rng.choice((graph.input[0], graph.output[0])).type.tensor_type.shape
        if rng.random() < 0.5:
            shape.dim.pop()
        else:
            shape.dim.add(dim_value=1)
    else:
        graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    return bytes(model.SerializeToString())


def _metadata(content: bytes, rng: random.Random) -> bytes:
    """What the file says of its preprocessing, wrong in its type, its size or its syntax."""
    model = onnx.load_from_string(content)
    (found,) = (p for p in model.metadata_props if p.key == "captum_lie.preprocessing")
    about = json.loads(found.value)
    odd: tuple[Any, ...] = (
        None,
        [],
        [1],
        [-1, 2**62],
        [2**62, 2**62],
        [1, 1],
        "NHWC",
        "BGR",
        1e308,
        {},
        True,
    )
    about[rng.choice(list(about))] = rng.choice(odd)
    about["included"] = rng.choice((True, False))
    texts = (json.dumps(about), json.dumps(about), "[" * 100_000, "NaN", json.dumps(about)[:-2])
    found.value = rng.choice(texts)
    if rng.random() < 0.5:
        for dim in list(model.graph.input[0].type.tensor_type.shape.dim)[1:]:
            dim.dim_param = "any"
    return bytes(model.SerializeToString())


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped bytes": _flipped,
    "cut": _cut,
    "changed field": _changed_field,
    "huge size": _huge,
    "cycle": _cycle,
    "wrong type": _wrong_type,
    "metadata": _metadata,
}

#: As little work as an audit can be.
QUICK = ["--groups", "brightness", "--metrics", "consistency", "--samples", "2", "--limit", "2",
          "--batch-size", "2", "--threads", "1",
          "--memory", "1", "--load-seconds", "15", "--total-seconds", "20"]  # fmt: skip


def _status(process: int | str, field: str) -> int:
    """A number that Linux says of a process."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0])


def _watch_children(stop: threading.Event, peaks: list[int]) -> None:
    """Add the bytes that each child has had at most. ``ru_maxrss`` starts at its parent's."""
    while not stop.wait(0.05):
        for process in children():
            with contextlib.suppress(OSError, IndexError):  # it has ended
                peaks.append(_status(process, "VmHWM") * 1024)


def main(first: int, stop: int, folder: Path, files: list[Path]) -> None:
    """Audit mutants of each file in turn; see the module's text."""
    from typer.testing import CliRunner

    from captum_lie.cli.application import app

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    theirs, stopped = [0], threading.Event()
    threading.Thread(target=_watch_children, args=(stopped, theirs), daemon=True).start()
    contents = [file.read_bytes() for file in files]
    for seed in range(first, stop):
        kind, content = mutant(contents[seed // len(KINDS) % len(files)], seed)
        place = folder / str(seed)
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(content)
        began = time.monotonic()
        signal.alarm(SECONDS)
        command = ["audit", str(place / "model.onnx"), "--out", str(place / "out"), *QUICK]
        result = CliRunner().invoke(app, command)
        signal.alarm(0)
        bug = None
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            bug = "".join(traceback.format_exception(result.exception))
        files_written = [p.name for p in (place / "out").rglob("*")]
        found = {
            "seed": seed,
            "kind": kind,
            "exit_code": result.exit_code,
            "seconds": round(time.monotonic() - began, 2),
            "bug": bug,
            "output": result.output,
            "files": sorted(files_written),
        }
        print(json.dumps(found), flush=True)
    stopped.set()
    peaks = [_status("self", "VmHWM") * 1024, max(theirs)]
    print(json.dumps({"peak": sum(peaks), "of": peaks}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), [Path(f) for f in sys.argv[4:]])
