#include "weights.h"

#include <stdlib.h>

#include "channel.h"

/* Everything that packing needs to know beside the panels. */
typedef struct {
  const kb_blob* blob;
  const kb_input* input;
  kb_weights* weights;
  kb_channel* channels;
  kb_form* forms;    /* [out] */
  uint16_t* numbers; /* [row] */
  float* values;     /* [row] */
  kb_error error;
} kb_packer;

static int64_t taps_of(const kb_blob* blob) { return blob->kernel[0] * blob->kernel[1]; }

static int64_t words_of_tap(const kb_blob* blob) { return (blob->in + 63) / 64; }

static int rows_of(const kb_channel* channel, kb_form form) {
  if (form == KB_FORM_F32 || (channel->linear && form != KB_FORM_BITS)) return 1;
  return channel->planes;
}

/* Bytes or bits? Measured on AVX2, one plane of weights by one plane of inputs takes about a
 * third of the time of one int8 row, and an int16 row twice that of an int8 row. */
static kb_form choose_form(const kb_packer* packer, const kb_channel* channel) {
  enum { kPlanesPerS8 = 3, kPlanesPerS16 = 6 };
  const kb_blob* blob = packer->blob;
  if (blob->input_kind == KB_INPUT_FLOAT || blob->encoding == KB_FLOATS) return KB_FORM_F32;
  kb_form form = !channel->linear || channel->top <= 2 * KB_MAX_S8 ? KB_FORM_S8 : KB_FORM_S16;
  int64_t bits = channel->planes * packer->input->planes.count;
  int64_t bytes = rows_of(channel, form) * packer->input->bytes.count;
  bytes *= form == KB_FORM_S8 ? kPlanesPerS8 : kPlanesPerS16;
  /* Bits are padded to words at each tap; that counts. */
  double padding = (double)(words_of_tap(blob) * 64) / (double)blob->in;
  return (double)bits * padding <= (double)bytes ? KB_FORM_BITS : form;
}

/* What to subtract from the numbers of a linear channel so that they fit their form: the zero,
 * if possible, since the offset vanishes with it. */
static int shift_of(const kb_channel* channel, kb_form form) {
  if (form == KB_FORM_BITS || !channel->linear) return 0;
  int low = channel->top - (form == KB_FORM_S8 ? KB_MAX_S8 : INT16_MAX);
  int high = form == KB_FORM_S8 ? KB_MAX_S8 : -INT16_MIN;
  return channel->zero < low ? low : channel->zero > high ? high : channel->zero;
}

static double offset_of(const kb_channel* channel, kb_form form) {
  if (form == KB_FORM_F32) return 0;
  if (!channel->linear) return channel->origin;
  return channel->origin + channel->scale * (shift_of(channel, form) - channel->zero);
}

static kb_panel* panel_of(const kb_packer* packer, int64_t channel, kb_form form) {
  int64_t group = channel / (packer->blob->out / packer->blob->groups);
  return &packer->weights->panels[group * KB_FORMS + form];
}

/* Choose the forms, count rows, and see in which panels a row of ones is due: one a group. */
static void plan(kb_packer* packer) {
  const int64_t out = packer->blob->out, of_group = out / packer->blob->groups;
  int has_sum = 0;
  for (int64_t o = 0; o < out; o++) {
    const kb_channel* channel = &packer->channels[o];
    if (o % of_group == 0) has_sum = 0;
    if (channel->width == 0) continue;
    kb_form form = packer->forms[o] = choose_form(packer, channel);
    kb_panel* panel = panel_of(packer, o, form);
    packer->weights->offset[o] = offset_of(channel, form);
    int needs_sum = packer->weights->offset[o] != 0 && !has_sum;
    panel->rows += rows_of(channel, form) + needs_sum;
    has_sum |= needs_sum;
  }
}

static int allocate_panel(kb_panel* panel, kb_form form, const kb_blob* blob) {
  static const size_t chunk_bytes[KB_FORMS] = {32 * KB_TILE, 32 * KB_TILE, 64 * KB_TILE,
                                               sizeof(float) * KB_TILE_F32};
  int64_t bytes = form == KB_FORM_BITS ? taps_of(blob) * words_of_tap(blob) * 8 : blob->row;
  panel->chunks = form == KB_FORM_F32 ? blob->row : (bytes + KB_CHUNK - 1) / KB_CHUNK;
  if (__builtin_mul_overflow(panel->chunks, chunk_bytes[form], &panel->tile_bytes)) return -1;
  size_t tiles = (size_t)((panel->rows + kb_tile_rows(form) - 1) / kb_tile_rows(form));
  panel->row = kb_alloc((size_t)panel->rows, sizeof *panel->row);
  panel->tiles = kb_alloc(tiles, panel->tile_bytes);
  panel->max_weight = 1;
  return panel->row && panel->tiles ? 0 : -1;
}

static uint8_t* tile_at(const kb_panel* panel, kb_form form, int64_t row) {
  return panel->tiles + (size_t)(row / kb_tile_rows(form)) * panel->tile_bytes;
}

/* Element k of a row of S8 or S16. */
static void put_weight(kb_panel* panel, kb_form form, int64_t row, int64_t k, int weight) {
  int64_t i = (k / KB_CHUNK * KB_TILE + row % KB_TILE) * KB_CHUNK + k % KB_CHUNK;
  if (form == KB_FORM_S8)
    ((int8_t*)tile_at(panel, form, row))[i] = (int8_t)weight;
  else
    ((int16_t*)(void*)tile_at(panel, form, row))[i] = (int16_t)weight;
  if (abs(weight) > panel->max_weight) panel->max_weight = abs(weight);
}

/* Set the bit of tap and channel, both in k. */
static void put_bit(const kb_blob* blob, kb_panel* panel, int64_t row, int64_t k) {
  int64_t bit = k / blob->in * words_of_tap(blob) * 64 + k % blob->in, byte = bit / 8;
  int64_t i = (byte / KB_CHUNK * KB_TILE + row % KB_TILE) * KB_CHUNK + byte % KB_CHUNK;
  tile_at(panel, KB_FORM_BITS, row)[i] |= (uint8_t)(1u << bit % 8);
}

static void put_floats(const kb_blob* blob, kb_panel* panel, int64_t row, const float* values) {
  float* tile = (float*)(void*)tile_at(panel, KB_FORM_F32, row);
  for (int64_t k = 0; k < blob->row; k++)
    tile[k * KB_TILE_F32 + row % KB_TILE_F32] = values[k];
}

/* The rows of one channel; panel->rows counts those that are in place. */
static void pack_rows(kb_packer* packer, const kb_channel* channel, kb_form form) {
  kb_panel* panel = panel_of(packer, channel->index, form);
  if (rows_of(channel, form) == 1 && form != KB_FORM_BITS && channel->linear) {
    int shift = shift_of(channel, form);
    for (int64_t k = 0; k < packer->blob->row; k++)
      put_weight(panel, form, panel->rows, k, packer->numbers[k] - shift);
    panel->row[panel->rows++] = (kb_row){channel->index, channel->scale};
    return;
  }
  for (int p = 0; p < channel->planes; p++) {
    for (int64_t k = 0; k < packer->blob->row; k++) {
      if (!(packer->numbers[k] >> p & 1)) continue;
      if (form == KB_FORM_BITS)
        put_bit(packer->blob, panel, panel->rows, k);
      else
        put_weight(panel, form, panel->rows, k, 1);
    }
    double scale = kb_channel_plane_scale(packer->blob, channel, p);
    panel->row[panel->rows++] = (kb_row){channel->index, scale};
  }
}

static void pack_ones(kb_packer* packer, int64_t channel, kb_form form) {
  kb_panel* panel = panel_of(packer, channel, form);
  for (int64_t k = 0; k < packer->blob->row; k++) {
    if (form == KB_FORM_BITS)
      put_bit(packer->blob, panel, panel->rows, k);
    else
      put_weight(panel, form, panel->rows, k, 1);
  }
  panel->row[panel->rows++] = (kb_row){KB_SUM_OF_INPUTS, 1};
}

/* Sums of the decoded weights of each tap: whole numbers first, so that there is one rounding. */
static void sum_taps(const kb_packer* packer, const kb_channel* channel) {
  const kb_blob* blob = packer->blob;
  for (int64_t tap = 0; tap < taps_of(blob); tap++) {
    const uint16_t* numbers = packer->numbers + tap * blob->in;
    int64_t total = 0, bits[KB_MAX_BITS] = {0};
    for (int64_t c = 0; c < blob->in; c++) {
      total += numbers[c] - channel->zero;
      for (int p = 0; p < channel->planes; p++) bits[p] += numbers[c] >> p & 1;
    }
    double sum = channel->origin * (double)blob->in;
    if (channel->linear) sum += channel->scale * (double)total;
    for (int p = 0; !channel->linear && p < channel->planes; p++)
      sum += kb_channel_plane_scale(blob, channel, p) * (double)bits[p];
    packer->weights->tap_sum[channel->index * taps_of(blob) + tap] = sum;
  }
}

static int pack_channel(kb_packer* packer, const kb_channel* channel, int* has_sum) {
  kb_form form = packer->forms[channel->index];
  if (form == KB_FORM_F32) {
    kb_panel* panel = panel_of(packer, channel->index, form);
    if (kb_channel_values(packer->blob, channel, packer->values, packer->numbers, packer->error))
      return -1;
    put_floats(packer->blob, panel, panel->rows, packer->values);
    panel->row[panel->rows++] = (kb_row){channel->index, 1};
    return 0;
  }
  if (kb_channel_numbers(packer->blob, channel, packer->numbers, packer->error)) return -1;
  pack_rows(packer, channel, form);
  if (packer->weights->tap_sum) sum_taps(packer, channel);
  if (packer->weights->offset[channel->index] != 0 && !*has_sum) {
    pack_ones(packer, channel->index, form);
    *has_sum = 1;
  }
  return 0;
}

static int pack_panels(kb_packer* packer) {
  const kb_blob* blob = packer->blob;
  kb_weights* weights = packer->weights;
  plan(packer);
  int64_t panels = blob->groups * KB_FORMS;
  for (int64_t i = 0; i < panels; i++) {
    kb_panel* panel = &weights->panels[i];
    if (panel->rows && allocate_panel(panel, (kb_form)(i % KB_FORMS), blob))
      return kb_fail(packer->error, "out of memory");
    panel->rows = 0;
  }
  int has_sum = 0;
  for (int64_t o = 0; o < blob->out; o++) {
    if (o % (blob->out / blob->groups) == 0) has_sum = 0;
    if (packer->channels[o].width && pack_channel(packer, &packer->channels[o], &has_sum))
      return -1;
  }
  for (int64_t i = 0; i < panels; i++) {
    kb_panel* panel = &weights->panels[i];
    int64_t most = (int64_t)KB_CHUNK * KB_MAX_INPUT * (panel->rows ? panel->max_weight : 1);
    panel->block_chunks = INT32_MAX / most;
  }
  return 0;
}

static int pack_depthwise(kb_packer* packer) {
  const kb_blob* blob = packer->blob;
  for (int64_t o = 0; o < blob->out; o++) {
    const kb_channel* channel = &packer->channels[o];
    if (kb_channel_values(blob, channel, packer->values, packer->numbers, packer->error)) return -1;
    for (int64_t tap = 0; tap < blob->row; tap++)
      packer->weights->depthwise[tap * blob->out + o] = packer->values[tap];
  }
  return 0;
}

static int allocate(kb_packer* packer) {
  const kb_blob* blob = packer->blob;
  kb_weights* weights = packer->weights;
  const size_t out = (size_t)blob->out, row = (size_t)blob->row;
  const int depthwise = blob->op == KB_DEPTHWISE;
  packer->channels = kb_channels(blob);
  packer->forms = kb_alloc(out, sizeof *packer->forms);
  /* Without codes a row may be as long as the header likes; nothing will be unpacked then. */
  const int empty = blob->section[KB_CODES].bytes == 0;
  packer->numbers = kb_alloc(empty ? 0 : row, sizeof *packer->numbers);
  packer->values = kb_alloc(empty ? 0 : row, sizeof *packer->values);
  weights->offset = kb_alloc(out, sizeof *weights->offset);
  int failed = !packer->channels || !packer->forms || !packer->numbers || !packer->values ||
               !weights->offset;
  if (depthwise) {
    weights->depthwise = empty ? NULL : kb_alloc(out * row, sizeof *weights->depthwise);
    return failed || (!empty && !weights->depthwise);
  }
  weights->panels = kb_alloc((size_t)blob->groups * KB_FORMS, sizeof *weights->panels);
  if (packer->input->offset != 0 && blob->encoding != KB_FLOATS && !empty) {
    weights->tap_sum = kb_alloc(out * (size_t)taps_of(blob), sizeof *weights->tap_sum);
    failed |= !weights->tap_sum;
  }
  return failed || !weights->panels;
}

int kb_weights_create(const kb_blob* blob, const kb_input* input, kb_weights* weights,
                      kb_error error) {
  *weights = (kb_weights){.groups = blob->groups, .out = blob->out};
  kb_packer packer = {.blob = blob, .input = input, .weights = weights, .error = error};
  int failed = 0;
  if (allocate(&packer))
    failed = kb_fail(error, "out of memory");
  else if (blob->op != KB_DEPTHWISE)
    failed = pack_panels(&packer);
  else if (weights->depthwise)
    failed = pack_depthwise(&packer);
  free(packer.channels);
  free(packer.forms);
  free(packer.numbers);
  free(packer.values);
  return failed;
}

void kb_weights_destroy(kb_weights* weights) {
  for (int64_t i = 0; weights->panels && i < weights->groups * KB_FORMS; i++) {
    free(weights->panels[i].row);
    free(weights->panels[i].tiles);
  }
  free(weights->panels);
  free(weights->offset);
  free(weights->tap_sum);
  free(weights->depthwise);
  *weights = (kb_weights){0};
}
