/* The end of the machine. */
#include "shutdown.h"

#include "clock.h"
#include "console.h"
#include "events.h"
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILL_MS = 1000, CLOSE_MS = 1000 };

void shutdown_processes(void)
{
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	uint64_t deadline = clock_deadline(KILL_MS);
	for (;;) {
		kill(-1, SIGKILL);
		pid_t pid;
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0 && errno == ECHILD)
			return; /* every process is a child of PID 1 once its parent is gone */
		int left = clock_left(deadline);
		if (left == 0)
			break;
		/* SIGCHLD is blocked, so none is lost between waitpid and here. */
		sigtimedwait(&child, NULL, &(struct timespec){left / 1000, left % 1000 * 1000000L});
	}
	console_say("some processes do not end");
}

/* The remount waits for the kernel's RCU: 10 ms by the tick, nothing when that is told to hurry. */
static void hurry(void)
{
#ifndef SHARED_KERNEL /* tests outside of a virtual machine */
	int fd = open("/sys/kernel/rcu_expedited", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "1", 1) < 0)
		console_say("the kernel's RCU does not hurry: %s", strerror(errno));
	close(fd);
#endif
}

void shutdown_disks(void)
{
	hurry();
	sync();
	root_close();
}

static void send_events(uint64_t deadline)
{
	while (events_waiting()) {
		struct pollfd wait = {.fd = events_fd(), .events = POLLOUT};
		if (poll(&wait, 1, clock_left(deadline)) <= 0)
			return;
		events_flush();
	}
}

/* Read and drop what the host sends. Returns whether it has closed its side. */
static bool host_closed(int fd)
{
	char dropped[256];
	ssize_t got = recv(fd, dropped, sizeof dropped, MSG_DONTWAIT);
	return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

static void await_close(int fds[], size_t count, uint64_t deadline)
{
	for (;;) {
		struct pollfd slots[3] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};
		bool open = false;
		for (size_t i = 0; i < count; i++) {
			slots[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
			open |= fds[i] >= 0;
		}
		if (!open || poll(slots, count, clock_left(deadline)) <= 0)
			return;
		for (size_t i = 0; i < count; i++)
			if (slots[i].revents != 0 && host_closed(fds[i]))
				fds[i] = -1;
		if (clock_left(deadline) == 0)
			return;
	}
}

void shutdown_link(const struct link *link)
{
	uint64_t deadline = clock_deadline(CLOSE_MS);
	send_events(deadline);
	int fds[] = {events_fd(), link->output, link->errors};
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		if (fds[i] >= 0)
			shutdown(fds[i], SHUT_WR);
	await_close(fds, sizeof fds / sizeof fds[0], deadline);
}

_Noreturn void shutdown_machine(const struct link *link)
{
	shutdown_link(link);
	console_drain();
	reboot(RB_AUTOBOOT);
	/* PID 1 must not return, whatever the kernel thinks of the restart. */
	console_say("the machine does not restart: %s", strerror(errno));
	for (;;)
		pause();
}
