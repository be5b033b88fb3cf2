/* Additions between packed layers, as in residual blocks. The runtime would do them with threads of
 * its own, which spin while ours work, in the place of ours on a machine with few processors; and
 * each of ours finds the part of a sum in its caches that it wrote there. Shapes of other runs may
 * broadcast. */
#include <math.h>
#include <stdlib.h>

#include "ops.h"
#include "tflite_nodes.h"

enum { kErrorBytes = 256 };

typedef struct {
  kb_tfl_state base; /* first */
  int input[2], output;
  float low, high;
} kb_add_state;

/* Bounds of a fused activation; 0 if it is no clamp. */
static int bounds_of(int32_t activation, float* low, float* high) {
  *low = activation == KB_TFL_RELU || activation == KB_TFL_RELU6 ? 0.0f
         : activation == KB_TFL_RELU_N1_TO_1                    ? -1.0f
                                                                : -INFINITY;
  *high = activation == KB_TFL_RELU6 ? 6.0f : activation == KB_TFL_RELU_N1_TO_1 ? 1.0f : INFINITY;
  return activation >= KB_TFL_NO_ACTIVATION && activation <= KB_TFL_RELU6;
}

static int is_same_shape(const kb_tfl_tensor* a, const kb_tfl_tensor* b) {
  return a->dims->size == b->dims->size &&
         !memcmp(a->dims->data, b->dims->data, (size_t)a->dims->size * sizeof *a->dims->data);
}

static int is_float(const kb_tfl_tensor* tensor) {
  return tensor && tensor->type == KB_TFL_FLOAT32 && tensor->dims &&
         tensor->dims->size <= KB_MAX_RANK && tensor->allocation_type != KB_TFL_READ_ONLY;
}

int kb_tfl_is_add(kb_tfl_context* context, const kb_tfl_node* node,
                  const kb_tfl_registration* registration) {
  float low, high;
  const kb_tfl_add_params* params = node->builtin_data;
  if (registration->builtin_code != KB_TFL_ADD || !params || node->inputs->size != 2 ||
      node->outputs->size != 1 || !bounds_of(params->activation, &low, &high))
    return 0;
  const kb_tfl_tensor* a = kb_tfl_tensor_at(context, node->inputs, 0);
  const kb_tfl_tensor* b = kb_tfl_tensor_at(context, node->inputs, 1);
  return is_float(a) && is_float(b) && is_float(kb_tfl_tensor_at(context, node->outputs, 0)) &&
         is_same_shape(a, b);
}

static void* init_add(kb_tfl_context* context, const char* buffer, size_t length) {
  (void)length;
  const kb_tfl_delegate_params* params = (const void*)buffer;
  kb_tfl_node* node;
  kb_tfl_registration* registration;
  kb_add_state* state = calloc(1, sizeof *state);
  if (!state) return NULL; /* prepare will fail */
  if (params->nodes_to_replace->size != 1 ||
      context->get_node(context, params->nodes_to_replace->data[0], &node, &registration) !=
          KB_TFL_OK ||
      !kb_tfl_is_add(context, node, registration)) {
    context->report_error(context, "kerasbits: expected an addition, got another node");
    free(state);
    return NULL;
  }
  const kb_tfl_add_params* add = node->builtin_data;
  bounds_of(add->activation, &state->low, &state->high);
  for (int i = 0; i < 2; i++) state->input[i] = node->inputs->data[i];
  state->output = node->outputs->data[0];
  return state;
}

static void free_add(kb_tfl_context* context, void* user_data) {
  (void)context;
  kb_add_state* state = user_data;
  if (!state) return;
  kb_tfl_leave_pool(state->base.shared);
  free(state);
}

/* An addition as the .kbits runtime has it. */
typedef struct {
  kb_tensor tensors[3];
  const kb_tensor* x[2];
  kb_node node;
} kb_addition;

static void describe(const kb_tfl_tensor* from, kb_tensor* to) {
  to->info.rank = from->dims->size;
  to->count = 1;
  to->data = from->data;
  for (int axis = 0; axis < from->dims->size; axis++) {
    to->info.dims[axis] = from->dims->data[axis];
    to->count *= from->dims->data[axis];
  }
}

/* The output's shape is not yet that of its tensor while the node is prepared. */
static void set_output(const kb_addition* to, kb_tensor* y) {
  const kb_tensor_info *a = &to->x[0]->info, *b = &to->x[1]->info;
  const int rank = a->rank > b->rank ? a->rank : b->rank;
  y->info.rank = rank;
  y->count = 1;
  for (int axis = 0; axis < rank; axis++) {
    const int in_a = axis - rank + a->rank, in_b = axis - rank + b->rank;
    const int32_t of_a = in_a < 0 ? 1 : a->dims[in_a], of_b = in_b < 0 ? 1 : b->dims[in_b];
    y->info.dims[axis] = of_a == 1 ? of_b : of_a;
    y->count *= y->info.dims[axis];
  }
}

static void make_addition(const kb_tfl_context* context, const kb_add_state* state,
                          kb_addition* to) {
  *to = (kb_addition){0};
  for (int i = 0; i < 2; i++) {
    to->x[i] = &to->tensors[i];
    describe(&context->tensors[state->input[i]], &to->tensors[i]);
  }
  set_output(to, &to->tensors[2]);
  to->tensors[2].data = context->tensors[state->output].data;
  to->node = (kb_node){.operation = kb_operation_of(KB_OP_ADD), .op = KB_OP_ADD, .x = to->x,
                       .y = &to->tensors[2], .float_count = 2,
                       .floats = {state->low, state->high},
                       .pool = state->base.shared ? state->base.shared->pool : NULL};
}

static kb_tfl_status prepare_add(kb_tfl_context* context, kb_tfl_node* node) {
  kb_add_state* state = node->user_data;
  if (!state) return KB_TFL_ERROR; /* init has told why */
  const kb_tfl_tensor *a = &context->tensors[state->input[0]], *b = &context->tensors[state->input[1]];
  kb_addition addition;
  char text[kErrorBytes] = "ranks of at most 8";
  int failed = a->dims->size > KB_MAX_RANK || b->dims->size > KB_MAX_RANK;
  if (!failed) {
    make_addition(context, state, &addition);
    failed = kb_check_binary(&addition.node, (kb_error){text, sizeof text});
  }
  if (failed) {
    context->report_error(context, "kerasbits: addition: %s", text);
    return KB_TFL_ERROR;
  }
  return kb_tfl_resize(context, &context->tensors[state->output], addition.tensors[2].info.dims,
                       addition.tensors[2].info.rank);
}

static kb_tfl_status invoke_add(kb_tfl_context* context, kb_tfl_node* node) {
  const kb_add_state* state = node->user_data;
  kb_addition addition;
  make_addition(context, state, &addition);
  return kb_run_binary(&addition.node, (kb_error){NULL, 0}) ? KB_TFL_ERROR : KB_TFL_OK;
}

kb_tfl_registration kb_tfl_add_registration(void) {
  return (kb_tfl_registration){.init = init_add,
                               .free = free_add,
                               .prepare = prepare_add,
                               .invoke = invoke_add,
                               .custom_name = "KerasbitsAdd",
                               .version = 1};
}
