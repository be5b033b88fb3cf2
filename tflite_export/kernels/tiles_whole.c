/* What makes outputs of the sums of a tile whose layer is on whole numbers.
 *
 * All sums of a tile are multiplied with one factor, so that the offsets of its weights and inputs
 * are whole; it is a power of two, as all coefficients of such a layer are. */
#include "tiles.h"

/* Numbers in the tile are the channel's, or twice those and an offset. */
static int times_of(const kb_packer* packer, const kb_tile* tile, int row) {
  return kb_tile_has_signs(packer, tile, kb_tile_channel(packer, tile, row)) ? 2 : 1;
}

static int factor_of(const kb_packer* packer, const kb_tile* tile) {
  int most = 1;
  for (int row = 0; row < tile->used; row++) {
    const kb_ratio ratio = kb_channel_ratio(kb_tile_channel(packer, tile, row));
    if (ratio.parts > times_of(packer, tile, row)) most = 2;
  }
  return most * kb_input_ratio(packer->input).parts;
}

static int log_of(double power) {
  int log = 0;
  for (; power > 1; power /= 2) log++;
  return log;
}

/* Returns whether a part has one. */
static int set_shifts(const kb_packer* packer, const kb_tile* tile, int factor) {
  const kb_terms* terms = kb_form_terms(packer->input, tile->form);
  int any = terms->count * tile->planes > 1;
  for (int t = 0; t < terms->count; t++) {
    const int shift = log_of(factor * terms->term[t].factor);
    any |= shift;
    for (int p = 0; p < tile->planes; p++) tile->whole.shifts[t * tile->planes + p] = shift + p;
  }
  return any;
}

/* Returns the input weight: factor * (shift - zero + steps / parts), where it is not 0. */
static int32_t set_row(const kb_packer* packer, const kb_tile* tile, int factor, int row) {
  const kb_channel* channel = kb_tile_channel(packer, tile, row);
  const kb_ratio ratio = kb_channel_ratio(channel);
  const int times = times_of(packer, tile, row);
  const double scale = kb_whole_scale(packer->blob, packer->input, channel);
  tile->whole.scales[row] = (float)(scale / (factor * times));
  tile->whole.biases[row] = (float)packer->weights->bias[tile->first + row];
  if (times == 2) return 0;
  const int64_t offset = kb_tile_shift(packer, tile, row) - channel->zero;
  return (int32_t)(factor * offset + factor / ratio.parts * ratio.steps);
}

void kb_tile_set_whole(const kb_packer* packer, kb_tile* tile) {
  const int factor = factor_of(packer, tile);
  kb_whole_rows* whole = &tile->whole;
  if (!set_shifts(packer, tile, factor)) whole->shifts = NULL;
  int any = 0;
  for (int row = 0; row < tile->used; row++)
    any |= (whole->input_weights[row] = set_row(packer, tile, factor, row)) != 0;
  if (!any) whole->input_weights = NULL;
  packer->weights->needs_input_sums |= any;
}

/* What the inputs' offset adds to a total, which it is a part of, so that it fits int32. */
void kb_tile_sum_starts(const kb_packer* packer, const kb_tile* tile, int row) {
  const kb_blob* blob = packer->blob;
  const kb_channel* channel = kb_tile_channel(packer, tile, row);
  const kb_ratio ratio = kb_channel_ratio(channel), inputs = kb_input_ratio(packer->input);
  const int64_t taps = blob->kernel[0] * blob->kernel[1];
  const int64_t times = factor_of(packer, tile) / inputs.parts * times_of(packer, tile, row);
  int32_t* starts = packer->weights->tap_starts + tile->first + row;
  for (int64_t tap = 0; tap < taps; tap++) {
    int64_t total = 0;
    for (int64_t c = 0; c < blob->in; c++)
      total += packer->numbers[tap * blob->in + c] - channel->zero;
    total = times * total + times / ratio.parts * ratio.steps * blob->in;
    starts[tap * blob->out] = (int32_t)(inputs.steps * total);
  }
}
