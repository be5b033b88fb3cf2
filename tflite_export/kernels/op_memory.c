/* How much memory a packed layer holds. */
#include "op.h"
#include "ops.h"

static size_t room(size_t count, size_t size) { return kb_room(count * size); }

static size_t of_input(const kb_blob* layer) {
  const size_t length = (size_t)layer->input_length;
  const int is_table = layer->input_kind == KB_INPUT_TABLE;
  const size_t borders = is_table ? length - 1 : length;
  return room(borders, sizeof(float)) + room(is_table ? length : 0, sizeof(int32_t));
}

static size_t of_weights(const kb_blob* layer, const kb_weights* weights) {
  const size_t out = (size_t)layer->out;
  size_t bytes = room(out, sizeof *weights->offset);
  if (weights->depthwise) bytes += room(out * (size_t)layer->row, sizeof *weights->depthwise);
  if (weights->tap_sum)
    bytes += room(out * (size_t)(layer->kernel[0] * layer->kernel[1]), sizeof *weights->tap_sum);
  if (!weights->panels) return bytes;
  const size_t panels = (size_t)weights->groups * KB_FORMS;
  bytes += room(panels, sizeof *weights->panels);
  for (size_t i = 0; i < panels; i++) {
    const kb_panel* panel = &weights->panels[i];
    const int64_t tile = kb_tile_rows((kb_form)(i % KB_FORMS));
    if (panel->row) bytes += room((size_t)panel->rows, sizeof *panel->row);
    if (panel->tiles) bytes += room((size_t)((panel->rows + tile - 1) / tile), panel->tile_bytes);
  }
  return bytes;
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
  const size_t bytes = room(1, sizeof *op) + (op->scratch ? room(1, op->scratch_bytes) : 0);
  if (kb_op_takes_ids(op)) return bytes + of_embedding(layer, &op->embedding);
  return bytes + of_input(layer) + of_weights(layer, &op->weights) +
         room((size_t)layer->out, sizeof *op->multiplier) + room((size_t)layer->out,
                                                                 sizeof *op->bias);
}
