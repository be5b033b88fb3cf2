#include "tiles.h"

#include <math.h>

const kb_terms* kb_form_terms(const kb_input* input, kb_form form) {
  return form == KB_FORM_BITS ? &input->planes : &input->bytes;
}

const kb_channel* kb_tile_channel(const kb_packer* packer, const kb_tile* tile, int row) {
  return &packer->channels[packer->weights->order[tile->first + row]];
}

static int code_bits(kb_form form) {
  return form == KB_FORM_P1 ? 1 : form == KB_FORM_P2 ? 2 : form == KB_FORM_P4 ? 4 : 0;
}

/* Channels of a tile of packed codes share their levels. */
int kb_tile_shift(const kb_packer* packer, const kb_tile* tile, int row) {
  if (tile->form == KB_FORM_BITS || tile->form == KB_FORM_T1) return 0;
  const int shift = kb_channel_shift(kb_tile_channel(packer, tile, row));
  if (!code_bits(tile->form) || packer->blob->encoding == KB_TABLE) return shift;
  for (int r = 0; r < tile->used; r++) {
    if (kb_channel_shift(kb_tile_channel(packer, tile, r)) != shift) return 0;
  }
  return shift;
}

static void set_levels(const kb_packer* packer, kb_tile* tile) {
  const int shift = kb_tile_shift(packer, tile, 0), bits = code_bits(tile->form);
  const kb_blob* blob = packer->blob;
  for (int code = 0; code < 1 << bits; code++) {
    int level = code - shift;
    if (blob->encoding == KB_TABLE)
      level = code < blob->table_length ? kb_blob_i16(blob, KB_LEVELS, code) +
                                              kb_tile_channel(packer, tile, 0)->zero - shift : 0;
    tile->levels[code] = (int8_t)level;
  }
}

/* Element e of a row's unit. The unit is still zero. */
static void put(uint8_t* unit, kb_form form, int e, int weight) {
  const int16_t wide = (int16_t)weight;
  if (form == KB_FORM_S8)
    unit[e] = (uint8_t)weight;
  else if (form == KB_FORM_S16)
    memcpy(unit + 2 * e, &wide, sizeof wide);
  else
    unit[e % 4] |= (uint8_t)(weight << code_bits(form) * (e / 4));
}

/* A walk over the units of a tile, element by element of a row. */
typedef struct {
  const kb_layout* layout;
  int of_unit, e;
  int64_t left; /* channels of this tap */
  uint8_t* unit;
  size_t step;
} kb_walk;

static kb_walk start(const kb_packer* packer, const kb_tile* tile, int plane) {
  const kb_layout* layout = &packer->weights->layout[kb_image_of(tile->form)];
  const int unit = kb_unit_weight_bytes(tile->form, packer->kernels->bits_unit_bytes);
  return (kb_walk){.layout = layout, .of_unit = kb_unit_channels(tile->form),
                   .left = layout->channels, .step = (size_t)unit * (size_t)tile->rows,
                   .unit = tile->weights + (size_t)plane * tile->plane_bytes};
}

static void advance(kb_walk* walk) {
  walk->e++;
  walk->left--;
  if (walk->e < walk->of_unit && walk->left > 0) return;
  walk->e = 0;
  walk->unit += walk->step;
  if (walk->left == 0) walk->left = walk->layout->channels;
}

static int pack_floats(kb_packer* packer, const kb_tile* tile, int row) {
  const kb_channel* channel = kb_tile_channel(packer, tile, row);
  if (kb_channel_values(packer->blob, channel, packer->values, packer->numbers, packer->error))
    return -1;
  kb_walk walk = start(packer, tile, 0);
  for (int64_t k = 0; k < packer->blob->row; k++, advance(&walk))
    memcpy(walk.unit + 4 * row, packer->values + k, sizeof *packer->values);
  return 0;
}

/* As int8 they are -1 and 1, which need no sum of the inputs: (sum - inputs / 2) * 2 s = (2 sum -
 * inputs) * s, and twice a double is exact. */
int kb_tile_has_signs(const kb_packer* packer, const kb_tile* tile, const kb_channel* channel) {
  return tile->form == KB_FORM_S8 && packer->input->linear && channel->linear &&
         channel->top == 1 && channel->zero == 0 && channel->scale != 0 &&
         channel->origin == -channel->scale / 2;
}

static void pack_row(const kb_packer* packer, const kb_tile* tile, int row) {
  const int shift = code_bits(tile->form) ? 0 : kb_tile_shift(packer, tile, row);
  const int signs = kb_tile_has_signs(packer, tile, kb_tile_channel(packer, tile, row));
  kb_walk walk = start(packer, tile, 0);
  for (int64_t k = 0; k < packer->blob->row; k++, advance(&walk)) {
    const int weight = packer->numbers[k] - shift;
    put(walk.unit + 4 * row, tile->form, walk.e, signs ? 2 * weight - 1 : weight);
  }
}

static void pack_planes(const kb_packer* packer, const kb_tile* tile, int row, int planes) {
  const int unit_bytes = packer->kernels->bits_unit_bytes;
  for (int p = 0; p < planes; p++) {
    kb_walk walk = start(packer, tile, p);
    for (int64_t k = 0; k < packer->blob->row; k++, advance(&walk)) {
      if (!(packer->numbers[k] >> p & 1)) continue;
      if (tile->form == KB_FORM_BITS)
        kb_put_weight_bit(walk.unit, unit_bytes, tile->rows, row, walk.e);
      else if (tile->form == KB_FORM_T1)
        kb_put_table_bit(walk.unit, tile->rows, row, walk.e);
      else
        put(walk.unit + 4 * row, tile->form, walk.e, 1);
    }
  }
}

/* Sums of the decoded weights of each tap: whole numbers first, so that there is one rounding. */
static void sum_taps(const kb_packer* packer, const kb_channel* channel, int64_t at,
                     double factor) {
  const kb_blob* blob = packer->blob;
  const int64_t taps = blob->kernel[0] * blob->kernel[1];
  for (int64_t tap = 0; tap < taps; tap++) {
    const uint16_t* numbers = packer->numbers + tap * blob->in;
    int64_t total = 0, bits[KB_MAX_BITS] = {0};
    for (int64_t c = 0; c < blob->in; c++) {
      total += numbers[c] - channel->zero;
      for (int p = 0; !channel->linear && p < channel->planes; p++) bits[p] += numbers[c] >> p & 1;
    }
    double sum = channel->origin * (double)blob->in;
    if (channel->linear) sum += channel->scale * (double)total;
    for (int p = 0; !channel->linear && p < channel->planes; p++)
      sum += kb_channel_plane_scale(blob, channel, p) * (double)bits[p];
    packer->weights->tap_sums[tap * blob->out + at] = factor * packer->input->offset * sum;
  }
}

static double multiplier_of(const kb_blob* blob, int64_t channel) {
  return blob->section[KB_MULTIPLIER].bytes ? (double)kb_blob_f32(blob, KB_MULTIPLIER, channel) : 1;
}

/* Scale, input weight and coefficients of one row. Those of evenly spaced levels are whole. */
static void set_numbers(const kb_packer* packer, const kb_tile* tile, int row) {
  const kb_channel* channel = kb_tile_channel(packer, tile, row);
  const kb_terms* terms = kb_form_terms(packer->input, tile->form);
  const int whole = channel->linear && channel->scale != 0;
  double unit = multiplier_of(packer->blob, channel->index);
  if (tile->form == KB_FORM_F32) {
    tile->scales[row] = unit;
    return;
  }
  unit *= packer->input->unit;
  tile->scales[row] = whole ? unit * channel->scale : unit;
  tile->input_weights[row] = channel->origin;
  if (whole)
    tile->input_weights[row] = (double)(kb_tile_shift(packer, tile, row) - channel->zero) +
                               channel->origin / channel->scale;
  if (kb_tile_has_signs(packer, tile, channel)) {
    tile->scales[row] /= 2;
    tile->input_weights[row] = 0;
  }
  for (int t = 0; tile->coefficients && t < terms->count; t++) {
    for (int p = 0; p < kb_channel_rows(channel, tile->form); p++) {
      const double plane = whole ? ldexp(1, p) : kb_channel_plane_scale(packer->blob, channel, p);
      tile->coefficients[(t * tile->planes + p) * tile->rows + row] = terms->term[t].factor * plane;
    }
  }
}

/* The same, and what outputs start from, for the numbers of a row. */
static int set_row(const kb_packer* packer, const kb_tile* tile, int row) {
  const kb_channel* channel = kb_tile_channel(packer, tile, row);
  if (!packer->weights->is_whole) set_numbers(packer, tile, row);
  if (!kb_has_patterns(packer->weights)) return 0;
  if (kb_channel_numbers(packer->blob, channel, packer->numbers, packer->error)) return -1;
  if (packer->weights->is_whole)
    kb_tile_sum_starts(packer, tile, row);
  else
    sum_taps(packer, channel, tile->first + row, multiplier_of(packer->blob, channel->index));
  return 0;
}

static int pack_channel(kb_packer* packer, kb_tile* tile, int row) {
  const kb_channel* channel = kb_tile_channel(packer, tile, row);
  if (set_row(packer, tile, row)) return -1;
  if (tile->form == KB_FORM_F32) return pack_floats(packer, tile, row);
  if ((code_bits(tile->form) ? kb_channel_codes : kb_channel_numbers)(
          packer->blob, channel, packer->numbers, packer->error))
    return -1;
  if (tile->form != KB_FORM_BITS && tile->form != KB_FORM_T1 && channel->linear)
    pack_row(packer, tile, row);
  else
    pack_planes(packer, tile, row, channel->planes);
  return 0;
}

int kb_tile_pack(kb_packer* packer, kb_tile* tile) {
  if (code_bits(tile->form)) set_levels(packer, tile);
  for (int row = 0; row < tile->used; row++) {
    if (pack_channel(packer, tile, row)) return -1;
  }
  if (packer->weights->is_whole) {
    kb_tile_set_whole(packer, tile);
    return 0;
  }
  int any = 0;
  for (int row = 0; row < tile->used; row++) any |= tile->input_weights[row] != 0;
  if (!any) tile->input_weights = NULL;
  packer->weights->needs_input_sums |= any;
  return 0;
}
