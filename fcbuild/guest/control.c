/* The control port: one line in, one line back. */
#include "control.h"

#include "clock.h"
#include "link.h"
#include "requests.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listening = -1;
static control_handler *handle;

static struct connection {
	bool used;
	int fd;
	uint64_t deadline;
	struct request request;
} connections[CONTROL_CONNECTIONS];

void control_open(int listener, control_handler *handler)
{
	listening = listener;
	handle = handler;
}

static struct connection *free_connection(void)
{
	for (int i = 0; i < CONTROL_CONNECTIONS; i++)
		if (!connections[i].used)
			return &connections[i];
	return NULL;
}

int control_watch(struct pollfd slots[CONTROL_SLOTS])
{
	int timeout = -1;
	slots[0] = (struct pollfd){.fd = free_connection() != NULL ? listening : -1, .events = POLLIN};
	for (int i = 0; i < CONTROL_CONNECTIONS; i++) {
		const struct connection *connection = &connections[i];
		slots[1 + i] = (struct pollfd){.fd = connection->used ? connection->fd : -1, .events = POLLIN};
		if (!connection->used)
			continue;
		int left = clock_left(connection->deadline);
		if (timeout < 0 || left < timeout)
			timeout = left;
	}
	return timeout;
}

/* Answer and close. The answer is far smaller than any socket's buffer, so it is written at once. */
static void finish(struct connection *connection, const char *problem)
{
	char answer[128] = "ok\n";
	if (problem != NULL)
		snprintf(answer, sizeof answer, "error %s\n", problem);
	send(connection->fd, answer, strlen(answer), MSG_NOSIGNAL);
	close(connection->fd);
	connection->used = false;
}

static void read_line(struct connection *connection)
{
	size_t length = 0;
	int signal = 0;
	switch (request_read(&connection->request, connection->fd, &length)) {
	case REQUEST_PARTIAL:
		return;
	case REQUEST_GONE:
		close(connection->fd);
		connection->used = false;
		return;
	case REQUEST_TOO_LONG:
		finish(connection, "the line is too long");
		return;
	case REQUEST_WHOLE:
		break;
	}
	if (!request_control(connection->request.bytes, length, &signal)) {
		finish(connection, "unknown request");
		return;
	}
	int why = handle(signal);
	finish(connection, why == 0 ? NULL : strerror(why));
}

void control_step(const struct pollfd slots[CONTROL_SLOTS])
{
	for (int i = 0; i < CONTROL_CONNECTIONS; i++) {
		struct connection *connection = &connections[i];
		if (!connection->used)
			continue;
		if (slots[1 + i].fd >= 0 && slots[1 + i].revents != 0)
			read_line(connection);
		if (connection->used && clock_left(connection->deadline) == 0)
			finish(connection, "no line in time");
	}
	if (slots[0].fd < 0 || slots[0].revents == 0)
		return;
	struct connection *connection = free_connection();
	int fd = connection != NULL ? link_accept(listening) : -1;
	if (fd >= 0)
		*connection = (struct connection){.used = true, .fd = fd, .deadline = clock_deadline(REQUEST_MS)};
}
