/* The image's program: the one process this machine is for. */
#include "program.h"

#include "directory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int program_start(const struct config *config, struct program *program, char *error, size_t error_size)
{
	struct ends output, errors;
	memset(program, 0, sizeof *program);
	if (launch_output_pipe(config, &output) != 0 || launch_output_pipe(config, &errors) != 0) {
		snprintf(error, error_size, "pipe: %s", strerror(errno));
		return -1;
	}
	directory_make(config->workdir, strlen(config->workdir), 0, 0);

	program->pid = launch_child(&(struct launch){config, config->argv, output.writing, errors.writing},
				    &program->refusal);
	if (program->pid < 0) {
		snprintf(error, error_size, "clone: %s", strerror(errno));
		return -1;
	}
	close(output.writing);
	close(errors.writing);
	program->output = output.reading;
	program->errors = errors.reading;
	return 0;
}
