#include "weights.h"

#include <stdlib.h>

#include "tiles.h"

void* kb_weights_alloc(kb_weights* weights, size_t count, size_t size) {
  void* memory = kb_alloc(count, size);
  if (memory) weights->bytes += kb_room(count * size);
  return memory;
}

/* What channels of a tile have in common; they are sorted by it, and by their index then. */
typedef struct {
  int64_t group, index;
  int form, rows, most;
} kb_sort_key;

static int compare(const void* one, const void* other) {
  const kb_sort_key *a = one, *b = other;
  const int64_t parts[][2] = {{a->group, b->group}, {a->form, b->form}, {a->rows, b->rows},
                              {a->most, b->most}, {a->index, b->index}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (parts[i][0] != parts[i][1]) return parts[i][0] < parts[i][1] ? -1 : 1;
  }
  return 0;
}

static void choose_forms(const kb_packer* packer, kb_sort_key* keys) {
  const kb_blob* blob = packer->blob;
  for (int64_t o = 0; o < blob->out; o++) {
    const kb_channel* channel = &packer->channels[o];
    keys[o] = (kb_sort_key){.group = o / (blob->out / blob->groups), .index = o, .form = KB_FORMS};
    if (channel->width == 0) continue;
    const kb_form form = kb_choose_form(blob, packer->input, packer->kernels, channel);
    keys[o].form = form;
    keys[o].rows = kb_channel_rows(channel, form);
    const int is_one = form == KB_FORM_BITS || form == KB_FORM_T1 || form == KB_FORM_F32;
    keys[o].most = is_one ? 1 : kb_channel_most(channel);
  }
  qsort(keys, (size_t)blob->out, sizeof *keys, compare);
}

/* The next tile: from place `first` as many channels as belong together and fit. */
static kb_tile cut_tile(const kb_packer* packer, const kb_sort_key* keys, int64_t first) {
  const kb_sort_key* key = keys + first;
  kb_tile tile = {.form = (kb_form)key->form, .group = key->group, .first = first,
                  .rows = key->form == KB_FORMS ? KB_MAX_ROWS : packer->kernels->rows[key->form],
                  .contiguous = 1};
  for (int64_t left = packer->blob->out - first; tile.used < tile.rows && left > 0; left--, key++) {
    if (key->form != (int)tile.form || key->group != tile.group) break;
    tile.contiguous &= key->index == keys[first].index + tile.used;
    tile.planes = key->rows;
    if (key->most > tile.most) tile.most = key->most;
    tile.used++;
  }
  return tile;
}

static int cut_tiles(kb_packer* packer, const kb_sort_key* keys) {
  kb_weights* weights = packer->weights;
  for (int64_t at = 0; at < weights->out; weights->tiles++) at += cut_tile(packer, keys, at).used;
  weights->tile = kb_weights_alloc(weights, (size_t)weights->tiles, sizeof *weights->tile);
  if (!weights->tile) return kb_fail(packer->error, "out of memory");
  for (int64_t at = 0, i = 0; i < weights->tiles; at += weights->tile[i++].used)
    weights->tile[i] = cut_tile(packer, keys, at);
  for (int64_t at = 0; at < weights->out; at++) weights->order[at] = keys[at].index;
  return 0;
}

/* Kernels count taps and units in int. */
static int use_layout(kb_packer* packer, kb_image_kind kind) {
  kb_layout* layout = &packer->weights->layout[kind];
  if (!layout->used) *layout = kb_layout_of(packer->blob, kind, packer->kernels);
  layout->used = 1;
  if (layout->taps <= INT32_MAX / 16 && layout->units <= INT32_MAX / 16) return 0;
  return kb_fail(packer->error, "blob: expected fewer than 2^27 weights in a row, got %lld",
                 (long long)packer->blob->row);
}

/* Bytes of one plane of a tile. */
static int measure(kb_packer* packer, kb_tile* tile, size_t* bytes) {
  const kb_layout* layout = &packer->weights->layout[kb_image_of(tile->form)];
  const int channels = kb_unit_channels(tile->form);
  const int unit = kb_unit_weight_bytes(tile->form, packer->kernels->bits_unit_bytes);
  tile->units = layout->channels / channels + (layout->channels % channels != 0);
  size_t all;
  if (__builtin_mul_overflow((size_t)(unit * tile->rows), (size_t)layout->taps,
                             &tile->plane_bytes) ||
      __builtin_mul_overflow(tile->plane_bytes, (size_t)tile->units, &tile->plane_bytes) ||
      __builtin_mul_overflow(tile->plane_bytes, (size_t)tile->planes, &all) ||
      __builtin_add_overflow(*bytes, all, bytes) || *bytes > SIZE_MAX / 4)
    return kb_fail(packer->error, "blob: expected fewer weights than the address space has bytes");
  return 0;
}

/* Whether a factor differs from 1. */
static int needs_coefficients(const kb_packer* packer, const kb_tile* tile) {
  if (tile->form == KB_FORM_F32) return 0;
  if (tile->planes > 1 || kb_form_terms(packer->input, tile->form)->count > 1) return 1;
  if (!packer->input->linear) return 1;
  for (int r = 0; r < tile->used; r++) {
    const kb_channel* channel = &packer->channels[packer->weights->order[tile->first + r]];
    if (!channel->linear || channel->scale == 0) return 1;
  }
  return 0;
}

/* Parts of a tile's sums. */
static size_t parts_of(const kb_packer* packer, const kb_tile* tile) {
  if (tile->form == KB_FORM_F32) return (size_t)tile->planes;
  return (size_t)kb_form_terms(packer->input, tile->form)->count * (size_t)tile->planes;
}

/* Coefficients, input weights and scales of the tiles. */
static int allocate_numbers(kb_packer* packer) {
  kb_weights* weights = packer->weights;
  size_t numbers = 0;
  for (int64_t i = 0; i < weights->tiles; i++) {
    const kb_tile* tile = &weights->tile[i];
    if (tile->form != KB_FORMS) numbers += (parts_of(packer, tile) + 2) * (size_t)tile->rows;
  }
  weights->numbers = kb_weights_alloc(weights, numbers, sizeof *weights->numbers);
  if (!weights->numbers) return -1;
  double* number = weights->numbers;
  for (int64_t i = 0; i < weights->tiles; i++) {
    kb_tile* tile = &weights->tile[i];
    if (tile->form == KB_FORMS) continue;
    tile->scales = number;
    tile->input_weights = number + tile->rows;
    number += 2 * tile->rows;
    if (!needs_coefficients(packer, tile)) continue;
    tile->coefficients = number;
    number += parts_of(packer, tile) * (size_t)tile->rows;
  }
  return 0;
}

/* The same of whole numbers, and biases. */
static int allocate_words(kb_packer* packer) {
  kb_weights* weights = packer->weights;
  size_t words = 0;
  for (int64_t i = 0; i < weights->tiles; i++) {
    const kb_tile* tile = &weights->tile[i];
    if (tile->form != KB_FORMS) words += parts_of(packer, tile) + 3 * (size_t)tile->rows;
  }
  weights->words = kb_weights_alloc(weights, words, sizeof *weights->words);
  if (!weights->words) return -1;
  int32_t* word = weights->words;
  for (int64_t i = 0; i < weights->tiles; i++) {
    kb_tile* tile = &weights->tile[i];
    if (tile->form == KB_FORMS) continue;
    float* scales = (float*)(void*)(word + tile->rows);
    tile->whole = (kb_whole_rows){.input_weights = word, .scales = scales,
                                  .biases = scales + tile->rows, .shifts = word + 3 * tile->rows};
    word += parts_of(packer, tile) + 3 * (size_t)tile->rows;
  }
  return 0;
}

static int allocate_tiles(kb_packer* packer) {
  kb_weights* weights = packer->weights;
  size_t bytes = 0;
  for (int64_t i = 0; i < weights->tiles; i++) {
    kb_tile* tile = &weights->tile[i];
    if (tile->form == KB_FORMS) continue;
    if (use_layout(packer, kb_image_of(tile->form)) || measure(packer, tile, &bytes)) return -1;
  }
  weights->packed = kb_weights_alloc(weights, bytes + KB_SLACK, 1);
  if (!weights->packed || (weights->is_whole ? allocate_words : allocate_numbers)(packer))
    return kb_fail(packer->error, "out of memory");
  uint8_t* at = weights->packed;
  for (int64_t i = 0; i < weights->tiles; i++) {
    kb_tile* tile = &weights->tile[i];
    if (tile->form == KB_FORMS) continue;
    tile->weights = at;
    at += (size_t)tile->planes * tile->plane_bytes;
  }
  return 0;
}

static int pack_tiles(kb_packer* packer) {
  const kb_blob* blob = packer->blob;
  kb_weights* weights = packer->weights;
  kb_sort_key* keys = kb_alloc((size_t)blob->out, sizeof *keys);
  if (!keys) return kb_fail(packer->error, "out of memory");
  choose_forms(packer, keys);
  const int failed = cut_tiles(packer, keys);
  free(keys);
  if (failed || allocate_tiles(packer)) return -1;
  for (int64_t at = 0; at < blob->out && blob->section[KB_BIAS].bytes; at++)
    weights->bias[at] = (double)kb_blob_f32(blob, KB_BIAS, weights->order[at]);
  for (int64_t i = 0; i < weights->tiles; i++) {
    if (weights->tile[i].form != KB_FORMS && kb_tile_pack(packer, &weights->tile[i])) return -1;
  }
  return 0;
}

static int pack_depthwise(kb_packer* packer) {
  const kb_blob* blob = packer->blob;
  kb_weights* weights = packer->weights;
  for (int64_t o = 0; o < blob->out; o++) {
    const kb_channel* channel = &packer->channels[o];
    weights->multiplier[o] = 1;
    if (blob->section[KB_MULTIPLIER].bytes)
      weights->multiplier[o] = (double)kb_blob_f32(blob, KB_MULTIPLIER, o);
    if (blob->section[KB_BIAS].bytes) weights->bias[o] = (double)kb_blob_f32(blob, KB_BIAS, o);
    if (!weights->depthwise) continue;
    if (kb_channel_values(blob, channel, packer->values, packer->numbers, packer->error)) return -1;
    for (int64_t tap = 0; tap < blob->row; tap++)
      weights->depthwise[tap * blob->out + o] = packer->values[tap];
  }
  return 0;
}

static int allocate(kb_packer* packer) {
  const kb_blob* blob = packer->blob;
  kb_weights* weights = packer->weights;
  const size_t out = (size_t)blob->out, row = (size_t)blob->row;
  const size_t taps = (size_t)(blob->kernel[0] * blob->kernel[1]);
  /* Without codes a row may be as long as the header likes; nothing will be unpacked then. */
  const int empty = blob->section[KB_CODES].bytes == 0;
  packer->channels = kb_channels(blob);
  packer->numbers = kb_alloc(empty ? 0 : row, sizeof *packer->numbers);
  packer->values = kb_alloc(empty ? 0 : row, sizeof *packer->values);
  weights->bias = kb_weights_alloc(weights, out + KB_MAX_ROWS, sizeof *weights->bias);
  int failed = !packer->channels || !packer->numbers || !packer->values || !weights->bias;
  if (blob->op == KB_DEPTHWISE) {
    weights->multiplier = kb_weights_alloc(weights, out, sizeof *weights->multiplier);
    if (!empty) weights->depthwise = kb_weights_alloc(weights, out * row, sizeof(float));
    return failed || !weights->multiplier || (!empty && !weights->depthwise);
  }
  weights->is_whole = packer->channels && kb_is_whole(blob, packer->input, packer->channels);
  weights->order = kb_weights_alloc(weights, out, sizeof *weights->order);
  if (packer->input->offset != 0 && blob->encoding != KB_FLOATS && !empty) {
    size_t sums;
    if (__builtin_mul_overflow(out, taps, &sums)) return -1;
    if (weights->is_whole)
      weights->tap_starts = kb_weights_alloc(weights, sums, sizeof *weights->tap_starts);
    else
      weights->tap_sums = kb_weights_alloc(weights, sums, sizeof *weights->tap_sums);
    failed |= !kb_has_patterns(weights);
  }
  return failed || !weights->order;
}

int kb_weights_create(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                      kb_weights* weights, kb_error error) {
  *weights = (kb_weights){.out = blob->out};
  kb_packer packer = {.blob = blob, .input = input, .kernels = kernels, .weights = weights,
                      .error = error};
  int failed = 0;
  if (allocate(&packer))
    failed = kb_fail(error, "out of memory");
  else
    failed = (blob->op == KB_DEPTHWISE ? pack_depthwise : pack_tiles)(&packer);
  free(packer.channels);
  free(packer.numbers);
  free(packer.values);
  return failed;
}

void kb_weights_destroy(kb_weights* weights) {
  free(weights->tile);
  free(weights->order);
  free(weights->bias);
  free(weights->tap_sums);
  free(weights->tap_starts);
  free(weights->packed);
  free(weights->numbers);
  free(weights->words);
  free(weights->depthwise);
  free(weights->multiplier);
  *weights = (kb_weights){0};
}
