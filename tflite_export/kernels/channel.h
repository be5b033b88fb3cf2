/* One output channel of a blob: what its codes mean. */
#ifndef KERASBITS_CHANNEL_H
#define KERASBITS_CHANNEL_H

#include "blob.h"

/* Linear: w = origin + scale * (number - zero). Else, for planes with scales of their own:
 * w = origin + sum_p plane_scale(p) * bit_p(number). */
typedef struct {
  int64_t index; /* output channel */
  int width;     /* bits of a code; 0 if the channel is dropped */
  int64_t rank;  /* among the channels of its width */
  int linear;
  int planes; /* bits of a number */
  int top;    /* largest number */
  double origin, scale;
  int zero;
} kb_channel;

/* Describe all channels. Fails if there is no memory. */
kb_channel* kb_channels(const kb_blob* blob);

/* Whether codes lie within the table, if there is one. */
int kb_channel_check(const kb_blob* blob, int64_t channel, const uint16_t* codes, int64_t count,
                     kb_error error);

/* The codes of a channel, which is not dropped. */
int kb_channel_codes(const kb_blob* blob, const kb_channel* channel, uint16_t* codes,
                     kb_error error);

/* The numbers of a channel: its codes, or its levels less the smallest level. */
int kb_channel_numbers(const kb_blob* blob, const kb_channel* channel, uint16_t* numbers,
                       kb_error error);

/* Value of bit p of a number. */
double kb_channel_plane_scale(const kb_blob* blob, const kb_channel* channel, int p);

/* Values of codes of a channel that are in range, in the float32 arithmetic of the format. */
void kb_channel_decode(const kb_blob* blob, int64_t channel, const uint16_t* codes, int64_t count,
                       float* values);

/* All decoded weights of a channel. `numbers` is scratch memory. */
int kb_channel_values(const kb_blob* blob, const kb_channel* channel, float* values,
                      uint16_t* numbers, kb_error error);

#endif
