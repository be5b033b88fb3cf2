/* External delegate for TFLite and LiteRT: claims our custom nodes and runs each with a kb_op, and
 * the additions next to them.
 *
 * A custom node has a float input (ids for an embedding), the blob as a constant uint8 tensor, and a float
 * output. The delegate itself keeps only its options, so it may serve several interpreters. The nodes
 * of one interpreter share its threads. */
#include <stdlib.h>

#include "kb_delegate.h"
#include "op.h"
#include "tflite_nodes.h"

enum { kErrorBytes = 256 };

static const char* const kNames[] = {
    [KB_DENSE] = "KerasbitsDense",
    [KB_CONV2D] = "KerasbitsConv2D",
    [KB_DEPTHWISE] = "KerasbitsDepthwiseConv2D",
    [KB_EMBEDDING] = "KerasbitsEmbedding",
};

typedef struct {
  kb_tfl_delegate base; /* first, so that a pointer to it is one to this */
  int threads;          /* 0: as many as the interpreter recommends */
} kb_delegate;

typedef struct {
  kb_tfl_state base; /* first */
  kb_op* op;
  const char* name;
  int input, output;
} kb_node_state;

void kb_tfl_leave_pool(kb_tfl_pool* shared) {
  if (!shared || --shared->users) return;
  kb_pool_destroy(shared->pool);
  free(shared);
}

/* Index in kNames of a custom node, -1 for other nodes. */
static int kind_of(const kb_tfl_registration* registration) {
  if (registration->builtin_code != KB_TFL_CUSTOM || !registration->custom_name) return -1;
  for (int i = 0; i < (int)(sizeof kNames / sizeof *kNames); i++) {
    if (!strcmp(registration->custom_name, kNames[i])) return i;
  }
  return -1;
}

/* Fill the state from the node that is being replaced; NULL or a reason why not. */
static const char* load_node(kb_tfl_context* context, int index, kb_node_state* state, char* text) {
  kb_tfl_node* node;
  kb_tfl_registration* registration;
  if (context->get_node(context, index, &node, &registration) != KB_TFL_OK)
    return "expected a node, got none";
  int kind = kind_of(registration);
  if (kind < 0) return "expected one of our nodes, got another";
  state->name = kNames[kind];
  if (node->inputs->size != 2 || node->outputs->size != 1)
    return "expected 2 inputs and 1 output, got another count";
  kb_tfl_tensor* blob = kb_tfl_tensor_at(context, node->inputs, 1);
  if (!blob || !kb_tfl_tensor_at(context, node->inputs, 0) || !kb_tfl_tensor_at(context, node->outputs, 0))
    return "expected tensors as inputs and output, got a missing one";
  if (blob->allocation_type != KB_TFL_READ_ONLY || !blob->data || blob->type != KB_TFL_UINT8)
    return "expected a constant uint8 blob as second input, got another tensor";
  state->input = node->inputs->data[0];
  state->output = node->outputs->data[0];
  if (kb_op_create(blob->data, blob->bytes, &state->op, text, kErrorBytes)) return text;
  if (state->op->geometry.op != kind) return "expected a blob of this kind of layer, got another";
  return NULL;
}

static void free_node(kb_tfl_context* context, void* user_data) {
  (void)context;
  kb_node_state* state = user_data;
  if (!state) return;
  kb_op_free(state->op);
  kb_tfl_leave_pool(state->base.shared);
  free(state);
}

static void* init_node(kb_tfl_context* context, const char* buffer, size_t length) {
  (void)length;
  const kb_tfl_delegate_params* params = (const void*)buffer;
  kb_node_state* state = calloc(1, sizeof *state);
  if (!state) return NULL;
  char text[kErrorBytes];
  const char* reason = params->nodes_to_replace->size == 1
                           ? load_node(context, params->nodes_to_replace->data[0], state, text)
                           : "expected one node, got several";
  if (!reason) return state;
  context->report_error(context, "%s: %s", state->name ? state->name : "kerasbits", reason);
  free_node(context, state);
  return NULL; /* prepare will fail */
}

kb_tfl_status kb_tfl_resize(kb_tfl_context* context, kb_tfl_tensor* tensor, const int32_t* dims,
                            int rank) {
  kb_tfl_ints* shape = malloc(sizeof *shape + (size_t)rank * sizeof *shape->data);
  if (!shape) return KB_TFL_ERROR;
  shape->size = rank;
  for (int i = 0; i < rank; i++) shape->data[i] = dims[i];
  return context->resize_tensor(context, tensor, shape); /* takes ownership of the shape */
}

static int is_input_type(const kb_op* op, int32_t type) {
  if (kb_op_takes_ids(op)) return type == KB_TFL_INT32 || type == KB_TFL_INT64;
  return type == KB_TFL_FLOAT32;
}

static kb_tfl_status prepare_node(kb_tfl_context* context, kb_tfl_node* node) {
  const kb_node_state* state = node->user_data;
  if (!state) return KB_TFL_ERROR; /* init has told why */
  kb_tfl_tensor* input = &context->tensors[state->input];
  kb_tfl_tensor* output = &context->tensors[state->output];
  if (!is_input_type(state->op, input->type) || output->type != KB_TFL_FLOAT32) {
    context->report_error(context, "%s: expected %s input and float32 output, got types %d and %d",
                          state->name, kb_op_takes_ids(state->op) ? "int32 or int64" : "float32",
                          (int)input->type, (int)output->type);
    return KB_TFL_ERROR;
  }
  char text[kErrorBytes];
  int32_t dims[KB_MAX_RANK];
  int rank;
  const int32_t* in = input->dims->data;
  if (kb_op_output_shape(state->op, in, input->dims->size, dims, &rank, text, sizeof text) ||
      kb_op_reserve(state->op, in, input->dims->size, text, sizeof text)) {
    context->report_error(context, "%s: %s", state->name, text);
    return KB_TFL_ERROR;
  }
  return kb_tfl_resize(context, output, dims, rank);
}

/* One id at a time. */
static int run_long_ids(kb_op* op, const int64_t* ids, size_t count, float* y, kb_error error) {
  const size_t columns = (size_t)kb_embedding_columns(&op->geometry);
  for (size_t i = 0; i < count; i++, y += columns) {
    int32_t id = (int32_t)ids[i];
    if (id != ids[i])
      return kb_fail(error, "embedding: expected ids of 32 bits, got %lld", (long long)ids[i]);
    if (kb_op_run_ids(op, &id, NULL, 0, y, error.text, error.size)) return -1;
  }
  return 0;
}

static int run_op(kb_op* op, const kb_tfl_tensor* input, float* y, kb_error error) {
  const kb_tfl_ints* dims = input->dims;
  if (!kb_op_takes_ids(op))
    return kb_op_run(op, input->data, dims->data, dims->size, y, error.text, error.size);
  if (input->type == KB_TFL_INT64)
    return run_long_ids(op, input->data, input->bytes / sizeof(int64_t), y, error);
  return kb_op_run_ids(op, input->data, dims->data, dims->size, y, error.text, error.size);
}

static kb_tfl_status invoke_node(kb_tfl_context* context, kb_tfl_node* node) {
  const kb_node_state* state = node->user_data;
  const kb_tfl_tensor* input = &context->tensors[state->input];
  kb_tfl_tensor* output = &context->tensors[state->output];
  char text[kErrorBytes];
  if (!run_op(state->op, input, output->data, (kb_error){text, sizeof text})) return KB_TFL_OK;
  context->report_error(context, "%s: %s", state->name, text);
  return KB_TFL_ERROR;
}

/* Whether the runtime's structs look as we declared them. */
static int abi_matches(const kb_tfl_context* context) {
  enum { kLooked = 64 };
  size_t count = context->tensors_size < kLooked ? context->tensors_size : kLooked;
  if (!context->tensors) return 0;
  for (size_t i = 0; i < count; i++) {
    const kb_tfl_tensor* tensor = &context->tensors[i];
    if (tensor->type < 0 || tensor->type > KB_TFL_LAST_TYPE || tensor->allocation_type < 0 ||
        tensor->allocation_type > KB_TFL_LAST_ALLOCATION)
      return 0;
    if (tensor->type != KB_TFL_FLOAT32 || tensor->allocation_type != KB_TFL_READ_ONLY) continue;
    size_t bytes = sizeof(float);
    for (int d = 0; tensor->dims && d < tensor->dims->size; d++)
      bytes *= (size_t)tensor->dims->data[d];
    if (tensor->dims && bytes != tensor->bytes) return 0;
  }
  return 1;
}

static kb_tfl_registration packed_registration(void) {
  return (kb_tfl_registration){.init = init_node,
                               .free = free_node,
                               .prepare = prepare_node,
                               .invoke = invoke_node,
                               .custom_name = "KerasbitsDelegate",
                               .version = 1};
}

/* Claim one node. A call of its own for each: in one call for all the runtime would merge
 * neighbours and leave the tensor between them without memory. */
static kb_tfl_status claim(kb_tfl_context* context, kb_tfl_delegate* delegate, int node) {
  kb_tfl_node* old;
  kb_tfl_registration* of_old;
  if (context->get_node(context, node, &old, &of_old) != KB_TFL_OK) return KB_TFL_ERROR;
  const kb_tfl_registration registration =
      kind_of(of_old) >= 0 ? packed_registration() : kb_tfl_add_registration();
  kb_tfl_ints* nodes = malloc(sizeof *nodes + sizeof *nodes->data);
  if (!nodes) return KB_TFL_ERROR;
  nodes->size = 1;
  nodes->data[0] = node;
  kb_tfl_status status = context->replace_nodes(context, registration, nodes, delegate);
  free(nodes);
  return status;
}

/* Mark tensors, those that are there, or see whether one of them is marked. */
static void mark(const kb_tfl_context* context, const kb_tfl_ints* tensors, uint8_t* marks) {
  for (int i = 0; i < tensors->size; i++) {
    const int at = tensors->data[i];
    if (at >= 0 && (size_t)at < context->tensors_size) marks[at] = 1;
  }
}

static int has_mark(const kb_tfl_context* context, const kb_tfl_ints* tensors,
                    const uint8_t* marks) {
  int found = 0;
  for (int i = 0; i < tensors->size; i++) {
    const int at = tensors->data[i];
    found |= at >= 0 && (size_t)at < context->tensors_size && marks[at];
  }
  return found;
}

/* Add to `found` the packed nodes of a plan, whose tensors are marked, or else the additions that
 * have one of these tensors. */
static void list_nodes(kb_tfl_context* context, const kb_tfl_ints* plan, int packed, uint8_t* marks,
                       kb_tfl_ints* found) {
  for (int i = 0; i < plan->size; i++) {
    kb_tfl_node* node;
    kb_tfl_registration* registration;
    if (context->get_node(context, plan->data[i], &node, &registration) != KB_TFL_OK) continue;
    if (packed ? kind_of(registration) < 0 : !kb_tfl_is_add(context, node, registration)) continue;
    if (packed) {
      mark(context, node->inputs, marks);
      mark(context, node->outputs, marks);
    } else if (!has_mark(context, node->inputs, marks) &&
               !has_mark(context, node->outputs, marks)) {
      continue;
    }
    found->data[found->size++] = plan->data[i];
  }
}

/* Indices of the nodes to claim, on the heap: the plan itself changes while we claim. */
static kb_tfl_ints* find_nodes(kb_tfl_context* context) {
  kb_tfl_ints* plan;
  if (context->get_execution_plan(context, &plan) != KB_TFL_OK) return NULL;
  kb_tfl_ints* found = malloc(sizeof *found + (size_t)plan->size * sizeof *found->data);
  uint8_t* marks = calloc(context->tensors_size + 1, 1);
  if (found && marks) {
    found->size = 0;
    list_nodes(context, plan, 1, marks, found);
    list_nodes(context, plan, 0, marks, found);
  } else {
    free(found);
    found = NULL;
  }
  free(marks);
  return found;
}

/* Without memory for threads nodes run in the interpreter's own. */
static kb_tfl_pool* open_pool(const kb_tfl_context* context, const kb_delegate* delegate) {
  const kb_error quiet = {NULL, 0};
  int threads = delegate->threads ? delegate->threads : context->recommended_num_threads;
  if (threads > KB_MAX_THREADS) threads = KB_MAX_THREADS;
  if (threads < 2) return NULL;
  kb_tfl_pool* shared = calloc(1, sizeof *shared);
  if (!shared) return NULL;
  shared->users = 1;
  if (!kb_pool_create(threads, &shared->pool, quiet)) return shared;
  free(shared);
  return NULL;
}

/* Give the threads to the nodes that have been claimed. */
static void share_pool(kb_tfl_context* context, kb_tfl_pool* shared) {
  kb_tfl_ints* plan;
  if (!shared || context->get_execution_plan(context, &plan) != KB_TFL_OK) return;
  for (int i = 0; i < plan->size; i++) {
    kb_tfl_node* node;
    kb_tfl_registration* registration;
    if (context->get_node(context, plan->data[i], &node, &registration) != KB_TFL_OK) continue;
    const int packed = registration->init == init_node;
    if (!packed && registration->init != kb_tfl_add_registration().init) continue;
    kb_tfl_state* state = node->user_data;
    if (!state || state->shared) continue;
    state->shared = shared;
    if (packed) ((kb_node_state*)node->user_data)->op->pool = shared->pool;
    shared->users++;
  }
}

static kb_tfl_status prepare_delegate(kb_tfl_context* context, kb_tfl_delegate* delegate) {
  if (!abi_matches(context)) {
    context->report_error(context, "kerasbits: expected the tensor layout of TFLite 2.3 or later, "
                                   "got another; this runtime is not supported");
    return KB_TFL_DELEGATE_ERROR;
  }
  kb_tfl_ints* nodes = find_nodes(context);
  if (!nodes) return KB_TFL_DELEGATE_ERROR;
  kb_tfl_status status = KB_TFL_OK;
  for (int i = 0; i < nodes->size && status == KB_TFL_OK; i++)
    status = claim(context, delegate, nodes->data[i]);
  free(nodes);
  kb_tfl_pool* shared = open_pool(context, (const kb_delegate*)delegate);
  share_pool(context, shared);
  kb_tfl_leave_pool(shared);
  return status;
}

/* NULL, or what is wrong with an option. */
static const char* read_option(kb_delegate* delegate, const char* key, const char* value) {
  if (strcmp(key, "threads")) return "expected no option but threads";
  char* end;
  const long threads = strtol(value, &end, 10);
  if (end == value || *end || threads < 1 || threads > KB_MAX_THREADS)
    return "expected a number of 1 to 256 threads";
  delegate->threads = (int)threads;
  return NULL;
}

void* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                    void (*report_error)(const char*)) {
  kb_delegate* delegate = calloc(1, sizeof *delegate);
  if (!delegate) return NULL;
  for (size_t i = 0; i < count; i++) {
    const char* wrong = read_option(delegate, keys[i], values[i]);
    if (!wrong) continue;
    char text[kErrorBytes];
    kb_fail((kb_error){text, sizeof text}, "kerasbits: %s, got %s: %s", wrong, keys[i], values[i]);
    if (report_error) report_error(text);
    free(delegate);
    return NULL;
  }
  delegate->base.prepare = prepare_delegate;
  delegate->base.flags = KB_TFL_ALLOW_DYNAMIC;
  return &delegate->base;
}

void tflite_plugin_destroy_delegate(void* delegate) { free(delegate); }
