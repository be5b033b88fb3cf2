#include "blob.h"

#include <math.h>

enum { kHeaderBytes = 256, kAlignment = 64, kTotalAt = 8, kCrcAt = 12, kSectionsAt = 112 };
enum { kReservedAt = kSectionsAt + 8 * KB_SECTIONS };

static const char* const kSectionNames[KB_SECTIONS] = {
    "channel bits", "codes", "scale",        "offset",       "zero",
    "levels",       "multiplier", "bias", "input levels", "input borders"};

static uint32_t crc32_add(uint32_t crc, const uint32_t* table, const uint8_t* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
  return crc;
}

/* CRC-32 of zlib, of the blob with the checksum field 0. */
static uint32_t checksum(const uint8_t* p, size_t bytes) {
  static const uint8_t zeros[4];
  uint32_t table[256];
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    table[i] = crc;
  }
  uint32_t crc = crc32_add(~0u, table, p, kCrcAt);
  crc = crc32_add(crc, table, zeros, 4);
  return ~crc32_add(crc, table, p + kCrcAt + 4, bytes - kCrcAt - 4);
}

static int all_zero(const uint8_t* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    if (p[i]) return 0;
  }
  return 1;
}

static int check_frame(const uint8_t* p, size_t bytes, kb_error error) {
  if (bytes < kHeaderBytes)
    return kb_fail(error, "blob: expected at least %d bytes, got %zu", kHeaderBytes, bytes);
  if (memcmp(p, "KBIT", 4))
    return kb_fail(error, "blob, byte 0: expected the magic KBIT, got another");
  if (p[4] != 1 || p[5] != 0)
    return kb_fail(error, "blob, byte 4: expected version 1, got %d", p[4] | p[5] << 8);
  if (kb_load_u32(p + kTotalAt) != bytes || bytes % kAlignment)
    return kb_fail(error, "blob, byte 8: expected length %u, a multiple of 64, got %zu bytes",
                   kb_load_u32(p + kTotalAt), bytes);
  uint32_t crc = checksum(p, bytes);
  if (kb_load_u32(p + kCrcAt) != crc)
    return kb_fail(error, "blob, byte 12: expected checksum %08x, got %08x", crc,
                   kb_load_u32(p + kCrcAt));
  if (!all_zero(p + kReservedAt, kHeaderBytes - kReservedAt) || p[87] || p[110] || p[111])
    return kb_fail(error, "blob, byte %d: expected reserved bytes 0, got others", kReservedAt);
  return 0;
}

static int find_sections(const uint8_t* p, size_t bytes, kb_blob* blob, kb_error error) {
  size_t end = kHeaderBytes;
  for (int i = 0; i < KB_SECTIONS; i++) {
    const uint8_t* entry = p + kSectionsAt + 8 * i;
    size_t at = kb_load_u32(entry), length = kb_load_u32(entry + 4);
    blob->section[i] = (kb_section){p, 0};
    if (at == 0 && length == 0) continue;
    if (at != end || length == 0 || length > bytes - at)
      return kb_fail(error, "blob, byte %d: expected section %s at %zu, got %zu with %zu bytes",
                     kSectionsAt + 8 * i, kSectionNames[i], end, at, length);
    end = (at + length + kAlignment - 1) / kAlignment * kAlignment;
    if (end > bytes || !all_zero(p + at + length, end - at - length))
      return kb_fail(error, "blob, byte %zu: expected zero bytes behind section %s, got others",
                     at + length, kSectionNames[i]);
    blob->section[i] = (kb_section){p + at, length};
  }
  if (end != bytes)
    return kb_fail(error, "blob, byte 8: expected %zu bytes, got %zu", end, bytes);
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
  blob->op = (int)field(f, 6, 1, KB_DENSE, KB_DEPTHWISE);
  int dense = blob->op == KB_DENSE;
  blob->encoding = (int)field(f, 7, 1, KB_UNIFORM, KB_FLOATS);
  blob->out = field(f, 16, 4, 1, INT32_MAX);
  blob->in = field(f, 28, 4, 1, blob->op == KB_DEPTHWISE ? 1 : INT32_MAX);
  blob->groups = field(f, 32, 4, 1, dense ? 1 : blob->out);
  blob->padding = (int)field(f, 52, 4, KB_VALID, dense ? KB_VALID : KB_EXPLICIT);
  int64_t pad_limit = blob->padding == KB_EXPLICIT ? INT32_MAX : 0;
  for (int axis = 0; axis < 2; axis++) {
    blob->kernel[axis] = field(f, 20 + 4 * axis, 4, 1, dense ? 1 : INT32_MAX);
    blob->stride[axis] = field(f, 36 + 4 * axis, 4, 1, dense ? 1 : INT32_MAX);
    blob->dilation[axis] = field(f, 44 + 4 * axis, 4, 1, dense ? 1 : INT32_MAX);
    blob->pad_before[axis] = field(f, 56 + 8 * axis, 4, 0, pad_limit);
    blob->pad_after[axis] = field(f, 60 + 8 * axis, 4, 0, pad_limit);
  }
  blob->act_min = kb_load_f32(f->p + 72);
  blob->act_max = kb_load_f32(f->p + 76);
}

static void read_formats(kb_fields* f, kb_blob* blob) {
  int floats = blob->encoding == KB_FLOATS;
  blob->weight_bits = (int)field(f, 80, 1, 0, floats ? KB_FLOAT_BITS : KB_MAX_BITS);
  blob->per_channel = (int)field(f, 81, 1, 0, !floats);
  int table = blob->encoding == KB_TABLE;
  blob->table_length = (int)field(f, 82, 2, table, table ? 65535 : 0);
  int kind = blob->input_kind = (int)field(f, 84, 1, KB_INPUT_FLOAT, KB_INPUT_PLANES);
  int is_float = kind == KB_INPUT_FLOAT;
  blob->input_bits = (int)field(f, 85, 1, is_float ? KB_FLOAT_BITS : 1,
                                is_float ? KB_FLOAT_BITS : KB_MAX_BITS);
  blob->input_signed = (int)field(f, 86, 1, 0, kind == KB_INPUT_TABLE);
  blob->input_lo = kb_load_f32(f->p + 88);
  blob->input_hi = kb_load_f32(f->p + 92);
  blob->input_origin = kb_load_f32(f->p + 96);
  blob->input_step = kb_load_f32(f->p + 100);
  blob->input_zero = kb_load_i32(f->p + 104);
  int64_t low = kind == KB_INPUT_TABLE ? 1 : kind == KB_INPUT_PLANES ? blob->input_bits : 0;
  int64_t high = kind == KB_INPUT_TABLE ? 65535 : low;
  blob->input_length = (int)field(f, 108, 2, low, high);
}

static int check_ranges(kb_blob* blob, kb_error error) {
  if (blob->out % blob->groups)
    return kb_fail(error, "blob, byte 32: expected groups that divide %lld outputs, got %lld",
                   (long long)blob->out, (long long)blob->groups);
  if (__builtin_mul_overflow(blob->kernel[0], blob->kernel[1], &blob->row) ||
      __builtin_mul_overflow(blob->row, blob->in, &blob->row) ||
      blob->row > INT32_MAX / blob->out)
    return kb_fail(error, "blob, byte 16: expected fewer than 2^31 weights, got more");
  if (!(blob->act_min <= blob->act_max))
    return kb_fail(error, "blob, byte 72: expected act_min <= act_max, got %g, %g",
                   (double)blob->act_min, (double)blob->act_max);
  if (blob->input_kind != KB_INPUT_TABLE && !(blob->input_lo <= blob->input_hi))
    return kb_fail(error, "blob, byte 88: expected input lo <= hi, got %g, %g",
                   (double)blob->input_lo, (double)blob->input_hi);
  int uniform = blob->input_kind == KB_INPUT_UNIFORM, table = blob->input_kind == KB_INPUT_TABLE;
  float origin = blob->input_origin, step = blob->input_step;
  if ((uniform || table) && !(isfinite(origin) && isfinite(step) && (uniform ? step : origin) > 0))
    return kb_fail(error, "blob, byte 96: expected finite values and a positive %s, got %g, %g",
                   uniform ? "step" : "unit", (double)origin, (double)step);
  if (uniform && (blob->input_zero < -KB_MAX_ZERO || blob->input_zero > KB_MAX_ZERO))
    return kb_fail(error, "blob, byte 104: expected a zero within +-2^24, got %d",
                   blob->input_zero);
  return 0;
}

static int check_channel_bits(kb_blob* blob, int64_t* count, kb_error error) {
  const uint8_t* bits = blob->section[KB_CHANNEL_BITS].data;
  int widest = 0, widths = 0;
  for (int64_t o = 0; o < blob->out; o++) {
    count[bits[o]]++;
    if (bits[o] > widest) widest = bits[o];
  }
  if (widest != blob->weight_bits)
    return kb_fail(error, "blob, byte 80: expected %d, the widest channel, got %d", widest,
                   blob->weight_bits);
  if (blob->encoding == KB_FLOATS && count[0] + count[KB_FLOAT_BITS] != blob->out)
    return kb_fail(error, "blob, section channel bits: expected 0 or %d, got others",
                   KB_FLOAT_BITS);
  for (int width = 1; width <= widest; width++) widths += count[width] > 0;
  if (blob->encoding != KB_UNIFORM && widths > 1)
    return kb_fail(error, "blob, section channel bits: expected one width, got %d", widths);
  return 0;
}

static int check_code_bytes(const kb_blob* blob, size_t expected, kb_error error) {
  if (blob->section[KB_CODES].bytes == expected) return 0;
  return kb_fail(error, "blob, section codes: expected %zu bytes, got %zu", expected,
                 blob->section[KB_CODES].bytes);
}

/* Find the streams of each width; no bit may be set behind the codes of a stream. */
static int find_streams(kb_blob* blob, const int64_t* count, kb_error error) {
  size_t at = 0;
  for (int width = 1; width <= KB_MAX_BITS; width++) {
    blob->stream_at[width] = at;
    blob->stream_bytes[width] = (size_t)((count[width] * blob->row + 63) / 64 * 8);
    at += (size_t)width * blob->stream_bytes[width];
  }
  if (check_code_bytes(blob, at, error)) return -1;
  for (int width = 1; width <= KB_MAX_BITS; width++) {
    const uint8_t* stream = blob->section[KB_CODES].data + blob->stream_at[width];
    int64_t used = count[width] * blob->row;
    for (int plane = 0; plane < width; plane++, stream += blob->stream_bytes[width]) {
      for (int64_t bit = used; bit < (int64_t)blob->stream_bytes[width] * 8; bit++) {
        if (stream[bit / 8] >> bit % 8 & 1)
          return kb_fail(error, "blob, section codes: expected zero bits behind the codes of "
                                "width %d, got 1", width);
      }
    }
  }
  return 0;
}

static int check_codes(kb_blob* blob, kb_error error) {
  int64_t count[256] = {0};
  if (check_channel_bits(blob, count, error)) return -1;
  if (blob->encoding != KB_FLOATS) return find_streams(blob, count, error);
  return check_code_bytes(blob, (size_t)(count[KB_FLOAT_BITS] * blob->row) * 4, error);
}

static int check_section_sizes(const kb_blob* blob, kb_error error) {
  size_t out = (size_t)blob->out, width = blob->per_channel ? out : 1;
  int uniform = blob->encoding == KB_UNIFORM, planes = blob->encoding == KB_PLANES;
  int input_table = blob->input_kind == KB_INPUT_TABLE;
  size_t scales = blob->encoding == KB_FLOATS ? 0 : planes ? (size_t)blob->weight_bits : 1;
  size_t length = (size_t)blob->input_length;
  size_t expected[KB_SECTIONS] = {
      [KB_CHANNEL_BITS] = out,
      [KB_CODES] = blob->section[KB_CODES].bytes,
      [KB_SCALE] = 4 * width * scales,
      [KB_OFFSET] = uniform || planes ? 4 * width : 0,
      [KB_ZERO] = uniform ? 4 * width : 0,
      [KB_LEVELS] = 2 * (size_t)blob->table_length,
      [KB_MULTIPLIER] = blob->section[KB_MULTIPLIER].bytes ? 4 * out : 0,
      [KB_BIAS] = blob->section[KB_BIAS].bytes ? 4 * out : 0,
      [KB_INPUT_LEVELS] = input_table ? 2 * length : 0,
      [KB_INPUT_BORDERS] = input_table ? 4 * (length - 1) : 4 * length,
  };
  for (int i = 0; i < KB_SECTIONS; i++) {
    if (blob->section[i].bytes != expected[i])
      return kb_fail(error, "blob, section %s: expected %zu bytes, got %zu", kSectionNames[i],
                     expected[i], blob->section[i].bytes);
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
      return kb_fail(error, "blob, section zero: expected within +-2^24, got %d", zero);
  }
  return 0;
}

static int check_input_table(const kb_blob* blob, kb_error error) {
  int count = blob->input_length;
  int64_t codes = blob->input_signed ? 2 * (int64_t)count - 1 : count;
  if (codes > (int64_t)1 << blob->input_bits)
    return kb_fail(error, "blob, byte 108: expected at most 2^%d input codes, got %lld",
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
  if (check_frame(p, bytes, error) || find_sections(p, bytes, blob, error)) return -1;
  kb_fields fields = {p, error, 0};
  read_geometry(&fields, blob);
  if (!fields.failed) read_formats(&fields, blob);
  if (fields.failed || check_ranges(blob, error) || check_section_sizes(blob, error) ||
      check_codes(blob, error) || check_numbers(blob, error))
    return -1;
  return blob->input_kind == KB_INPUT_TABLE ? check_input_table(blob, error) : 0;
}

void kb_blob_codes(const kb_blob* blob, int width, int64_t rank, uint16_t* codes) {
  memset(codes, 0, (size_t)blob->row * sizeof *codes);
  const uint8_t* stream = blob->section[KB_CODES].data + blob->stream_at[width];
  for (int plane = 0; plane < width; plane++, stream += blob->stream_bytes[width]) {
    for (int64_t k = 0, bit = rank * blob->row; k < blob->row; k++, bit++)
      codes[k] |= (uint16_t)((stream[bit / 8] >> bit % 8 & 1) << plane);
  }
}
