/* Weights of depthwise layers as digits. */
#include "depthwise.h"

#include <stdlib.h>

typedef struct {
  const int16_t* weights;
  int tap_count, channels, max_input;
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
    if (total * from->max_input > INT16_MAX) count = 2;
  }
  return count;
}

/* Bytes lie as vpunpcklbw and vpunpckhbw of two taps put the inputs: half h has the channels 8h to
 * 8h + 7, then 16 + 8h to 16 + 8h + 7, and of each channel the two taps. */
static void cut_block(const layer* from, int first, int count, int8_t* high, int8_t* low) {
  for (int pair = 0; pair < from->tap_count / 2 + from->tap_count % 2; pair++) {
    for (int i = 0; i < 2 * KB_DW_BLOCK; i++) {
      const int half = i / 32, lane = i % 32 / 16, inside = i % 16 / 2;
      const int weight = weight_at(from, 2 * pair + i % 2, first + 16 * lane + 8 * half + inside);
      const int upper = count == 2 ? (weight - KB_DW_LEAST) / 16 - 8 : 0;
      high[pair * 2 * KB_DW_BLOCK + i] = (int8_t)upper;
      low[pair * 2 * KB_DW_BLOCK + i] = (int8_t)(weight - 16 * upper);
    }
  }
}

int kb_depthwise_cut(kb_depthwise_digits* digits, const int16_t* weights, int tap_count,
                     int channels, int max_input) {
  const layer from = {weights, tap_count, channels, max_input};
  const int blocks = kb_depthwise_blocks(channels);
  const size_t digit = ((size_t)tap_count + 1) / 2 * 2 * KB_DW_BLOCK;
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

void kb_depthwise_destroy(kb_depthwise_digits* digits) {
  free(digits->bytes);
  free(digits->counts);
  *digits = (kb_depthwise_digits){0};
}
