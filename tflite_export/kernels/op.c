/* The public functions. */
#include "op.h"

#include <stdlib.h>

static int fill(kb_op* op, const void* data, size_t bytes, kb_blob* blob, kb_error error) {
  if (blob->op == KB_EMBEDDING) {
    int failed = kb_embedding_create(data, bytes, blob, &op->embedding, error);
    op->geometry = *blob;
    return failed;
  }
  if (kb_select_kernels(&op->kernels, error) || kb_input_create(blob, &op->input, error)) return -1;
  if (blob->op == KB_DEPTHWISE &&
      kb_dw_create(blob, &op->input, &op->kernels, &op->depthwise, error))
    return -1;
  if (!op->depthwise.parts &&
      kb_weights_create(blob, &op->input, &op->kernels, &op->weights, error))
    return -1;
  memset(blob->section, 0, sizeof blob->section);
  op->geometry = *blob;
  return 0;
}

int kb_op_create(const void* blob, size_t bytes, kb_op** op, char* error, size_t error_size) {
  kb_error to = {error, error_size};
  kb_blob parsed;
  *op = NULL;
  if (kb_blob_read(blob, bytes, &parsed, to)) return -1;
  kb_op* made = kb_alloc(1, sizeof *made);
  if (!made) return kb_fail(to, "out of memory");
  if (fill(made, blob, bytes, &parsed, to)) {
    kb_op_free(made);
    return -1;
  }
  *op = made;
  return 0;
}

int kb_op_output_shape(const kb_op* op, const int32_t* dims, int rank, int32_t* out, int* out_rank,
                       char* error, size_t error_size) {
  kb_plan plan;
  if (kb_plan_shape(op, dims, rank, &plan, (kb_error){error, error_size})) return -1;
  memcpy(out, plan.dims, (size_t)plan.rank * sizeof *out);
  *out_rank = plan.rank;
  return 0;
}

static int is_planned(const kb_op* op, const int32_t* dims, int rank) {
  return op->planned && rank == op->planned_rank &&
         op->planned_threads == kb_pool_threads(op->pool) &&
         memcmp(dims, op->planned_dims, (size_t)rank * sizeof *dims) == 0;
}

/* Make room for so many bytes; what was there is lost. */
static int grow(uint8_t** memory, size_t* room, size_t bytes, const char* what, kb_error error) {
  if (bytes <= *room) return 0;
  free(*memory);
  *room = 0;
  *memory = kb_alloc(1, bytes);
  if (!*memory) return kb_fail(error, "out of memory: %zu bytes of %s", bytes, what);
  *room = bytes;
  return 0;
}

int kb_op_plan(kb_op* op, const int32_t* dims, int rank, kb_error error) {
  kb_plan* plan = &op->plan;
  if (is_planned(op, dims, rank)) return 0;
  op->planned = op->cleared = 0;
  if (kb_plan_shape(op, dims, rank, plan, error) || kb_plan_memory(op, plan, error) ||
      grow(&op->tables, &op->table_bytes, plan->table_bytes, "tables", error))
    return -1;
  kb_spoil(op, op->tables, plan->table_bytes);
  if (plan->table_bytes && plan->out_pixels) kb_fill_tables(op, plan);
  memcpy(op->planned_dims, dims, (size_t)rank * sizeof *dims);
  op->planned_rank = rank;
  op->planned_threads = kb_pool_threads(op->pool);
  op->planned = 1;
  return 0;
}

/* A plan, and room for it. */
static int reserve(kb_op* op, const int32_t* dims, int rank, kb_error error) {
  if (kb_op_plan(op, dims, rank, error)) return -1;
  if (op->plan.bytes <= op->scratch_bytes) return 0;
  op->cleared = 0;
  return grow(&op->scratch, &op->scratch_bytes, op->plan.bytes, "scratch", error);
}

int kb_op_reserve(kb_op* op, const int32_t* dims, int rank, char* error, size_t error_size) {
  return reserve(op, dims, rank, (kb_error){error, error_size});
}

int kb_op_run(kb_op* op, const float* x, const int32_t* dims, int rank, float* y, char* error,
              size_t error_size) {
  kb_error to = {error, error_size};
  if (kb_op_takes_ids(op)) return kb_fail(to, "embedding: expected ids, got floats");
  if (reserve(op, dims, rank, to)) return -1;
  kb_execute(op, x, y);
  return 0;
}

int kb_op_takes_ids(const kb_op* op) { return op->geometry.op == KB_EMBEDDING; }

int kb_op_run_ids(kb_op* op, const int32_t* ids, const int32_t* dims, int rank, float* y,
                  char* error, size_t error_size) {
  kb_plan plan;
  kb_error to = {error, error_size};
  if (!kb_op_takes_ids(op)) return kb_fail(to, "expected floats as input of this layer, got ids");
  if (kb_plan_shape(op, dims, rank, &plan, to)) return -1;
  const kb_blob* table = &op->geometry;
  const int64_t rows = kb_embedding_rows(table), columns = kb_embedding_columns(table);
  for (int64_t i = 0; i < plan.out_pixels; i++) {
    if (ids[i] < 0 || ids[i] >= rows)
      return kb_fail(to, "embedding: expected ids in [0, %lld), got %d at %lld", (long long)rows,
                     ids[i], (long long)i);
  }
  for (int64_t i = 0; i < plan.out_pixels; i++)
    kb_embedding_row(table, &op->embedding, ids[i], y + i * columns);
  return 0;
}

void kb_op_input_codes(const kb_op* op, const float* x, size_t count, uint16_t* codes) {
  kb_input_codes(&op->input, x, count, codes);
}

void kb_op_free(kb_op* op) {
  if (!op) return;
  kb_input_destroy(&op->input);
  kb_dw_destroy(&op->depthwise);
  kb_weights_destroy(&op->weights);
  kb_embedding_destroy(&op->embedding);
  kb_pool_destroy(op->own_pool);
  free(op->tables);
  free(op->scratch);
  free(op);
}
