/* The program's standard output and error on their way to the host, or else to the console. */
#ifndef FCBUILD_OUTPUT_H
#define FCBUILD_OUTPUT_H

#include <poll.h>
#include <stdint.h>

enum output_stream { OUTPUT_STDOUT, OUTPUT_STDERR, OUTPUT_STREAMS };

enum { OUTPUT_SLOTS = 2 * OUTPUT_STREAMS };

/* Send both streams to these sockets; -1 means the console. */
void output_open(int stdout_socket, int stderr_socket);

/* Take what comes out of the non-blocking pipe `from` as `stream`. */
void output_take(enum output_stream stream, int from);

/* Put a message of PID 1 itself into an empty stream. Longer than FLOW_BYTES is cut. */
void output_say(enum output_stream stream, const char *text);

/* Set the poll entries to what both streams wait for. */
void output_watch(struct pollfd slots[OUTPUT_SLOTS]);

/* Move what the poll entries allow. */
void output_step(const struct pollfd slots[OUTPUT_SLOTS]);

/*
 * Move all that is left, when nobody writes any more. A host that takes nothing for one second, or
 * is not done after ten, loses the rest; the console says so.
 */
void output_drain(void);

/* Bytes of a stream that the link has taken; what went to the console is not counted. */
uint64_t output_sent(enum output_stream stream);

#endif
