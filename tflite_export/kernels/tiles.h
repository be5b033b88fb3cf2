/* Packing of channels into tiles; weights.c plans the tiles. */
#ifndef KERASBITS_TILES_H
#define KERASBITS_TILES_H

#include "weights.h"

/* Everything that packing needs to know. */
typedef struct {
  const kb_blob* blob;
  const kb_input* input;
  const kb_kernels* kernels;
  kb_weights* weights;
  kb_channel* channels;
  uint16_t* numbers; /* [row] */
  float* values;     /* [row] */
  kb_error error;
} kb_packer;

/* Terms of the input in a form. */
const kb_terms* kb_form_terms(const kb_input* input, kb_form form);

/* What to subtract from the numbers of a tile's channel. */
int kb_tile_shift(const kb_packer* packer, const kb_tile* tile, int row);

/* The channel of a row. */
const kb_channel* kb_tile_channel(const kb_packer* packer, const kb_tile* tile, int row);

/* Whether numbers 0 and 1 stand for weights -s and s, and are packed as -1 and 1. */
int kb_tile_has_signs(const kb_packer* packer, const kb_tile* tile, const kb_channel* channel);

/* Fill the weights and the numbers of a tile, whose memory is there. */
int kb_tile_pack(kb_packer* packer, kb_tile* tile);

/* Fill what a tile of a layer on whole numbers has beside its weights. */
void kb_tile_set_whole(const kb_packer* packer, kb_tile* tile);

/* Fill the tap_starts of a row, whose numbers are in packer->numbers. */
void kb_tile_sum_starts(const kb_packer* packer, const kb_tile* tile, int row);

#endif
