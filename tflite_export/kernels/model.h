/* Inside of a kb_model: what a .kbits file becomes when it is opened. */
#ifndef KERASBITS_MODEL_H
#define KERASBITS_MODEL_H

#include "core.h"
#include "kb_model.h"
#include "pool.h"

enum {
  KB_NO_PRODUCER = -1, /* what writes a tensor, where it is no node */
  KB_INPUT_TENSOR = -2,
  KB_CONSTANT_TENSOR = -3,
  KB_UNUSED = -1, /* last use of a tensor that nothing reads */
  KB_MAX_INTS = 1 + 2 * KB_MAX_RANK,
  KB_MAX_FLOATS = 2,
  KB_MAX_TENSORS = (1 << 16) - 1
};

typedef struct {
  kb_tensor_info info;
  int64_t count;          /* elements */
  int32_t producer;       /* node, or one of the above */
  int32_t last_use;       /* last node that reads it; the number of nodes if the caller gets it */
  size_t constant, place; /* where it is among the constants, or in the arena */
  void* data;             /* the values */
} kb_tensor;

struct kb_operation;

typedef struct {
  const struct kb_operation* operation;
  uint32_t index, op;
  size_t inputs_at; /* byte of the file, while it is read */
  uint32_t input_count;
  const kb_tensor** x;
  const kb_tensor* y;
  kb_op* packed;
  kb_pool* pool; /* the model's */
  int int_count, float_count;
  int32_t ints[KB_MAX_INTS];
  float floats[KB_MAX_FLOATS];
} kb_node;

struct kb_model {
  kb_tensor* tensors;
  kb_node* nodes;
  kb_op** blobs;
  const kb_tensor** links; /* inputs of all nodes, in their order */
  kb_tensor** inputs;
  kb_tensor** outputs;
  uint32_t tensor_count, node_count, blob_count, input_count, output_count;
  char* names;
  uint8_t* constants;
  uint8_t* arena;   /* values between nodes */
  uint8_t* scratch; /* of packed layers, which run one after the other */
  size_t constant_bytes, scratch_bytes, memory;
  unsigned flags;
  kb_pool* pool;
};

/* An operation. Before `check`, which sees to it that `run` stays inside of its tensors, the
 * numbers of inputs and attributes are compared with those here, where -1 is any number. */
typedef struct kb_operation {
  const char* name;
  int inputs, ints, floats;
  int clamp;    /* floats are absent, or the bounds of the result */
  int any_type; /* tensors need not be float32 */
  int (*check)(const kb_node* node, kb_error error);
  int (*run)(const kb_node* node, kb_error error);
} kb_operation;

/* The operation with a number of the schema, NULL if there is none. */
const kb_operation* kb_operation_of(uint32_t op);

/* Zeroed memory that counts as the model's; NULL after writing an error. */
void* kb_model_alloc(kb_model* model, size_t count, size_t size, kb_error error);

/* Fill a zeroed model from a file. What was allocated is the model's, also after an error. */
int kb_model_read(kb_model* model, const void* data, size_t bytes, kb_error error);

/* Each tensor has one producer, nodes read what is there already, attributes and shapes fit. */
int kb_model_check(kb_model* model, kb_error error);

/* Places of tensors, tables and scratch of packed layers, so that runs need no more memory. */
int kb_model_plan(kb_model* model, kb_error error);

/* Go back to one thread. */
void kb_model_end_threads(kb_model* model);

/* Tables and scratch memory of the packed layers, anew. */
int kb_model_plan_scratch(kb_model* model, kb_error error);

/* Write a message about a node; returns -1. */
int kb_fail_node(const kb_node* node, kb_error error, const char* format, ...) KB_PRINTF(3, 4);

/* The values of a tensor. */
static inline const float* kb_floats(const kb_tensor* tensor) { return tensor->data; }
static inline float* kb_results(const kb_node* node) { return node->y->data; }

/* A fused clamp; NaN stays NaN. */
static inline float kb_clamp(const kb_node* node, float value) {
  if (!node->float_count) return value;
  return value < node->floats[0] ? node->floats[0]
         : value > node->floats[1] ? node->floats[1] : value;
}

#endif
