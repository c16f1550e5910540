/* The event stream: one JSON object a line, from PID 1 to the host. */
#include "events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	LINE_MAX_BYTES = 4096,
	/* init, mounted, exec, ready, stopping, exit, fail and end: each comes once, and each finds room. */
	RESERVED_BYTES = 8 * LINE_MAX_BYTES,
	/* For those that may come again and again. */
	OFFERED_BYTES = 4 * LINE_MAX_BYTES,
};

static int host = -1;
static const char *stage = "init";
static char queue[RESERVED_BYTES + OFFERED_BYTES];
static size_t queued;

void events_open(int fd)
{
	host = fd;
}

/* Queue an event unless the queue would hold more than `limit` bytes then. */
__attribute__((format(printf, 4, 0))) static void put(size_t limit, const char *name, uint64_t t, const char *format,
						      va_list arguments)
{
	if (host < 0)
		return;
	char fields[LINE_MAX_BYTES - 128], line[LINE_MAX_BYTES];
	vsnprintf(fields, sizeof fields, format, arguments);
	int length = snprintf(line, sizeof line, "{\"event\":\"%s\",\"t\":%llu%s}\n", name, (unsigned long long)t, fields);
	if (length < 0 || (size_t)length >= sizeof line || queued + (size_t)length > limit)
		return;
	memcpy(queue + queued, line, (size_t)length);
	queued += (size_t)length;
	events_flush();
}

void events_put(const char *name, uint64_t t, const char *format, ...)
{
	va_list arguments;
	if (strcmp(name, "fail") != 0)
		stage = name;
	va_start(arguments, format);
	put(sizeof queue, name, t, format, arguments);
	va_end(arguments);
}

void events_offer(const char *name, uint64_t t, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	put(OFFERED_BYTES, name, t, format, arguments);
	va_end(arguments);
}

void events_flush(void)
{
	size_t taken = 0;
	while (host >= 0 && taken < queued) {
		ssize_t sent = send(host, queue + taken, queued - taken, MSG_NOSIGNAL);
		if (sent >= 0) {
			taken += (size_t)sent;
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			close(host);
			host = -1;
		}
	}
	queued -= taken;
	memmove(queue, queue + taken, queued);
}

bool events_waiting(void)
{
	return host >= 0 && queued > 0;
}

int events_fd(void)
{
	return host;
}

const char *events_stage(void)
{
	return stage;
}
