/* What each kernel of kernels.inc that runs here does in a cycle: to check the rates of forms.c, and
 * how much of roofline.c is left of an idea in a whole kernel.
 *
 *   ./kernel_rates ROUNDS     a line for each: instruction set, name, quartiles of the work a cycle
 *
 * Products are in MAC: of 64 pixels of a convolution of 256 channels, 3x3, with one tile; of packed
 * codes and tables in a dense layer of 4096 inputs on one sample. All data fit the first two caches.
 * The other functions are in values a cycle: 4096 of them. */
#include "cycles.h"

#include <string.h>

#include "depthwise.h"
#include "kernels.h"

enum {
  CHANNELS = 256,
  SIDE = 3,
  COLUMNS = 16,
  PIXELS = 64,
  DENSE = 4096,
  VALUES = 4096,
  MOST_SUBJECTS = 128
};

typedef struct {
  const char* isa;
  char name[48];
  work run;
  const void* context;
} subject;

typedef struct {
  subject all[MOST_SUBJECTS];
  int count;
} subjects;

static const char* const isa_names[KB_ISAS] = {"scalar", "avx2",    "avx512",
                                               "neon",   "neondot", "neoni8mm"};
static const char* const form_names[KB_FORMS] = {"bits",        "int8",        "int16",
                                                 "float",       "codes 1 bit", "codes 2 bits",
                                                 "codes 4 bits", "tables"};

static void* memory(size_t bytes) {
  void* found = kb_alloc(1, bytes + KB_SLACK);
  if (!found) exit(1);
  return found;
}

static void add(subjects* to, kb_isa_id isa, const char* name, work run, const void* context) {
  if (to->count == MOST_SUBJECTS) exit(1);
  subject* next = &to->all[to->count++];
  *next = (subject){.isa = isa_names[isa], .run = run, .context = context};
  snprintf(next->name, sizeof next->name, "%s", name);
}

/* --- products ------------------------------------------------------------------------------------ */

typedef struct {
  kb_gemm run;
  kb_gemm_args args;
  double macs;
} product;

static double multiply(const void* context) {
  const product* of = context;
  of->run(&of->args);
  return of->macs;
}

/* Bytes that are valid in any form: small, nibbles where they are offsets of tables of 16 bytes,
 * whole floats. */
static void fill(uint8_t* bytes, size_t count, kb_form form, int is_offset) {
  const float one = 1;
  for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)(is_offset ? i * 5 << 4 : i * 7 % 13);
  if (form != KB_FORM_F32) return;
  for (size_t i = 0; i + sizeof one <= count; i += sizeof one) memcpy(bytes + i, &one, sizeof one);
}

/* Windows that overlap, as in an image; one row of a dense layer. */
static product* product_of(kb_gemm run, kb_form form, int rows, int unit_bytes, int steps,
                           const int8_t* levels) {
  const int is_dense = form >= KB_FORM_P1, taps = is_dense ? 1 : SIDE * SIDE;
  const int units = (is_dense ? DENSE : CHANNELS) / kb_unit_channels(form);
  const int of_pixel = units * kb_unit_input_bytes(form, unit_bytes), width = COLUMNS + SIDE - 1;
  const size_t of_image =
      is_dense ? (size_t)of_pixel : (size_t)((PIXELS / COLUMNS + SIDE) * width * of_pixel);
  const size_t of_weights =
      (size_t)(taps * units * rows * kb_unit_weight_bytes(form, unit_bytes));
  product* of = memory(sizeof *of);
  uint8_t *image = memory(of_image), *weights = memory(of_weights);
  ptrdiff_t* offsets = memory((size_t)taps * sizeof *offsets);
  const uint8_t** pixels = memory(PIXELS * sizeof *pixels);
  fill(image, of_image, form, form == KB_FORM_BITS && unit_bytes == 16);
  fill(weights, of_weights, form, 0);
  for (int t = 0; t < taps; t++) offsets[t] = (t / SIDE * width + t % SIDE) * of_pixel;
  for (int p = 0; p < PIXELS; p++)
    pixels[p] = image + (is_dense ? 0 : (p / COLUMNS * width + p % COLUMNS) * of_pixel);
  of->run = run;
  of->args = (kb_gemm_args){.pixels = pixels, .taps = offsets, .weights = weights,
                            .levels = levels, .count = is_dense ? 1 : PIXELS, .tap_count = taps,
                            .units = units, .rows = rows, .used = rows,
                            .unit_bytes = unit_bytes, .steps = steps};
  of->args.sums = memory(PIXELS * (size_t)rows * sizeof(int32_t));
  of->macs = (double)of->args.count * rows * taps * units * kb_unit_channels(form);
  return of;
}

static void add_products(subjects* to, kb_gemm run, kb_form form, kb_isa_id isa, int rows) {
  static const int8_t even[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  static const int8_t uneven[16] = {-20, -12, -9, -6, -5, -3, -2, 0, 1, 2, 4, 5, 7, 9, 12, 20};
  static const struct {
    int steps;
    const char* what;
  } widths[] = {{0, ", no step in 16 bits"}, {1, ", 1 step"}, {2, ", 2 steps"}, {8, ", 8 steps"}};
  kb_kernels kernels;
  char name[48];
  kb_kernels_of(isa, &kernels);
  const int unit_bytes = form == KB_FORM_BITS ? kernels.bits_unit_bytes : 8;
  if (form == KB_FORM_S8) {
    for (int i = 0; i < 4; i++) {
      snprintf(name, sizeof name, "%s%s", form_names[form], widths[i].what);
      add(to, isa, name, multiply, product_of(run, form, rows, unit_bytes, widths[i].steps, even));
    }
    return;
  }
  add(to, isa, form_names[form], multiply, product_of(run, form, rows, unit_bytes, 8, even));
  if (form != KB_FORM_P4) return;
  snprintf(name, sizeof name, "%s, uneven", form_names[form]);
  add(to, isa, name, multiply, product_of(run, form, rows, unit_bytes, 8, uneven));
}

/* --- the other functions ------------------------------------------------------------------------- */

typedef struct {
  kb_levels levels;
  kb_pack_bits pack_bits;
  kb_sum_tables sum_tables;
  kb_put_planes planes;
  kb_search search;
  kb_grid grid;
  kb_steps steps;
  const float* x;
  const uint8_t* codes;
  uint8_t* to; /* the longest are tables, 8 bytes a value */
} values;

static double find_levels(const void* context) {
  const values* of = context;
  of->levels(&of->grid, of->x, VALUES, of->to);
  return VALUES;
}

static double pack_bits(const void* context) {
  const values* of = context;
  of->pack_bits(of->codes, VALUES, 1, of->to);
  return VALUES;
}

static double sum_tables(const void* context) {
  const values* of = context;
  of->sum_tables(of->codes, VALUES, of->to);
  return VALUES;
}

/* Two planes, as of ls2. */
static double find_planes(const void* context) {
  static const float scales[] = {0.5f, 0.25f};
  const values* of = context;
  const kb_planes planes = {-1, 1, 2, scales};
  uint8_t* const to[] = {of->to, of->to + VALUES};
  of->planes(&planes, of->x, VALUES, to);
  return VALUES;
}

static double search(const void* context) {
  const values* of = context;
  of->search(&of->steps, of->x, VALUES, of->to);
  return VALUES;
}

static values* values_of(void) {
  values* of = memory(sizeof *of);
  float* x = memory(VALUES * sizeof *x);
  uint8_t* codes = memory(VALUES);
  uint32_t random = 1;
  for (int i = 0; i < VALUES; i++) {
    random = random * 1664525 + 1013904223;
    x[i] = (float)(random >> 8) / (1 << 23) * 1.2f - 1.2f;
    codes[i] = (uint8_t)(random >> 24);
  }
  of->grid = (kb_grid){.lo = -1, .hi = 1, .origin = 0, .step = 1.0f / 127, .zero = 127, .top = 254};
  of->steps = (kb_steps){.depth = 4, .borders = {[1] = 0, -0.5f, 0.5f, -0.75f, -0.25f, 0.25f}};
  of->x = x;
  of->codes = codes;
  of->to = memory(VALUES * KB_TABLE_BYTES / 4);
  return of;
}

/* --- sums to outputs ----------------------------------------------------------------------------- */

enum { ROWS = 64, STRIDE = PIXELS * ROWS };

typedef struct {
  kb_finish run;
  kb_finish_args args;
  kb_finish_whole run_whole;
  kb_finish_whole_args whole;
} finish;

static double run_finish(const void* context) {
  const finish* of = context;
  of->run(&of->args);
  return STRIDE;
}

static double run_finish_whole(const void* context) {
  const finish* of = context;
  of->run_whole(&of->whole);
  return STRIDE;
}

static const void* const* starts_of(const void* rows) {
  const void** starts = memory(PIXELS * sizeof *starts);
  for (int p = 0; p < PIXELS; p++) starts[p] = rows;
  return starts;
}

/* One part, in double. */
static void add_finish(subjects* to, kb_finish run, kb_isa_id isa) {
  finish* of = memory(sizeof *of);
  double* rows = memory(ROWS * sizeof *rows);
  of->run = run;
  of->args = (kb_finish_args){.sums = memory(STRIDE * sizeof(int32_t)), .parts = 1,
                              .scales = rows, .base = starts_of(rows), .low = 0, .high = 6,
                              .count = PIXELS, .rows = ROWS, .used = ROWS,
                              .y = memory(STRIDE * sizeof(float)), .y_stride = ROWS};
  add(to, isa, "finish, outputs", run_finish, of);
}

/* Whole numbers: one part, or several with offsets of the weights. */
static void add_finish_whole(subjects* to, kb_finish_whole run, kb_isa_id isa, int parts) {
  static const int32_t shifts[4] = {0, 1, 1, 2};
  char name[48];
  finish* of = memory(sizeof *of);
  float* rows = memory(ROWS * sizeof *rows);
  int32_t* offsets = memory((ROWS + PIXELS) * sizeof *offsets);
  of->run_whole = run;
  of->whole = (kb_finish_whole_args){.sums = memory(4 * STRIDE * sizeof(int32_t)),
                                     .part_stride = STRIDE * sizeof(int32_t), .parts = parts,
                                     .starts = starts_of(offsets), .scales = rows, .biases = rows,
                                     .low = 0, .high = 6, .count = PIXELS, .rows = ROWS,
                                     .used = ROWS, .y = memory(STRIDE * sizeof(float)),
                                     .y_stride = ROWS};
  if (parts > 1) {
    of->whole.shifts = shifts;
    of->whole.input_weights = offsets;
    of->whole.input_sums = offsets;
  }
  snprintf(name, sizeof name, "finish_whole of %d, outputs", parts);
  add(to, isa, name, run_finish_whole, of);
}

/* --- depthwise ------------------------------------------------------------------------------------ */

typedef struct {
  kb_depthwise run;
  kb_depthwise_args args;
} depthwise;

static double run_depthwise(const void* context) {
  const depthwise* of = context;
  of->run(&of->args);
  return (double)of->args.count * of->args.tap_count * of->args.channels;
}

static void add_depthwise(subjects* to, kb_depthwise run, kb_isa_id isa, int most) {
  enum { DEPTHS = 192, TAPS = 9, AT_ONCE = 28 };
  const int together = kb_depthwise_together(isa), width = AT_ONCE + 2;
  char name[48];
  depthwise* of = memory(sizeof *of);
  uint8_t* image = memory(3 * (size_t)width * DEPTHS);
  ptrdiff_t* taps = memory(TAPS * sizeof *taps);
  int16_t* weights = memory(TAPS * DEPTHS * sizeof *weights);
  kb_depthwise_digits* digits = memory(sizeof *digits);
  for (int t = 0; t < TAPS; t++) taps[t] = (t / 3 * width + t % 3) * DEPTHS;
  for (int i = 0; i < TAPS * DEPTHS; i++) weights[i] = (int16_t)(i * 5 % (2 * most + 1) - most);
  if (together && kb_depthwise_cut(digits, together, weights, TAPS, DEPTHS, 255)) exit(1);
  of->run = run;
  of->args = (kb_depthwise_args){.pixel = image, .pixel_step = DEPTHS, .taps = taps,
                                 .count = AT_ONCE, .tap_count = TAPS, .channels = DEPTHS,
                                 .weights = weights, .fits16 = most * 255 * TAPS <= INT16_MAX,
                                 .digits = together ? digits : NULL};
  of->args.sums = memory(AT_ONCE * DEPTHS * sizeof(int32_t));
  snprintf(name, sizeof name, "depthwise 3x3, weights to %d", most);
  add(to, isa, name, run_depthwise, of);
}

/* --- all ------------------------------------------------------------------------------------------ */

static void add_all(subjects* to) {
#define KB_GEMM(function, form, isa, rows) \
  if (kb_isa_supported(isa)) add_products(to, function, form, isa, rows);
#include "kernels.inc"
#define ADD_VALUES(function, isa, what, call)  \
  if (kb_isa_supported(isa)) {                 \
    values* of = values_of();                  \
    of->what = function;                       \
    add(to, isa, #what ", values", call, of);  \
  }
#define KB_LEVELS(function, isa) ADD_VALUES(function, isa, levels, find_levels)
#include "kernels.inc"
#define KB_PACK_BITS(function, isa, bytes) ADD_VALUES(function, isa, pack_bits, pack_bits)
#include "kernels.inc"
#define KB_SUM_TABLES(function, isa) ADD_VALUES(function, isa, sum_tables, sum_tables)
#include "kernels.inc"
#define KB_PLANES(function, isa, bytes) ADD_VALUES(function, isa, planes, find_planes)
#include "kernels.inc"
#define KB_SEARCH(function, isa) ADD_VALUES(function, isa, search, search)
#include "kernels.inc"
#define KB_FINISH(function, isa) \
  if (kb_isa_supported(isa)) add_finish(to, function, isa);
#include "kernels.inc"
#define KB_FINISH_WHOLE(function, isa)             \
  if (kb_isa_supported(isa)) {                     \
    add_finish_whole(to, function, isa, 1);        \
    add_finish_whole(to, function, isa, 4);        \
  }
#include "kernels.inc"
#define KB_DEPTHWISE(function, isa)         \
  if (kb_isa_supported(isa)) {              \
    add_depthwise(to, function, isa, 7);    \
    add_depthwise(to, function, isa, 127);  \
  }
#include "kernels.inc"
}

int main(int count, char** given) {
  static double found[MOST_SUBJECTS][MOST_ROUNDS];
  static subjects all;
  const int rounds = rounds_of(count, given);
  add_all(&all);
  for (int r = 0; r < rounds; r++)
    for (int i = 0; i < all.count; i++)
      found[i][r] = work_per_cycle(all.all[i].run, all.all[i].context);
  for (int i = 0; i < all.count; i++)
    print_quartiles(all.all[i].isa, all.all[i].name, found[i], rounds);
  return 0;
}
