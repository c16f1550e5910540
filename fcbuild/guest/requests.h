/* The one-line requests that the host sends. */
#ifndef FCBUILD_REQUESTS_H
#define FCBUILD_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	REQUEST_BYTES_MAX = 64, /* the newline included */
	REQUEST_MS = 1000,      /* from the connection to the newline */
};

/* A request while its bytes arrive. */
struct request {
	char bytes[REQUEST_BYTES_MAX];
	size_t length;
};

enum request_state { REQUEST_PARTIAL, REQUEST_WHOLE, REQUEST_GONE, REQUEST_TOO_LONG };

/*
 * Read what has arrived on the non-blocking socket `fd`. When the line is whole `*line_length` is
 * its length without the newline; what the host sent behind it is in `bytes`, too.
 */
enum request_state request_read(struct request *request, int fd, size_t *line_length);

/* Parse a control line. `*signal` becomes 0 for "stop". Returns whether it is one. */
bool request_control(const char *line, size_t length, int *signal);

/* Parse a forward line into the TCP port it names. Returns whether it is one. */
bool request_forward(const char *line, size_t length, uint16_t *port);

#endif
