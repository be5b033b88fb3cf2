/* From the bytes of a .kbits file to a model; see docs/kbits_format.md. */
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "crc32.h"
#include "flatbuffer_reader.h"
#include "ops.h"

enum { kVersion = 1, kIdentifierAt = 4, kWord = 4 };
/* Fields in the order of tflite_export/kbits.fbs. */
enum { TENSOR_SHAPE, TENSOR_TYPE, TENSOR_NAME, TENSOR_DATA };
enum { BLOB_PATH, BLOB_DATA };
enum { NODE_OP, NODE_BLOB, NODE_INPUTS, NODE_OUTPUT, NODE_INTS, NODE_FLOATS };
enum {
  MODEL_VERSION,
  MODEL_CHECKSUM,
  MODEL_TENSORS,
  MODEL_BLOBS,
  MODEL_NODES,
  MODEL_INPUTS,
  MODEL_OUTPUTS
};

typedef struct {
  kb_reader reader;
  kb_model* model;
  kb_error error;
} loader;

static int sound(const loader* l) {
  const kb_reader* r = &l->reader;
  return r->problem ? kb_fail(l->error, "byte %zu: %s", r->problem_at, r->problem) : 0;
}

static int check_frame(loader* l, kb_fb_table* root) {
  kb_reader* r = &l->reader;
  if (r->bytes < kIdentifierAt + 4 || memcmp(r->data + kIdentifierAt, "KBMF", 4))
    return kb_fail(l->error, "expected a .kbits file (identifier KBMF), got another");
  *root = kb_fb_root(r);
  size_t hole = kb_fb_field(r, root, MODEL_CHECKSUM, kWord);
  uint32_t version = kb_fb_u16(r, root, MODEL_VERSION, 0);
  if (sound(l)) return -1;
  if (version != kVersion)
    return kb_fail(l->error, "expected version %d, got %u", kVersion, version);
  if (!hole) return kb_fail(l->error, "expected a checksum, got none");
  uint32_t crc = kb_crc32_around(r->data, r->bytes, hole), expected = kb_load_u32(r->data + hole);
  if (crc != expected)
    return kb_fail(l->error, "expected checksum %08x, got %08x: the file is corrupt", expected,
                   crc);
  return 0;
}

/* Rank, axes, number of elements. */
static int read_shape(loader* l, const kb_fb_table* table, uint32_t index, kb_tensor* tensor) {
  kb_fb_vector shape = kb_fb_vector_of(&l->reader, table, TENSOR_SHAPE, kWord);
  if (sound(l)) return -1;
  if (shape.count > KB_MAX_RANK)
    return kb_fail(l->error, "tensor %u: expected at most %d axes, got %u", index, KB_MAX_RANK,
                   shape.count);
  tensor->info.rank = (int)shape.count;
  tensor->count = 1;
  for (uint32_t i = 0; i < shape.count; i++) {
    uint32_t length = kb_fb_u32_at(&l->reader, shape, i);
    if (length < 1 || length > INT32_MAX || tensor->count * (int64_t)length > INT32_MAX)
      return kb_fail(l->error, "tensor %u: expected axes of at least 1 and fewer than 2^31 elements,"
                     " got axis %u of %u", index, i, length);
    tensor->info.dims[i] = (int32_t)length;
    tensor->count *= (int64_t)length;
  }
  if ((uint64_t)tensor->count > SIZE_MAX / 2 / kWord)
    return kb_fail(l->error, "tensor %u: expected what fits into memory", index);
  tensor->info.bytes = (size_t)tensor->count * kWord;
  return 0;
}

static int read_tensor(loader* l, kb_fb_vector list, uint32_t index, kb_fb_vector* name,
                       kb_fb_vector* constant) {
  kb_tensor* tensor = &l->model->tensors[index];
  kb_fb_table table = kb_fb_table_at(&l->reader, list, index);
  if (read_shape(l, &table, index, tensor)) return -1;
  uint32_t type = kb_fb_u8(&l->reader, &table, TENSOR_TYPE, KB_FLOAT32);
  *name = kb_fb_string_of(&l->reader, &table, TENSOR_NAME);
  *constant = kb_fb_vector_of(&l->reader, &table, TENSOR_DATA, 1);
  if (sound(l)) return -1;
  if (type != KB_FLOAT32 && type != KB_INT32)
    return kb_fail(l->error, "tensor %u: expected type 0 or 1, got %u", index, type);
  tensor->info.type = (kb_type)type;
  tensor->producer = constant->at ? KB_CONSTANT_TENSOR : KB_NO_PRODUCER;
  tensor->last_use = KB_UNUSED;
  if (constant->at && constant->count != tensor->info.bytes)
    return kb_fail(l->error, "tensor %u: expected %zu bytes of data, got %u", index,
                   tensor->info.bytes, constant->count);
  return 0;
}

/* Names and constants are copied, in the byte order of this machine. */
static int copy_tensors(loader* l, const kb_fb_vector* names, const kb_fb_vector* constants) {
  kb_model* model = l->model;
  size_t name_bytes = 1;
  for (uint32_t i = 0; i < model->tensor_count; i++) {
    kb_tensor* tensor = &model->tensors[i];
    name_bytes += names[i].count + (size_t)1;
    tensor->constant = model->constant_bytes;
    if (tensor->producer == KB_CONSTANT_TENSOR) model->constant_bytes += tensor->info.bytes;
  }
  model->names = kb_model_alloc(model, name_bytes, 1, l->error);
  model->constants = kb_model_alloc(model, model->constant_bytes, 1, l->error);
  if (!model->names || !model->constants) return -1;
  char* name = model->names + 1; /* the first is the empty one of unnamed tensors */
  for (uint32_t i = 0; i < model->tensor_count; i++) {
    kb_tensor* tensor = &model->tensors[i];
    tensor->info.name = model->names;
    if (names[i].count) {
      memcpy(name, l->reader.data + names[i].at, names[i].count);
      tensor->info.name = name;
      name += names[i].count + 1;
    }
    if (tensor->producer != KB_CONSTANT_TENSOR) continue;
    tensor->data = model->constants + tensor->constant;
    uint8_t* to = model->constants + tensor->constant;
    for (size_t at = 0; at < tensor->info.bytes; at += kWord) {
      uint32_t value = kb_load_u32(l->reader.data + constants[i].at + at);
      memcpy(to + at, &value, kWord);
    }
  }
  return 0;
}

static int read_tensors(loader* l, const kb_fb_table* root) {
  kb_model* model = l->model;
  kb_fb_vector list = kb_fb_vector_of(&l->reader, root, MODEL_TENSORS, kWord);
  if (sound(l)) return -1;
  if (list.count > KB_MAX_TENSORS)
    return kb_fail(l->error, "expected at most %d tensors, got %u", KB_MAX_TENSORS, list.count);
  model->tensor_count = list.count;
  model->tensors = kb_model_alloc(model, list.count, sizeof *model->tensors, l->error);
  if (!model->tensors) return -1;
  kb_fb_vector* found = kb_alloc(list.count, 2 * sizeof *found);
  if (!found) return kb_fail(l->error, "out of memory");
  kb_fb_vector *names = found, *constants = found + list.count;
  int failed = 0;
  for (uint32_t i = 0; i < list.count && !failed; i++)
    failed = read_tensor(l, list, i, &names[i], &constants[i]);
  failed = failed || copy_tensors(l, names, constants);
  free(found);
  return failed ? -1 : 0;
}

static int read_blobs(loader* l, const kb_fb_table* root) {
  kb_model* model = l->model;
  kb_fb_vector list = kb_fb_vector_of(&l->reader, root, MODEL_BLOBS, kWord);
  if (sound(l)) return -1;
  model->blobs = kb_model_alloc(model, list.count, sizeof *model->blobs, l->error);
  if (!model->blobs) return -1;
  for (uint32_t i = 0; i < list.count; i++) {
    kb_fb_table table = kb_fb_table_at(&l->reader, list, i);
    kb_fb_vector data = kb_fb_vector_of(&l->reader, &table, BLOB_DATA, 1);
    kb_fb_string_of(&l->reader, &table, BLOB_PATH);
    if (sound(l)) return -1;
    char text[192];
    if (kb_op_create(l->reader.data + data.at, data.count, &model->blobs[i], text, sizeof text))
      return kb_fail(l->error, "blob %u: %s", i, text);
    model->blob_count = i + 1;
    model->memory += kb_op_memory(model->blobs[i]);
  }
  return 0;
}

static int read_attributes(loader* l, const kb_fb_table* table, kb_node* node) {
  kb_fb_vector ints = kb_fb_vector_of(&l->reader, table, NODE_INTS, kWord);
  kb_fb_vector floats = kb_fb_vector_of(&l->reader, table, NODE_FLOATS, kWord);
  if (sound(l)) return -1;
  if (ints.count > KB_MAX_INTS || floats.count > KB_MAX_FLOATS)
    return kb_fail(l->error, "node %u: expected at most %d ints and %d floats, got %u and %u",
                   node->index, KB_MAX_INTS, KB_MAX_FLOATS, ints.count, floats.count);
  node->int_count = (int)ints.count;
  node->float_count = (int)floats.count;
  for (uint32_t i = 0; i < ints.count; i++)
    node->ints[i] = kb_load_i32(l->reader.data + ints.at + kWord * (size_t)i);
  for (uint32_t i = 0; i < floats.count; i++)
    node->floats[i] = kb_load_f32(l->reader.data + floats.at + kWord * (size_t)i);
  return 0;
}

static int read_node(loader* l, kb_fb_vector list, uint32_t index) {
  kb_model* model = l->model;
  kb_node* node = &model->nodes[index];
  kb_fb_table table = kb_fb_table_at(&l->reader, list, index);
  kb_fb_vector inputs = kb_fb_vector_of(&l->reader, &table, NODE_INPUTS, kWord);
  uint32_t output = kb_fb_u32(&l->reader, &table, NODE_OUTPUT, 0);
  uint32_t blob = kb_fb_u32(&l->reader, &table, NODE_BLOB, 0);
  node->index = index;
  node->op = kb_fb_u8(&l->reader, &table, NODE_OP, 0);
  node->operation = kb_operation_of(node->op);
  node->inputs_at = inputs.at;
  node->input_count = inputs.count;
  if (read_attributes(l, &table, node)) return -1;
  if (!node->operation)
    return kb_fail(l->error, "node %u: expected a known operation, got number %u", index,
                   node->op);
  if (output >= model->tensor_count)
    return kb_fail_node(node, l->error, "expected an output among %u tensors, got %u",
                        model->tensor_count, output);
  node->y = &model->tensors[output];
  if (node->op) return 0;
  if (blob >= model->blob_count)
    return kb_fail_node(node, l->error, "expected a blob among %u, got %u", model->blob_count,
                        blob);
  node->packed = model->blobs[blob];
  return 0;
}

static int read_nodes(loader* l, const kb_fb_table* root) {
  kb_model* model = l->model;
  kb_fb_vector list = kb_fb_vector_of(&l->reader, root, MODEL_NODES, kWord);
  size_t links = 0;
  if (sound(l)) return -1;
  if (list.count > KB_MAX_TENSORS)
    return kb_fail(l->error, "expected at most %d nodes, got %u", KB_MAX_TENSORS, list.count);
  model->node_count = list.count;
  model->nodes = kb_model_alloc(model, list.count, sizeof *model->nodes, l->error);
  if (!model->nodes) return -1;
  for (uint32_t i = 0; i < list.count; i++) {
    if (read_node(l, list, i)) return -1;
    links += model->nodes[i].input_count;
  }
  model->links = kb_model_alloc(model, links, sizeof *model->links, l->error);
  if (!model->links) return -1;
  const kb_tensor** link = model->links;
  for (uint32_t n = 0; n < list.count; n++) {
    kb_node* node = &model->nodes[n];
    node->x = link;
    for (uint32_t i = 0; i < node->input_count; i++) {
      uint32_t index = kb_load_u32(l->reader.data + node->inputs_at + kWord * (size_t)i);
      if (index >= model->tensor_count)
        return kb_fail_node(node, l->error, "expected an input among %u tensors, got %u",
                            model->tensor_count, index);
      *link++ = &model->tensors[index];
    }
  }
  return 0;
}

/* The inputs or outputs of the model. */
static kb_tensor** read_ends(loader* l, const kb_fb_table* root, int slot, uint32_t* count) {
  kb_model* model = l->model;
  kb_fb_vector list = kb_fb_vector_of(&l->reader, root, slot, kWord);
  if (sound(l)) return NULL;
  if (list.count < 1 || list.count > KB_MAX_TENSORS) {
    kb_fail(l->error, "expected 1 to %d inputs and outputs, got %u", KB_MAX_TENSORS, list.count);
    return NULL;
  }
  kb_tensor** ends = kb_model_alloc(model, list.count, sizeof *ends, l->error);
  for (uint32_t i = 0; ends && i < list.count; i++) {
    uint32_t index = kb_fb_u32_at(&l->reader, list, i);
    if (index >= model->tensor_count) {
      kb_fail(l->error, "expected inputs and outputs among %u tensors, got %u",
              model->tensor_count, index);
      free(ends);
      return NULL;
    }
    ends[i] = &model->tensors[index];
  }
  *count = ends ? list.count : 0;
  return ends;
}

int kb_model_read(kb_model* model, const void* data, size_t bytes, kb_error error) {
  loader l = {.reader = {.data = data, .bytes = bytes, .unread = bytes},
              .model = model,
              .error = error};
  kb_fb_table root;
  if (check_frame(&l, &root) || read_tensors(&l, &root) || read_blobs(&l, &root) ||
      read_nodes(&l, &root))
    return -1;
  model->inputs = read_ends(&l, &root, MODEL_INPUTS, &model->input_count);
  if (!model->inputs) return -1;
  model->outputs = read_ends(&l, &root, MODEL_OUTPUTS, &model->output_count);
  return model->outputs ? 0 : -1;
}
