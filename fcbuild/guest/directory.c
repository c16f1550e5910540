/* Directories of the image. */
#include "directory.h"

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As getdents64(2) has it; opendir(3) would allocate memory. */
struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

static bool is_entry(const char *name)
{
	return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

bool directory_has_entries(const char *directory)
{
	_Alignas(struct entry) char bytes[2048];
	bool found = false;
	long got;
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (!found && (got = syscall(SYS_getdents64, fd, bytes, sizeof bytes)) > 0) {
		const struct entry *entry;
		for (long at = 0; at < got && !found; at += entry->length) {
			entry = (const struct entry *)(bytes + at);
			found = is_entry(entry->name);
		}
	}
	close(fd);
	return found;
}

void directory_make(const char *path, size_t length, uid_t uid, gid_t gid)
{
	char part[PATH_MAX];
	if (length >= sizeof part)
		return;
	memcpy(part, path, length);
	part[length] = '\0';
	for (size_t at = 1; at <= length; at++) {
		if (part[at] != '/' && part[at] != '\0')
			continue;
		part[at] = '\0';
		if (mkdir(part, 0755) == 0 && (uid != 0 || gid != 0) && chown(part, uid, gid) != 0)
			return;
		if (at < length)
			part[at] = '/';
	}
}
