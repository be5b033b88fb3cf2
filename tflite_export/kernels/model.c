/* The public functions of models. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "ops.h"

void* kb_model_alloc(kb_model* model, size_t count, size_t size, kb_error error) {
  void* memory = kb_alloc(count, size);
  if (!memory)
    kb_fail(error, "out of memory: %zu x %zu bytes", count, size);
  else
    model->memory += kb_room(count * size);
  return memory;
}

int kb_model_open(const void* data, size_t bytes, unsigned flags, kb_model** model, char* error,
                  size_t error_size) {
  kb_error to = {error, error_size};
  *model = NULL;
  if (flags & ~(unsigned)KB_KEEP_TENSORS)
    return kb_fail(to, "expected flags among %d, got %u", KB_KEEP_TENSORS, flags);
  kb_model* made = kb_alloc(1, sizeof *made);
  if (!made) return kb_fail(to, "out of memory");
  made->memory = kb_room(sizeof *made);
  made->flags = flags;
  if (kb_model_read(made, data, bytes, to) || kb_model_check(made, to) ||
      kb_model_plan(made, to)) {
    kb_model_close(made);
    return -1;
  }
  *model = made;
  return 0;
}

int kb_model_inputs(const kb_model* model) { return (int)model->input_count; }

int kb_model_outputs(const kb_model* model) { return (int)model->output_count; }

int kb_model_input(const kb_model* model, int i, kb_tensor_info* info, char* error,
                   size_t error_size) {
  if (i < 0 || (uint32_t)i >= model->input_count)
    return kb_fail((kb_error){error, error_size}, "expected an input among %u, got %d",
                   model->input_count, i);
  *info = model->inputs[i]->info;
  return 0;
}

int kb_model_output(const kb_model* model, int i, kb_tensor_info* info, char* error,
                    size_t error_size) {
  if (i < 0 || (uint32_t)i >= model->output_count)
    return kb_fail((kb_error){error, error_size}, "expected an output among %u, got %d",
                   model->output_count, i);
  *info = model->outputs[i]->info;
  return 0;
}

size_t kb_model_memory(const kb_model* model) { return model->memory; }

static void take_inputs(kb_model* model, const void* const* inputs) {
  for (uint32_t i = 0; i < model->input_count; i++) {
    kb_tensor* tensor = model->inputs[i];
    if (model->flags & KB_KEEP_TENSORS)
      memcpy(tensor->data, inputs[i], tensor->info.bytes);
    else
      tensor->data = (void*)(uintptr_t)inputs[i]; /* nodes read their inputs only */
  }
}

int kb_model_run(kb_model* model, const void* const* inputs, void* const* outputs, char* error,
                 size_t error_size) {
  kb_error to = {error, error_size};
  for (uint32_t i = 0; i < model->input_count; i++) {
    if (!inputs[i]) return kb_fail(to, "expected values of input %u, got NULL", i);
  }
  take_inputs(model, inputs);
  for (uint32_t n = 0; n < model->node_count; n++) {
    const kb_node* node = &model->nodes[n];
    if (node->operation->run(node, to)) return -1;
  }
  for (uint32_t i = 0; i < model->output_count; i++) {
    const kb_tensor* tensor = model->outputs[i];
    if (outputs[i]) memcpy(outputs[i], tensor->data, tensor->info.bytes);
  }
  return 0;
}

int kb_model_tensor(const kb_model* model, size_t index, kb_tensor_info* info, const void** data,
                    char* error, size_t error_size) {
  kb_error to = {error, error_size};
  if (!(model->flags & KB_KEEP_TENSORS))
    return kb_fail(to, "expected a model opened with KB_KEEP_TENSORS, got one without");
  if (index >= model->tensor_count)
    return kb_fail(to, "expected a tensor among %u, got %zu", model->tensor_count, index);
  *info = model->tensors[index].info;
  *data = model->tensors[index].data;
  return 0;
}

void kb_model_close(kb_model* model) {
  if (!model) return;
  kb_model_end_threads(model);
  for (uint32_t i = 0; i < model->blob_count; i++) {
    kb_packed_lend(model->blobs[i], NULL, 0); /* the scratch is the model's */
    kb_op_free(model->blobs[i]);
  }
  free(model->tensors);
  free(model->nodes);
  free(model->blobs);
  free(model->links);
  free(model->inputs);
  free(model->outputs);
  free(model->names);
  free(model->constants);
  free(model->arena);
  free(model->scratch);
  free(model);
}
