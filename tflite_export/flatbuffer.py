"""Read, clean up and write the TFLite flatbuffer through its generated object API."""

from __future__ import annotations

import zlib

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

MAGIC = b"KBIT"
"""How the blob of a layer starts."""

_CHECKSUM_NAME = b"kerasbits_crc32"
_CHECKSUM_MARK = b"kerasbits crc32:"

ALIGNMENT = 64
"""Bytes that blobs and large constants are aligned to: a cache line, and what newer runtimes ask
for."""

SMALL = 1024
"""Bytes from which a constant is large. Smaller ones are aligned as the schema says."""

_SMALL_ALIGNMENT = 16


def read(data: bytes) -> schema.ModelT:
    """Parse a .tflite file.

    Raises:
        ValueError: if the bytes are no TFLite flatbuffer.
    """
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ValueError(f"expected a TFLite file (identifier TFL3), got {data[4:8]!r}")
    check(data)
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        if not (model.subgraphs and model.operatorCodes and model.buffers):
            raise ValueError("no graph in it")
        return model
    except Exception as error:  # the generated reader raises whatever the bytes lead it to
        raise ValueError(f"expected a readable TFLite file, got a corrupt one ({error})") from error


def write(model: schema.ModelT) -> bytes:
    """Serialize, with large constants on 64-byte boundaries. The same model gives the same bytes.

    A place made by `add_checksum` is filled with the CRC-32 of the file.
    """
    data = _serialize(model)
    at = data.find(_CHECKSUM_MARK)
    if at < 0:
        return data
    at += len(_CHECKSUM_MARK)
    before, after = data[:at], data[at + 4 :]
    return before + zlib.crc32(before + bytes(4) + after).to_bytes(4, "little") + after


def add_checksum(model: schema.ModelT) -> None:
    """Make a place for the checksum of the file among its metadata."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_CHECKSUM_MARK + bytes(4), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = _CHECKSUM_NAME
    entry.buffer = len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


def has_checksum(model: schema.ModelT) -> bool:
    """Whether `add_checksum` made a place in it that `check` finds."""
    return any(
        entry.name == _CHECKSUM_NAME
        and bytes(model.buffers[entry.buffer].data).startswith(_CHECKSUM_MARK)
        for entry in model.metadata or []
    )


def check(data: bytes) -> None:
    """Compare a file with its checksum; files without one pass.

    Raises:
        ValueError: if they differ.
    """
    at = data.find(_CHECKSUM_MARK)
    if at < 0:
        return
    at += len(_CHECKSUM_MARK)
    expected = int.from_bytes(data[at : at + 4], "little")
    found = zlib.crc32(data[:at] + bytes(4) + data[at + 4 :])
    if found != expected:
        raise ValueError(f"expected checksum {expected:08x}, got {found:08x}: the file is corrupt")


def _serialize(model: schema.ModelT) -> bytes:
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """A builder that writes equal vectors and strings once, and aligns constants.

    The generated Python code ignores that the schema aligns the data of buffers.
    """

    def __init__(self, size: int):
        super().__init__(size)
        self._written: dict[tuple, int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        """Offset of a vector of these numbers."""
        raw = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
        alignment = x.itemsize
        if x.dtype == np.uint8:  # the only vectors of bytes that are long are constants
            large = len(raw) >= SMALL or raw.startswith(MAGIC)
            alignment = ALIGNMENT if large else _SMALL_ALIGNMENT
        if (raw, alignment) not in self._written:
            self.StartVector(x.itemsize, x.size, alignment)
            self.head -= len(raw)
            self.Bytes[self.head : self.head + len(raw)] = raw
            self._written[raw, alignment] = self.EndVector()
        return self._written[raw, alignment]

    def CreateString(self, s, encoding="utf-8", errors="strict") -> int:
        """Offset of a string."""
        if s not in self._written:
            self._written[s] = super().CreateString(s, encoding, errors)
        return self._written[s]


def builtin_code(model: schema.ModelT, operator: schema.OperatorT) -> int:
    """Builtin operator code; old files have it in the deprecated 8-bit field only."""
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def custom_name(model: schema.ModelT, operator: schema.OperatorT) -> str | None:
    """Name of a custom operator, None for builtin ones."""
    if builtin_code(model, operator) != schema.BuiltinOperator.CUSTOM:
        return None
    name = model.operatorCodes[operator.opcodeIndex].customCode
    return name.decode() if isinstance(name, bytes) else name


def constant(model: schema.ModelT, tensor: schema.TensorT) -> bytes | None:
    """The data of a constant tensor, None if it is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) else np.asarray(data, np.uint8).tobytes()


def add_constant(model: schema.ModelT, graph: schema.SubGraphT, name: str, data: bytes) -> int:
    """Add a UINT8 constant; return its tensor index."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name = name.encode()
    tensor.type = schema.TensorType.UINT8
    tensor.shape = np.array([len(data)], np.int32)
    tensor.buffer = len(model.buffers) - 1
    tensor.hasRank = True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def custom_opcode(model: schema.ModelT, name: str) -> int:
    """Index of the operator code of a custom operator, added if it is not there."""
    for index, code in enumerate(model.operatorCodes):
        if code.customCode in (name, name.encode()):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name.encode()
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def opcode(model: schema.ModelT, builtin: int) -> int:
    """Index of the operator code of a builtin operator, version 1, added if it is not there."""
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version == 1:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, 127)  # an 8-bit field, 127 for larger codes
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def remove_unused(model: schema.ModelT) -> None:
    """Drop tensors, buffers and operator codes that nothing refers to, and renumber the rest."""
    for index, graph in enumerate(model.subgraphs):
        _remove_tensors(model, index, graph)
    used = {0} | {t.buffer for g in model.subgraphs for t in g.tensors}  # buffer 0 stays, empty
    used |= {entry.buffer for entry in model.metadata or []}
    model.buffers, to_new = _kept(model.buffers, used)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = to_new[tensor.buffer]
    for entry in model.metadata or []:
        entry.buffer = to_new[entry.buffer]
    operators = [op for graph in model.subgraphs for op in graph.operators]
    model.operatorCodes, to_new = _kept(model.operatorCodes, {op.opcodeIndex for op in operators})
    for op in operators:
        op.opcodeIndex = to_new[op.opcodeIndex]


def _remove_tensors(model: schema.ModelT, index: int, graph: schema.SubGraphT) -> None:
    used = {int(i) for i in graph.inputs} | {int(i) for i in graph.outputs}
    for op in graph.operators:
        for indices in (op.inputs, op.outputs, op.intermediates):
            used |= {int(i) for i in (indices if indices is not None else []) if i >= 0}
    graph.tensors, to_new = _kept(graph.tensors, used)
    to_new[-1] = -1  # an absent optional input

    def renumber(indices):
        return None if indices is None else np.array([to_new[int(i)] for i in indices], np.int32)

    for op in graph.operators:
        op.inputs, op.outputs = renumber(op.inputs), renumber(op.outputs)
        op.intermediates = renumber(op.intermediates)
    graph.inputs, graph.outputs = renumber(graph.inputs), renumber(graph.outputs)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == index:
            for entry in [*signature.inputs, *signature.outputs]:
                entry.tensorIndex = to_new[entry.tensorIndex]


def _kept(items: list, used: set[int]) -> tuple[list, dict[int, int]]:
    """The used items, and a dictionary from old to new indices."""
    order = sorted(used)
    return [items[i] for i in order], {old: new for new, old in enumerate(order)}
