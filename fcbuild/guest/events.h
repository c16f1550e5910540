/* The event stream: one JSON object a line, from PID 1 to the host. */
#ifndef FCBUILD_EVENTS_H
#define FCBUILD_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

/* Send events to the socket `fd` from now on; -1 drops them. */
void events_open(int fd);

/*
 * Queue the event `name` of time `t`. `format` makes its further fields, each with a comma before
 * it, or is "". Each of these events is sent once in a boot and is a stage of it, "fail" excepted; the
 * queue has room for all of them, so a host that does not read costs nothing.
 */
__attribute__((format(printf, 3, 4))) void events_put(const char *name, uint64_t t, const char *format, ...);

/*
 * Queue an event that may come often and is no stage. It is dropped when the host has left so much
 * unread that it would take room from the others.
 */
__attribute__((format(printf, 3, 4))) void events_offer(const char *name, uint64_t t, const char *format, ...);

/* Send what the host takes without blocking. */
void events_flush(void);

/* Whether events are waiting for the host to read. */
bool events_waiting(void);

/* The socket, or -1 when there is none or the host has gone. */
int events_fd(void);

/* The last stage that was reached: the name of the newest event that is one. */
const char *events_stage(void);

#endif
