/* Inside of a kb_op, and the plan of a run for one input shape. */
#ifndef KERASBITS_OP_H
#define KERASBITS_OP_H

#include "depthwise_layer.h"
#include "embedding.h"
#include "im2col.h"
#include "kb.h"
#include "pool.h"
#include "weights.h"

/* An image of the input in the form that kernels read: [term][group][row][column][pixel_bytes].
 *
 * It holds the zeros around and between the input's pixels, so that the window of an output pixel is
 * a fixed set of offsets from its first byte. If the layout is flat, windows are copied to rows, of
 * some output pixels at a time. Where the zeros would be more than all windows together, the image is
 * `bare`: it has none, and windows are gathered pixel by pixel. */
typedef struct {
  int used, bare;
  int terms;          /* of the image; those of patches are more if they are packed as bits */
  int64_t size[2];    /* rows, columns */
  int64_t origin[2];  /* where the first pixel of the input is */
  int64_t spacing[2]; /* of the input's pixels */
  size_t pixel_bytes, plane_bytes; /* of one pixel, and of one term and group */
  size_t at;          /* place in the scratch memory */
  int patch_terms;    /* 0 if windows are not copied */
  size_t patch_bytes; /* of one */
} kb_image;

/* What taps of output rows (or columns) meet the input. */
typedef struct {
  int64_t start;       /* row of the input that the first of these taps meets */
  int32_t first, count; /* the taps first, first + step, .. */
  int32_t pattern;     /* outputs of the same pattern have the same taps */
} kb_reach;

/* Sizes for one input shape, and where things lie (offsets in bytes). The op's tables are what the
 * shape alone decides, so they outlive a run; scratch memory holds what a run makes.
 * One image of the batch is taken at a time, and `block` output pixels of it. */
typedef struct {
  kb_window window;
  int64_t images, in_pixels, out_pixels;
  int rank;
  int32_t dims[KB_MAX_RANK]; /* of the output, as the rank */
  kb_image image[KB_IMAGES];
  int threads;            /* that are worth their price */
  int block, most_parts;
  int64_t shares;         /* of the tiles: an item of a run does one for one block */
  int64_t strip;          /* pixels of the input whose levels are found at a time */
  int64_t patterns[2];    /* of windows, by rows and columns */
  /* In the tables: */
  size_t reach[2];        /* kb_reach [out] of each axis */
  size_t base;            /* [patterns][patterns][out + KB_MAX_ROWS] of kb_base_bytes */
  size_t taps[KB_IMAGES]; /* ptrdiff_t [taps] */
  size_t table_bytes;
  /* In the scratch memory, as the images: */
  size_t pixel_sums;      /* double [groups][in_pixels] */
  /* Each worker has its own of what follows, worker_bytes apart. */
  size_t workers, worker_bytes;
  size_t levels, codes;       /* of a strip: uint8_t [2][strip][channels], uint16_t */
  size_t pointers[KB_IMAGES]; /* const uint8_t* [terms][block] */
  size_t patches[KB_IMAGES];  /* [terms][block][patch_bytes] */
  size_t patch_levels;        /* uint8_t, of one window */
  size_t sums, coefficients;  /* int32_t [parts][block][rows], double [parts][rows] or shifts */
  size_t column_sums;         /* double [columns of the input] */
  size_t whole_sums;          /* int32_t [block], as input_sums */
  size_t input_sums, bases, results; /* double, pointers [block], float [block][rows] */
  size_t bytes;               /* of all */
} kb_plan;

struct kb_op {
  kb_blob geometry; /* without sections, but for an embedding */
  kb_embedding embedding;
  kb_input input;
  kb_dw_layer depthwise; /* has parts if the layer is depthwise and on whole numbers, */
  kb_weights weights;    /* is empty then */
  kb_kernels kernels;
  kb_pool* pool;     /* its own or another's; NULL for one thread */
  kb_pool* own_pool; /* of kb_op_set_threads */
  uint8_t* scratch;
  size_t scratch_bytes;
  int is_lent; /* whether others use the scratch memory, too, between runs */
  uint8_t* tables; /* always its own */
  size_t table_bytes;
#ifdef KB_POISON
  uint8_t poison; /* what kb_spoil wrote last */
#endif
  /* The last plan, which mostly is the next one, too. */
  int planned, cleared; /* whether there is one, with its tables; whether images have their zeros */
  int32_t planned_dims[KB_MAX_RANK];
  int planned_rank, planned_threads;
  kb_plan plan;
};

/* Work that threads share: of less, what two gain is lost to the job and to what they fetch from each
 * other's caches. LeNet-5 tells (`python -m benchmarks --only=threads`). Tests share all. */
#ifdef KB_POISON
enum { KB_SHARED_CYCLES = 0 };
#else
enum { KB_SHARED_CYCLES = 25000 };
#endif

/* How the row of a tile is cut so that integer sums fit int32: each piece has some taps, or some
 * units of one tap. */
typedef struct {
  int64_t taps, units, count;
} kb_pieces;

kb_pieces kb_tile_pieces(const kb_op* op, const kb_tile* tile);

int kb_plan_shape(const kb_op* op, const int32_t* dims, int rank, kb_plan* plan, kb_error error);
int kb_plan_memory(const kb_op* op, kb_plan* plan, kb_error error);

/* Fill `reach` for the outputs of an axis, if it is not NULL; returns how many patterns there are. */
int64_t kb_plan_reach(const kb_window* window, int axis, kb_reach* reach);

/* Make op->plan and its tables for a shape, unless they are for it already. Memory for the tables is
 * allocated where there is too little, so never for a shape that was planned before. */
int kb_op_plan(kb_op* op, const int32_t* dims, int rank, kb_error error);

/* Bytes of the tables, as allocated. */
static inline size_t kb_table_room(const kb_op* op) {
  return op->tables ? kb_room(op->table_bytes) : 0;
}

/* Fill the tables: reach, bases, offsets of taps. */
void kb_fill_tables(const kb_op* op, const kb_plan* plan);

/* Before a run, unless the one before has left them: the zeros of images. */
void kb_clear_images(const kb_op* op, const kb_plan* plan);

/* Quantize pixels first .. first + count - 1 of an image of the batch and put them in the images
 * that kernels read. `worker` chooses the scratch memory. */
void kb_fill_pixels(const kb_op* op, const kb_plan* plan, int64_t first, int64_t count,
                    const float* x, int worker);

/* Copy the windows of `count` output pixels from `first` on, in all terms, as rows. */
void kb_gather_patches(const kb_op* op, const kb_plan* plan, kb_image_kind kind, int64_t group,
                       int64_t first, int count, int worker);

/* In the library of the tests (KB_POISON) scratch memory, before a plan's first run, and tables,
 * before they are filled, get bytes of which a run must see nothing, others each time: large
 * numbers, small ones, NaN. */
static inline void kb_spoil(kb_op* op, uint8_t* memory, size_t bytes) {
#ifdef KB_POISON
  op->poison += 0x55;
  if (bytes) memset(memory, op->poison, bytes);
#else
  (void)op, (void)memory, (void)bytes;
#endif
}

/* Run op->plan in op->scratch, which is large enough. */
void kb_execute(kb_op* op, const float* x, float* y);

/* What a plan says to a depthwise layer on whole numbers. */
static inline kb_dw_run kb_dw_run_of(const kb_op* op, const kb_plan* plan) {
  return (kb_dw_run){&op->depthwise, &op->input, &op->kernels, &plan->window, plan->images};
}

/* Whether pixels of BITS are packed before windows are copied: always, unless the layout is flat and
 * the channels do not fill bytes, so that bits of one window are packed together. */
static inline int kb_packs_pixels(const kb_layout* layout, const kb_blob* layer) {
  return !layout->flat || layer->in * layout->unit_bytes % 64 == 0;
}

/* The threads of a run. */
static inline kb_pool* kb_pool_of(const kb_op* op, const kb_plan* plan) {
  return plan->threads > 1 ? op->pool : NULL;
}

static inline void* kb_table(const kb_op* op, size_t at) { return op->tables + at; }

/* Scratch memory of all, and of one worker. */
static inline void* kb_shared(const kb_op* op, size_t at) { return op->scratch + at; }

static inline void* kb_own(const kb_op* op, const kb_plan* plan, int worker, size_t at) {
  return op->scratch + plan->workers + (size_t)worker * plan->worker_bytes + at;
}

#endif
