/* Rows of a table that ids name, decoded on demand from a copy of the blob, so that the table
 * takes no more memory than its codes. */
#ifndef KERASBITS_EMBEDDING_H
#define KERASBITS_EMBEDDING_H

#include "blob.h"

typedef struct {
  uint8_t* copy;  /* of the blob */
  uint32_t* rank; /* of each channel among those of its width; NULL if they all have one width */
} kb_embedding;

/* Copy the blob that `blob` points into, let `blob` point into the copy, and check all codes. */
int kb_embedding_create(const void* data, size_t bytes, kb_blob* blob, kb_embedding* embedding,
                        kb_error error);
void kb_embedding_destroy(kb_embedding* embedding);

static inline int64_t kb_embedding_rows(const kb_blob* blob) {
  return blob->axis ? blob->in : blob->out;
}

static inline int64_t kb_embedding_columns(const kb_blob* blob) {
  return blob->axis ? blob->out : blob->in;
}

/* The row of an id that is in range. */
void kb_embedding_row(const kb_blob* blob, const kb_embedding* embedding, int64_t id, float* y);

#endif
