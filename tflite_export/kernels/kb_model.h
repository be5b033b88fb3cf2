/* kerasbits C API: run a whole model from a .kbits file (docs/kbits_format.md).
 *
 * Everything is allocated by kb_model_open and kb_model_set_threads; kb_model_run allocates nothing
 * and keeps no state from one run to the next. Needs libc, libm and, where there are, pthreads. There is no global state: models are independent of
 * each other, but one model must not run in two threads at once.
 *
 * A function that returns int returns 0 on success, and otherwise writes a message to `error`
 * (at most `error_size` bytes, always terminated; `error` may be NULL).
 *
 *   kb_model* model;
 *   char error[256];
 *   float image[28 * 28], scores[10];
 *   const void* inputs[] = {image};
 *   void* outputs[] = {scores};
 *   if (kb_model_open(data, bytes, 0, &model, error, sizeof error) ||
 *       kb_model_run(model, inputs, outputs, error, sizeof error))
 *     puts(error);
 *   kb_model_close(model);
 */
#ifndef KERASBITS_KB_MODEL_H
#define KERASBITS_KB_MODEL_H

#include "kb.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kb_model kb_model;

typedef enum { KB_FLOAT32 = 0, KB_INT32 = 1 } kb_type;

/* A tensor; all types have four bytes an element. `name` is "" except for inputs and outputs, and
 * lives as long as the model. */
typedef struct {
  const char* name;
  kb_type type;
  int rank;
  int32_t dims[KB_MAX_RANK];
  size_t bytes;
} kb_tensor_info;

/* Flags of kb_model_open. */
enum {
  KB_KEEP_TENSORS = 1 /* give every tensor memory of its own, for kb_model_tensor */
};

/* Check a file and prepare all that runs need. `data` may be at any address, in read-only memory,
 * and may be released afterwards. On failure *model is NULL. */
KB_API int kb_model_open(const void* data, size_t bytes, unsigned flags, kb_model** model,
                         char* error, size_t error_size);

/* Number of inputs and outputs, in the order of the Keras model. */
KB_API int kb_model_inputs(const kb_model* model);
KB_API int kb_model_outputs(const kb_model* model);

/* Name, type and shape of input or output `i`; an error if there is none. */
KB_API int kb_model_input(const kb_model* model, int i, kb_tensor_info* info, char* error,
                          size_t error_size);
KB_API int kb_model_output(const kb_model* model, int i, kb_tensor_info* info, char* error,
                           size_t error_size);

/* Bytes that the model holds: repacked weights, tensors, tables of layers, scratch. */
KB_API size_t kb_model_memory(const kb_model* model);

/* Run it. inputs[i] points to the values of input i, float or int32_t by its type; outputs[i] to
 * room for output i, or is NULL if it is not wanted. They may lie anywhere, but must be aligned for
 * their type. Fails where an id is outside of its embedding. */
KB_API int kb_model_run(kb_model* model, const void* const* inputs, void* const* outputs,
                        char* error, size_t error_size);

/* A tensor of the file by its index, as the last run left it. Needs KB_KEEP_TENSORS. */
KB_API int kb_model_tensor(const kb_model* model, size_t index, kb_tensor_info* info,
                           const void** data, char* error, size_t error_size);

/* Let so many threads, 1 to 256, share the work of a run; a model starts with 1. They belong to the
 * model and sleep between runs; where a system has none, or refuses some, fewer are used. Results do
 * not depend on their number. After an error the model has one thread. */
KB_API int kb_model_set_threads(kb_model* model, int threads, char* error, size_t error_size);

/* Release a model; NULL is allowed. */
KB_API void kb_model_close(kb_model* model);

#ifdef __cplusplus
}
#endif
#endif
