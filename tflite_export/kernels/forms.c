#include "forms.h"

#include <math.h>

kb_image_kind kb_image_of(kb_form form) {
  switch (form) {
    case KB_FORM_BITS:
      return KB_IMAGE_BITS;
    case KB_FORM_S16:
      return KB_IMAGE_S16;
    case KB_FORM_F32:
      return KB_IMAGE_F32;
    case KB_FORM_T1:
      return KB_IMAGE_TABLES;
    default:
      return KB_IMAGE_U8;
  }
}

/* Products a cycle, as measured in convolutions; S8 by the steps that fit int16: none, one, two or
 * three, more. `memory` is bytes a cycle from beyond the second-level cache. Those of NEON are
 * counted, for a core with two pipes of 128 bits of which one multiplies. What an instruction set
 * lacks is done by the plainer one. */
typedef struct {
  double bits, s8[4], s16, p1, p2, p4, t1, memory;
} kb_rates;

static const kb_rates kRates[KB_ISAS] = {
    [KB_ISA_SCALAR] = {12, {2, 2, 2, 2}, 2, 1, 1, 1, 1, 12},
    [KB_ISA_AVX2] = {155, {21, 30, 37, 43}, 24, 30, 30, 24, 70, 12},
    [KB_ISA_AVX512] = {340, {62, 62, 62, 62}, 31, 55, 50, 45, 70, 14},
    [KB_ISA_NEON] = {78, {6, 7, 7, 8}, 4, 4, 4, 4, 4, 6},
    [KB_ISA_NEONDOT] = {78, {28, 28, 28, 28}, 4, 14, 10, 11, 4, 6},
    [KB_ISA_NEONI8MM] = {78, {38, 38, 38, 38}, 4, 14, 10, 11, 4, 6},
};

enum {
  kCacheBytes = 1 << 19 /* weights that stay in the second-level cache */
};

static const double kWindowCycles = 120; /* for a copy of a window of bits, if the layout is flat */
static const double kSumCycles = 0.5; /* for each part of an output, to double and to the total */

int kb_channel_rows(const kb_channel* channel, kb_form form) {
  const int in_planes = form == KB_FORM_BITS || form == KB_FORM_T1;
  if (form == KB_FORM_F32 || (channel->linear && !in_planes)) return 1;
  return channel->planes;
}

int kb_channel_shift(const kb_channel* channel) {
  if (!channel->linear) return 0;
  const int most = channel->top <= UINT8_MAX ? INT8_MAX : INT16_MAX;
  const int low = channel->top - most, high = most + 1;
  return channel->zero < low ? low : channel->zero > high ? high : channel->zero;
}

int kb_channel_most(const kb_channel* channel) {
  if (!channel->linear) return 1;
  const int shift = kb_channel_shift(channel), rest = channel->top - shift;
  return shift > rest ? shift : rest > 0 ? rest : 1;
}

double kb_form_rate(const kb_kernels* kernels, kb_form form) {
  const kb_rates* rates = &kRates[kernels->gemm_isa[form]];
  const double of_form[KB_FORMS] = {
      [KB_FORM_BITS] = rates->bits, [KB_FORM_S8] = rates->s8[2], [KB_FORM_S16] = rates->s16,
      [KB_FORM_F32] = rates->s16,   [KB_FORM_P1] = rates->p1,    [KB_FORM_P2] = rates->p2,
      [KB_FORM_P4] = rates->p4,     [KB_FORM_T1] = rates->t1,
  };
  return of_form[form];
}

static int fits_int8(const kb_channel* channel) {
  return !channel->linear || channel->top <= UINT8_MAX;
}

static double s8_rate(const kb_rates* rates, const kb_input* input, int most) {
  const int steps = INT16_MAX / (2 * input->bytes.most * most);
  return rates->s8[steps < 2 ? steps : steps < 4 ? 2 : 3];
}

static int code_bits(kb_form form) {
  return form == KB_FORM_P1 ? 1 : form == KB_FORM_P2 ? 2 : form == KB_FORM_P4 ? 4 : 0;
}

/* The packed form of a channel of a dense layer, S8 if there is none. */
static kb_form packed_form(const kb_blob* blob, const kb_channel* channel) {
  if (blob->op != KB_DENSE || !channel->linear || channel->width > 4) return KB_FORM_S8;
  if (!fits_int8(channel)) return KB_FORM_S8;
  return channel->width == 1 ? KB_FORM_P1 : channel->width == 2 ? KB_FORM_P2 : KB_FORM_P4;
}

/* Planes that are looked up in tables. Worth it for so many channels that the tables, which cost as
 * much as 8 rows, do not matter. */
static int may_use_tables(const kb_blob* blob, const kb_input* input, const kb_channel* channel) {
  enum { kFewest = 256 };
  return blob->op == KB_DENSE && channel->linear && input->linear && input->bytes.count == 1 &&
         blob->out >= kFewest;
}

/* Rows that a kernel works for over channels of a group. That of bits can do half a tile. */
static double waste(const kb_blob* blob, const kb_kernels* kernels, kb_form form) {
  const int64_t rows = kernels->rows[form], step = form == KB_FORM_BITS ? (rows + 1) / 2 : rows;
  const int64_t of_group = blob->out / blob->groups;
  return (double)((of_group + step - 1) / step * step) / (double)of_group;
}

/* Cycles for one weight and one output pixel. Weights that do not stay in the cache are read anew
 * for each few of them. */
static double cycles(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                     const kb_channel* channel, kb_form form) {
  const kb_rates* rates = &kRates[kernels->gemm_isa[form]];
  double rows = kb_channel_rows(channel, form) * (double)input->bytes.count, rate = rates->s16;
  double parts = rows;
  double bytes = form == KB_FORM_S16 ? 2 : 1, windows = 0;
  if (form == KB_FORM_BITS) {
    const kb_layout layout = kb_layout_of(blob, KB_IMAGE_BITS, kernels);
    const double padding = (double)(layout.taps * layout.units * 64) / (double)blob->row;
    parts = channel->planes * (double)input->planes.count;
    rows = parts * padding;
    rate = rates->bits;
    bytes = channel->planes / 8.0;
    const double products = (double)blob->row * (double)(blob->out / blob->groups);
    if (layout.flat) windows = kWindowCycles * input->planes.count / products;
  } else if (form == KB_FORM_S8) {
    rate = s8_rate(rates, input, kb_channel_most(channel));
  } else if (form == KB_FORM_T1) {
    rate = rates->t1;
    bytes = channel->planes / 8.0;
  } else if (form != KB_FORM_S16) {
    rate = form == KB_FORM_P1 ? rates->p1 : form == KB_FORM_P2 ? rates->p2 : rates->p4;
    bytes = code_bits(form) / 8.0;
  }
  const int far = blob->op == KB_DENSE && (double)blob->row * (double)blob->out > kCacheBytes;
  const double moved = far ? bytes / rates->memory : 0;
  rows *= waste(blob, kernels, form);
  const double computed = rows / rate + windows + parts * kSumCycles / (double)blob->row;
  return computed > moved ? computed : moved;
}

/* Whether the sums of a channel are exact in double in whatever form they are found. With an offset
 * they are if it is some 256th parts of a step, as in 1-bit weights of +-1: -1/2. */
static int is_exact(const kb_channel* channel) {
  if (!channel->linear || channel->origin == 0 || channel->scale == 0) return channel->linear;
  const double ratio = channel->origin / channel->scale;
  return ratio * channel->scale == channel->origin && fabs(ratio) < KB_MAX_ZERO &&
         ratio * 256 == rint(ratio * 256);
}

kb_form kb_choose_form(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                       const kb_channel* channel) {
  if (blob->input_kind == KB_INPUT_FLOAT || blob->encoding == KB_FLOATS) return KB_FORM_F32;
  kb_kernels plain;
  kb_form best = KB_FORM_S16;
  const int exact = is_exact(channel) && input->linear;
  if (!exact) { /* where sums are rounded, the form must be the same on all machines */
    kb_kernels_of(KB_ISA_SCALAR, &plain);
    kernels = &plain;
  }
  const kb_form packed = exact ? packed_form(blob, channel) : KB_FORM_S8;
  const int tables = exact && may_use_tables(blob, input, channel);
  const kb_form forms[] = {KB_FORM_S8, KB_FORM_BITS, packed, tables ? KB_FORM_T1 : KB_FORM_S8};
  for (int i = 0; i < 4; i++) {
    if (!kernels->gemm[forms[i]]) continue;
    if (forms[i] != KB_FORM_BITS && !fits_int8(channel)) continue;
    if (cycles(blob, input, kernels, channel, forms[i]) <
        cycles(blob, input, kernels, channel, best))
      best = forms[i];
  }
  return best;
}

kb_layout kb_layout_of(const kb_blob* blob, kb_image_kind kind, const kb_kernels* kernels) {
  static const kb_form forms[KB_IMAGES] = {KB_FORM_BITS, KB_FORM_S8, KB_FORM_S16, KB_FORM_F32,
                                            KB_FORM_T1};
  /* P1 and P2 take more channels at a time than S8: images of dense layers suit all. */
  const int of_unit = kb_unit_channels(forms[kind]);
  const int64_t taps = blob->kernel[0] * blob->kernel[1];
  kb_layout layout = {.taps = taps, .channels = blob->in, .unit_channels = of_unit};
  layout.unit_bytes = kb_unit_input_bytes(forms[kind], kernels->bits_unit_bytes);
  layout.units = (blob->in + of_unit - 1) / of_unit;
  /* Where channels fill their units, or the units of a tap are many, patches cost more than they
   * save. */
  const int64_t joined = (blob->row + of_unit - 1) / of_unit;
  const int few = kind == KB_IMAGE_BITS ? 4 * taps * layout.units > 5 * joined : layout.units < 4;
  if (taps == 1 || !few) return layout;
  layout.flat = 1;
  layout.taps = 1;
  layout.channels = blob->row;
  layout.units = joined;
  return layout;
}
