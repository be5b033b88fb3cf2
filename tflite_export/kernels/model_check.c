/* What must hold between the parts of a file, so that running it is safe. */
#include <stdarg.h>
#include <stdio.h>

#include "model.h"

int kb_fail_node(const kb_node* node, kb_error error, const char* format, ...) {
  if (!error.text || !error.size) return -1;
  int used = snprintf(error.text, error.size, "node %u (%s): ", (unsigned)node->index,
                      node->operation->name);
  if (used < 0 || (size_t)used >= error.size) return -1;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error.text + used, error.size - (size_t)used, format, arguments);
  va_end(arguments);
  return -1;
}

static int check_attributes(const kb_node* node, kb_error error) {
  const kb_operation* op = node->operation;
  if (op->inputs < 0 ? node->input_count < 1 : node->input_count != (uint32_t)op->inputs)
    return kb_fail_node(node, error, "expected %d inputs, got %u",
                        op->inputs < 0 ? 1 : op->inputs, node->input_count);
  if (op->ints >= 0 && node->int_count != op->ints)
    return kb_fail_node(node, error, "expected %d ints, got %d", op->ints, node->int_count);
  if (node->float_count != op->floats && !(op->clamp && node->float_count == 0))
    return kb_fail_node(node, error, "expected %d floats, got %d", op->floats, node->float_count);
  for (int i = 0; i < node->float_count; i++) {
    if (node->floats[i] != node->floats[i])
      return kb_fail_node(node, error, "expected numbers as floats, got NaN");
  }
  if (node->float_count == 2 && node->floats[0] > node->floats[1])
    return kb_fail_node(node, error, "expected bounds in rising order, got %g and %g",
                        (double)node->floats[0], (double)node->floats[1]);
  return 0;
}

static int check_types(const kb_node* node, kb_error error) {
  if (node->operation->any_type) return 0;
  for (uint32_t i = 0; i < node->input_count; i++) {
    if (node->x[i]->info.type != KB_FLOAT32)
      return kb_fail_node(node, error, "expected float32 for input %u, got int32", i);
  }
  if (node->y->info.type != KB_FLOAT32)
    return kb_fail_node(node, error, "expected a float32 output, got int32");
  return 0;
}

/* Inputs are there already, and nothing else writes the output. */
static int check_order(kb_model* model, const kb_node* node, kb_error error) {
  for (uint32_t i = 0; i < node->input_count; i++) {
    kb_tensor* x = &model->tensors[node->x[i] - model->tensors];
    if (x->producer == KB_NO_PRODUCER)
      return kb_fail_node(node, error, "expected input %u to be written by a node before", i);
    x->last_use = (int32_t)node->index;
  }
  kb_tensor* y = &model->tensors[node->y - model->tensors];
  if (y->producer != KB_NO_PRODUCER)
    return kb_fail_node(node, error, "expected an output that nothing else writes");
  y->producer = (int32_t)node->index;
  return 0;
}

int kb_model_check(kb_model* model, kb_error error) {
  for (uint32_t i = 0; i < model->input_count; i++) {
    if (model->inputs[i]->producer != KB_NO_PRODUCER)
      return kb_fail(error, "input %u: expected a tensor that is neither constant nor another "
                     "input", i);
    model->inputs[i]->producer = KB_INPUT_TENSOR;
  }
  for (uint32_t n = 0; n < model->node_count; n++) {
    const kb_node* node = &model->nodes[n];
    if (check_attributes(node, error) || check_types(node, error) ||
        check_order(model, node, error) || node->operation->check(node, error))
      return -1;
  }
  for (uint32_t i = 0; i < model->output_count; i++)
    model->outputs[i]->last_use = (int32_t)model->node_count;
  for (uint32_t i = 0; i < model->tensor_count; i++) {
    if (model->tensors[i].producer == KB_NO_PRODUCER)
      return kb_fail(error, "tensor %u: expected an input, a constant, or a node that writes it",
                     i);
  }
  return 0;
}
