/* classify model.kbits image.pgm: prints the three best classes of an image.
 * A binary PGM (P5) for a model of one channel, a PPM (P6) for three; pixels are scaled to [0, 1].
 * How to link it: docs/linking.md */
#include <ctype.h>
#include <kb_model.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void stop(const char* what, const char* why) {
  fprintf(stderr, "classify: %s: %s\n", what, why);
  exit(1);
}

static void* read_file(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) stop(path, "cannot be read");
  *bytes = (size_t)ftell(file);
  void* data = malloc(*bytes + 1);
  rewind(file);
  if (!data || fread(data, 1, *bytes, file) != *bytes) stop(path, "cannot be read");
  fclose(file);
  return data;
}

/* The next number of an image's header, behind white space and comments. */
static int header_number(FILE* file) {
  int c = fgetc(file), number = -1;
  for (int comment = 0; c != EOF && (comment || c == '#' || isspace(c)); c = fgetc(file))
    comment = (comment || c == '#') && c != '\n';
  ungetc(c, file);
  return fscanf(file, "%5d", &number) == 1 ? number : -1;
}

static float* read_image(const char* path, const kb_tensor_info* input) {
  FILE* file = fopen(path, "rb");
  if (!file || fgetc(file) != 'P') stop(path, "expected an image, PGM or PPM");
  const int kind = fgetc(file), width = header_number(file), height = header_number(file);
  const int most = header_number(file), channels = kind == '5' ? 1 : kind == '6' ? 3 : 0;
  if (!channels || most < 1 || most > 255) stop(path, "expected a binary PGM or PPM of 8 bits");
  if (input->type != KB_FLOAT32 || input->rank != 4 || input->dims[1] != height ||
      input->dims[2] != width || input->dims[3] != channels)
    stop(path, "expected an image of the size that the model takes");
  float* image = malloc(input->bytes);
  fgetc(file); /* one white space */
  for (size_t i = 0; image && i < input->bytes / sizeof *image; i++) {
    const int value = fgetc(file);
    if (value == EOF) stop(path, "ends too early");
    image[i] = (float)value / (float)most;
  }
  fclose(file);
  return image;
}

int main(int count, char** paths) {
  if (count != 3) stop("usage", "classify model.kbits image.pgm");
  kb_model* model;
  kb_tensor_info input, output;
  char error[256];
  size_t bytes;
  void* file = read_file(paths[1], &bytes);
  if (kb_model_open(file, bytes, 0, &model, error, sizeof error) ||
      kb_model_input(model, 0, &input, error, sizeof error) ||
      kb_model_output(model, 0, &output, error, sizeof error))
    stop(paths[1], error);
  free(file); /* the model keeps what it needs */
  float *image = read_image(paths[2], &input), *scores = malloc(output.bytes);
  const void* inputs[] = {image};
  void* outputs[] = {scores};
  if (!image || !scores || kb_model_inputs(model) != 1 || kb_model_outputs(model) != 1)
    stop(paths[1], "expected one input and one output");
  if (kb_model_run(model, inputs, outputs, error, sizeof error)) stop(paths[1], error);
  const int classes = (int)(output.bytes / sizeof *scores);
  for (int rank = 0; rank < 3 && rank < classes; rank++) {
    int best = 0;
    for (int i = 1; i < classes; i++) best = scores[i] > scores[best] ? i : best;
    printf("class %d: %.4f\n", best, (double)scores[best]);
    scores[best] = -INFINITY;
  }
  kb_model_close(model);
  free(image);
  free(scores);
}
