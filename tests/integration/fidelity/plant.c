/* Plants a tree with everything a file system can hold that an image may hold: plant DIRECTORY.
 * It runs as root in an image's build. What it cannot plant ends it with status 1. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SMALL_FILES 2000
#define HOLE (8 << 20)

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "plant: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void file(const char *name, const char *content, mode_t mode, uid_t uid, gid_t gid)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	check(fd, name);
	check((int)write(fd, content, strlen(content)), name);
	check(fchown(fd, uid, gid), name);
	check(fchmod(fd, mode), name); /* after chown, which clears setuid and setgid */
	check(close(fd), name);
}

static void directory(const char *name, mode_t mode, uid_t uid, gid_t gid)
{
	check(mkdir(name, 0700), name);
	check(chown(name, uid, gid), name);
	check(chmod(name, mode), name);
}

static void node(const char *name, mode_t mode, dev_t device)
{
	check(mknod(name, mode, device), name);
	check(chmod(name, mode & 07777), name);
}

static void extended(const char *path, const char *name, const void *value, size_t size)
{
	check(setxattr(path, name, value, size, 0), name);
}

static void dated(const char *name, time_t seconds)
{
	struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
	check(utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW), name);
}

static void owners_and_modes(void)
{
	file("plain", "content\n", 0644, 0, 0);
	file("empty", "", 0644, 0, 0);
	file("owned", "x", 0640, 1234, 4321);
	file("far-owner", "x", 0600, 70000, 4000000000u);
	file("setuid", "x", 04755, 1234, 0);
	file("setgid", "x", 02711, 0, 42);
	file("closed", "x", 0, 0, 0);
	directory("empty-directory", 0755, 0, 0);
	directory("sticky", 01777, 0, 0);
	directory("shared", 02775, 1000, 1000);
}

static void links_and_nodes(void)
{
	char target[1024];

	check(link("plain", "hard"), "hard");
	check(link("plain", "shared/hard"), "shared/hard");
	check(symlink("plain", "soft"), "soft");
	check(symlink("/nowhere/at/all", "dangling"), "dangling");
	check(symlink("odd\n\"target\"\nü\\", "odd-target"), "odd-target");
	check(lchown("soft", 1234, 4321), "soft");
	/* 59 bytes fit into an inode, 60 do not. */
	for (size_t length = 58; length <= 61; length++) {
		char name[32];
		memset(target, 'a', length);
		target[length] = 0;
		snprintf(name, sizeof(name), "target-of-%zu", length);
		check(symlink(target, name), name);
	}
	memset(target, 'b', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	check(symlink(target, "long-target"), "long-target");

	node("char", S_IFCHR | 0644, makedev(10, 200));
	node("block", S_IFBLK | 0660, makedev(7, 3));
	node("far-device", S_IFCHR | 0600, makedev(300, 70000)); /* in no old-style number */
	node("fifo", S_IFIFO | 0622, 0);
}

static void names(void)
{
	static const char *const odd[] = {
		"ü", "日本語", "🐧", "with space", " leading", "trailing ", "new\nline", "tab\t",
		"back\\slash", "quote\"'`", "\033[31mred", "-dash", "--", "$(exit 1)", "*", "#", "~",
		"a:b", "\\n", "<12>", "carriage\rreturn", "\n", "\177",
	};
	char name[256], path[300];

	directory("names", 0755, 0, 0);
	directory("names/dir\nwith \"all\" ü", 0755, 0, 0);
	file("names/dir\nwith \"all\" ü/file\n", "x", 0644, 0, 0);
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		snprintf(path, sizeof(path), "names/%s", odd[i]);
		file(path, odd[i], 0644, 0, 0);
	}
	memset(name, 'n', 255);
	name[255] = 0;
	snprintf(path, sizeof(path), "names/%s", name);
	file(path, "the longest", 0644, 0, 0);
}

static void attributes(void)
{
	/* struct vfs_ns_cap_data, revision 2 with the effective bit: cap_net_bind_service+ep */
	static const unsigned char capability[20] = {1, 0, 0, 2, 0, 4};
	/* posix_acl_xattr, version 2: u::rw- u:1234:r-- g::r-- m::r-- o::--- */
	static const unsigned char acl[] = {
		2, 0, 0, 0,
		1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,
		2, 0, 4, 0, 0xd2, 0x04, 0, 0,
		4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
		16, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
		32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
	};
	unsigned char binary[256], large[3000];

	for (size_t i = 0; i < sizeof(binary); i++)
		binary[i] = (unsigned char)i;
	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = (unsigned char)('a' + i % 26);
	file("capable", "x", 0755, 0, 0);
	extended("capable", "security.capability", capability, sizeof(capability));
	file("commented", "x", 0644, 0, 0);
	extended("commented", "user.comment", "hello", 5);
	extended("commented", "user.nothing", "", 0);
	extended("commented", "user.binary", binary, sizeof(binary));
	file("large-attribute", "x", 0644, 0, 0);
	extended("large-attribute", "user.large", large, sizeof(large));
	file("listed", "x", 0640, 0, 0);
	extended("listed", "system.posix_acl_access", acl, sizeof(acl));
	directory("listed-directory", 0750, 0, 0);
	extended("listed-directory", "user.comment", "a directory", 11);
	extended("listed-directory", "system.posix_acl_default", acl, sizeof(acl));
}

static void contents(void)
{
	int fd = open("sparse", O_WRONLY | O_CREAT | O_EXCL, 0644);
	check(fd, "sparse");
	check((int)pwrite(fd, "middle", 6, HOLE / 2), "sparse");
	check((int)pwrite(fd, "end", 3, HOLE), "sparse");
	check(close(fd), "sparse");

	directory("many", 0755, 0, 0);
	for (int i = 0; i < SMALL_FILES; i++) {
		char name[32], content[32];
		snprintf(name, sizeof(name), "many/%04d", i);
		snprintf(content, sizeof(content), "%d\n", i);
		file(name, content, 0644, 0, 0);
	}
	directory("deep", 0755, 0, 0);
	check(chdir("deep"), "deep");
	for (int i = 0; i < 40; i++) {
		directory("a-directory-whose-name-makes-paths-long", 0755, 0, 0);
		check(chdir("a-directory-whose-name-makes-paths-long"), "deep");
	}
	file("bottom", "x", 0644, 0, 0);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	umask(0);
	directory(argv[1], 0755, 0, 0);
	check(chdir(argv[1]), argv[1]);
	owners_and_modes();
	links_and_nodes();
	names();
	attributes();
	file("old", "x", 0644, 0, 0);
	dated("old", 86400);
	file("late", "x", 0644, 0, 0);
	dated("late", 2147483646); /* mke2fs writes none after 2038 */
	check(symlink("old", "dated-link"), "dated-link");
	dated("dated-link", 1000000000);
	dated("empty-directory", 1000000000);
	contents(); /* goes elsewhere, so it is last */
	return 0;
}
