/* PACKED: the layer of a blob. */
#include <string.h>

#include "op.h"
#include "ops.h"

int kb_check_packed(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  const kb_type type = kb_op_takes_ids(node->packed) ? KB_INT32 : KB_FLOAT32;
  int32_t dims[KB_MAX_RANK] = {0};
  int rank = 0;
  char text[160];
  if (x->type != type || y->type != KB_FLOAT32)
    return kb_fail_node(node, error, "expected an input of type %d and a float32 output, got %d "
                        "and %d", type, x->type, y->type);
  if (kb_op_output_shape(node->packed, x->dims, x->rank, dims, &rank, text, sizeof text))
    return kb_fail_node(node, error, "%s", text);
  if (rank != y->rank || memcmp(dims, y->dims, (size_t)rank * sizeof *dims))
    return kb_fail_node(node, error, "expected an output of the shape that its layer computes");
  return 0;
}

int kb_run_packed(const kb_node* node, kb_error error) {
  const kb_tensor* x = node->x[0];
  const kb_tensor_info* in = &x->info;
  char text[160];
  int failed = in->type == KB_INT32
                   ? kb_op_run_ids(node->packed, x->data, in->dims, in->rank, node->y->data, text,
                                   sizeof text)
                   : kb_op_run(node->packed, x->data, in->dims, in->rank, node->y->data, text,
                               sizeof text);
  return failed ? kb_fail_node(node, error, "%s", text) : 0;
}

int kb_packed_plan(const kb_node* node, size_t* scratch, size_t* memory, kb_error error) {
  kb_op* op = node->packed;
  const kb_tensor_info* x = &node->x[0]->info;
  *scratch = 0;
  if (kb_op_takes_ids(op)) return 0;
  *memory -= kb_table_room(op);
  const int failed = kb_op_plan(op, x->dims, x->rank, error);
  *memory += kb_table_room(op);
  if (!failed) *scratch = op->plan.bytes;
  return failed;
}

void kb_packed_lend(kb_op* op, uint8_t* scratch, size_t bytes) {
  op->scratch = scratch;
  op->scratch_bytes = bytes;
  op->is_lent = scratch != NULL;
  op->cleared = 0;
}
