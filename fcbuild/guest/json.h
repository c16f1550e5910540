/* JSON text for the event lines. */
#ifndef FCBUILD_JSON_H
#define FCBUILD_JSON_H

#include <stddef.h>

/*
 * Write `text` as a JSON string, quotes included, into `out` (`size` bytes, NUL-terminated).
 *
 * What is not UTF-8 becomes U+FFFD. A text that does not fit is cut between two characters and
 * still closed by its quote, so `size` must be at least 3. Returns the length written.
 */
size_t json_string(const char *text, char *out, size_t size);

/* The same, but a text that does not fit loses its beginning. */
size_t json_tail(const char *text, char *out, size_t size);

#endif
