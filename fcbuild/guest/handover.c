/* Handing over: the image's own init becomes process 1, and a child of it keeps the link. */
#include "handover.h"

#include "clock.h"
#include "directory.h"
#include "launch.h"
#include "link.h"
#include "process.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* An abstract address, so that no file system has to be there. */
#define NOTIFY_NAME "fcbuild/notify"

enum { EXEC_MS = 10000 };

_Static_assert(sizeof(struct refusal) <= PIPE_BUF, "a refusal is written as a whole");

enum { MESSAGES = 64 }; /* at a time; Linux queues 10 unless it is told otherwise */

static char notify_env[] = "NOTIFY_SOCKET=@" NOTIFY_NAME;
static int notify = -1;
static bool ready;

/* Open the socket of sd_notify(3). It shows who sends. Returns 0, or -1 and errno. */
static int notify_open(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0" NOTIFY_NAME};
	notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (notify < 0 || setsockopt(notify, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)) != 0)
		return -1;
	return bind(notify, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + sizeof NOTIFY_NAME);
}

/* Put NOTIFY_SOCKET into the environment, in place of the image's. */
static void notify_announce(struct config *config)
{
	const size_t name_length = strlen("NOTIFY_SOCKET=");
	size_t kept = 0;
	for (size_t i = 0; i < config->envc; i++)
		if (strncmp(config->env[i], notify_env, name_length) != 0)
			config->env[kept++] = config->env[i];
	config->env[kept++] = notify_env;
	config->env[kept] = NULL;
	config->envc = kept;
}

/* What the child needs to outlive whatever the init does to processes that it does not know. */
static void become_link(char *title)
{
	static const char name[] = "fcbuild-link";
	/* Out of the way of killall5(8) and of job control: nobody else is in this session. */
	setsid();
	process_never_oom();
	prctl(PR_SET_NAME, name);
	/* The room for it is what the kernel's command line gave PID 1. */
	size_t room = strlen(title) + 1;
	memset(title, 0, room);
	memcpy(title, name, sizeof name <= room ? sizeof name - 1 : room - 1);
}

/*
 * Wait until an exec has closed the pipe, or the reason why there was none has come out of it. Returns
 * 0 or an errno.
 */
static int await_exec(struct ends refusals, struct refusal *refusal)
{
	close(refusals.writing);
	refusal->code = 0;
	struct pollfd wait = {.fd = refusals.reading, .events = POLLIN};
	uint64_t deadline = clock_deadline(EXEC_MS);
	int count, why = 0;
	do
		count = poll(&wait, 1, clock_left(deadline));
	while (count < 0 && errno == EINTR);
	if (count <= 0)
		why = count == 0 ? ETIMEDOUT : errno;
	else if (read(refusals.reading, refusal, sizeof *refusal) < 0)
		why = errno;
	close(refusals.reading);
	return why;
}

/* Become the image's init, or say why not in the pipe. */
static _Noreturn void become_init(const struct launch *launch, int refusals)
{
	struct refusal refusal;
	launch_exec(launch, &refusal);
	if (write(refusals, &refusal, sizeof refusal) < 0) {
	}
	/* The kernel panics when PID 1 ends, and the child has something to tell first. */
	for (;;)
		pause();
}

int handover_start(struct config *config, struct program *program, char *title, char *error, size_t error_size)
{
	struct ends output, errors, refusals;
	memset(program, 0, sizeof *program);
	/* An init is root's, whatever USER says. */
	config->uid = 0;
	config->gid = 0;
	config->groupc = 0;
	if (notify_open() != 0) {
		snprintf(error, error_size, "notify socket: %s", strerror(errno));
		return -1;
	}
	notify_announce(config);
	if (launch_output_pipe(config, &output) != 0 || launch_output_pipe(config, &errors) != 0 ||
	    launch_pipe(&refusals) != 0) {
		snprintf(error, error_size, "pipe: %s", strerror(errno));
		return -1;
	}

	directory_make(config->workdir, strlen(config->workdir), 0, 0);

	pid_t child = link_hand_over();
	if (child < 0) {
		snprintf(error, error_size, "fork: %s", strerror(errno));
		return -1;
	}
	if (child > 0)
		become_init(&(struct launch){config, config->argv, output.writing, errors.writing}, refusals.writing);

	become_link(title);
	close(output.writing);
	close(errors.writing);
	program->pid = 1;
	program->output = output.reading;
	program->errors = errors.reading;
	int why = await_exec(refusals, &program->refusal);
	if (why != 0) {
		snprintf(error, error_size, "exec: %s", strerror(why));
		return -1;
	}
	return 0;
}

int handover_fd(void)
{
	return notify;
}

/* Whether one of the lines of a message is "READY=1". */
static bool says_ready(const char *message)
{
	static const char wanted[] = "READY=1";
	for (const char *line = message; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strcspn(line, "\n") == strlen(wanted) && strncmp(line, wanted, strlen(wanted)) == 0)
			return true;
	}
	return false;
}

/* Read one message. Returns whether there was one; `*from_root` says whether it is root's. */
static bool notify_read(char *message, size_t size, bool *from_root)
{
	/* Room for the credentials only: the kernel closes descriptors that come along. */
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec part = {message, size - 1};
	struct msghdr received = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t length = recvmsg(notify, &received, 0);
	if (length < 0)
		return false;
	message[length] = '\0';
	*from_root = false;
	const struct cmsghdr *header = CMSG_FIRSTHDR(&received);
	if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS) {
		struct ucred sender;
		memcpy(&sender, CMSG_DATA(header), sizeof sender);
		*from_root = sender.uid == 0;
	}
	return true;
}

bool handover_ready(void)
{
	char message[4096];
	bool was_ready = ready, from_root;
	/*
	 * Everything is read, whoever sent it and also afterwards: a full queue would hold up an init that
	 * has something to say. Whoever fills it faster than this is left for the next time.
	 */
	for (int i = 0; i < MESSAGES && notify_read(message, sizeof message, &from_root); i++)
		ready |= from_root && says_ready(message);
	return ready && !was_ready;
}
