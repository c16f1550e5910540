/* Control and forward lines, as they arrive. */
#include "fuzz.h"
#include "requests.h"

#include <unistd.h>

static void check_line(const char *bytes, size_t length)
{
	char *line = copy_of(bytes, length, 0);
	int signal = -1;
	uint16_t port = 0;
	if (request_control(line, length, &signal))
		check(signal >= 0 && signal <= 64);
	if (request_forward(line, length, &port))
		check(port > 0);
	free(line);
}

/* A pipe with all of the bytes in it, and its writing end closed. Returns the reading end. */
static int pipe_of(const uint8_t *data, size_t size)
{
	int ends[2];
	if (pipe(ends) != 0)
		exit(1);
	check(write(ends[1], data, size) == (ssize_t)size);
	close(ends[1]);
	return ends[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* More than a pipe takes would block, and is no line either. */
	if (size > 512)
		return 0;
	check_line((const char *)data, size);

	struct request request = {.length = 0};
	size_t length = SIZE_MAX;
	int fd = pipe_of(data, size);
	enum request_state state = request_read(&request, fd, &length);
	close(fd);
	const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
	bool fits = newline != NULL && newline - data < REQUEST_BYTES_MAX;
	check((state == REQUEST_WHOLE) == fits);
	check(state == REQUEST_WHOLE || state == (size < REQUEST_BYTES_MAX ? REQUEST_GONE : REQUEST_TOO_LONG));
	if (state == REQUEST_WHOLE) {
		check(length == (size_t)(newline - data) && memcmp(request.bytes, data, length) == 0);
		check_line(request.bytes, length);
	}
	return 0;
}
