"""What operators a .tflite file is made of."""

from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer

_BUILTIN = {code: name for name, code in vars(schema.BuiltinOperator).items() if type(code) is int}


def operator_names(data):
    """Names of the operators of a file in order, custom ones by their own names."""
    tree = flatbuffer.read(bytes(data))
    return [
        flatbuffer.custom_name(tree, op) or _BUILTIN[flatbuffer.builtin_code(tree, op)]
        for op in tree.subgraphs[0].operators
    ]
