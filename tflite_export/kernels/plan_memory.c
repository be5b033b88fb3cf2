/* Images, tables and scratch memory of a plan. All sizes come from outside, so every product is checked. */
#include "op.h"

/* Room for count x size bytes, on a 64-byte border, with slack behind it. */
static int place(size_t* bytes, int64_t count, size_t size, size_t* at) {
  size_t wanted;
  *at = *bytes;
  return __builtin_mul_overflow(count, size, &wanted) || wanted > SIZE_MAX / 4 ||
         __builtin_add_overflow(*bytes, (wanted + 2 * KB_SLACK - 1) / 64 * 64, bytes);
}

static int64_t all_channels(const kb_blob* layer) {
  return layer->op == KB_DEPTHWISE ? layer->groups : layer->in * layer->groups;
}

kb_pieces kb_tile_pieces(const kb_op* op, const kb_tile* tile) {
  const int64_t taps = op->weights.layout[kb_image_of(tile->form)].taps, units = tile->units;
  if (tile->form == KB_FORM_F32) return (kb_pieces){taps, units, 1};
  const int64_t input = tile->form == KB_FORM_BITS ? 1 : op->input.bytes.most;
  const int64_t budget = INT32_MAX / (input * tile->most * kb_unit_channels(tile->form));
  if (units > budget) return (kb_pieces){1, budget, taps * ((units + budget - 1) / budget)};
  const int64_t together = budget / units < taps ? budget / units : taps;
  return (kb_pieces){together, units, (taps + together - 1) / together};
}

/* Bytes of the window of one tap as an image has it. */
static size_t element_bytes(kb_image_kind kind) {
  return kind == KB_IMAGE_F32 ? sizeof(float) : kind == KB_IMAGE_S16 ? sizeof(int16_t) : 1;
}

static int pixel_bytes(const kb_blob* blob, const kb_layout* layout, kb_image_kind kind,
                       size_t* bytes) {
  if (layout->flat && kind == KB_IMAGE_BITS && kb_packs_pixels(layout, blob)) {
    *bytes = (size_t)blob->in * (size_t)layout->unit_bytes / 64;
    return 0;
  }
  if (layout->flat)
    return __builtin_mul_overflow((size_t)blob->in, element_bytes(kind), bytes);
  if (__builtin_mul_overflow((size_t)layout->units, (size_t)layout->unit_bytes, bytes)) return -1;
  /* Packed codes of dense layers have up to 32 channels in a unit, whose padding must be 0. */
  if (blob->op == KB_DENSE && kind == KB_IMAGE_U8) *bytes = (*bytes + 31) / 32 * 32;
  return *bytes > SIZE_MAX / 4 ? -1 : 0;
}

static int set_size(const kb_plan* plan, kb_image* image) {
  const kb_window* window = &plan->window;
  int64_t padded[2] = {0, 0}, pixels = 0;
  const int64_t taps = window->kernel[0] * window->kernel[1];
  for (int axis = 0; axis < 2; axis++) {
    image->spacing[axis] = window->input_dilation[axis];
    image->origin[axis] = window->pad[axis];
    const int64_t reach = (window->kernel[axis] - 1) * window->dilation[axis] + 1;
    if (window->out[axis]) padded[axis] = (window->out[axis] - 1) * window->stride[axis] + reach;
    image->size[axis] = padded[axis];
  }
  image->bare = __builtin_mul_overflow(padded[0], padded[1], &pixels);
  if (taps > 1) image->bare |= pixels / taps > plan->out_pixels && pixels > 2 * plan->in_pixels;
  if (!image->bare) return 0;
  for (int axis = 0; axis < 2; axis++) {
    image->spacing[axis] = 1;
    image->origin[axis] = 0;
    image->size[axis] = window->in[axis];
  }
  return 0;
}

static int plan_image(const kb_op* op, kb_plan* plan, kb_image_kind kind) {
  const kb_blob* layer = &op->geometry;
  const kb_layout* layout = &op->weights.layout[kind];
  kb_image* image = &plan->image[kind];
  image->used = layout->used;
  if (!image->used) return 0;
  const int is_bits = kind == KB_IMAGE_BITS, is_float = kind == KB_IMAGE_F32;
  const int terms = is_float ? 1 : is_bits ? op->input.planes.count : op->input.bytes.count;
  image->terms = terms;
  if (is_bits && !kb_packs_pixels(layout, layer)) image->terms = op->input.level_bits > 8 ? 2 : 1;
  if (pixel_bytes(layer, layout, kind, &image->pixel_bytes) || set_size(plan, image)) return -1;
  int64_t pixels, planes;
  if (__builtin_mul_overflow(image->size[0], image->size[1], &pixels) ||
      __builtin_mul_overflow(pixels, image->pixel_bytes, &image->plane_bytes) ||
      __builtin_mul_overflow(image->terms, layer->groups, &planes) ||
      place(&plan->bytes, planes, image->plane_bytes, &image->at) ||
      place(&plan->table_bytes, layout->taps, sizeof(ptrdiff_t), &plan->taps[kind]))
    return -1;
  if (!layout->flat && !image->bare) return 0;
  image->patch_terms = terms;
  return __builtin_mul_overflow((size_t)layout->taps, (size_t)layout->units, &image->patch_bytes) ||
         __builtin_mul_overflow(image->patch_bytes, (size_t)layout->unit_bytes,
                                &image->patch_bytes) ||
         image->patch_bytes > SIZE_MAX / 4;
}

/* As many output pixels as keep sums in the first-level cache and patches in the second. */
static int block_of(const kb_plan* plan, int64_t most_sums) {
  enum { kPatchBytes = 128 << 10, kSums = 6 << 10, kLeast = 4, kMost = 96, kStep = 12 };
  int64_t block = kMost;
  for (int kind = 0; kind < KB_IMAGES; kind++) {
    const kb_image* image = &plan->image[kind];
    if (!image->patch_terms) continue;
    const int64_t room = (int64_t)(kPatchBytes / image->patch_bytes) / image->patch_terms;
    if (room < block) block = room;
  }
  if (block > kSums / most_sums) block = kSums / most_sums;
  if (block < kLeast) block = kLeast;
  if (block >= plan->out_pixels) return plan->out_pixels > 0 ? (int)plan->out_pixels : 1;
  /* Blocks of about the same size, of whole groups of pixels that kernels take at a time. */
  const int64_t blocks = (plan->out_pixels + block - 1) / block;
  const int64_t even = (plan->out_pixels + blocks - 1) / blocks;
  const int64_t rounded = (even + kStep - 1) / kStep * kStep;
  return (int)(rounded <= kMost && block >= kStep ? rounded : block);
}

/* Cycles of an image, roughly: products, and half a cycle to quantize an input or to finish an
 * output. */
static double cycles_of(const kb_op* op, const kb_plan* plan) {
  enum { kDepthwiseRate = 16 };
  const kb_blob* layer = &op->geometry;
  double products = 0;
  if (layer->op == KB_DEPTHWISE)
    products = (double)(layer->kernel[0] * layer->kernel[1] * layer->out) / kDepthwiseRate;
  for (int64_t i = 0; i < op->weights.tiles; i++) {
    const kb_tile* tile = &op->weights.tile[i];
    if (tile->form == KB_FORMS) continue;
    const kb_layout* layout = &op->weights.layout[kb_image_of(tile->form)];
    const int terms = tile->form == KB_FORM_BITS ? op->input.planes.count : op->input.bytes.count;
    products += (double)(layout->taps * tile->units * kb_unit_channels(tile->form)) *
                (double)(tile->rows * tile->planes * (terms > 0 ? terms : 1)) /
                kb_form_rate(&op->kernels, tile->form);
  }
  return products * (double)plan->out_pixels +
         ((double)plan->in_pixels * (double)all_channels(layer) +
          (double)plan->out_pixels * (double)layer->out) / 2;
}

static void set_threads(const kb_op* op, kb_plan* plan) {
  const int threads = kb_pool_threads(op->pool);
  plan->threads = threads > 1 && cycles_of(op, plan) >= KB_SHARED_CYCLES ? threads : 1;
}

/* Cut the work in items, one for each block and share of the tiles: some for each thread, and where
 * they are few, as many for one as for another. Weights that are few may be read by all threads: then
 * each has pixels of its own, most of which it has quantized itself. */
static void share_work(const kb_op* op, kb_plan* plan) {
  enum {
    kMost = 16,       /* items of a thread for which this matters */
    kFew = 1 << 16,   /* weights */
    kLeastPixels = 16 /* of a block that is cut */
  };
  const int64_t threads = plan->threads, block = plan->block;
  int64_t blocks = (plan->out_pixels + block - 1) / block;
  plan->shares = 1;
  if (threads == 1 || blocks == 0) return;
  if (op->geometry.row <= kFew / op->geometry.out) {
    while (blocks < 2 * threads && plan->out_pixels / blocks >= kLeastPixels) blocks *= 2;
  }
  while (blocks * plan->shares < 4 * threads && 2 * plan->shares <= op->weights.tiles)
    plan->shares *= 2;
  if (blocks * plan->shares >= kMost * threads) return;
  if (blocks * plan->shares % threads) blocks = (blocks + threads - 1) / threads * threads;
  const int64_t even = (plan->out_pixels + blocks - 1) / blocks, pair = (even + 1) / 2 * 2;
  plan->block = (int)(pair <= block ? pair : even);
}

/* Sums of one output pixel in the tile that has most of them. */
static int most_sums(const kb_op* op, kb_plan* plan, int64_t* most) {
  *most = 1;
  plan->most_parts = 1;
  for (int64_t i = 0; i < op->weights.tiles; i++) {
    const kb_tile* tile = &op->weights.tile[i];
    if (tile->form == KB_FORMS) continue;
    const int is_bits = tile->form == KB_FORM_BITS;
    int64_t parts = tile->form == KB_FORM_F32
                        ? 1 : is_bits ? op->input.planes.count : op->input.bytes.count;
    parts *= tile->planes;
    if (__builtin_mul_overflow(parts, kb_tile_pieces(op, tile).count, &parts) ||
        parts > INT32_MAX / KB_MAX_ROWS)
      return -1;
    if (parts > plan->most_parts) plan->most_parts = (int)parts;
    if (parts * tile->rows > *most) *most = parts * tile->rows;
  }
  return 0;
}

static int plan_worker(const kb_op* op, kb_plan* plan, int64_t sums) {
  const kb_blob* layer = &op->geometry;
  size_t* bytes = &plan->worker_bytes;
  const int64_t block = plan->block;
  int64_t values;
  int failed = __builtin_mul_overflow(plan->strip, all_channels(layer), &values);
  failed |= place(bytes, values, 2, &plan->levels);
  failed |= place(bytes, values, sizeof(uint16_t), &plan->codes);
  for (int kind = 0; kind < KB_IMAGES; kind++) {
    const kb_image* image = &plan->image[kind];
    if (!image->used) continue;
    const int64_t terms = image->patch_terms ? image->patch_terms : image->terms;
    failed |= place(bytes, terms * block, sizeof(uint8_t*), &plan->pointers[kind]);
    if (image->patch_terms)
      failed |= place(bytes, terms * block, image->patch_bytes, &plan->patches[kind]);
  }
  const int gathers = plan->image[KB_IMAGE_BITS].used &&
                      !kb_packs_pixels(&op->weights.layout[KB_IMAGE_BITS], layer);
  failed |= place(bytes, gathers ? layer->row : 0, 2, &plan->patch_levels);
  failed |= place(bytes, sums * block, sizeof(int32_t), &plan->sums);
  failed |= place(bytes, (int64_t)plan->most_parts * KB_MAX_ROWS, sizeof(double),
                  &plan->coefficients);
  failed |= place(bytes, block, sizeof(double), &plan->input_sums);
  failed |= place(bytes, block, sizeof(int32_t), &plan->whole_sums);
  const int64_t columns = op->weights.needs_input_sums ? plan->window.in[1] : 0;
  failed |= place(bytes, columns, sizeof(double), &plan->column_sums);
  failed |= place(bytes, block, sizeof(double*), &plan->bases);
  const int64_t results = layer->op == KB_DEPTHWISE ? 2 * layer->out : block * KB_MAX_ROWS;
  return failed | place(bytes, results, sizeof(float), &plan->results);
}

/* Tables of all windows; those of taps are placed with their images. */
static int plan_tables(const kb_op* op, kb_plan* plan) {
  int64_t bases = op->geometry.out + KB_MAX_ROWS;
  int failed = 0;
  for (int axis = 0; axis < 2; axis++) {
    plan->patterns[axis] = kb_has_patterns(&op->weights) ? kb_plan_reach(&plan->window, axis, NULL) : 1;
    failed |= place(&plan->table_bytes, plan->window.out[axis], sizeof(kb_reach), &plan->reach[axis]);
    failed |= __builtin_mul_overflow(bases, plan->patterns[axis], &bases);
  }
  return failed | place(&plan->table_bytes, bases, (size_t)kb_base_bytes(&op->weights), &plan->base);
}

/* A depthwise layer takes the values of one image of the batch as they are. */
static int plan_depthwise(const kb_op* op, kb_plan* plan) {
  int64_t values;
  return __builtin_mul_overflow(plan->in_pixels, all_channels(&op->geometry), &values) ||
         place(&plan->bytes, values, sizeof(float), &plan->image[KB_IMAGE_F32].at);
}

/* A depthwise layer on whole numbers plans its own. */
static int plan_whole(const kb_op* op, kb_plan* plan) {
  const kb_dw_run run = kb_dw_run_of(op, plan);
  return kb_dw_scratch(&run, &plan->worker_bytes) ||
         __builtin_mul_overflow(plan->worker_bytes, (size_t)plan->threads, &plan->bytes);
}

int kb_plan_memory(const kb_op* op, kb_plan* plan, kb_error error) {
  const kb_blob* layer = &op->geometry;
  if (layer->op == KB_EMBEDDING) return 0;
  set_threads(op, plan);
  if (op->depthwise.parts && !plan_whole(op, plan)) return 0;
  if (op->depthwise.parts)
    return kb_fail(error, "expected less scratch memory than the address space");
  int failed = layer->op == KB_DEPTHWISE && plan_depthwise(op, plan);
  for (int kind = 0; kind < KB_IMAGES; kind++)
    failed |= plan_image(op, plan, (kb_image_kind)kind);
  if (layer->op != KB_DEPTHWISE) failed |= plan_tables(op, plan);
  int64_t pixel_sums = op->weights.needs_input_sums ? plan->in_pixels : 0;
  failed |= __builtin_mul_overflow(pixel_sums, layer->groups, &pixel_sums);
  failed |= place(&plan->bytes, pixel_sums, sizeof(double), &plan->pixel_sums);
  int64_t sums;
  failed |= most_sums(op, plan, &sums);
  if (failed) return kb_fail(error, "expected less scratch memory than the address space");
  enum { kStrip = 8192 };
  plan->strip = kStrip / all_channels(layer);
  if (plan->strip > plan->window.in[1]) plan->strip = plan->window.in[1];
  if (plan->strip < 1) plan->strip = 1;
  plan->block = block_of(plan, sums);
  share_work(op, plan);
  failed = plan_worker(op, plan, sums);
  plan->workers = plan->bytes;
  size_t all;
  failed |= __builtin_mul_overflow(plan->worker_bytes, (size_t)plan->threads, &all) ||
            __builtin_add_overflow(plan->bytes, all, &plan->bytes);
  return failed ? kb_fail(error, "expected less scratch memory than the address space") : 0;
}
