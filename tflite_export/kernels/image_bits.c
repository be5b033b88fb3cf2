/* The image of bits: from levels, or from floats whose planes are taken at once. */
#include "image.h"

/* Pixels whose bytes follow each other without gaps are as one of many channels. */
static int is_dense(const kb_strip* strip, const kb_image* image) {
  const size_t n = kb_channels_of(strip), unit = (size_t)strip->op->kernels.bits_unit_bytes;
  return image->pixel_bytes * 64 == n * unit && kb_groups_of(strip) == 1 && image->spacing[1] == 1;
}

/* As many as are put there one by one. */
static int64_t pieces_of(const kb_strip* strip, const kb_image* image, const kb_place* place) {
  return is_dense(strip, image) ? place->visible > 0 : place->visible;
}

/* How much of `count` numbers, whose bits have room for `bytes`, is done in whole units. Of the last
 * unit no more is written than the pixels take: what lies behind may be theirs who fill the next row. */
static size_t in_whole_units(size_t count, size_t bytes, size_t unit) {
  return bytes % unit ? bytes / unit * 64 : count;
}

static void put_levels(const kb_strip* strip, const uint8_t* levels, int shift, size_t count,
                       size_t bytes, uint8_t* to) {
  const kb_kernels* kernels = &strip->op->kernels;
  const size_t unit = (size_t)kernels->bits_unit_bytes;
  const size_t whole = in_whole_units(count, bytes, unit), at = whole / 64 * unit;
  uint8_t last[16];
  if (whole) kernels->pack_bits(levels, whole, shift, to);
  if (whole == count) return;
  kernels->pack_bits(levels + whole, count - whole, shift, last);
  memcpy(to + at, last, bytes - at);
}

/* Bits of all planes of floats; `to` is where those of each plane go. */
static void put_planes(const kb_strip* strip, const float* x, size_t count, size_t bytes,
                       uint8_t* const* to) {
  const kb_input* input = &strip->op->input;
  const kb_kernels* kernels = &strip->op->kernels;
  const kb_planes planes = {input->lo, input->hi, input->bits, input->borders};
  const size_t unit = (size_t)kernels->bits_unit_bytes;
  const size_t whole = in_whole_units(count, bytes, unit), at = whole / 64 * unit;
  uint8_t last[KB_MAX_BITS][16], *lasts[KB_MAX_BITS];
  if (whole) kernels->put_planes(&planes, x, whole, to);
  if (whole == count) return;
  for (int p = 0; p < input->bits; p++) lasts[p] = last[p];
  kernels->put_planes(&planes, x + whole, count - whole, lasts);
  for (int p = 0; p < input->bits; p++) memcpy(to[p] + at, last[p], bytes - at);
}

/* One term of one group: bits of levels. */
static void put_term(const kb_strip* strip, const uint8_t* levels, int shift, size_t term,
                     size_t group) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_BITS];
  const size_t n = kb_channels_of(strip), all = n * kb_groups_of(strip);
  const kb_place place = kb_place_of(strip, image, term, group);
  const int64_t pieces = pieces_of(strip, image, &place);
  const size_t pixels = is_dense(strip, image) ? (size_t)place.visible : 1;
  uint8_t* to = place.first;
  for (int64_t i = 0; i < pieces; i++, to += place.step)
    put_levels(strip, levels + (size_t)i * all + group * n, shift, n * pixels,
               image->pixel_bytes * pixels, to);
}

/* Levels as they are, to be packed as bits with the windows. */
static void fill_levels(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_BITS];
  const size_t n = kb_channels_of(strip), all = n * kb_groups_of(strip);
  for (int t = 0; t < image->terms; t++) {
    const uint8_t* from = t == 0 ? strip->low : strip->high;
    for (size_t g = 0; g < kb_groups_of(strip); g++) {
      const kb_place place = kb_place_of(strip, image, (size_t)t, g);
      uint8_t* to = place.first;
      for (int64_t i = 0; i < place.visible; i++, to += place.step)
        memcpy(to, from + (size_t)i * all + g * n, n);
    }
  }
}

void kb_fill_bits(const kb_strip* strip) {
  if (!kb_packs_pixels(&strip->op->weights.layout[KB_IMAGE_BITS], &strip->op->geometry)) {
    fill_levels(strip);
    return;
  }
  const kb_terms* terms = &strip->op->input.planes;
  for (int t = 0; t < terms->count; t++) {
    const int shift = terms->term[t].shift;
    const uint8_t* from = shift < 8 ? strip->low : strip->high;
    for (size_t g = 0; g < kb_groups_of(strip); g++) put_term(strip, from, shift % 8, (size_t)t, g);
  }
}

int kb_only_planes(const kb_op* op, const kb_plan* plan) {
  return op->input.kind == KB_INPUT_PLANES && plan->image[KB_IMAGE_BITS].used &&
         kb_packs_pixels(&op->weights.layout[KB_IMAGE_BITS], &op->geometry) &&
         !plan->image[KB_IMAGE_U8].used && !plan->image[KB_IMAGE_S16].used &&
         !plan->image[KB_IMAGE_TABLES].used;
}

/* All processors count without an instruction for it. */
static unsigned bits_of(uint64_t word) {
  word -= word >> 1 & UINT64_C(0x5555555555555555);
  word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
  word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
  return (unsigned)(word * UINT64_C(0x0101010101010101) >> 56);
}

/* One word holds all bits of a unit, as those of 16 bytes are in their high nibbles. */
static unsigned bits_of_unit(const uint8_t* unit, size_t unit_bytes) {
  uint64_t first, second;
  memcpy(&first, unit, sizeof first);
  if (unit_bytes == sizeof first) return bits_of(first);
  memcpy(&second, unit + sizeof first, sizeof second);
  return bits_of(first >> 4 | second);
}

static double bits_of_pixel(const uint8_t* bytes, size_t count, size_t unit_bytes) {
  uint64_t total = 0;
  for (; count >= unit_bytes; count -= unit_bytes, bytes += unit_bytes)
    total += bits_of_unit(bytes, unit_bytes);
  if (!count) return (double)total;
  uint8_t last[16] = {0};
  memcpy(last, bytes, count);
  return (double)(total + bits_of_unit(last, unit_bytes));
}

/* Sum of the inputs of each pixel from the bits of its planes: the whole numbers of sum_levels. */
static void sum_planes(const kb_strip* strip, size_t group, const kb_place* places) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_BITS];
  const kb_terms* terms = &strip->op->input.planes;
  const size_t unit = (size_t)strip->op->kernels.bits_unit_bytes, bytes = image->pixel_bytes;
  double* sums = kb_sums_of(strip, group);
  for (int64_t i = 0; i < places[0].visible; i++) sums[i] = 0;
  for (int t = 0; t < terms->count; t++) {
    const double factor = terms->term[t].factor;
    const uint8_t* pixel = places[t].first;
    for (int64_t i = 0; i < places[t].visible; i++, pixel += places[t].step)
      sums[i] += factor * bits_of_pixel(pixel, bytes, unit);
  }
}

/* The first plane is the highest bit of a code. */
void kb_fill_planes(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_BITS];
  const kb_terms* terms = &strip->op->input.planes;
  const size_t n = kb_channels_of(strip), all = n * kb_groups_of(strip);
  for (size_t g = 0; g < kb_groups_of(strip); g++) {
    kb_place places[KB_MAX_BITS];
    uint8_t* to[KB_MAX_BITS];
    for (int t = 0; t < terms->count; t++) {
      places[t] = kb_place_of(strip, image, (size_t)t, g);
      to[terms->count - 1 - terms->term[t].shift] = places[t].first;
    }
    const int64_t pieces = pieces_of(strip, image, &places[0]);
    const size_t pixels = is_dense(strip, image) ? (size_t)places[0].visible : 1;
    for (int64_t i = 0; i < pieces; i++) {
      put_planes(strip, strip->x + (size_t)i * all + g * n, n * pixels, image->pixel_bytes * pixels,
                 to);
      for (int t = 0; t < terms->count; t++) to[t] += places[0].step;
    }
    if (strip->op->weights.needs_input_sums) sum_planes(strip, g, places);
  }
}
