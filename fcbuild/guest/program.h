/* The image's program: the one process this machine is for. */
#ifndef FCBUILD_PROGRAM_H
#define FCBUILD_PROGRAM_H

#include "config.h"

#include <stdint.h>
#include <sys/types.h>

struct program {
	pid_t pid;
	int output, errors; /* the reading ends of its pipes, non-blocking */
	int exec_code;      /* 0: it runs. 126 or 127: exec failed, and this is its exit code */
	char message[1024]; /* why, one line with its newline */
};

/*
 * Start the program and wait (10 s at most) until its exec has succeeded or failed. A program that
 * cannot be executed is a result (exec_code, message), not an error.
 *
 * Returns 0, or -1 with the reason in `error` when the guest itself is at fault.
 */
int program_start(const struct config *config, struct program *program, char *error, size_t error_size);

#endif
