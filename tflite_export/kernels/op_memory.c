/* How much memory a packed layer holds. */
#include "op.h"
#include "ops.h"

static size_t room(size_t count, size_t size) { return kb_room(count * size); }

static size_t of_input(const kb_blob* layer, const kb_input* input) {
  const size_t length = (size_t)layer->input_length;
  const int is_table = layer->input_kind == KB_INPUT_TABLE;
  const size_t borders = is_table ? length - 1 : length;
  const size_t steps = input->steps ? ((size_t)input->level_bits + 7) / 8 : 0;
  return room(borders, sizeof(float)) + room(is_table ? length : 0, sizeof(int32_t)) +
         (steps ? room(steps, sizeof *input->steps) : 0);
}

/* The sections fill the blob up to its end. */
static size_t of_embedding(const kb_blob* layer, const kb_embedding* embedding) {
  const uint8_t* end = embedding->copy;
  for (int i = 0; i < KB_SECTIONS; i++) {
    const kb_section* s = &layer->section[i];
    if (s->data + s->bytes > end) end = s->data + s->bytes;
  }
  size_t bytes = room((size_t)(end - embedding->copy), 1);
  if (embedding->rank) bytes += room((size_t)layer->out, sizeof *embedding->rank);
  return bytes;
}

size_t kb_op_memory(const kb_op* op) {
  const kb_blob* layer = &op->geometry;
  const size_t bytes =
      room(1, sizeof *op) + (op->scratch ? room(1, op->scratch_bytes) : 0) + kb_table_room(op);
  if (kb_op_takes_ids(op)) return bytes + of_embedding(layer, &op->embedding);
  return bytes + of_input(layer, &op->input) + op->depthwise.bytes + op->weights.bytes;
}
