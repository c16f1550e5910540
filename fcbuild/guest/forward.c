/* TCP forward: the host reaches the guest's ports without a network. */
#include "forward.h"

#include "clock.h"
#include "flow.h"
#include "link.h"
#include "process.h"
#include "requests.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	FORWARDS_MAX = 64,
	/* Long enough for the second SYN, when a busy server's accept queue is full at the first. */
	CONNECT_MS = 3000,
};

static pid_t forwards[FORWARDS_MAX]; /* 0: free */

/* Used in the children only; PID 1 never touches these pages. */
static struct flow to_program, to_host;

const char *forward_errno_name(int number)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {
		{EACCES, "EACCES"},
		{EADDRNOTAVAIL, "EADDRNOTAVAIL"},
		{EAFNOSUPPORT, "EAFNOSUPPORT"},
		{EAGAIN, "EAGAIN"},
		{ECONNREFUSED, "ECONNREFUSED"},
		{ECONNRESET, "ECONNRESET"},
		{EHOSTUNREACH, "EHOSTUNREACH"},
		{EINVAL, "EINVAL"},
		{EMFILE, "EMFILE"},
		{ENETDOWN, "ENETDOWN"},
		{ENETUNREACH, "ENETUNREACH"},
		{ENFILE, "ENFILE"},
		{ENOBUFS, "ENOBUFS"},
		{ENOMEM, "ENOMEM"},
		{EPERM, "EPERM"},
		{ETIMEDOUT, "ETIMEDOUT"},
	};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (names[i].number == number)
			return names[i].name;
	return "EIO";
}

static void answer(int host, int why)
{
	char line[64] = "ok\n";
	if (why != 0)
		snprintf(line, sizeof line, "error %s\n", forward_errno_name(why));
	send(host, line, strlen(line), MSG_NOSIGNAL);
}

/* Wait for `events` on `fd`. Returns 0 or an errno. */
static int wait_for(int fd, short events, uint64_t deadline)
{
	struct pollfd wait = {.fd = fd, .events = events};
	int result;
	do
		result = poll(&wait, 1, clock_left(deadline));
	while (result < 0 && errno == EINTR);
	return result > 0 ? 0 : result == 0 ? ETIMEDOUT : errno;
}

/* Read the header line; what came behind it waits in `to_program`. Returns 0 or an errno. */
static int read_header(int host, uint16_t *port)
{
	struct request request = {.length = 0};
	size_t length = 0;
	uint64_t deadline = clock_deadline(REQUEST_MS);
	enum request_state state;
	while ((state = request_read(&request, host, &length)) == REQUEST_PARTIAL) {
		int why = wait_for(host, POLLIN, deadline);
		if (why != 0)
			return why;
	}
	if (state != REQUEST_WHOLE || !request_forward(request.bytes, length, port))
		return EINVAL;
	to_program.end = request.length - length - 1;
	memcpy(to_program.bytes, request.bytes + length + 1, to_program.end);
	return 0;
}

/* Connect to one address. Returns 0 and the socket, or an errno. */
static int connect_to(const struct sockaddr *address, socklen_t size, int *connected)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	int why = connect(fd, address, size) == 0 ? 0 : errno;
	if (why == EINPROGRESS) {
		socklen_t why_size = sizeof why;
		why = wait_for(fd, POLLOUT, clock_deadline(CONNECT_MS));
		if (why == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &why_size) != 0)
			why = errno;
	}
	if (why != 0) {
		close(fd);
		return why;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	*connected = fd;
	return 0;
}

/* Connect to the loopback's `port`, IPv4 first. The error is IPv4's, which is the one people expect. */
static int connect_port(uint16_t port, int *connected)
{
	const struct sockaddr_in v4 = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	const struct sockaddr_in6 v6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};
	int why = connect_to((const struct sockaddr *)&v4, sizeof v4, connected);
	if (why != 0 && connect_to((const struct sockaddr *)&v6, sizeof v6, connected) == 0)
		return 0;
	return why;
}

/*
 * Move bytes both ways until the program has ended its answer, or the host has gone. The host may
 * end its direction first; its end is passed on and the answer still comes back.
 *
 * The other half-close is passed on as a full close: Firecracker does not show the host that the
 * guest has shut one direction, so a client that reads to the end would wait for ever.
 */
static void move_bytes(int host, int program)
{
	bool host_ended = false;
	to_program.from = to_host.to = host;
	to_program.to = to_host.from = program;
	for (;;) {
		struct pollfd slots[4];
		flow_watch(&to_program, slots);
		flow_watch(&to_host, slots + 2);
		if (poll(slots, 4, -1) < 0 && errno != EINTR)
			return;
		if (flow_step(&to_program) == FLOW_BROKEN) {
			/* The program reads no more, but its answer may still be on the way. */
			to_program.start = to_program.end = 0;
			to_program.from = -1;
		}
		if (to_program.from < 0 && !flow_waiting(&to_program) && !host_ended) {
			shutdown(program, SHUT_WR);
			host_ended = true;
		}
		if (flow_step(&to_host) == FLOW_BROKEN)
			return;
		if (to_host.from < 0 && !flow_waiting(&to_host))
			return;
	}
}

static void serve(int host)
{
	uint16_t port = 0;
	int program = -1;
	int why = read_header(host, &port);
	if (why == 0)
		why = connect_port(port, &program);
	answer(host, why);
	if (why == 0)
		move_bytes(host, program);
}

static pid_t *free_forward(void)
{
	for (int i = 0; i < FORWARDS_MAX; i++)
		if (forwards[i] == 0)
			return &forwards[i];
	return NULL;
}

void forward_accept(int listener)
{
	int host = link_accept(listener);
	if (host < 0)
		return;
	pid_t *forward = free_forward();
	pid_t pid = forward != NULL ? fork() : -1;
	if (pid == 0) {
		process_keep_only(host);
		process_normal_oom();
		/* PID 1 does not end, but what keeps the link beside an image's own init does. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "fcbuild-forward");
		serve(host);
		_exit(0);
	}
	if (pid > 0)
		*forward = pid;
	else
		answer(host, EAGAIN);
	close(host);
}

bool forward_ended(pid_t pid)
{
	for (int i = 0; i < FORWARDS_MAX; i++) {
		if (forwards[i] == pid) {
			forwards[i] = 0;
			return true;
		}
	}
	return false;
}
