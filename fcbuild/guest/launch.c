/* From fork to exec: how the image's commands are started. */
#include "launch.h"

#include "interpreter.h"
#include "process.h"
#include "search.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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
__attribute__((format(printf, 3, 4))) static int refuse(struct refusal *refusal, int code, const char *format, ...)
{
	*refusal = (struct refusal){.code = code, .message = "fcbuild: "};
	size_t prefix = strlen(refusal->message), room = sizeof refusal->message - prefix - 1;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(refusal->message + prefix, room, format, arguments);
	va_end(arguments);
	strcat(refusal->message, "\n");
	return code;
}

static bool exists(const char *file)
{
	struct stat found;
	return stat(file, &found) == 0;
}

/* Say why `file` was not executed. */
static int refuse_file(struct refusal *refusal, const char *file, int why)
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
		return refuse(refusal, LAUNCH_NOT_FOUND, "%.512s: %s%s not found in the image", file,
			      known ? "interpreter " : "its interpreter", known ? text : "");
	}
	if (why == ENOEXEC) {
		const char *machine = machine_of(head, length, text, sizeof text);
		if (machine != NULL && strcmp(machine, machine_here()) != 0)
			return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "%.512s: built for %s, this machine is %s", file,
				      machine, machine_here());
	}
	return refuse(refusal, why == ENOENT ? LAUNCH_NOT_FOUND : LAUNCH_NOT_EXECUTABLE, "%.512s: %s", file,
		      strerror(why));
}

/* Try each file that argv[0] can mean, as execvp(3) does but without falling back to a shell. */
static int exec_command(const struct launch *launch, struct refusal *refusal)
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
			return refuse_file(refusal, candidate, why);
		/* A file that would not run is worth reporting, unless a later directory has one that does. */
		if (!absent && nearly_why == 0) {
			strcpy(nearly, candidate);
			nearly_why = why;
		}
	}
	if (nearly_why != 0)
		return refuse_file(refusal, nearly, nearly_why);
	if (!searching)
		return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "%.512s: %s", name, strerror(ENAMETOOLONG));
	return refuse(refusal, LAUNCH_NOT_FOUND, "%.512s: not found in PATH", *name != '\0' ? name : "an empty name");
}

int launch_exec(const struct launch *launch, struct refusal *refusal)
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
		return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "/dev/null: %s", strerror(errno));
	if (dup2(launch->output, STDOUT_FILENO) < 0 || dup2(launch->errors, STDERR_FILENO) < 0)
		return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "standard output: %s", strerror(errno));
	process_close_on_exec();
	/* Still as root: the directory is the image's choice, not a right the user has to have. */
	if (chdir(config->workdir) != 0)
		return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "working directory %.512s: %s", config->workdir,
			      strerror(errno));
	/* The kernel's own calls: this process has PID 1's memory, and a libc would change PID 1's threads too. */
	if (syscall(SYS_setgroups, config->groupc, config->groups) != 0)
		return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "supplementary groups: %s", strerror(errno));
	if (syscall(SYS_setresgid, config->gid, config->gid, config->gid) != 0)
		return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "gid %u: %s", config->gid, strerror(errno));
	if (syscall(SYS_setresuid, config->uid, config->uid, config->uid) != 0)
		return refuse(refusal, LAUNCH_NOT_EXECUTABLE, "uid %u: %s", config->uid, strerror(errno));
	process_unblock_signals();
	return exec_command(launch, refusal);
}

struct child {
	const struct launch *launch;
	struct refusal *refusal;
};

static int become(void *argument)
{
	const struct child *child = argument;
	return launch_exec(child->launch, child->refusal);
}

pid_t launch_child(const struct launch *launch, struct refusal *refusal)
{
	/* launch_exec needs some 20 KiB. Only one child at a time uses it. */
	static _Alignas(16) char stack[65536];
	refusal->code = 0;
	return clone(become, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &(struct child){launch, refusal});
}
