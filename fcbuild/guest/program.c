/* The image's program: the one process this machine is for. */
#include "program.h"

#include "directory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int program_start(const struct config *config, struct program *program, char *error, size_t error_size)
{
	struct ends output, errors, refusals;
	memset(program, 0, sizeof *program);
	if (launch_output_pipe(config, &output) != 0 || launch_output_pipe(config, &errors) != 0 ||
	    launch_pipe(&refusals) != 0) {
		snprintf(error, error_size, "pipe: %s", strerror(errno));
		return -1;
	}
	directory_make(config->workdir, strlen(config->workdir), 0, 0);

	program->pid = fork();
	if (program->pid < 0) {
		snprintf(error, error_size, "fork: %s", strerror(errno));
		return -1;
	}
	if (program->pid == 0)
		_exit(launch_exec(&(struct launch){config, config->argv, output.writing, errors.writing, refusals.writing}));

	close(output.writing);
	close(errors.writing);
	program->output = output.reading;
	program->errors = errors.reading;
	int why = launch_await(refusals, &program->refusal);
	if (why != 0) {
		snprintf(error, error_size, "exec: %s", strerror(why));
		return -1;
	}
	return 0;
}
