/* The root file system, as the image wants it: written to, read-only, or below an overlay. */
#include "root.h"

#include "console.h"
#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The builder makes both in every image. */
#define WRITES "/.fcbuild/rw"
#define OVERLAY "/.fcbuild/root"

/* From <linux/mount.h>, which a libc need not bring. */
enum {
	PICK_CLOEXEC = 1, /* FSPICK_CLOEXEC, and so on */
	PICK_EMPTY_PATH = 8,
	CONFIG_SET_FLAG = 0,
	CONFIG_CMD_RECONFIGURE = 7,
};

/*
 * As like a plain file system as an overlay can be: directories of the image can be renamed, its hard
 * links stay links when they are written to, and everything is on one device.
 */
#define LIKE_A_PLAIN_ONE "redirect_dir=on,index=on,xino=auto"

/* Where a read-only root has to be writable whatever the image is. */
static const char *const always_writable[] = {"/run", "/tmp", "/var/tmp"};

/* What PID 1 itself writes. */
static const char *const files[] = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"};

static const char *const moved[] = {"/dev", "/proc", "/sys"};

/* A directory on the overlay's drive; -1 when there is none. */
static int drive = -1;

/* Returns -1, with the errno's reason. */
static int failed(const char *what, char *error, size_t error_size)
{
	snprintf(error, error_size, "%.256s: %s", what, strerror(errno));
	return -1;
}

/* Make a directory with the owner and mode of `like`. Returns 0, or -1 and an errno. */
static int make_like(const char *path, const struct stat *like)
{
	if (mkdir(path, 0700) != 0 || chown(path, like->st_uid, like->st_gid) != 0)
		return -1;
	return chmod(path, like->st_mode & 07777);
}

/*
 * Mount an overlay at `target`, over the working directory and with its upper layer in the directory
 * `writes`. Naming the lower layer "." spares the mount options a path that may hold any character.
 */
static int mount_overlay(const char *target, const char *writes)
{
	char upper[PATH_MAX], work[PATH_MAX], options[3 * PATH_MAX];
	struct stat lower;
	snprintf(upper, sizeof upper, "%s/upper", writes);
	snprintf(work, sizeof work, "%s/work", writes);
	/* The upper layer's own directory is what the overlay's is like; on a used drive it is there. */
	if (stat(".", &lower) != 0 || (make_like(upper, &lower) != 0 && errno != EEXIST) ||
	    (mkdir(work, 0700) != 0 && errno != EEXIST))
		return -1;
	snprintf(options, sizeof options, "lowerdir=.,upperdir=%s,workdir=%s," LIKE_A_PLAIN_ONE, upper, work);
	return mount("overlay", target, "overlay", 0, options);
}

/* Put a tmpfs at the working directory, with the same owner and mode. */
static int mount_ram(void)
{
	char options[64];
	struct stat like;
	if (stat(".", &like) != 0)
		return -1;
	snprintf(options, sizeof options, "mode=%o,uid=%u,gid=%u", (unsigned)(like.st_mode & 07777),
		 (unsigned)like.st_uid, (unsigned)like.st_gid);
	return mount("tmpfs", ".", "tmpfs", 0, options);
}

static bool is_writable(const char *path)
{
	return access(path, W_OK) == 0;
}

/* Make a directory of a read-only root writable, with the content that it has. Returns 0, or -1 and an errno. */
static int make_writable(const char *directory, unsigned number)
{
	char writes[64];
	if (is_writable(directory))
		return 0; /* it is below another one */
	if (chdir(directory) != 0)
		return -1;
	if (!directory_has_entries("."))
		return mount_ram();
	snprintf(writes, sizeof writes, WRITES "/%u", number);
	return mkdir(writes, 0700) == 0 ? mount_overlay(".", writes) : -1;
}

static int copy_content(int from, int to)
{
	ssize_t sent;
	while ((sent = sendfile(to, from, NULL, 1 << 20)) > 0)
		;
	return sent == 0 ? 0 : -1;
}

/*
 * Put a copy in RAM over a file of a read-only root. Only a regular file can be covered; what else is
 * there, or nothing, stays as it is.
 */
static int cover_file(const char *path, unsigned number)
{
	char copy[64];
	struct stat file;
	if (lstat(path, &file) != 0 || !S_ISREG(file.st_mode) || is_writable(path))
		return 0;
	snprintf(copy, sizeof copy, WRITES "/file-%u", number);
	int from = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	int to = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int result = -1;
	if (from >= 0 && to >= 0 && copy_content(from, to) == 0 && fchown(to, file.st_uid, file.st_gid) == 0 &&
	    fchmod(to, file.st_mode & 07777) == 0)
		result = mount(copy, path, NULL, MS_BIND, NULL);
	int why = errno;
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	errno = why;
	return result;
}

static int make_read_only(const struct config *config, char *error, size_t error_size)
{
	/* Whichever way the drive was attached; and what is writable below is found by that. */
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) != 0)
		return failed("/", error, error_size);
	if (mount("tmpfs", WRITES, "tmpfs", 0, "mode=700") != 0)
		return failed(WRITES, error, error_size);
	unsigned number = 0;
	for (size_t i = 0; i < sizeof always_writable / sizeof always_writable[0]; i++, number++)
		if (make_writable(always_writable[i], number) != 0 && errno != ENOENT)
			return failed(always_writable[i], error, error_size);
	for (size_t i = 0; i < config->writablec; i++, number++)
		if (make_writable(config->writable[i], number) != 0)
			return failed(config->writable[i], error, error_size);
	for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++)
		if (cover_file(files[i], i) != 0)
			return failed(files[i], error, error_size);
	/* What was mounted from it keeps it; it need not be seen. */
	if (chdir("/") != 0 || umount2(WRITES, MNT_DETACH) != 0)
		return failed(WRITES, error, error_size);
	return 0;
}

/* Move a mount below the overlay. */
static int move_mount_of(const char *target)
{
	char to[64];
	snprintf(to, sizeof to, OVERLAY "%s", target);
	mkdir(to, 0755); /* a failure shows in the mount, as ENOENT */
	return mount(target, to, NULL, MS_MOVE, NULL);
}

static int make_overlay(const char *overlay_drive, char *error, size_t error_size)
{
	if (overlay_drive == NULL) {
		if (mount("tmpfs", WRITES, "tmpfs", 0, "mode=700") != 0)
			return failed(WRITES, error, error_size);
	} else {
		if (mount(overlay_drive, WRITES, "ext4", 0, NULL) != 0)
			return failed(overlay_drive, error, error_size);
		drive = open(WRITES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (drive < 0)
			return failed(overlay_drive, error, error_size);
	}
	if (chdir("/") != 0 || mount_overlay(OVERLAY, WRITES) != 0)
		return failed("overlay", error, error_size);
	for (size_t i = 0; i < sizeof moved / sizeof moved[0]; i++)
		if (move_mount_of(moved[i]) != 0)
			return failed(moved[i], error, error_size);
	/* pivot_root(2), "Notes": the old root ends up mounted over the new one, and goes from there. */
	if (chdir(OVERLAY) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0 ||
	    chdir("/") != 0)
		return failed("changing the root", error, error_size);
	return 0;
}

int root_make(const struct config *config, const char *overlay_drive, char *error, size_t error_size)
{
	if (overlay_drive != NULL && config->root != ROOT_OVERLAY) {
		snprintf(error, error_size, "%s is for an overlay, which this image's root is not", overlay_drive);
		return -1;
	}
	switch (config->root) {
	case ROOT_WRITABLE:
		break;
	case ROOT_READ_ONLY:
		return make_read_only(config, error, error_size);
	case ROOT_OVERLAY:
		return make_overlay(overlay_drive, error, error_size);
	}
	return 0;
}

/* Make the file system read-only that is mounted at the directory `fd`. Returns 0, or -1 and an errno. */
static int remount_read_only(int fd)
{
	int context = (int)syscall(SYS_fspick, fd, "", PICK_CLOEXEC | PICK_EMPTY_PATH);
	if (context < 0)
		return -1;
	int result = (int)syscall(SYS_fsconfig, context, CONFIG_SET_FLAG, "ro", NULL, 0);
	if (result == 0)
		result = (int)syscall(SYS_fsconfig, context, CONFIG_CMD_RECONFIGURE, NULL, NULL, 0);
	int why = errno;
	close(context);
	errno = why;
	return result;
}

void root_close(void)
{
	/* What is read-only already, or kept busy by a stuck process, has been synced at least. */
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	/* The drive's own mount went with the old root, and mount(2) takes only what is in the tree. */
	if (drive >= 0 && remount_read_only(drive) != 0)
		console_say("the overlay's drive is not left clean: %s", strerror(errno));
}
