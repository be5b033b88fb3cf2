/* What the delegate's nodes have in common: threads, tensors, how they are claimed. */
#ifndef KERASBITS_TFLITE_NODES_H
#define KERASBITS_TFLITE_NODES_H

#include "pool.h"
#include "tflite_abi.h"

/* The threads of one interpreter. Its nodes come and go in one thread at a time. */
typedef struct {
  kb_pool* pool;
  int users; /* nodes, and whoever gives it to them */
} kb_tfl_pool;

/* What the user data of each node begins with. */
typedef struct {
  kb_tfl_pool* shared; /* NULL for the interpreter's own thread */
} kb_tfl_state;

/* One user less. */
void kb_tfl_leave_pool(kb_tfl_pool* shared);

/* The tensor of input or output `i`, NULL if there is none. */
static inline kb_tfl_tensor* kb_tfl_tensor_at(kb_tfl_context* context, const kb_tfl_ints* indices,
                                              int i) {
  const int index = indices->data[i];
  return index >= 0 && (size_t)index < context->tensors_size ? &context->tensors[index] : NULL;
}

kb_tfl_status kb_tfl_resize(kb_tfl_context* context, kb_tfl_tensor* tensor, const int32_t* dims,
                            int rank);

/* Whether a node is an addition of two float tensors of one shape, none of them constant, with a
 * clamp or without: one that can be claimed. */
int kb_tfl_is_add(kb_tfl_context* context, const kb_tfl_node* node,
                  const kb_tfl_registration* registration);

/* Nodes that replace one addition each. */
kb_tfl_registration kb_tfl_add_registration(void);

#endif
