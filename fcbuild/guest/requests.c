/* The one-line requests that the host sends. */
#include "requests.h"

#include "values.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const char *line_end(const struct request *request)
{
	return memchr(request->bytes, '\n', request->length);
}

enum request_state request_read(struct request *request, int fd, size_t *line_length)
{
	while (line_end(request) == NULL) {
		if (request->length == sizeof request->bytes)
			return REQUEST_TOO_LONG;
		ssize_t got = read(fd, request->bytes + request->length, sizeof request->bytes - request->length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return REQUEST_PARTIAL;
		if (got <= 0)
			return REQUEST_GONE;
		request->length += (size_t)got;
	}
	*line_length = (size_t)(line_end(request) - request->bytes);
	return REQUEST_WHOLE;
}

/* Parse `<word> <number>`. */
static bool word_and_number(const char *line, size_t length, const char *word, uint64_t most, uint64_t *number)
{
	size_t start = strlen(word);
	return length > start && memcmp(line, word, start) == 0 && line[start] == ' ' &&
	       decimal_parse(line + start + 1, length - start - 1, 1, most, number) == 0;
}

bool request_control(const char *line, size_t length, int *signal)
{
	uint64_t number = 0;
	if ((length != 4 || memcmp(line, "stop", 4) != 0) && !word_and_number(line, length, "signal", 64, &number))
		return false;
	*signal = (int)number;
	return true;
}

bool request_forward(const char *line, size_t length, uint16_t *port)
{
	uint64_t number;
	if (!word_and_number(line, length, "tcp", UINT16_MAX, &number))
		return false;
	*port = (uint16_t)number;
	return true;
}
