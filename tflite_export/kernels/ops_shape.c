/* RESHAPE, CONCATENATION, CAST. */
#include <string.h>

#include "ops.h"

int kb_check_reshape(const kb_node* node, kb_error error) {
  const kb_tensor *x = node->x[0], *y = node->y;
  if (x->info.type != y->info.type || x->count != y->count)
    return kb_fail_node(node, error, "expected as many elements of the same type, got %lld for "
                        "%lld", (long long)y->count, (long long)x->count);
  return 0;
}

int kb_run_reshape(const kb_node* node, kb_error error) {
  (void)error;
  memcpy(node->y->data, node->x[0]->data, node->y->info.bytes);
  return 0;
}

int kb_check_concatenation(const kb_node* node, kb_error error) {
  const kb_tensor_info* y = &node->y->info;
  const int axis = node->ints[0];
  int64_t length = 0;
  if (axis < 0 || axis >= y->rank)
    return kb_fail_node(node, error, "expected an axis below %d, got %d", y->rank, axis);
  for (uint32_t i = 0; i < node->input_count; i++) {
    const kb_tensor_info* x = &node->x[i]->info;
    int fits = x->type == y->type && x->rank == y->rank;
    for (int a = 0; fits && a < y->rank; a++) fits = a == axis || x->dims[a] == y->dims[a];
    if (!fits)
      return kb_fail_node(node, error, "expected input %u to fit the output along all axes but %d",
                          i, axis);
    length += x->dims[axis];
  }
  if (length != y->dims[axis])
    return kb_fail_node(node, error, "expected an output of length %lld, got %d",
                        (long long)length, y->dims[axis]);
  return 0;
}

int kb_run_concatenation(const kb_node* node, kb_error error) {
  (void)error;
  const kb_tensor_info* y = &node->y->info;
  size_t rows = 1, row = sizeof(float);
  for (int a = 0; a < node->ints[0]; a++) rows *= (size_t)y->dims[a];
  for (int a = node->ints[0]; a < y->rank; a++) row *= (size_t)y->dims[a];
  uint8_t* to = node->y->data;
  for (uint32_t i = 0; i < node->input_count; i++) {
    const size_t part = node->x[i]->info.bytes / rows;
    const uint8_t* from = node->x[i]->data;
    for (size_t r = 0; r < rows; r++) memcpy(to + r * row, from + r * part, part);
    to += part;
  }
  return 0;
}

int kb_check_cast(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  if (x->rank != y->rank || memcmp(x->dims, y->dims, (size_t)x->rank * sizeof *x->dims))
    return kb_fail_node(node, error, "expected an output of the shape of the input");
  return 0;
}

/* Toward 0; what int32 cannot hold becomes its end, NaN becomes 0. */
static int32_t to_int(float value) {
  if (value >= 2147483648.0f) return INT32_MAX;
  if (value <= -2147483648.0f) return INT32_MIN;
  return value == value ? (int32_t)value : 0;
}

int kb_run_cast(const kb_node* node, kb_error error) {
  const kb_tensor *x = node->x[0], *y = node->y;
  if (x->info.type == y->info.type) return kb_run_reshape(node, error);
  for (int64_t i = 0; i < y->count; i++) {
    if (y->info.type == KB_INT32)
      ((int32_t*)y->data)[i] = to_int(kb_floats(x)[i]);
    else
      kb_results(node)[i] = (float)((const int32_t*)x->data)[i];
  }
  return 0;
}
