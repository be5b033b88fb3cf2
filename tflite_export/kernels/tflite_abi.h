/* The part of the TFLite C interface that an external delegate touches, declared by hand: no
 * wheel ships the headers. Field order is that of TensorFlow 2.3 (2020) and later. Structs that we
 * only read are cut off after the last field we need; structs that we fill are longer than any
 * known version, since the runtime has only ever appended fields and reads zeros as absent. */
#ifndef KERASBITS_TFLITE_ABI_H
#define KERASBITS_TFLITE_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { KB_TFL_OK, KB_TFL_ERROR, KB_TFL_DELEGATE_ERROR } kb_tfl_status;

/* kb_tfl_tensor.type */
enum { KB_TFL_FLOAT32 = 1, KB_TFL_INT32 = 2, KB_TFL_UINT8 = 3, KB_TFL_INT64 = 4 };
enum { KB_TFL_READ_ONLY = 1 };                            /* .allocation_type of constants */
enum { KB_TFL_LAST_TYPE = 63, KB_TFL_LAST_ALLOCATION = 15 }; /* generous bounds, to check */
enum { KB_TFL_ADD = 0, KB_TFL_CUSTOM = 32 };              /* kb_tfl_registration.builtin_code */
enum { KB_TFL_NO_ACTIVATION, KB_TFL_RELU, KB_TFL_RELU_N1_TO_1, KB_TFL_RELU6 }; /* .activation */
enum { KB_TFL_ALLOW_DYNAMIC = 1 };                        /* kb_tfl_delegate.flags */

typedef struct {
  int size;
  int data[];
} kb_tfl_ints;

typedef struct kb_tfl_context kb_tfl_context;
typedef struct kb_tfl_delegate kb_tfl_delegate;

typedef struct {
  int32_t type;
  void* data;
  kb_tfl_ints* dims;
  struct {
    float scale;
    int32_t zero_point;
  } params;
  int32_t allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  kb_tfl_delegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct {
    int32_t type;
    void* params;
  } quantization;
  void* sparsity;
  const kb_tfl_ints* dims_signature;
} kb_tfl_tensor; /* whole: tensors lie in an array */

typedef struct {
  kb_tfl_ints* inputs;
  kb_tfl_ints* outputs;
  kb_tfl_ints* intermediates;
  kb_tfl_ints* temporaries;
  void* user_data;
  void* builtin_data; /* parameters of a builtin operator */
} kb_tfl_node;

typedef struct {
  int32_t activation;
} kb_tfl_add_params;

typedef struct {
  void* (*init)(kb_tfl_context*, const char* buffer, size_t length);
  void (*free)(kb_tfl_context*, void* user_data);
  kb_tfl_status (*prepare)(kb_tfl_context*, kb_tfl_node*);
  kb_tfl_status (*invoke)(kb_tfl_context*, kb_tfl_node*);
  const char* (*profiling_string)(const kb_tfl_context*, const kb_tfl_node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
  void* later_fields[16]; /* passed by value, hence the room */
} kb_tfl_registration;

typedef struct {
  kb_tfl_delegate* delegate;
  kb_tfl_ints* nodes_to_replace;
  kb_tfl_ints* input_tensors;
  kb_tfl_ints* output_tensors;
} kb_tfl_delegate_params;

struct kb_tfl_context {
  size_t tensors_size;
  kb_tfl_status (*get_execution_plan)(kb_tfl_context*, kb_tfl_ints** plan);
  kb_tfl_tensor* tensors;
  void* implementation;
  kb_tfl_status (*resize_tensor)(kb_tfl_context*, kb_tfl_tensor*, kb_tfl_ints* malloced_dims);
  void (*report_error)(kb_tfl_context*, const char* format, ...);
  kb_tfl_status (*add_tensors)(kb_tfl_context*, int, int*);
  kb_tfl_status (*get_node)(kb_tfl_context*, int index, kb_tfl_node**, kb_tfl_registration**);
  kb_tfl_status (*replace_nodes)(kb_tfl_context*, kb_tfl_registration, const kb_tfl_ints* nodes,
                                 kb_tfl_delegate*);
  int recommended_num_threads; /* -1: whatever the delegate likes */
};

struct kb_tfl_delegate {
  void* data;
  kb_tfl_status (*prepare)(kb_tfl_context*, kb_tfl_delegate*);
  void* copy_from_buffer;
  void* copy_to_buffer;
  void* free_buffer;
  int64_t flags;
  void* opaque_builder;
  void* later_fields[16];
};

#endif
