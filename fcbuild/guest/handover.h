/* Handing over: the image's own init becomes process 1, and a child of it keeps the link. */
#ifndef FCBUILD_HANDOVER_H
#define FCBUILD_HANDOVER_H

#include "config.h"
#include "program.h"

#include <stdbool.h>

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

/* The socket on which the init says how it is, or -1 without one. */
int handover_fd(void);

/* Read what it has said. Returns whether root says READY=1 there, for the first time. */
bool handover_ready(void);

#endif
