/* Weights of depthwise layers for kernels that multiply several taps at once.
 *
 * Such kernels interleave the bytes of 2 or 4 taps, and want int8 weights in the same order. With 4,
 * vpdpbusd adds up in int32. With 2, vpmaddubsw adds up in int16; so the weights are cut, too:
 *     weight = 16 * high + low,  high in [-8, 8], low in [-8, 7]      (2 digits)
 *     weight = low                                                    (1 digit)
 * One digit does where weights fit int8 and no partial sum leaves int16. Two digits hold weights in
 * [-136, 135], and 16 taps of them may be added in int16: 16 * 8 * 255 = 32640 < 2^15.
 *
 * Channels are taken in blocks, each with digits of its own. The last block ends with the last
 * channel, so that blocks overlap where there is no whole number of them; a layer of less than a
 * block has one, padded with zero weights. */
#ifndef KERASBITS_DEPTHWISE_H
#define KERASBITS_DEPTHWISE_H

#include "kernels.h"

enum {
  KB_DW_BLOCK = 32, /* channels of a block */
  KB_DW_SPAN = 8,   /* pairs of taps that two digits may add up in int16 */
  KB_DW_LEAST = -136,
  KB_DW_MOST = 135 /* weights that two digits hold */
};

typedef struct kb_depthwise_digits {
  int together;    /* taps: 2 or 4 */
  int8_t* bytes;   /* [blocks][high, low][groups of taps][parts, as many as taps][32]; high is not
                      used if there is one digit */
  uint8_t* counts; /* [blocks] digits: 1, 2, or 0 if a weight of the block has none */
} kb_depthwise_digits;

/* How many taps the kernel of an instruction set takes together; 0 if it takes int16 weights. */
int kb_depthwise_together(kb_isa_id isa);

/* Cut weights[tap_count][channels], for inputs of at most `max_input`; -1 without memory. What was
 * allocated is to be destroyed also then. */
int kb_depthwise_cut(kb_depthwise_digits* digits, int together, const int16_t* weights,
                     int tap_count, int channels, int max_input);

void kb_depthwise_destroy(kb_depthwise_digits* digits);

/* Bytes that digits hold. */
size_t kb_depthwise_memory(const kb_depthwise_digits* digits, int tap_count, int channels);

/* Bytes of one digit of a block. */
static inline size_t kb_depthwise_bytes(int together, int tap_count) {
  return ((size_t)tap_count + (size_t)together - 1) / (size_t)together * (size_t)together *
         KB_DW_BLOCK;
}

static inline int kb_depthwise_blocks(int channels) {
  return channels / KB_DW_BLOCK + (channels % KB_DW_BLOCK != 0);
}

/* The first channel of a block. */
static inline int kb_depthwise_first(int channels, int block) {
  const int first = block * KB_DW_BLOCK;
  const int last = channels > KB_DW_BLOCK ? channels - KB_DW_BLOCK : 0;
  return first < last ? first : last;
}

#endif
