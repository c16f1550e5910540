/* The image's program: the one process this machine is for. */
#include "program.h"

#include "clock.h"
#include "directory.h"
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

enum {
	EXEC_MS = 10000,
	/* As a shell has them. */
	CODE_NOT_EXECUTABLE = 126,
	CODE_NOT_FOUND = 127,
};

/* What the child says when it could not exec; one write(2), so it must fit into PIPE_BUF. */
struct refusal {
	int code;
	char message[sizeof((struct program *)0)->message];
};

_Static_assert(sizeof(struct refusal) <= PIPE_BUF, "a refusal is written as a whole");

/* The two ends of a pipe. */
struct ends {
	int reading, writing;
};

static int make_pipe(struct ends *ends)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) != 0)
		return -1;
	*ends = (struct ends){fds[0], fds[1]};
	return fcntl(ends->reading, F_SETFL, O_NONBLOCK);
}

__attribute__((format(printf, 3, 4))) static _Noreturn void refuse(int pipe, int code, const char *format, ...)
{
	struct refusal refusal = {.code = code, .message = "fcbuild: "};
	size_t prefix = strlen(refusal.message), room = sizeof refusal.message - prefix - 1;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(refusal.message + prefix, room, format, arguments);
	va_end(arguments);
	strcat(refusal.message, "\n");
	/* If PID 1 does not hear it, it still sees the exit code. */
	if (write(pipe, &refusal, sizeof refusal) < 0) {
	}
	_exit(code);
}

static bool exists(const char *file)
{
	struct stat found;
	return stat(file, &found) == 0;
}

/* Say why `file` was not executed, and exit with the code for it. */
static _Noreturn void refuse_file(int pipe, const char *file, int why)
{
	char head[4096], text[256];
	int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, head, sizeof head);
	size_t length = got > 0 ? (size_t)got : 0;
	if (why == ENOENT && exists(file)) {
		/* It is about the other file that this one needs. */
		bool known = interpreter_of(head, length, text, sizeof text);
		refuse(pipe, CODE_NOT_FOUND, "%.512s: %s%s not found in the image", file,
		       known ? "interpreter " : "its interpreter", known ? text : "");
	}
	if (why == ENOEXEC) {
		const char *machine = machine_of(head, length, text, sizeof text);
		if (machine != NULL && strcmp(machine, machine_here()) != 0)
			refuse(pipe, CODE_NOT_EXECUTABLE, "%.512s: built for %s, this machine is %s", file, machine,
			       machine_here());
	}
	refuse(pipe, why == ENOENT ? CODE_NOT_FOUND : CODE_NOT_EXECUTABLE, "%.512s: %s", file, strerror(why));
}

/* Try each file that argv[0] can mean, as execvp(3) does but without falling back to a shell. */
static _Noreturn void exec_program(const struct config *config, int pipe)
{
	const char *name = config->argv[0], *path = search_path(config->env);
	bool searching = strchr(name, '/') == NULL;
	char candidate[PATH_MAX], nearly[PATH_MAX] = "";
	int nearly_why = 0;
	while (search_next(&path, name, candidate, sizeof candidate)) {
		execve(candidate, config->argv, config->env);
		int why = errno;
		bool absent = why == ENOTDIR || (why == ENOENT && !exists(candidate));
		if (!searching || (!absent && why != EACCES && why != ENOENT))
			refuse_file(pipe, candidate, why);
		/* A file that would not run is worth reporting, unless a later directory has one that does. */
		if (!absent && nearly_why == 0) {
			strcpy(nearly, candidate);
			nearly_why = why;
		}
	}
	if (nearly_why != 0)
		refuse_file(pipe, nearly, nearly_why);
	if (!searching)
		refuse(pipe, CODE_NOT_EXECUTABLE, "%.512s: %s", name, strerror(ENAMETOOLONG));
	refuse(pipe, CODE_NOT_FOUND, "%.512s: not found in PATH", *name != '\0' ? name : "an empty name");
}

/* Everything between fork and exec. */
static _Noreturn void become_program(const struct config *config, struct ends output, struct ends errors, int pipe)
{
	process_normal_oom();
	setsid();
	umask(022);
	/* What a container engine gives; the kernel's own hard limit of 4096 is from another time. */
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 1024, .rlim_max = 524288});
	setrlimit(RLIMIT_CORE, &(struct rlimit){.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY});
	setrlimit(RLIMIT_NPROC, &(struct rlimit){.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY});
	int input = open("/dev/null", O_RDONLY);
	if (input < 0 || dup2(input, STDIN_FILENO) < 0)
		refuse(pipe, CODE_NOT_EXECUTABLE, "/dev/null: %s", strerror(errno));
	if (dup2(output.writing, STDOUT_FILENO) < 0 || dup2(errors.writing, STDERR_FILENO) < 0)
		refuse(pipe, CODE_NOT_EXECUTABLE, "standard output: %s", strerror(errno));
	process_close_on_exec();
	/* Still as root: the directory is the image's choice, not a right the user has to have. */
	if (chdir(config->workdir) != 0)
		refuse(pipe, CODE_NOT_EXECUTABLE, "working directory %.512s: %s", config->workdir, strerror(errno));
	if (setgroups(config->groupc, config->groups) != 0)
		refuse(pipe, CODE_NOT_EXECUTABLE, "supplementary groups: %s", strerror(errno));
	if (setresgid(config->gid, config->gid, config->gid) != 0)
		refuse(pipe, CODE_NOT_EXECUTABLE, "gid %u: %s", config->gid, strerror(errno));
	if (setresuid(config->uid, config->uid, config->uid) != 0)
		refuse(pipe, CODE_NOT_EXECUTABLE, "uid %u: %s", config->uid, strerror(errno));
	process_default_signals();
	exec_program(config, pipe);
}

/* Wait until exec has closed the pipe or the child has said why not. Returns 0 or an errno. */
static int await_exec(int pipe, struct program *program)
{
	struct refusal refusal;
	struct pollfd wait = {.fd = pipe, .events = POLLIN};
	uint64_t deadline = clock_deadline(EXEC_MS);
	int ready;
	do
		ready = poll(&wait, 1, clock_left(deadline));
	while (ready < 0 && errno == EINTR);
	if (ready <= 0)
		return ready == 0 ? ETIMEDOUT : errno;
	ssize_t got = read(pipe, &refusal, sizeof refusal);
	if (got < 0)
		return errno;
	if (got == (ssize_t)sizeof refusal) {
		program->exec_code = refusal.code;
		memcpy(program->message, refusal.message, sizeof program->message);
	}
	return 0;
}

int program_start(const struct config *config, struct program *program, char *error, size_t error_size)
{
	struct ends output, errors, exec;
	memset(program, 0, sizeof *program);
	if (make_pipe(&output) != 0 || make_pipe(&errors) != 0 || make_pipe(&exec) != 0) {
		snprintf(error, error_size, "pipe: %s", strerror(errno));
		return -1;
	}
	/* So that the program may open /dev/stdout and /dev/stderr again. */
	if (fchown(output.writing, config->uid, config->gid) != 0 ||
	    fchown(errors.writing, config->uid, config->gid) != 0) {
		snprintf(error, error_size, "pipe owner: %s", strerror(errno));
		return -1;
	}
	directory_make(config->workdir, strlen(config->workdir), 0, 0);

	program->pid = fork();
	if (program->pid < 0) {
		snprintf(error, error_size, "fork: %s", strerror(errno));
		return -1;
	}
	if (program->pid == 0)
		become_program(config, output, errors, exec.writing);

	close(output.writing);
	close(errors.writing);
	close(exec.writing);
	program->output = output.reading;
	program->errors = errors.reading;
	int why = await_exec(exec.reading, program);
	close(exec.reading);
	if (why != 0) {
		snprintf(error, error_size, "exec: %s", strerror(why));
		return -1;
	}
	return 0;
}
