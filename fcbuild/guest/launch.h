/* From fork to exec: how the image's commands are started. */
#ifndef FCBUILD_LAUNCH_H
#define FCBUILD_LAUNCH_H

#include "config.h"

#include <stddef.h>
#include <sys/types.h>

enum {
	/* As a shell has them. */
	LAUNCH_NOT_EXECUTABLE = 126,
	LAUNCH_NOT_FOUND = 127,
};

/* What is said when a command could not be executed: its exit code, and one line with its newline. */
struct refusal {
	int code;
	char message[1024];
};

/* The two ends of a pipe. */
struct ends {
	int reading, writing;
};

struct launch {
	const struct config *config; /* identity, environment, working directory */
	char *const *argv;
	int output, errors; /* become its standard output and error */
};

/* Make a pipe that exec closes and whose reading end does not block. Returns 0, or -1 and errno. */
int launch_pipe(struct ends *ends);

/* Make one for output; the command may open it again, as /dev/stdout. Returns 0, or -1 and errno. */
int launch_output_pipe(const struct config *config, struct ends *ends);

/*
 * Become the command. Returns only when that cannot be done, with the reason in `refusal` and its
 * exit code. Standard input is /dev/null then, or what it was, and the process is to end.
 */
int launch_exec(const struct launch *launch, struct refusal *refusal);

/*
 * Have a child do that, and wait until it has executed the command, or has ended: then
 * `refusal->code` is not 0. It uses our memory until then, as vfork(2) does, so that none has to be
 * copied. What may have to wait for a process that PID 1 serves (a check, in a working directory on
 * FUSE) needs a fork instead. Returns the child's number, or -1 and errno.
 */
pid_t launch_child(const struct launch *launch, struct refusal *refusal);

#endif
