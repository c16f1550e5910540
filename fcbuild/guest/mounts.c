/* The file systems a Linux program expects to find. */
#include "mounts.h"

#include "console.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
	const char *type, *target;
	unsigned long flags;
	const char *options;
	enum { REQUIRED, OPTIONAL, WHERE_EMPTY } need;
} mounts[] = {
	{"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, REQUIRED},
	{"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, REQUIRED},
	{"devtmpfs", "/dev", MS_NOSUID, NULL, REQUIRED},
	{"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", OPTIONAL},
	{"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777", OPTIONAL},
	{"mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, OPTIONAL},
	/* What an image has below /run (a directory for a service's socket) is there for a reason. */
	{"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755", WHERE_EMPTY},
	{"cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate", OPTIONAL},
};

static const struct {
	const char *path, *to;
} links[] = {
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
	/* Where devtmpfs brings its own ptmx node that one stays: it serves /dev/pts just as well. */
	{"/dev/ptmx", "pts/ptmx"},
};

/* Whether something is mounted at `target`: it is on another device than its parent directory. */
static bool is_mounted(const char *target)
{
	char parent[64];
	struct stat inside, outside;
	snprintf(parent, sizeof parent, "%s/..", target);
	return stat(target, &inside) == 0 && stat(parent, &outside) == 0 && inside.st_dev != outside.st_dev;
}

static bool has_entries(const char *directory)
{
	int entries = 0;
	DIR *open = opendir(directory);
	if (open == NULL)
		return false;
	/* Every directory has "." and "..". */
	while (entries < 3 && readdir(open) != NULL)
		entries++;
	closedir(open);
	return entries == 3;
}

/* Returns 0 or an errno. */
static int mount_one(size_t i)
{
	const char *target = mounts[i].target;
	if (mounts[i].need == WHERE_EMPTY && has_entries(target))
		return 0;
	if (is_mounted(target)) {
		/* The kernel's own mount of /dev (DEVTMPFS_MOUNT) has no flags; ours still have to hold. */
		mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | mounts[i].flags, NULL);
		return 0;
	}
	/* A failure to make the directory shows in the mount, as ENOENT. */
	mkdir(target, 0755);
	if (mount(mounts[i].type, target, mounts[i].type, mounts[i].flags, mounts[i].options) == 0)
		return 0;
	return errno == EBUSY ? 0 : errno;
}

int mounts_make(bool minimal, char *error, size_t error_size)
{
	for (size_t i = 0; i < sizeof mounts / sizeof mounts[0]; i++) {
		if (minimal && mounts[i].need != REQUIRED)
			continue;
		int why = mount_one(i);
		if (why == 0)
			continue;
		if (mounts[i].need == REQUIRED) {
			snprintf(error, error_size, "mount %s: %s", mounts[i].target, strerror(why));
			return -1;
		}
		console_say("no %s: %s", mounts[i].target, strerror(why));
	}
	for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
		if (symlink(links[i].to, links[i].path) != 0 && errno != EEXIST)
			console_say("no %s: %s", links[i].path, strerror(errno));
	/* mkdir's mode is cut by the umask. A /tmp that is there already is the image's business. */
	if (mkdir("/tmp", 0700) == 0)
		chmod("/tmp", 01777);
	return 0;
}
