/* A virtio-serial port in place of vsock. */
#include "port.h"

#include "../kvmhost/mux.h"
#include "clock.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

/* The kernel passes a word of its command line that it does not know on to PID 1, where it can be read
 * before there is a /proc. */
#define PORT_VARIABLE "FCBUILD_LINK"

enum { BACKLOG = 64, RETRY_MS = 1 };

/* The guest's listeners, in the order of enum port_guest. "@": no file system has to be there. */
static char control_name[] = "@fcbuild/control", forward_name[] = "@fcbuild/forward";
static const struct paths listeners = {.path = {control_name, forward_name}, .count = 2};

static int port = -1;

/*
 * A thread of PID 1 carries the sockets, because whatever ends the other processes spares this one. It
 * holds the lock but when it waits; who else holds it finds the mux at rest.
 */
static pthread_mutex_t at_work = PTHREAD_MUTEX_INITIALIZER;
static struct pollfd polls[MUX_POLLS];

static void wait_a_little(void)
{
	nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
}

/* The device is made when the driver and the VMM have talked; no event tells, before there is a /dev. */
static int open_device(const char *device, uint64_t deadline)
{
	for (;;) {
		int fd = open(device, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd >= 0 || clock_left(deadline) == 0)
			return fd;
		wait_a_little();
	}
}

/* What is written before the host has connected to the port waits for it, perhaps for ever. */
static bool await_host(uint64_t deadline)
{
	for (;;) {
		struct pollfd wait = {.fd = port, .events = POLLOUT};
		if (poll(&wait, 1, clock_left(deadline)) > 0 && (wait.revents & (POLLOUT | POLLHUP)) == POLLOUT)
			return true;
		if (clock_left(deadline) == 0)
			return false;
		wait_a_little();
	}
}

bool port_open(uint64_t deadline)
{
	const char *device = getenv(PORT_VARIABLE);
	if (device == NULL)
		return false;
	mounts_devices();
	port = open_device(device, deadline);
	if (port >= 0 && !await_host(deadline)) {
		close(port);
		port = -1;
	}
	if (port >= 0)
		mux_start(port, &listeners);
	return true;
}

int port_listen(enum port_guest which)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, listeners.path[which]);
	address.sun_path[0] = '\0';
	int fd = port < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	close(fd);
	return -1;
}

int port_connect(enum port_host which)
{
	int ends[2];
	if (port < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
		return -1;
	mux_open(ends[1], which);
	return ends[0];
}

bool port_is_host(int connection)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == getpid();
}

static void *carry(void *nothing)
{
	enum link_state state = LINK_OPEN;
	pthread_mutex_lock(&at_work);
	while (state == LINK_OPEN) {
		size_t count = mux_poll(polls);
		int timeout = mux_knocking() ? RETRY_MS : -1;
		pthread_mutex_unlock(&at_work);
		int found = poll(polls, count, timeout);
		pthread_mutex_lock(&at_work);
		mux_retry();
		if (found > 0)
			state = mux_run(polls, count);
	}
	/* The host is gone or breaks the rules: the connections end, as those of vsock would. */
	mux_close();
	pthread_mutex_unlock(&at_work);
	return nothing;
}

/* What is sent to a host that refuses is lost, so nothing is before it has answered. */
void port_await(uint64_t deadline)
{
	int left;
	while (port >= 0 && mux_asking() && (left = clock_left(deadline)) > 0) {
		size_t count = mux_poll(polls);
		if (poll(polls, count, left) > 0 && mux_run(polls, count) != LINK_OPEN) {
			mux_close();
			port = -1;
		}
	}
}

void port_start(void)
{
	pthread_t thread;
	if (port >= 0 && pthread_create(&thread, NULL, carry, NULL) != 0) {
		mux_close();
		port = -1;
	}
}

pid_t port_hand_over(void)
{
	/* The parent keeps the lock: what it carried is its child's now. */
	pthread_mutex_lock(&at_work);
	pid_t child = fork();
	if (child == 0)
		port_start();
	if (child <= 0)
		pthread_mutex_unlock(&at_work);
	return child;
}
