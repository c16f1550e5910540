/* From fork to exec: how the image's commands are started. */
#include "launch.h"

#include "clock.h"
#include "interpreter.h"
#include "process.h"
#include "search.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXEC_MS = 10000 };

_Static_assert(sizeof(struct refusal) <= PIPE_BUF, "a refusal is written as a whole");

int launch_pipe(struct ends *ends)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) != 0)
		return -1;
	*ends = (struct ends){fds[0], fds[1]};
	return fcntl(ends->reading, F_SETFL, O_NONBLOCK);
}

int launch_output_pipe(const struct config *config, struct ends *ends)
{
	if (launch_pipe(ends) != 0)
		return -1;
	if (fchown(ends->writing, config->uid, config->gid) == 0)
		return 0;
	int why = errno;
	close(ends->reading);
	close(ends->writing);
	errno = why;
	return -1;
}

/* Say why there is no exec. Returns the exit code for it. */
__attribute__((format(printf, 3, 4))) static int refuse(const struct launch *launch, int code, const char *format, ...)
{
	struct refusal refusal = {.code = code, .message = "fcbuild: "};
	size_t prefix = strlen(refusal.message), room = sizeof refusal.message - prefix - 1;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(refusal.message + prefix, room, format, arguments);
	va_end(arguments);
	strcat(refusal.message, "\n");
	/* If nobody hears it, the exit code is still seen. */
	if (launch->refusals < 0 ? write(launch->errors, refusal.message, strlen(refusal.message)) < 0
				 : write(launch->refusals, &refusal, sizeof refusal) < 0) {
	}
	return code;
}

static bool exists(const char *file)
{
	struct stat found;
	return stat(file, &found) == 0;
}

/* Say why `file` was not executed. */
static int refuse_file(const struct launch *launch, const char *file, int why)
{
	char head[4096], text[256];
	int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, head, sizeof head);
	size_t length = got > 0 ? (size_t)got : 0;
	if (fd >= 0)
		close(fd);
	if (why == ENOENT && exists(file)) {
		/* It is about the other file that this one needs. */
		bool known = interpreter_of(head, length, text, sizeof text);
		return refuse(launch, LAUNCH_NOT_FOUND, "%.512s: %s%s not found in the image", file,
			      known ? "interpreter " : "its interpreter", known ? text : "");
	}
	if (why == ENOEXEC) {
		const char *machine = machine_of(head, length, text, sizeof text);
		if (machine != NULL && strcmp(machine, machine_here()) != 0)
			return refuse(launch, LAUNCH_NOT_EXECUTABLE, "%.512s: built for %s, this machine is %s", file,
				      machine, machine_here());
	}
	return refuse(launch, why == ENOENT ? LAUNCH_NOT_FOUND : LAUNCH_NOT_EXECUTABLE, "%.512s: %s", file,
		      strerror(why));
}

/* Try each file that argv[0] can mean, as execvp(3) does but without falling back to a shell. */
static int exec_command(const struct launch *launch)
{
	const char *name = launch->argv[0], *path = search_path(launch->config->env);
	bool searching = strchr(name, '/') == NULL;
	char candidate[PATH_MAX], nearly[PATH_MAX] = "";
	int nearly_why = 0;
	while (search_next(&path, name, candidate, sizeof candidate)) {
		execve(candidate, launch->argv, launch->config->env);
		int why = errno;
		bool absent = why == ENOTDIR || (why == ENOENT && !exists(candidate));
		if (!searching || (!absent && why != EACCES && why != ENOENT))
			return refuse_file(launch, candidate, why);
		/* A file that would not run is worth reporting, unless a later directory has one that does. */
		if (!absent && nearly_why == 0) {
			strcpy(nearly, candidate);
			nearly_why = why;
		}
	}
	if (nearly_why != 0)
		return refuse_file(launch, nearly, nearly_why);
	if (!searching)
		return refuse(launch, LAUNCH_NOT_EXECUTABLE, "%.512s: %s", name, strerror(ENAMETOOLONG));
	return refuse(launch, LAUNCH_NOT_FOUND, "%.512s: not found in PATH", *name != '\0' ? name : "an empty name");
}

int launch_exec(const struct launch *launch)
{
	const struct config *config = launch->config;
	process_normal_oom();
	setsid();
	umask(022);
	/* What a container engine gives; the kernel's own hard limit of 4096 is from another time. */
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 1024, .rlim_max = 524288});
	setrlimit(RLIMIT_CORE, &(struct rlimit){.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY});
	setrlimit(RLIMIT_NPROC, &(struct rlimit){.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY});
	int input = open("/dev/null", O_RDWR);
	if (input < 0 || dup2(input, STDIN_FILENO) < 0)
		return refuse(launch, LAUNCH_NOT_EXECUTABLE, "/dev/null: %s", strerror(errno));
	if (dup2(launch->output, STDOUT_FILENO) < 0 || dup2(launch->errors, STDERR_FILENO) < 0)
		return refuse(launch, LAUNCH_NOT_EXECUTABLE, "standard output: %s", strerror(errno));
	process_close_on_exec();
	/* Still as root: the directory is the image's choice, not a right the user has to have. */
	if (chdir(config->workdir) != 0)
		return refuse(launch, LAUNCH_NOT_EXECUTABLE, "working directory %.512s: %s", config->workdir,
			      strerror(errno));
	if (setgroups(config->groupc, config->groups) != 0)
		return refuse(launch, LAUNCH_NOT_EXECUTABLE, "supplementary groups: %s", strerror(errno));
	if (setresgid(config->gid, config->gid, config->gid) != 0)
		return refuse(launch, LAUNCH_NOT_EXECUTABLE, "gid %u: %s", config->gid, strerror(errno));
	if (setresuid(config->uid, config->uid, config->uid) != 0)
		return refuse(launch, LAUNCH_NOT_EXECUTABLE, "uid %u: %s", config->uid, strerror(errno));
	process_default_signals();
	return exec_command(launch);
}

int launch_await(struct ends refusals, struct refusal *refusal)
{
	close(refusals.writing);
	refusal->code = 0;
	struct pollfd wait = {.fd = refusals.reading, .events = POLLIN};
	uint64_t deadline = clock_deadline(EXEC_MS);
	int ready, why = 0;
	do
		ready = poll(&wait, 1, clock_left(deadline));
	while (ready < 0 && errno == EINTR);
	if (ready <= 0)
		why = ready == 0 ? ETIMEDOUT : errno;
	else if (read(refusals.reading, refusal, sizeof *refusal) < 0)
		why = errno;
	close(refusals.reading);
	return why;
}
