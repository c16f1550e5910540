/* The file systems a Linux program expects to find. */
#include "mounts.h"

#include "console.h"
#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define CGROUPS "/sys/fs/cgroup"

/* From <linux/stat.h>, which a libc need not bring. */
#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

struct mount {
	const char *type, *target;
	unsigned long flags;
	const char *options;
};

enum { DEVICES = 2 };

/* Without these nothing works, PID 1 included. */
static const struct mount kernels[] = {
	{"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	[DEVICES] = {"devtmpfs", "/dev", MS_NOSUID, NULL},
};

static const struct mount programs[] = {
	{"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
	{"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777"},
	{"mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"cgroup2", CGROUPS, MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate"},
};

static const struct mount run = {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"};

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

/* Whether something is mounted at `target`. */
static bool is_mounted(const char *target)
{
	struct statx found;
	return statx(AT_FDCWD, target, AT_NO_AUTOMOUNT, 0, &found) == 0 &&
	       (found.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

/* Returns 0 or an errno. */
static int make(const struct mount *new)
{
	/* A failure to make the directory shows in the mount, as ENOENT. */
	if (mkdir(new->target, 0755) != 0 && is_mounted(new->target)) {
		/* The kernel's own mount of /dev (DEVTMPFS_MOUNT) has no flags; ours still have to hold. */
		mount(NULL, new->target, NULL, MS_REMOUNT | MS_BIND | new->flags, NULL);
		return 0;
	}
	if (mount(new->type, new->target, new->type, new->flags, new->options) == 0)
		return 0;
	return errno == EBUSY ? 0 : errno;
}

static void make_or_say(const struct mount *new)
{
	int why = make(new);
	if (why != 0)
		console_say("no %s: %s", new->target, strerror(why));
}

void mounts_devices(void)
{
	make(&kernels[DEVICES]);
}

int mounts_kernel(char *error, size_t error_size)
{
	for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
		int why = make(&kernels[i]);
		if (why != 0) {
			snprintf(error, error_size, "mount %s: %s", kernels[i].target, strerror(why));
			return -1;
		}
	}
	for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
		if (symlink(links[i].to, links[i].path) != 0 && errno != EEXIST)
			console_say("no %s: %s", links[i].path, strerror(errno));
	return 0;
}

/* Let groups below the root one use every controller that the guest kernel has: "+cpu +memory ...". */
static void enable_controllers(void)
{
	char names[256] = "", wanted[2 * sizeof names] = "";
	int fd = open(CGROUPS "/cgroup.controllers", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, names, sizeof names - 1);
	if (fd >= 0)
		close(fd);
	names[length < 0 ? 0 : length] = '\0';
	size_t used = 0;
	char *rest = names, *name;
	while ((name = strsep(&rest, " \n")) != NULL)
		if (*name != '\0')
			used += (size_t)snprintf(wanted + used, sizeof wanted - used, "+%s ", name);
	if (used == 0)
		return;
	fd = open(CGROUPS "/cgroup.subtree_control", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, wanted, used) < 0)
		console_say("no cgroup controllers: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

void mounts_program(void)
{
	for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
		make_or_say(&programs[i]);
	enable_controllers();
	/* What an image has below /run (a directory for a service's socket) is there for a reason. */
	if (!directory_has_entries(run.target))
		make_or_say(&run);
	/* mkdir's mode is cut by the umask. A /tmp that is there already is the image's business. */
	if (mkdir("/tmp", 0700) == 0)
		chmod("/tmp", 01777);
}
