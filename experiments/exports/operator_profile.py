"""Where the milliseconds of a TFLite file go, by operator and by layer.

LiteRT's Python package has no profiler. So each operator of the signature `predict` is written as a
file of its own and timed alone, by one thread, on the inputs that it has in the network; operators
of one kind and of the same shapes are timed once. Times are of the processor, not of the wall's
clock, so that others on the machine do not count; what an empty call takes is subtracted. It is an
estimate: alone an operator finds its inputs in the cache. The sum stands beside the time of the
whole, so that one sees by how much.
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
# Of the lines of a table the longest; the others are summed up.
LINES = 16


def one_operator(
    model: "ModelT", subgraph: "SubGraphT", operator: "OperatorT"
) -> tuple[bytes, list[int]]:
    """The bytes of a file of one operator, and which tensors it takes.

    Args:
        model: `ModelT` of the whole file.
        subgraph: its subgraph that the operator is in.
        operator: `OperatorT`.

    Returns:
        (bytes, indices of the tensors that are its inputs, in their order).
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    made = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[], name=b"main")
    buffers, place = [schema.BufferT()], {-1: -1}
    fed = []
    for index in map(int, [*operator.inputs, *operator.outputs]):
        if index in place:
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
        place[index] = len(made.tensors)
        if _is_constant(model, old):
            new.buffer = len(buffers)
            buffers.append(model.buffers[old.buffer])
        elif index in operator.inputs:
            made.inputs.append(place[index])
            fed.append(index)
        made.tensors.append(new)
    made.outputs = [place[int(i)] for i in operator.outputs]
    alone = schema.OperatorT(
        opcodeIndex=0,
        inputs=[place[int(i)] for i in operator.inputs],
        outputs=made.outputs,
        builtinOptionsType=operator.builtinOptionsType,
        builtinOptions=operator.builtinOptions,
        builtinOptions2Type=operator.builtinOptions2Type,
        builtinOptions2=operator.builtinOptions2,
    )
    made.operators = [alone]
    whole = schema.ModelT(
        version=model.version,
        operatorCodes=[model.operatorCodes[operator.opcodeIndex]],
        subgraphs=[made],
        buffers=buffers,
        metadata=[],
        metadataBuffer=[],
        signatureDefs=[],
    )
    return bytes(flatbuffer_utils.convert_object_to_bytearray(whole)), fed


def _is_constant(model, tensor):
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _alike(model, subgraph, operator):
    """What makes two operators alike."""
    told = [int(operator.opcodeIndex)]
    for options in (operator.builtinOptions, operator.builtinOptions2):
        told.append(str(sorted(vars(options).items())) if options else "")
    for index in map(int, [*operator.inputs, *operator.outputs]):
        if index >= 0:
            tensor = subgraph.tensors[index]
            shape = tuple(map(int, tensor.shape if tensor.shape is not None else ()))
            told.append((shape, int(tensor.type), _is_constant(model, tensor)))
    return tuple(told)


def _values(content, graph, frames):
    """All tensors of `predict` on two frames: a function of the index, once all have been made."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # XNNPACK would keep to itself what lies between its operators.
    plain = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    named = dict(zip(("image1", "image2"), (frame[None] for frame in frames), strict=True))
    plain.get_signature_runner("predict")(**named)
    return lambda index: plain.get_tensor(index, graph)


def _alone(content, values):
    """`milliseconds` of a file of one graph on these inputs."""
    ready = litert.interpreter(content)
    for entry, value in zip(ready.get_input_details(), values, strict=True):
        ready.set_tensor(entry["index"], value)
    return milliseconds(ready.invoke)


def milliseconds(work: Callable[[], object]) -> float:
    """Median processor time of `work()`, after two runs to warm up."""
    times = []
    for _ in range(2 + RUNS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return 1e3 * statistics.median(times[2:])


def profile(
    content: bytes, frames: Sequence[np.ndarray]
) -> tuple[list[tuple[str, str, str, float]], float]:
    """Time of each operator of `predict`, and of the whole.

    Args:
        content: bytes of a file of `export.tflite`, float32 or int8.
        frames: two (H, W, 3) uint8 frames.

    Returns:
        (rows, whole): rows are (operator, number format of its first output, layer, ms), in the
        file's order; whole is the ms of `predict`.

    Raises:
        ValueError: LiteRT is not installed, or cannot run the file.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    predict = lite_file.LiteFile({}, lite_file.signatures(content, "the file")).predict
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    [graph] = (s.subgraphIndex for s in model.signatureDefs if s.signatureKey == b"predict")
    subgraph = model.subgraphs[graph]
    value = _values(content, graph, frames)
    rows, known = [], {}
    for operator in subgraph.operators:
        alike = _alike(model, subgraph, operator)
        if alike not in known:
            alone, fed = one_operator(model, subgraph, operator)
            known[alike] = _alone(alone, [value(index) for index in fed])
        output = subgraph.tensors[int(operator.outputs[0])]
        name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        kind = flatbuffer_utils.type_to_name(output.type).lower()
        rows.append((name, kind, _layer(output.name.decode()), known[alike]))
    empty = min(known.values())
    whole = milliseconds(lambda: predict(*frames))
    return [(*row[:3], row[3] - empty) for row in rows], whole


def _layer(name):
    """The encoder, or the layer of the decoder, that a tensor's name tells of."""
    if "encoder" in name.split(";")[0]:
        return "encoder"
    found = re.search(r"decoder_?\d*/([a-z]+(_[a-z0-9]+)*?)(_1)?/", name)
    return found.group(1) if found else "outside"


def table(rows: Sequence[tuple[str, str, str, float]], whole: float) -> str:
    """Lines of text: by operator and number format, then by layer."""
    summed = sum(row[3] for row in rows)
    lines = [
        f"predict takes {whole:.1f} ms of one core; "
        f"its {len(rows)} operators, each alone, {summed:.1f} ms"
    ]
    for keys in ((0, 1), (2,)):
        told = {}
        for row in rows:
            key = " ".join(row[k] for k in keys)
            count, ms = told.get(key, (0, 0.0))
            told[key] = count + 1, ms + row[3]
        ranked = sorted(told.items(), key=lambda entry: -entry[1][1])
        if rest := [entry for _, entry in ranked[LINES:]]:
            ranked[LINES:] = [(f"{len(rest)} more", tuple(map(sum, zip(*rest, strict=True))))]
        lines.append("")
        cells = (
            (key, count, "operators", f"{ms:.2f}", "ms", f"{ms / summed:.1%}")
            for key, (count, ms) in ranked
        )
        lines.append(tables.plain(cells))
    return "\n".join(lines)
