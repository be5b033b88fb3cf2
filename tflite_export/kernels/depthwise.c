/* Weights of depthwise layers as digits. */
#include "depthwise.h"

#include <stdlib.h>

int kb_depthwise_together(kb_isa_id isa) {
  return isa == KB_ISA_AVX512 ? 4 : isa == KB_ISA_AVX2 ? 2 : 0;
}

typedef struct {
  const int16_t* weights;
  int together, tap_count, channels, max_input;
} layer;

static int weight_at(const layer* from, int tap, int channel) {
  if (tap >= from->tap_count || channel >= from->channels) return 0;
  return from->weights[(size_t)tap * (size_t)from->channels + (size_t)channel];
}

static int digits_of(const layer* from, int first) {
  int count = 1;
  for (int c = first; c < first + KB_DW_BLOCK; c++) {
    int64_t total = 0;
    for (int tap = 0; tap < from->tap_count; tap++) {
      const int weight = weight_at(from, tap, c);
      if (weight < KB_DW_LEAST || weight > KB_DW_MOST) return 0;
      if (weight < INT8_MIN || weight > INT8_MAX) count = 2;
      total += abs(weight);
    }
    if (total * from->max_input > INT16_MAX && from->together == 2) count = 2;
  }
  return from->together == 2 || count == 1 ? count : 0;
}

/* Bytes lie as unpack instructions put those of taps, within lanes of 16 bytes: of 2 taps, part h
 * has the channels 8 h to 8 h + 7, then 16 + 8 h to 16 + 8 h + 7; of 4, part h has 4 h to 4 h + 3
 * and 16 + 4 h to 16 + 4 h + 3; and of each channel the taps. */
static int place(const layer* from, int first, int group, int i) {
  const int taps = from->together, part = i / 32, lane = i % 32 / 16, inside = i % 16 / taps;
  const int channel = first + 16 * lane + 16 / taps * part + inside;
  return weight_at(from, taps * group + i % taps, channel);
}

static void cut_block(const layer* from, int first, int count, int8_t* high, int8_t* low) {
  const size_t bytes = kb_depthwise_bytes(from->together, from->tap_count);
  const size_t of_group = (size_t)from->together * KB_DW_BLOCK;
  for (size_t i = 0; i < bytes; i++) {
    const int weight = place(from, first, (int)(i / of_group), (int)(i % of_group));
    const int upper = count == 2 ? (weight - KB_DW_LEAST) / 16 - 8 : 0;
    high[i] = (int8_t)upper;
    low[i] = (int8_t)(weight - 16 * upper);
  }
}

int kb_depthwise_cut(kb_depthwise_digits* digits, int together, const int16_t* weights,
                     int tap_count, int channels, int max_input) {
  const layer from = {weights, together, tap_count, channels, max_input};
  const int blocks = kb_depthwise_blocks(channels);
  const size_t digit = kb_depthwise_bytes(together, tap_count);
  digits->together = together;
  digits->bytes = kb_alloc((size_t)blocks, 2 * digit);
  digits->counts = kb_alloc((size_t)blocks, sizeof *digits->counts);
  if (!digits->bytes || !digits->counts) return -1;
  for (int block = 0; block < blocks; block++) {
    const int first = kb_depthwise_first(channels, block), count = digits_of(&from, first);
    int8_t* high = digits->bytes + (size_t)block * 2 * digit;
    digits->counts[block] = (uint8_t)count;
    if (count) cut_block(&from, first, count, high, high + digit);
  }
  return 0;
}

size_t kb_depthwise_memory(const kb_depthwise_digits* digits, int tap_count, int channels) {
  const size_t blocks = (size_t)kb_depthwise_blocks(channels);
  const size_t bytes = blocks * 2 * kb_depthwise_bytes(digits->together, tap_count);
  return bytes + (blocks + 63) / 64 * 64;
}

void kb_depthwise_destroy(kb_depthwise_digits* digits) {
  free(digits->bytes);
  free(digits->counts);
  *digits = (kb_depthwise_digits){0};
}
