/* Handing over: the image's own init becomes process 1, and a child of it keeps the link. */
#ifndef FCBUILD_HANDOVER_H
#define FCBUILD_HANDOVER_H

#include "config.h"
#include "program.h"

#include <poll.h>
#include <stdbool.h>

enum { HANDOVER_SLOTS = 1 };

/*
 * Fork, and execute the image's init in PID 1; only the child returns. It has waited, like
 * program_start, until the exec has succeeded or failed, and `program` is process 1. PID 1 that could
 * not execute does nothing any more: the child has to end the machine.
 *
 * `title` is PID 1's argv[0], which the child overwrites with a name of its own.
 *
 * Returns 0, or -1 with the reason in `error`; a -1 may come in PID 1, when it could not fork.
 */
int handover_start(struct config *config, struct program *program, char *title, char *error, size_t error_size);

/* Set the poll entry to what the init says about itself. */
void handover_watch(struct pollfd slots[HANDOVER_SLOTS]);

/* Read one message. Returns whether it is the first in which root says READY=1. */
bool handover_step(const struct pollfd slots[HANDOVER_SLOTS]);

#endif
