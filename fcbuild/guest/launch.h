/* From fork to exec: how the image's commands are started. */
#ifndef FCBUILD_LAUNCH_H
#define FCBUILD_LAUNCH_H

#include "config.h"

#include <stddef.h>

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
	int refusals;       /* a pipe that takes a struct refusal, or -1: `errors` takes its message */
};

/* Make a pipe that exec closes and whose reading end does not block. Returns 0, or -1 and errno. */
int launch_pipe(struct ends *ends);

/* Make one for output; the command may open it again, as /dev/stdout. Returns 0, or -1 and errno. */
int launch_output_pipe(const struct config *config, struct ends *ends);

/*
 * Become the command. Returns only when that cannot be done, with the exit code, after having said
 * why. Standard input is /dev/null then, or what it was, and the process is to end.
 */
int launch_exec(const struct launch *launch);

/*
 * Wait (10 s at most) until an exec has closed the pipe `refusals`, or the reason why it did not has
 * come out of it: then `refusal->code` is not 0. Closes the pipe's writing end here before, and its
 * reading end afterwards. Returns 0 or an errno.
 */
int launch_await(struct ends refusals, struct refusal *refusal);

#endif
