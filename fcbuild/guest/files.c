/* The files that an instance brings. */
#include "files.h"

#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t put = write(fd, data, length);
		if (put < 0 && errno != EINTR)
			return -1;
		if (put > 0) {
			data += put;
			length -= (size_t)put;
		}
	}
	return 0;
}

/* Returns 0, or -1 and an errno. */
static int write_file(const struct instance_file *file)
{
	const char *slash = strrchr(file->path, '/');
	directory_make(file->path, (size_t)(slash - file->path), file->uid, file->gid);
	/*
	 * A new file, so that neither other names of the old one nor what a symbolic link leads to is
	 * changed. One that is mounted (/etc/hosts on a read-only root) cannot be removed, only rewritten.
	 */
	unlink(file->path);
	int fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	/* The mode comes last: a change of the owner takes the set-id bits away. */
	int result = write_all(fd, file->data, file->length);
	if (result == 0)
		result = fchown(fd, file->uid, file->gid);
	if (result == 0)
		result = fchmod(fd, file->mode);
	int why = errno;
	close(fd);
	errno = why;
	return result;
}

int files_write(const struct instance *instance, char *error, size_t error_size)
{
	for (size_t i = 0; i < instance->filec; i++) {
		if (write_file(&instance->files[i]) != 0) {
			snprintf(error, error_size, "%.384s: %s", instance->files[i].path, strerror(errno));
			return -1;
		}
	}
	return 0;
}
