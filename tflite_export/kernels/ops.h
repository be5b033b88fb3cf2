/* The operations of .kbits files, by subject; docs/kbits_format.md says what each computes. */
#ifndef KERASBITS_OPS_H
#define KERASBITS_OPS_H

#include "model.h"

#define KB_OPERATION(name)                                    \
  int kb_check_##name(const kb_node* node, kb_error error);   \
  int kb_run_##name(const kb_node* node, kb_error error)

KB_OPERATION(packed);        /* ops_packed.c */
KB_OPERATION(binary);        /* ops_binary.c */
KB_OPERATION(unary);         /* ops_unary.c */
KB_OPERATION(pool);          /* ops_pool.c */
KB_OPERATION(reduce);        /* ops_reduce.c */
KB_OPERATION(softmax);       /* ops_softmax.c */
KB_OPERATION(view);          /* ops_view.c: elements of x in other places */
KB_OPERATION(reshape);       /* ops_shape.c */
KB_OPERATION(concatenation);
KB_OPERATION(cast);
KB_OPERATION(bilinear);      /* ops_bilinear.c */
KB_OPERATION(matmul);        /* ops_matmul.c */

#undef KB_OPERATION

/* Plan a PACKED node: its tables, whose bytes are added to `memory`, and how much scratch memory it
 * needs; and lending that to a layer, which then neither allocates nor releases any (take it back
 * with NULL, 0 before kb_op_free). */
int kb_packed_plan(const kb_node* node, size_t* scratch, size_t* memory, kb_error error);
void kb_packed_lend(kb_op* op, uint8_t* scratch, size_t bytes);

enum { KB_SHARED_VALUES = 1 << 12 /* fewer are no work for two threads */ };

/* Bytes that a layer holds. */
size_t kb_op_memory(const kb_op* op);

/* Numbers of tflite_export/kbits.fbs. */
enum {
  KB_OP_PACKED,
  KB_OP_ADD,
  KB_OP_SUB,
  KB_OP_MUL,
  KB_OP_DIV,
  KB_OP_MAXIMUM,
  KB_OP_MINIMUM,
  KB_OP_POW,
  KB_OP_SQUARED_DIFFERENCE,
  KB_OP_PRELU,
  KB_OP_CLAMP,
  KB_OP_LEAKY_RELU,
  KB_OP_ELU,
  KB_OP_LOGISTIC,
  KB_OP_TANH,
  KB_OP_HARD_SWISH,
  KB_OP_GELU,
  KB_OP_EXP,
  KB_OP_LOG,
  KB_OP_SQRT,
  KB_OP_RSQRT,
  KB_OP_NEG,
  KB_OP_ABS,
  KB_OP_SQUARE,
  KB_OP_SIN,
  KB_OP_COS,
  KB_OP_FLOOR,
  KB_OP_CEIL,
  KB_OP_ROUND,
  KB_OP_SIGN,
  KB_OP_MAX_POOL,
  KB_OP_AVERAGE_POOL,
  KB_OP_REDUCE_MEAN,
  KB_OP_REDUCE_SUM,
  KB_OP_REDUCE_MAX,
  KB_OP_REDUCE_MIN,
  KB_OP_REDUCE_PROD,
  KB_OP_SOFTMAX,
  KB_OP_LOG_SOFTMAX,
  KB_OP_RESHAPE,
  KB_OP_TRANSPOSE,
  KB_OP_SLICE,
  KB_OP_CONCATENATION,
  KB_OP_PAD,
  KB_OP_MIRROR_PAD,
  KB_OP_TILE,
  KB_OP_RESIZE_NEAREST,
  KB_OP_RESIZE_BILINEAR,
  KB_OP_BATCH_MATMUL,
  KB_OP_CAST,
  KB_OPERATIONS
};

#endif
