/* A directory tree as lstat(2), readlink(2) and the extended attributes tell it. */
#include "json.h"
#include "report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { LINKED = 64 };

/* Files with more than one name, by the name that came first. */
static struct {
	ino_t inode;
	char path[PATH_MAX];
} linked[LINKED];
static int linked_count;

static const char *type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "link";
	case S_IFIFO:
		return "fifo";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	default:
		return "?";
	}
}

static const char *first_name(ino_t inode, const char *path)
{
	for (int i = 0; i < linked_count; i++)
		if (linked[i].inode == inode)
			return linked[i].path;
	if (linked_count == LINKED)
		exit(99);
	linked[linked_count].inode = inode;
	strcpy(linked[linked_count].path, path);
	return linked[linked_count++].path;
}

/* FNV-1a, to tell contents apart without a library. */
static void hash(const char *path)
{
	unsigned char bytes[1 << 16];
	uint64_t sum = 0xcbf29ce484222325;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		json_text("content", strerror(errno));
		return;
	}
	while ((got = read(fd, bytes, sizeof bytes)) > 0)
		for (ssize_t i = 0; i < got; i++)
			sum = (sum ^ bytes[i]) * 0x100000001b3;
	close(fd);
	json_format("content", "%016" PRIx64, sum);
}

static void attributes(const char *path)
{
	char names[4096];
	unsigned char value[4096];
	ssize_t length = llistxattr(path, names, sizeof names);
	json_open("attributes", '{');
	for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
		char hex[2 * sizeof value + 1] = "";
		ssize_t size = lgetxattr(path, name, value, sizeof value);
		for (ssize_t i = 0; i < size; i++)
			sprintf(hex + 2 * i, "%02x", value[i]);
		json_text(name, hex);
	}
	json_close();
}

static void entry(const char *path, const struct stat *found)
{
	char target[PATH_MAX];
	mode_t mode = found->st_mode;
	json_open(path, '{');
	json_text("type", type(mode));
	json_format("mode", "%04o", mode & 07777);
	json_format("owner", "%u:%u", found->st_uid, found->st_gid);
	json_number("modified", found->st_mtime);
	if (S_ISREG(mode)) {
		json_number("size", found->st_size);
		json_bool("sparse", found->st_size > 1 << 20 && found->st_blocks * 512 < found->st_size / 2);
		hash(path);
	}
	if (S_ISCHR(mode) || S_ISBLK(mode))
		json_format("device", "%u:%u", major(found->st_rdev), minor(found->st_rdev));
	if (S_ISLNK(mode)) {
		ssize_t length = readlink(path, target, sizeof target);
		json_bytes("target", target, length < 0 ? 0 : (size_t)length);
	}
	if (!S_ISDIR(mode) && found->st_nlink > 1) {
		json_number("names", found->st_nlink);
		json_text("same as", first_name(found->st_ino, path));
	}
	attributes(path);
	json_close();
}

static void walk(const char *path)
{
	struct stat found;
	struct dirent **names;
	if (lstat(path, &found) != 0) {
		json_text(path, strerror(errno));
		return;
	}
	entry(path, &found);
	if (!S_ISDIR(found.st_mode))
		return;
	int count = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char below[PATH_MAX];
		const char *name = names[i]->d_name;
		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
		    (size_t)snprintf(below, sizeof below, "%s/%s", path, name) < sizeof below)
			walk(below);
		free(names[i]);
	}
	if (count >= 0)
		free(names);
}

void report_trees(char *roots)
{
	json_open("tree", '{');
	for (char *root = strtok(roots, ","); root != NULL; root = strtok(NULL, ","))
		walk(root);
	json_close();
}
