/* kerasbits C API: run one packed layer from its blob.
 *
 * Shapes, bit order and byte layout of a blob are described in docs/blob_format.md.
 * Tensors are float32, row-major: dense [..., K] -> [..., O]; conv NHWC -> NHWC. An embedding takes
 * int32 ids instead: [...] -> [..., D].
 * A function that returns int returns 0 on success, and otherwise writes a message to `error`
 * (at most `error_size` bytes, always terminated), where it has that argument.
 */
#ifndef KERASBITS_KB_H
#define KERASBITS_KB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KB_API __attribute__((visibility("default")))
#else
#define KB_API
#endif

#define KB_MAX_RANK 8

typedef struct kb_op kb_op;

/* Name of the instruction set in use: "scalar", "avx2", "avx512", "neon", "neondot" (NEON with dot
 * products) or "neoni8mm" (and with matrix products). The variable KERASBITS_ISA forces one, where
 * there is an environment. */
KB_API const char* kb_isa(void);

/* Check a blob and repack its weights. The blob may be released afterwards. */
KB_API int kb_op_create(const void* blob, size_t bytes, kb_op** op, char* error,
                        size_t error_size);

/* Shape of the output for an input of shape `dims[rank]`; `out` has room for KB_MAX_RANK. */
KB_API int kb_op_output_shape(const kb_op* op, const int32_t* dims, int rank, int32_t* out,
                              int* out_rank, char* error, size_t error_size);

/* Allocate the scratch memory that inputs of this shape need, so that kb_op_run allocates
 * nothing. Calling kb_op_run without it reserves on the way. */
KB_API int kb_op_reserve(kb_op* op, const int32_t* dims, int rank, char* error,
                         size_t error_size);

/* y = layer(x). An op must not run in two threads at once. */
KB_API int kb_op_run(kb_op* op, const float* x, const int32_t* dims, int rank, float* y,
                     char* error, size_t error_size);

/* Let so many threads, 1 to 256, share the work of a run; an op starts with 1. They belong to the op
 * and sleep between runs; where a system has none, or refuses some, fewer are used. Results do not
 * depend on their number. */
KB_API int kb_op_set_threads(kb_op* op, int threads, char* error, size_t error_size);

/* Whether the layer is an embedding, which is run by kb_op_run_ids. */
KB_API int kb_op_takes_ids(const kb_op* op);

/* y = the rows of an embedding that the ids name. An id without a row is an error, and nothing is
 * written then. */
KB_API int kb_op_run_ids(kb_op* op, const int32_t* ids, const int32_t* dims, int rank, float* y,
                         char* error, size_t error_size);

/* Codes of `count` input values under the input grid (0 for a float grid). */
KB_API void kb_op_input_codes(const kb_op* op, const float* x, size_t count, uint16_t* codes);

KB_API void kb_op_free(kb_op* op);

#ifdef __cplusplus
}
#endif
#endif
