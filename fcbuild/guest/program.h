/* The image's program: the one process this machine is for. */
#ifndef FCBUILD_PROGRAM_H
#define FCBUILD_PROGRAM_H

#include "config.h"
#include "launch.h"

#include <stdint.h>
#include <sys/types.h>

struct program {
	pid_t pid;
	int output, errors;     /* the reading ends of its pipes, non-blocking */
	struct refusal refusal; /* its code is 0: it runs */
};

/*
 * Start the program and wait until its exec has succeeded or failed. A program that
 * cannot be executed is a result (`refusal`), not an error.
 *
 * Returns 0, or -1 with the reason in `error` when the guest itself is at fault.
 */
int program_start(const struct config *config, struct program *program, char *error, size_t error_size);

#endif
