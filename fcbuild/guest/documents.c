/* Where this machine's configuration comes from: the image, the config drive, the command line. */
#include "documents.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_CONFIG "/.fcbuild/boot"

/* Tests outside of a virtual machine bring their own. */
#ifndef COMMAND_LINE
#define COMMAND_LINE "/proc/cmdline"
#endif

__attribute__((format(printf, 3, 4))) static int wrong(char *error, size_t error_size, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error, error_size, format, arguments);
	va_end(arguments);
	return -1;
}

/* Read up to `size` bytes. Returns their number, or -1 and an errno. */
static ssize_t read_bytes(int fd, char *bytes, size_t size)
{
	size_t length = 0;
	ssize_t got;
	while (length < size && (got = read(fd, bytes + length, size - length)) != 0) {
		if (got > 0)
			length += (size_t)got;
		else if (errno != EINTR)
			return -1;
	}
	return (ssize_t)length;
}

/* Read the file or block device `path`. Returns the number of bytes, or -1 with the reason in `error`. */
static ssize_t read_file(const char *path, mode_t type, char *bytes, size_t size, char *error, size_t error_size)
{
	struct stat file;
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return wrong(error, error_size, "%s: %s", path, strerror(errno));
	ssize_t length = -1;
	if (fstat(fd, &file) != 0)
		wrong(error, error_size, "%s: %s", path, strerror(errno));
	else if ((file.st_mode & S_IFMT) != type)
		wrong(error, error_size, "%s: it is not a %s", path, type == S_IFREG ? "file" : "drive");
	else if ((length = read_bytes(fd, bytes, size)) < 0)
		wrong(error, error_size, "%s: %s", path, strerror(errno));
	close(fd);
	return length;
}

int documents_read_image(struct documents *documents, char *error, size_t error_size)
{
	char problem[256];
	/* One byte more than allowed is enough for the parser to see that it is too much. */
	ssize_t length = read_file(BOOT_CONFIG, S_IFREG, documents->config_text, sizeof documents->config_text, error,
				   error_size);
	if (length < 0)
		return -1;
	if (config_parse(documents->config_text, (size_t)length, &documents->config, problem, sizeof problem) != 0)
		return wrong(error, error_size, BOOT_CONFIG ": %s", problem);
	return 0;
}

/* The drive's values, if there is one. */
static int read_drive(struct documents *documents, const char *drive, char *error, size_t error_size)
{
	char problem[256];
	if (drive == NULL)
		return 0;
	ssize_t length =
		read_file(drive, S_IFBLK, documents->drive_text, sizeof documents->drive_text, error, error_size);
	if (length < 0)
		return -1;
	if (instance_parse(documents->drive_text, (size_t)length, &documents->drive, problem, sizeof problem) != 0)
		return wrong(error, error_size, "%s: %s", drive, problem);
	return 0;
}

int documents_read_instance(struct documents *documents, char *error, size_t error_size)
{
	char problem[256];
	char *line = documents->line_text;
	ssize_t length = read_file(COMMAND_LINE, S_IFREG, line, sizeof documents->line_text, error, error_size);
	if (length < 0)
		return -1;
	if (length > COMMAND_LINE_MAX)
		return wrong(error, error_size, "the kernel command line is larger than %d bytes", COMMAND_LINE_MAX);
	if (command_line_parse(line, (size_t)length, &documents->command_line, &documents->line, problem,
			       sizeof problem) != 0)
		return wrong(error, error_size, "kernel command line: %s", problem);
	if (read_drive(documents, documents->command_line.config_drive, error, error_size) != 0)
		return -1;
	if (instance_merge(&documents->config, &documents->drive, problem, sizeof problem) != 0 ||
	    instance_merge(&documents->config, &documents->line, problem, sizeof problem) != 0)
		return wrong(error, error_size, "instance: %s", problem);
	return 0;
}
