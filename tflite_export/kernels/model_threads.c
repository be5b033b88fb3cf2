/* Threads of a model: one pool, lent to its layers. */
#include "op.h"
#include "model.h"

static void lend(kb_model* model, kb_pool* pool) {
  for (uint32_t i = 0; i < model->blob_count; i++) model->blobs[i]->pool = pool;
  if (!model->nodes) return; /* closed without them */
  for (uint32_t i = 0; i < model->node_count; i++) model->nodes[i].pool = pool;
}

void kb_model_end_threads(kb_model* model) {
  lend(model, NULL);
  model->memory -= kb_pool_memory(model->pool);
  kb_pool_destroy(model->pool);
  model->pool = NULL;
}

int kb_model_set_threads(kb_model* model, int threads, char* error, size_t error_size) {
  const kb_error to = {error, error_size};
  kb_pool* pool;
  kb_model_end_threads(model);
  if (kb_pool_create(threads, &pool, to)) return -1;
  model->pool = pool;
  model->memory += kb_pool_memory(pool);
  lend(model, pool);
  /* Each thread has scratch memory of its own. */
  if (!kb_model_plan_scratch(model, to)) return 0;
  kb_model_end_threads(model);
  return -1;
}
