#include "blob.h"

#include <math.h>

#include "crc32.h"

enum { kHeaderBytes = 128, kAlignment = 8, kCrcAt = 8, kReservedAt = 58, kSectionsAt = 88 };

static const char* const kSectionNames[KB_SECTIONS] = {
    "channel bits", "codes", "scale",        "offset",       "zero",
    "levels",       "multiplier", "bias", "input levels", "input borders"};

static int all_zero(const uint8_t* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    if (p[i]) return 0;
  }
  return 1;
}

static uint64_t aligned(uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

static int check_frame(const uint8_t* p, size_t bytes, kb_error error) {
  if (bytes < kHeaderBytes)
    return kb_fail(error, "blob: expected at least %d bytes, got %zu", kHeaderBytes, bytes);
  if (memcmp(p, "KBIT", 4))
    return kb_fail(error, "blob, byte 0: expected the magic KBIT, got another");
  if (p[4] != 2 || p[5] != 0)
    return kb_fail(error, "blob, byte 4: expected version 2, got %d", p[4] | p[5] << 8);
  uint64_t total = kHeaderBytes;
  for (int i = 0; i < KB_SECTIONS; i++) total += aligned(kb_load_u32(p + kSectionsAt + 4 * i));
  if (total != bytes)
    return kb_fail(error, "blob: expected %llu bytes by its sections, got %zu",
                   (unsigned long long)total, bytes);
  uint32_t crc = kb_crc32_around(p, bytes, kCrcAt);
  if (kb_load_u32(p + kCrcAt) != crc)
    return kb_fail(error, "blob, byte %d: expected checksum %08x, got %08x", kCrcAt, crc,
                   kb_load_u32(p + kCrcAt));
  if (p[kReservedAt] || p[kReservedAt + 1])
    return kb_fail(error, "blob, byte %d: expected reserved bytes 0, got others", kReservedAt);
  return 0;
}

/* The frame is in order: the sections fill the blob. */
static int find_sections(const uint8_t* p, kb_blob* blob, kb_error error) {
  const uint8_t* at = p + kHeaderBytes;
  for (int i = 0; i < KB_SECTIONS; i++) {
    const size_t length = kb_load_u32(p + kSectionsAt + 4 * i);
    const size_t padding = (size_t)aligned(length) - length;
    blob->section[i] = (kb_section){at, length};
    at += length;
    if (!all_zero(at, padding))
      return kb_fail(error, "blob, byte %zu: expected zero bytes behind section %s, got others",
                     (size_t)(at - p), kSectionNames[i]);
    at += padding;
  }
  return 0;
}

/* A field as a number in [low, high]; the first one outside is kept in `error`. */
typedef struct {
  const uint8_t* p;
  kb_error error;
  int failed;
} kb_fields;

static int64_t field(kb_fields* f, int at, int size, int64_t low, int64_t high) {
  int64_t value = size == 1 ? f->p[at] : size == 2 ? f->p[at] | f->p[at + 1] << 8
                                                   : (int64_t)kb_load_u32(f->p + at);
  if ((value < low || value > high) && !f->failed) {
    f->failed = 1;
    kb_fail(f->error, "blob, byte %d: expected a number in [%lld, %lld], got %lld", at,
            (long long)low, (long long)high, (long long)value);
  }
  return value;
}

static void read_geometry(kb_fields* f, kb_blob* blob) {
  blob->op = (int)field(f, 6, 1, KB_DENSE, KB_EMBEDDING);
  const int windowed = blob->op == KB_CONV2D || blob->op == KB_DEPTHWISE;
  const int64_t limit = windowed ? UINT16_MAX : 1;
  blob->encoding = (int)field(f, 7, 1, KB_UNIFORM, KB_FLOATS);
  blob->out = field(f, 12, 4, 1, INT32_MAX);
  blob->in = field(f, 16, 4, 1, blob->op == KB_DEPTHWISE ? 1 : INT32_MAX);
  blob->groups = field(f, 20, 4, 1, windowed ? blob->out : 1);
  blob->padding = (int)field(f, 48, 1, KB_VALID, windowed ? KB_EXPLICIT : KB_VALID);
  blob->axis = (int)field(f, 49, 1, 0, blob->op == KB_EMBEDDING);
  const int64_t pad_limit = blob->padding == KB_EXPLICIT ? UINT16_MAX : 0;
  const int64_t most_between = blob->padding == KB_SAME ? 1 : limit;
  for (int axis = 0; axis < 2; axis++) {
    blob->kernel[axis] = field(f, 24 + 2 * axis, 2, 1, limit);
    blob->stride[axis] = field(f, 28 + 2 * axis, 2, 1, limit);
    blob->dilation[axis] = field(f, 32 + 2 * axis, 2, 1, limit);
    blob->input_dilation[axis] = field(f, 36 + 2 * axis, 2, 1, most_between);
    blob->pad_before[axis] = field(f, 40 + 4 * axis, 2, 0, pad_limit);
    blob->pad_after[axis] = field(f, 42 + 4 * axis, 2, 0, pad_limit);
  }
  blob->act_min = kb_load_f32(f->p + 60);
  blob->act_max = kb_load_f32(f->p + 64);
}

static void read_formats(kb_fields* f, kb_blob* blob) {
  blob->weight_bits =
      (int)field(f, 50, 1, 0, blob->encoding == KB_FLOATS ? KB_FLOAT_BITS : KB_MAX_BITS);
  int table = blob->encoding == KB_TABLE;
  blob->table_length = (int)field(f, 54, 2, table, table ? UINT16_MAX : 0);
  int kind = blob->input_kind =
      (int)field(f, 51, 1, KB_INPUT_FLOAT, blob->op == KB_EMBEDDING ? KB_INPUT_FLOAT
                                                                    : KB_INPUT_PLANES);
  int is_float = kind == KB_INPUT_FLOAT;
  blob->input_bits = (int)field(f, 52, 1, is_float ? KB_FLOAT_BITS : 1,
                                is_float ? KB_FLOAT_BITS : KB_MAX_BITS);
  blob->input_signed = (int)field(f, 53, 1, 0, kind == KB_INPUT_TABLE);
  int64_t low = kind == KB_INPUT_TABLE ? 1 : kind == KB_INPUT_PLANES ? blob->input_bits : 0;
  int64_t high = kind == KB_INPUT_TABLE ? UINT16_MAX : low;
  blob->input_length = (int)field(f, 56, 2, low, high);
  blob->input_lo = kb_load_f32(f->p + 68);
  blob->input_hi = kb_load_f32(f->p + 72);
  blob->input_origin = kb_load_f32(f->p + 76);
  blob->input_step = kb_load_f32(f->p + 80);
  blob->input_zero = kb_load_i32(f->p + 84);
}

static int check_input_ranges(const kb_blob* blob, kb_error error) {
  if (blob->input_kind != KB_INPUT_TABLE && !(blob->input_lo <= blob->input_hi))
    return kb_fail(error, "blob, byte 68: expected input lo <= hi, got %g, %g",
                   (double)blob->input_lo, (double)blob->input_hi);
  int uniform = blob->input_kind == KB_INPUT_UNIFORM, table = blob->input_kind == KB_INPUT_TABLE;
  float origin = blob->input_origin, step = blob->input_step;
  if ((uniform || table) && !(isfinite(origin) && isfinite(step) && (uniform ? step : origin) > 0))
    return kb_fail(error, "blob, byte 76: expected finite values and a positive %s, got %g, %g",
                   uniform ? "step" : "unit", (double)origin, (double)step);
  if (uniform && (blob->input_zero < -KB_MAX_ZERO || blob->input_zero > KB_MAX_ZERO))
    return kb_fail(error, "blob, byte 84: expected an input zero within +-%d, got %d",
                   KB_MAX_ZERO, blob->input_zero);
  return 0;
}

static int check_ranges(kb_blob* blob, kb_error error) {
  if (blob->out % blob->groups)
    return kb_fail(error, "blob, byte 20: expected groups that divide %lld outputs, got %lld",
                   (long long)blob->out, (long long)blob->groups);
  if (__builtin_mul_overflow(blob->kernel[0], blob->kernel[1], &blob->row) ||
      __builtin_mul_overflow(blob->row, blob->in, &blob->row) ||
      blob->row > INT32_MAX / blob->out)
    return kb_fail(error, "blob, byte 12: expected fewer than 2^31 weights, got more");
  if (!(blob->act_min <= blob->act_max))
    return kb_fail(error, "blob, byte 60: expected act_min <= act_max, got %g, %g",
                   (double)blob->act_min, (double)blob->act_max);
  if (blob->op == KB_EMBEDDING &&
      !(isinf(blob->act_min) && isinf(blob->act_max) && blob->act_min < blob->act_max &&
        isinf(blob->input_lo) && isinf(blob->input_hi) && blob->input_lo < blob->input_hi))
    return kb_fail(error, "blob, byte 60: expected no clamp for an embedding, got one");
  return check_input_ranges(blob, error);
}

int kb_blob_check_bytes(const kb_blob* blob, int section, uint64_t expected, kb_error error) {
  if (blob->section[section].bytes == expected) return 0;
  return kb_fail(error, "blob, section %s: expected %llu bytes, got %zu", kSectionNames[section],
                 (unsigned long long)expected, blob->section[section].bytes);
}

/* Sections of channel parameters hold one entry for all channels, or one for each; `optional`
 * ones may be absent. */
static uint64_t parameter_bytes(const kb_blob* blob, int section, int rows, int optional) {
  const uint64_t bytes = blob->section[section].bytes, shared = 4 * (uint64_t)rows;
  if (bytes == shared || (optional && bytes == 0)) return bytes;
  return shared * (uint64_t)blob->out;
}

static int check_section_sizes(const kb_blob* blob, kb_error error) {
  uint64_t out = (uint64_t)blob->out;
  int uniform = blob->encoding == KB_UNIFORM, planes = blob->encoding == KB_PLANES;
  int input_table = blob->input_kind == KB_INPUT_TABLE, embedding = blob->op == KB_EMBEDDING;
  int scales = blob->encoding == KB_FLOATS ? 0 : planes ? blob->weight_bits : 1;
  uint64_t length = (uint64_t)blob->input_length;
  int widths = blob->section[KB_CHANNEL_BITS].bytes || !blob->weight_bits;
  uint64_t expected[KB_SECTIONS] = {
      [KB_CHANNEL_BITS] = widths ? out : 0,
      [KB_CODES] = blob->section[KB_CODES].bytes,
      [KB_SCALE] = parameter_bytes(blob, KB_SCALE, scales, 0),
      [KB_OFFSET] = uniform || planes ? parameter_bytes(blob, KB_OFFSET, 1, 1) : 0,
      [KB_ZERO] = uniform ? parameter_bytes(blob, KB_ZERO, 1, 1) : 0,
      [KB_LEVELS] = 2 * (uint64_t)blob->table_length,
      [KB_MULTIPLIER] = blob->section[KB_MULTIPLIER].bytes && !embedding ? 4 * out : 0,
      [KB_BIAS] = blob->section[KB_BIAS].bytes && !embedding ? 4 * out : 0,
      [KB_INPUT_LEVELS] = input_table ? 2 * length : 0,
      [KB_INPUT_BORDERS] = input_table ? 4 * (length - 1) : 4 * length,
  };
  for (int i = 0; i < KB_SECTIONS; i++) {
    if (kb_blob_check_bytes(blob, i, expected[i], error)) return -1;
  }
  return 0;
}

static int check_numbers(const kb_blob* blob, kb_error error) {
  static const int floats[] = {KB_SCALE, KB_OFFSET, KB_MULTIPLIER, KB_BIAS, KB_INPUT_BORDERS};
  for (size_t s = 0; s < sizeof floats / sizeof *floats; s++) {
    for (size_t i = 0; i < blob->section[floats[s]].bytes / 4; i++) {
      if (!isfinite(kb_blob_f32(blob, floats[s], (int64_t)i)))
        return kb_fail(error, "blob, section %s: expected finite values, got another at %zu",
                       kSectionNames[floats[s]], i);
    }
  }
  size_t values = blob->encoding == KB_FLOATS ? blob->section[KB_CODES].bytes / 4 : 0;
  for (size_t i = 0; i < values; i++) {
    if (!isfinite(kb_blob_f32(blob, KB_CODES, (int64_t)i)))
      return kb_fail(error, "blob, section codes: expected finite values, got another at %zu", i);
  }
  for (size_t i = 0; i < blob->section[KB_ZERO].bytes / 4; i++) {
    int32_t zero = kb_load_i32(blob->section[KB_ZERO].data + 4 * i);
    if (zero < -KB_MAX_ZERO || zero > KB_MAX_ZERO)
      return kb_fail(error, "blob, section zero: expected within +-%d, got %d", KB_MAX_ZERO,
                     zero);
  }
  return 0;
}

static int check_input_table(const kb_blob* blob, kb_error error) {
  int count = blob->input_length;
  int64_t codes = blob->input_signed ? 2 * (int64_t)count - 1 : count;
  if (codes > (int64_t)1 << blob->input_bits)
    return kb_fail(error, "blob, byte 56: expected at most 2^%d input codes, got %lld",
                   blob->input_bits, (long long)codes);
  if (kb_blob_i16(blob, KB_INPUT_LEVELS, 0) != 0)
    return kb_fail(error, "blob, section input levels: expected 0 first, got another");
  for (int i = 1; i < count; i++) {
    int low = kb_blob_i16(blob, KB_INPUT_LEVELS, i - 1);
    int high = kb_blob_i16(blob, KB_INPUT_LEVELS, i);
    if (high <= low)
      return kb_fail(error, "blob, section input levels: expected rising, got %d, %d", low, high);
    if (i > 1 && !(kb_blob_f32(blob, KB_INPUT_BORDERS, i - 2) <=
                   kb_blob_f32(blob, KB_INPUT_BORDERS, i - 1)))
      return kb_fail(error, "blob, section input borders: expected rising, got falling at %d", i);
  }
  return 0;
}

int kb_blob_read(const void* data, size_t bytes, kb_blob* blob, kb_error error) {
  const uint8_t* p = data;
  *blob = (kb_blob){0};
  if (check_frame(p, bytes, error) || find_sections(p, blob, error)) return -1;
  kb_fields fields = {p, error, 0};
  read_geometry(&fields, blob);
  if (!fields.failed) read_formats(&fields, blob);
  if (fields.failed || check_ranges(blob, error) || check_section_sizes(blob, error) ||
      kb_blob_find_codes(blob, error) || check_numbers(blob, error))
    return -1;
  return blob->input_kind == KB_INPUT_TABLE ? check_input_table(blob, error) : 0;
}
