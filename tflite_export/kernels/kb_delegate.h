/* The delegate of kerasbits for TFLite and LiteRT, which runs the packed layers of a .tflite file.
 *
 * These are the two functions that TFLite's external delegates have; a runtime that loads the
 * shared library finds them by name. An app that links the library calls them itself:
 *
 *   TfLiteDelegate* delegate = tflite_plugin_create_delegate(NULL, NULL, 0, NULL);
 *   TfLiteInterpreterOptionsAddDelegate(options, delegate);
 */
#ifndef KERASBITS_KB_DELEGATE_H
#define KERASBITS_KB_DELEGATE_H

#include "kb.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A TfLiteDelegate, or NULL if there is no memory or an option is wrong. It may serve several
 * interpreters, and must outlive them. The one option is `threads`, 1 to 256, of each interpreter
 * for our layers; without it, as many as the interpreter has. */
KB_API void* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                           void (*report_error)(const char*));

KB_API void tflite_plugin_destroy_delegate(void* delegate);

#ifdef __cplusplus
}
#endif
#endif
