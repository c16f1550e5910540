/* The event stream: one JSON object a line, from PID 1 to the host. */
#include "events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* init, mounted, exec, stopping, exit, fail and end: seven lines of at most 4096 bytes. */
enum { LINE_MAX_BYTES = 4096, QUEUE_BYTES = 7 * LINE_MAX_BYTES };

static int host = -1;
static const char *stage = "init";
static char queue[QUEUE_BYTES];
static size_t queue_start, queue_end;

void events_open(int fd)
{
	host = fd;
}

void events_put(const char *name, uint64_t t, const char *format, ...)
{
	if (strcmp(name, "fail") != 0)
		stage = name;
	if (host < 0)
		return;

	char fields[LINE_MAX_BYTES - 128], line[LINE_MAX_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(fields, sizeof fields, format, arguments);
	va_end(arguments);
	int length = snprintf(line, sizeof line, "{\"event\":\"%s\",\"t\":%llu%s}\n", name, (unsigned long long)t, fields);
	if (length < 0 || (size_t)length >= sizeof line || (size_t)length > sizeof queue - queue_end)
		return;
	memcpy(queue + queue_end, line, (size_t)length);
	queue_end += (size_t)length;
	events_flush();
}

void events_flush(void)
{
	while (events_waiting()) {
		ssize_t sent = send(host, queue + queue_start, queue_end - queue_start, MSG_NOSIGNAL);
		if (sent >= 0) {
			queue_start += (size_t)sent;
		} else if (errno != EINTR) {
			if (errno != EAGAIN) {
				close(host);
				host = -1;
			}
			return;
		}
	}
}

bool events_waiting(void)
{
	return host >= 0 && queue_start < queue_end;
}

int events_fd(void)
{
	return host;
}

const char *events_stage(void)
{
	return stage;
}
