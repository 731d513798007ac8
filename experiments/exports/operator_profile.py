"""Profiles a TFLite file by operator and by layer.

LiteRT's Python package has no profiler. So each operator of the signature `predict` is written to a
separate file and timed alone, on one thread, with the inputs it has in the network; operators of
the same kind and shapes are timed once. Times are processor times, not wall-clock times, so that
other processes do not count; the shortest time, as the overhead of a call, is subtracted. The
result is an estimate, because an operator that runs alone finds its inputs in the cache. The sum is
printed with the time of the complete signature, which shows the error.
"""

import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.exports import litert
from export import lite_file
from flowseg import tables

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, SubGraphT

RUNS = 15
# Most rows of a table, longest times first; the others are summed up.
LINES = 16


def one_operator(
    model: "ModelT", subgraph: "SubGraphT", operator: "OperatorT"
) -> tuple[bytes, list[int]]:
    """The bytes of a file with one operator, and the tensors that it takes.

    Args:
        model: `ModelT` of the complete file.
        subgraph: the subgraph that contains the operator.
        operator: `OperatorT`.

    Returns:
        (bytes, indices of the tensors that are its inputs, in order).
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[], name=b"main")
    buffers, new_index = [schema.BufferT()], {-1: -1}
    inputs = []
    for index in map(int, [*operator.inputs, *operator.outputs]):
        if index in new_index:
            continue
        old = subgraph.tensors[index]
        new = schema.TensorT(
            shape=old.shape,
            type=old.type,
            name=old.name,
            quantization=old.quantization,
            hasRank=old.hasRank,
            buffer=0,
        )
        new_index[index] = len(graph.tensors)
        if _is_constant(model, old):
            new.buffer = len(buffers)
            buffers.append(model.buffers[old.buffer])
        elif index in operator.inputs:
            graph.inputs.append(new_index[index])
            inputs.append(index)
        graph.tensors.append(new)
    graph.outputs = [new_index[int(i)] for i in operator.outputs]
    single = schema.OperatorT(
        opcodeIndex=0,
        inputs=[new_index[int(i)] for i in operator.inputs],
        outputs=graph.outputs,
        builtinOptionsType=operator.builtinOptionsType,
        builtinOptions=operator.builtinOptions,
        builtinOptions2Type=operator.builtinOptions2Type,
        builtinOptions2=operator.builtinOptions2,
    )
    graph.operators = [single]
    file = schema.ModelT(
        version=model.version,
        operatorCodes=[model.operatorCodes[operator.opcodeIndex]],
        subgraphs=[graph],
        buffers=buffers,
        metadata=[],
        metadataBuffer=[],
        signatureDefs=[],
    )
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file)), inputs


def _is_constant(model, tensor):
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _operator_key(model, subgraph, operator):
    """A key that is equal for operators of the same kind, options and shapes."""
    key = [int(operator.opcodeIndex)]
    for options in (operator.builtinOptions, operator.builtinOptions2):
        key.append(str(sorted(vars(options).items())) if options else "")
    for index in map(int, [*operator.inputs, *operator.outputs]):
        if index >= 0:
            tensor = subgraph.tensors[index]
            shape = tuple(map(int, tensor.shape if tensor.shape is not None else ()))
            key.append((shape, int(tensor.type), _is_constant(model, tensor)))
    return tuple(key)


def _tensor_values(content, graph, frames):
    """Run `predict` on two frames; returns a function that maps a tensor's index to its value."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # XNNPACK would hide the tensors between its operators.
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    named = dict(zip(("image1", "image2"), (frame[None] for frame in frames), strict=True))
    interpreter.get_signature_runner("predict")(**named)
    return lambda index: interpreter.get_tensor(index, graph)


def _time_file(content, values):
    """`milliseconds` of a file with one graph, on these inputs."""
    ready = litert.interpreter(content)
    for entry, value in zip(ready.get_input_details(), values, strict=True):
        ready.set_tensor(entry["index"], value)
    return milliseconds(ready.invoke)


def milliseconds(work: Callable[[], object]) -> float:
    """Median processor time of `work()` in ms, after two warm-up runs."""
    times = []
    for _ in range(2 + RUNS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return 1e3 * statistics.median(times[2:])


def profile(
    content: bytes, frames: Sequence[np.ndarray]
) -> tuple[list[tuple[str, str, str, float]], float]:
    """Time of each operator of `predict`, and of the complete signature.

    Args:
        content: bytes of a file from `export.tflite`, float32 or int8.
        frames: two (H, W, 3) uint8 frames.

    Returns:
        (rows, total): rows are (operator, number format of its first output, layer, ms), in file
        order; total is the time of `predict` in ms.

    Raises:
        ValueError: LiteRT is not installed, or cannot run the file.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    predict = lite_file.LiteFile({}, lite_file.signatures(content, "the file")).predict
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    [graph] = (s.subgraphIndex for s in model.signatureDefs if s.signatureKey == b"predict")
    subgraph = model.subgraphs[graph]
    value = _tensor_values(content, graph, frames)
    rows, times = [], {}
    for operator in subgraph.operators:
        key = _operator_key(model, subgraph, operator)
        if key not in times:
            file, inputs = one_operator(model, subgraph, operator)
            times[key] = _time_file(file, [value(index) for index in inputs])
        output = subgraph.tensors[int(operator.outputs[0])]
        name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        kind = flatbuffer_utils.type_to_name(output.type).lower()
        rows.append((name, kind, _layer(output.name.decode()), times[key]))
    empty = min(times.values())
    total = milliseconds(lambda: predict(*frames))
    return [(*row[:3], row[3] - empty) for row in rows], total


def _layer(name):
    """The layer of a tensor, by its name: the encoder, or a layer of the decoder."""
    if "encoder" in name.split(";")[0]:
        return "encoder"
    match = re.search(r"decoder_?\d*/([a-z]+(_[a-z0-9]+)*?)(_1)?/", name)
    return match.group(1) if match else "outside"


def table(rows: Sequence[tuple[str, str, str, float]], total: float) -> str:
    """Lines of text: by operator and number format, then by layer."""
    summed = sum(row[3] for row in rows)
    lines = [
        f"predict takes {total:.1f} ms on one core; "
        f"the sum of its {len(rows)} operators, each timed alone, is {summed:.1f} ms"
    ]
    for keys in ((0, 1), (2,)):
        totals = {}
        for row in rows:
            key = " ".join(row[k] for k in keys)
            count, ms = totals.get(key, (0, 0.0))
            totals[key] = count + 1, ms + row[3]
        ranked = sorted(totals.items(), key=lambda entry: -entry[1][1])
        if rest := [entry for _, entry in ranked[LINES:]]:
            ranked[LINES:] = [(f"{len(rest)} more", tuple(map(sum, zip(*rest, strict=True))))]
        lines.append("")
        cells = (
            (key, count, "operators", f"{ms:.2f}", "ms", f"{ms / summed:.1%}")
            for key, (count, ms) in ranked
        )
        lines.append(tables.plain(cells))
    return "\n".join(lines)
