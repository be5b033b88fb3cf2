#include "ops.h"

#define FLOATS(checks, inputs, ints, floats) \
  inputs, ints, floats, 0, 0, kb_check_##checks, kb_run_##checks
#define CLAMPED(checks, inputs, ints) inputs, ints, 2, 1, 0, kb_check_##checks, kb_run_##checks
#define ANY(checks, inputs, ints) inputs, ints, 0, 0, 1, kb_check_##checks, kb_run_##checks

static const kb_operation kOperations[KB_OPERATIONS] = {
    [KB_OP_PACKED] = {"PACKED", ANY(packed, 1, 0)},
    [KB_OP_ADD] = {"ADD", CLAMPED(binary, 2, 0)},
    [KB_OP_SUB] = {"SUB", CLAMPED(binary, 2, 0)},
    [KB_OP_MUL] = {"MUL", CLAMPED(binary, 2, 0)},
    [KB_OP_DIV] = {"DIV", CLAMPED(binary, 2, 0)},
    [KB_OP_MAXIMUM] = {"MAXIMUM", CLAMPED(binary, 2, 0)},
    [KB_OP_MINIMUM] = {"MINIMUM", CLAMPED(binary, 2, 0)},
    [KB_OP_POW] = {"POW", CLAMPED(binary, 2, 0)},
    [KB_OP_SQUARED_DIFFERENCE] = {"SQUARED_DIFFERENCE", CLAMPED(binary, 2, 0)},
    [KB_OP_PRELU] = {"PRELU", FLOATS(binary, 2, 0, 0)},
    [KB_OP_CLAMP] = {"CLAMP", FLOATS(unary, 1, 0, 2)},
    [KB_OP_LEAKY_RELU] = {"LEAKY_RELU", FLOATS(unary, 1, 0, 1)},
    [KB_OP_ELU] = {"ELU", FLOATS(unary, 1, 0, 0)},
    [KB_OP_LOGISTIC] = {"LOGISTIC", FLOATS(unary, 1, 0, 0)},
    [KB_OP_TANH] = {"TANH", FLOATS(unary, 1, 0, 0)},
    [KB_OP_HARD_SWISH] = {"HARD_SWISH", FLOATS(unary, 1, 0, 0)},
    [KB_OP_GELU] = {"GELU", FLOATS(unary, 1, 1, 0)},
    [KB_OP_EXP] = {"EXP", FLOATS(unary, 1, 0, 0)},
    [KB_OP_LOG] = {"LOG", FLOATS(unary, 1, 0, 0)},
    [KB_OP_SQRT] = {"SQRT", FLOATS(unary, 1, 0, 0)},
    [KB_OP_RSQRT] = {"RSQRT", FLOATS(unary, 1, 0, 0)},
    [KB_OP_NEG] = {"NEG", FLOATS(unary, 1, 0, 0)},
    [KB_OP_ABS] = {"ABS", FLOATS(unary, 1, 0, 0)},
    [KB_OP_SQUARE] = {"SQUARE", FLOATS(unary, 1, 0, 0)},
    [KB_OP_SIN] = {"SIN", FLOATS(unary, 1, 0, 0)},
    [KB_OP_COS] = {"COS", FLOATS(unary, 1, 0, 0)},
    [KB_OP_FLOOR] = {"FLOOR", FLOATS(unary, 1, 0, 0)},
    [KB_OP_CEIL] = {"CEIL", FLOATS(unary, 1, 0, 0)},
    [KB_OP_ROUND] = {"ROUND", FLOATS(unary, 1, 0, 0)},
    [KB_OP_SIGN] = {"SIGN", FLOATS(unary, 1, 0, 0)},
    [KB_OP_MAX_POOL] = {"MAX_POOL", CLAMPED(pool, 1, 8)},
    [KB_OP_AVERAGE_POOL] = {"AVERAGE_POOL", CLAMPED(pool, 1, 8)},
    [KB_OP_REDUCE_MEAN] = {"REDUCE_MEAN", FLOATS(reduce, 1, -1, 0)},
    [KB_OP_REDUCE_SUM] = {"REDUCE_SUM", FLOATS(reduce, 1, -1, 0)},
    [KB_OP_REDUCE_MAX] = {"REDUCE_MAX", FLOATS(reduce, 1, -1, 0)},
    [KB_OP_REDUCE_MIN] = {"REDUCE_MIN", FLOATS(reduce, 1, -1, 0)},
    [KB_OP_REDUCE_PROD] = {"REDUCE_PROD", FLOATS(reduce, 1, -1, 0)},
    [KB_OP_SOFTMAX] = {"SOFTMAX", FLOATS(softmax, 1, 0, 1)},
    [KB_OP_LOG_SOFTMAX] = {"LOG_SOFTMAX", FLOATS(softmax, 1, 0, 0)},
    [KB_OP_RESHAPE] = {"RESHAPE", ANY(reshape, 1, 0)},
    [KB_OP_TRANSPOSE] = {"TRANSPOSE", ANY(view, 1, -1)},
    [KB_OP_SLICE] = {"SLICE", ANY(view, 1, -1)},
    [KB_OP_CONCATENATION] = {"CONCATENATION", ANY(concatenation, -1, 1)},
    [KB_OP_PAD] = {"PAD", FLOATS(view, 1, -1, 1)},
    [KB_OP_MIRROR_PAD] = {"MIRROR_PAD", FLOATS(view, 1, -1, 0)},
    [KB_OP_TILE] = {"TILE", ANY(view, 1, 0)},
    [KB_OP_RESIZE_NEAREST] = {"RESIZE_NEAREST", FLOATS(view, 1, 2, 0)},
    [KB_OP_RESIZE_BILINEAR] = {"RESIZE_BILINEAR", FLOATS(bilinear, 1, 2, 0)},
    [KB_OP_BATCH_MATMUL] = {"BATCH_MATMUL", FLOATS(matmul, 2, 2, 0)},
    [KB_OP_CAST] = {"CAST", ANY(cast, 1, 0)},
};

const kb_operation* kb_operation_of(uint32_t op) {
  return op < KB_OPERATIONS ? &kOperations[op] : NULL;
}
