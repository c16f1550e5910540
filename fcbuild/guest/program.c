/* The image's program: the one process this machine is for. */
#include "program.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Create the working directory and its parents. What is wrong with it shows when it is entered. */
static void make_workdir(const char *workdir)
{
	char path[PATH_MAX];
	if (strlen(workdir) >= sizeof path)
		return;
	strcpy(path, workdir);
	for (char *slash = path + 1; slash != NULL && *slash != '\0'; slash++) {
		slash = strchr(slash, '/');
		if (slash != NULL)
			*slash = '\0';
		mkdir(path, 0755);
		if (slash == NULL)
			break;
		*slash = '/';
	}
}

int program_start(const struct config *config, struct program *program, char *error, size_t error_size)
{
	struct ends output, errors, refusals;
	memset(program, 0, sizeof *program);
	if (launch_output_pipe(config, &output) != 0 || launch_output_pipe(config, &errors) != 0 ||
	    launch_pipe(&refusals) != 0) {
		snprintf(error, error_size, "pipe: %s", strerror(errno));
		return -1;
	}
	make_workdir(config->workdir);

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
