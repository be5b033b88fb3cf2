/* Floats of an input to the images that kernels read. */
#include "op.h"

/* Some pixels of one row of the input, at work. */
typedef struct {
  const kb_op* op;
  const kb_plan* plan;
  int64_t row, column;
  int64_t count;
  const float* x;     /* [count][groups][in] */
  uint8_t *low, *high; /* levels of them */
  uint16_t* codes;
} kb_strip;

static size_t channels(const kb_strip* strip) { return (size_t)strip->op->geometry.in; }
static size_t groups(const kb_strip* strip) { return (size_t)strip->op->geometry.groups; }

/* Where a pixel of the strip is, and how far the next one. As many as `visible` are in the image:
 * rows and columns that no window reaches are not. */
typedef struct {
  uint8_t* first;
  size_t step;
  int64_t visible;
} kb_place;

static kb_place place_of(const kb_strip* strip, const kb_image* image, size_t term, size_t group) {
  const int64_t row = image->origin[0] + strip->row * image->spacing[0];
  const int64_t column = image->origin[1] + strip->column * image->spacing[1];
  const int64_t room = image->size[1] - column;
  kb_place place = {.step = (size_t)image->spacing[1] * image->pixel_bytes};
  if (row >= image->size[0] || room <= 0) return place;
  const int64_t visible = (room + image->spacing[1] - 1) / image->spacing[1];
  place.visible = visible < strip->count ? visible : strip->count;
  place.first = (uint8_t*)kb_shared(strip->op, image->at) +
                (term * groups(strip) + group) * image->plane_bytes +
                (size_t)(row * image->size[1] + column) * image->pixel_bytes;
  return place;
}

static void fill_floats(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_F32];
  for (size_t g = 0; g < groups(strip); g++) {
    const kb_place place = place_of(strip, image, 0, g);
    const float* x = strip->x + g * channels(strip);
    uint8_t* to = place.first;
    const size_t all = channels(strip) * groups(strip);
    for (int64_t i = 0; i < place.visible; i++, to += place.step, x += all)
      kb_input_values(&strip->op->input, x, channels(strip), (float*)(void*)to, strip->codes);
  }
}

/* Bytes of one term. */
static void copy_term(const kb_term* term, const uint8_t* low, const uint8_t* high, size_t count,
                      uint8_t* to) {
  const uint8_t* from = term->shift < 8 ? low : high;
  const int shift = term->shift % 8;
  if (term->mask == 255) {
    memcpy(to, from, count);
    return;
  }
  for (size_t c = 0; c < count; c++) to[c] = (uint8_t)(from[c] >> shift & 1);
}

static void fill_bytes(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_U8];
  const kb_terms* terms = &strip->op->input.bytes;
  const size_t n = channels(strip), all = n * groups(strip);
  for (int t = 0; t < terms->count; t++) {
    for (size_t g = 0; g < groups(strip); g++) {
      const kb_place place = place_of(strip, image, (size_t)t, g);
      uint8_t* to = place.first;
      if (to == strip->low) continue; /* the levels were found in place */
      for (int64_t i = 0; i < place.visible; i++, to += place.step) {
        const size_t at = (size_t)i * all + g * n;
        copy_term(&terms->term[t], strip->low + at, strip->high + at, n, to);
        memset(to + n, 0, image->pixel_bytes - n);
      }
    }
  }
}

static void fill_words(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_S16];
  const kb_terms* terms = &strip->op->input.bytes;
  const size_t n = channels(strip), all = n * groups(strip);
  for (int t = 0; t < terms->count; t++) {
    const kb_term* term = &terms->term[t];
    const uint8_t* from = term->shift < 8 ? strip->low : strip->high;
    const int shift = term->shift % 8;
    for (size_t g = 0; g < groups(strip); g++) {
      const kb_place place = place_of(strip, image, (size_t)t, g);
      uint8_t* to = place.first;
      for (int64_t i = 0; i < place.visible; i++, to += place.step) {
        const uint8_t* levels = from + (size_t)i * all + g * n;
        uint16_t* words = (uint16_t*)(void*)to;
        for (size_t c = 0; c < n; c++) words[c] = (uint16_t)(levels[c] >> shift & (int)term->mask);
        memset(words + n, 0, image->pixel_bytes - n * sizeof *words);
      }
    }
  }
}

/* For inputs of a single term, whose levels are its bytes. */
static void fill_tables(const kb_strip* strip) {
  const size_t n = channels(strip), all = n * groups(strip);
  for (size_t g = 0; g < groups(strip); g++) {
    const kb_place place = place_of(strip, &strip->plan->image[KB_IMAGE_TABLES], 0, g);
    uint8_t* to = place.first;
    for (int64_t i = 0; i < place.visible; i++, to += place.step)
      strip->op->kernels.sum_tables(strip->low + (size_t)i * all + g * n, n, to);
  }
}

/* Pixels whose bytes follow each other without gaps are as one of many channels. */
static int is_dense(const kb_strip* strip, const kb_image* image) {
  const size_t n = channels(strip), unit = (size_t)strip->op->kernels.bits_unit_bytes;
  return image->pixel_bytes * 64 == n * unit && groups(strip) == 1 && image->spacing[1] == 1;
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
  const size_t n = channels(strip), all = n * groups(strip);
  const kb_place place = place_of(strip, image, term, group);
  const int64_t pieces = pieces_of(strip, image, &place);
  const size_t pixels = is_dense(strip, image) ? (size_t)place.visible : 1;
  uint8_t* to = place.first;
  for (int64_t i = 0; i < pieces; i++, to += place.step)
    put_levels(strip, levels + (size_t)i * all + group * n, shift, n * pixels,
               image->pixel_bytes * pixels, to);
}

static void fill_bits(const kb_strip* strip) {
  const kb_terms* terms = &strip->op->input.planes;
  for (int t = 0; t < terms->count; t++) {
    const int shift = terms->term[t].shift;
    const uint8_t* from = shift < 8 ? strip->low : strip->high;
    for (size_t g = 0; g < groups(strip); g++) put_term(strip, from, shift % 8, (size_t)t, g);
  }
}

/* Levels as they are, to be packed as bits with the windows. */
static void fill_levels(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_BITS];
  const size_t n = channels(strip), all = n * groups(strip);
  for (int t = 0; t < image->terms; t++) {
    const uint8_t* from = t == 0 ? strip->low : strip->high;
    for (size_t g = 0; g < groups(strip); g++) {
      const kb_place place = place_of(strip, image, (size_t)t, g);
      uint8_t* to = place.first;
      for (int64_t i = 0; i < place.visible; i++, to += place.step)
        memcpy(to, from + (size_t)i * all + g * n, n);
    }
  }
}

static double* sums_of(const kb_strip* strip, size_t group) {
  const kb_plan* plan = strip->plan;
  return (double*)kb_shared(strip->op, plan->pixel_sums) +
         (int64_t)group * plan->in_pixels + strip->row * plan->window.in[1] + strip->column;
}

/* Sum of the inputs of each pixel, in units of the input grid. Levels have 8 bits mostly. */
static void sum_levels(const kb_strip* strip) {
  const kb_input* input = &strip->op->input;
  const size_t n = channels(strip), all = n * groups(strip);
  for (size_t g = 0; g < groups(strip); g++) {
    double* sums = sums_of(strip, g);
    for (int64_t i = 0; i < strip->count; i++) {
      const uint8_t* low = strip->low + (size_t)i * all + g * n;
      const uint8_t* high = strip->high + (size_t)i * all + g * n;
      sums[i] = 0;
      for (int t = 0; t < input->bytes.count; t++) {
        const kb_term* term = &input->bytes.term[t];
        const uint8_t* from = term->shift < 8 ? low : high;
        const int shift = term->shift % 8;
        uint64_t sum = 0;
        for (size_t first = 0; first < n; first += 1 << 16) { /* 2^16 * 255 fits 32 bits */
          const size_t end = n - first < 1 << 16 ? n : first + (1 << 16);
          uint32_t part = 0;
          for (size_t c = first; c < end; c++) part += from[c] >> shift & term->mask;
          sum += part;
        }
        sums[i] += term->factor * (double)sum;
      }
    }
  }
}

/* Whether the input is planes that nobody needs as levels. */
static int is_planes(const kb_op* op, const kb_plan* plan) {
  return op->input.kind == KB_INPUT_PLANES && plan->image[KB_IMAGE_BITS].used &&
         kb_packs_pixels(&op->weights.layout[KB_IMAGE_BITS], &op->geometry) &&
         !plan->image[KB_IMAGE_U8].used && !plan->image[KB_IMAGE_S16].used &&
         !plan->image[KB_IMAGE_TABLES].used;
}

/* How many bits of each byte are set. */
static uint64_t bits_of_bytes(uint64_t word) {
  word -= word >> 1 & UINT64_C(0x5555555555555555);
  word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
  return (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
}

/* All processors count without an instruction for it. Bytes hold the counts of 31 words; their sum
 * needs 16 bits. */
static double bits_set(const uint8_t* bytes, size_t count) {
  enum { kWords = 31 };
  const uint64_t even = UINT64_C(0x00ff00ff00ff00ff);
  uint64_t total = 0;
  while (count) {
    uint64_t counts = 0;
    uint64_t word = 0;
    int words = 0;
    for (; words < kWords && count >= sizeof word; words++, count -= sizeof word) {
      memcpy(&word, bytes, sizeof word);
      counts += bits_of_bytes(word);
      bytes += sizeof word;
    }
    if (words < kWords && count) {
      word = 0;
      memcpy(&word, bytes, count);
      counts += bits_of_bytes(word);
      count = 0;
    }
    total += ((counts & even) + (counts >> 8 & even)) * UINT64_C(0x0001000100010001) >> 48;
  }
  return (double)total;
}

/* Sum of the inputs of each pixel from the bits of its planes: the whole numbers of sum_levels. */
static void sum_planes(const kb_strip* strip, size_t group, const kb_place* places) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_BITS];
  const kb_terms* terms = &strip->op->input.planes;
  double* sums = sums_of(strip, group);
  for (int64_t i = 0; i < places[0].visible; i++) {
    sums[i] = 0;
    for (int t = 0; t < terms->count; t++)
      sums[i] += terms->term[t].factor *
                 bits_set(places[t].first + (size_t)i * places[t].step, image->pixel_bytes);
  }
}

/* The first plane is the highest bit of a code. */
static void fill_planes(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_BITS];
  const kb_terms* terms = &strip->op->input.planes;
  const size_t n = channels(strip), all = n * groups(strip);
  for (size_t g = 0; g < groups(strip); g++) {
    kb_place places[KB_MAX_BITS];
    uint8_t* to[KB_MAX_BITS];
    for (int t = 0; t < terms->count; t++) {
      places[t] = place_of(strip, image, (size_t)t, g);
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

static void fill_strip(kb_strip* strip) {
  const kb_op* op = strip->op;
  const kb_plan* plan = strip->plan;
  const kb_image* bytes = &plan->image[KB_IMAGE_U8];
  const size_t all = channels(strip) * groups(strip);
  if (plan->image[KB_IMAGE_F32].used) fill_floats(strip);
  if (is_planes(op, plan)) {
    fill_planes(strip);
    return;
  }
  if (op->input.kind == KB_INPUT_FLOAT || op->weights.layout[KB_IMAGE_F32].used) return;
  strip->high = strip->low + all * (size_t)plan->strip;
  if (bytes->used && op->input.linear && op->input.bytes.count == 1 && groups(strip) == 1 &&
      bytes->pixel_bytes == all && bytes->spacing[1] == 1) {
    const kb_place place = place_of(strip, bytes, 0, 0);
    if (place.visible == strip->count) strip->low = place.first;
  }
  kb_input_levels(&op->input, &op->kernels, strip->x, all * (size_t)strip->count, strip->codes,
                  strip->low, strip->high);
  if (bytes->used) fill_bytes(strip);
  if (plan->image[KB_IMAGE_S16].used) fill_words(strip);
  if (plan->image[KB_IMAGE_TABLES].used) fill_tables(strip);
  if (plan->image[KB_IMAGE_BITS].used)
    (kb_packs_pixels(&op->weights.layout[KB_IMAGE_BITS], &op->geometry) ? fill_bits
                                                                        : fill_levels)(strip);
  if (op->weights.needs_input_sums) sum_levels(strip);
}

void kb_fill_pixels(const kb_op* op, const kb_plan* plan, int64_t first, int64_t count,
                    const float* x, int worker) {
  const int64_t width = plan->window.in[1], end = first + count;
  const size_t all = (size_t)(op->geometry.in * op->geometry.groups);
  for (int64_t pixel = first; pixel < end;) {
    kb_strip strip = {.op = op, .plan = plan, .x = x};
    strip.row = pixel / width;
    strip.column = pixel % width;
    strip.low = kb_own(op, plan, worker, plan->levels);
    strip.codes = kb_own(op, plan, worker, plan->codes);
    strip.count = width - strip.column < end - pixel ? width - strip.column : end - pixel;
    if (strip.count > plan->strip) strip.count = plan->strip;
    fill_strip(&strip);
    pixel += strip.count;
    x += all * (size_t)strip.count;
  }
}
