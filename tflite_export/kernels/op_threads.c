/* Threads of one packed layer. */
#include "op.h"

int kb_op_set_threads(kb_op* op, int threads, char* error, size_t error_size) {
  kb_pool* pool;
  if (kb_pool_create(threads, &pool, (kb_error){error, error_size})) return -1;
  kb_pool_destroy(op->own_pool);
  op->own_pool = op->pool = pool;
  return 0;
}
