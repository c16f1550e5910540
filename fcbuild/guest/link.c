/* The sockets between guest and host. */
#include "link.h"

#include "clock.h"
#include "port.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECT_MS = 1000, BACKLOG = 64 };

static bool through_port; /* and not over vsock */

/*
 * Everything below this knows only sockets; the address family is chosen here. Tests on a machine
 * without a microVM define LINK_UNIX_DIR and get unix sockets `<dir>/v.sock_<port>` instead, which
 * is also how Firecracker shows the guest's connections to the host.
 */
#ifdef LINK_UNIX_DIR

#include <sys/un.h>

typedef struct sockaddr_un link_address;

static link_address address_of(enum link_port port, bool listening)
{
	link_address address = {.sun_family = AF_UNIX};
	(void)listening;
	snprintf(address.sun_path, sizeof address.sun_path, LINK_UNIX_DIR "/v.sock_%d", port);
	return address;
}

static bool from_host(const link_address *peer)
{
	(void)peer;
	return true;
}

#else

/* struct sockaddr_vm and its constants as in <linux/vm_sockets.h>, which a libc need not bring. */
typedef struct {
	sa_family_t svm_family;
	unsigned short svm_reserved1;
	unsigned int svm_port;
	unsigned int svm_cid;
	unsigned char svm_flags;
	unsigned char svm_zero[3];
} link_address;

_Static_assert(sizeof(link_address) == sizeof(struct sockaddr), "the kernel's struct sockaddr_vm");

#define VMADDR_CID_ANY (-1U)
#define VMADDR_CID_HOST 2U

static link_address address_of(enum link_port port, bool listening)
{
	return (link_address){
		.svm_family = AF_VSOCK,
		.svm_port = port,
		.svm_cid = listening ? VMADDR_CID_ANY : VMADDR_CID_HOST,
	};
}

static bool from_host(const link_address *peer)
{
	return peer->svm_cid == VMADDR_CID_HOST;
}

#endif

static int open_socket(link_address address)
{
	return socket(*(sa_family_t *)&address, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Start a connection. Returns the socket, or -1 when it is refused at once. */
static int start_connect(enum link_port port)
{
	link_address address = address_of(port, false);
	int fd = open_socket(address);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Wait for a started connection. Returns `fd`, or -1 (and `fd` is closed) when there will be none. */
static int finish_connect(int fd, uint64_t deadline)
{
	if (fd < 0)
		return -1;
	struct pollfd wait = {.fd = fd, .events = POLLOUT};
	int result;
	do
		result = poll(&wait, 1, clock_left(deadline));
	while (result < 0 && errno == EINTR);
	int why = 0;
	socklen_t size = sizeof why;
	if (result == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size) == 0 && why == 0)
		return fd;
	close(fd);
	return -1;
}

static int start_listen(enum link_port port)
{
	link_address address = address_of(port, true);
	int fd = open_socket(address);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* As link_open; a connection that the host refuses is one that has ended. */
static void open_port(struct link *link, uint64_t deadline)
{
	link->control = port_listen(PORT_CONTROL);
	link->forward = port_listen(PORT_FORWARD);
	link->events = port_connect(PORT_EVENTS);
	link->output = port_connect(PORT_STDOUT);
	link->errors = port_connect(PORT_STDERR);
	port_await(deadline);
	port_start();
}

void link_open(struct link *link)
{
	uint64_t deadline = clock_deadline(CONNECT_MS);
	through_port = port_open(deadline);
	if (through_port) {
		open_port(link, deadline);
		return;
	}
	/* Listen first: a host that has read `init` may use the ports. */
	link->control = start_listen(LINK_CONTROL);
	link->forward = start_listen(LINK_FORWARD);
	/* The three connections are made at the same time; a host that ignores them costs one deadline. */
	int events = start_connect(LINK_EVENTS);
	int output = start_connect(LINK_STDOUT);
	int errors = start_connect(LINK_STDERR);
	link->events = finish_connect(events, deadline);
	link->output = finish_connect(output, deadline);
	link->errors = finish_connect(errors, deadline);
}

pid_t link_hand_over(void)
{
	return port_hand_over();
}

int link_accept(int listener)
{
	link_address peer;
	socklen_t size = sizeof peer;
	memset(&peer, 0, sizeof peer);
	int fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0 && !(through_port ? port_is_host(fd) : from_host(&peer))) {
		close(fd);
		return -1;
	}
	return fd;
}
