/* Lists what is below / as JSON, one entry a line, with what lstat(2) and its like say: no library of
 * the image takes part. list PATH..: paths to leave out, with all that is below them.
 * Names, targets, attributes and their values are in hexadecimal. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static char **left_out;

static void fail(const char *what)
{
	fprintf(stderr, "list: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void hex(const void *data, size_t size)
{
	const unsigned char *bytes = data;

	putchar('"');
	for (size_t i = 0; i < size; i++)
		printf("%02x", bytes[i]);
	putchar('"');
}

static void attributes(const char *path)
{
	static char names[65536], value[65536];
	ssize_t size = llistxattr(path, names, sizeof(names));
	const char *comma = "";

	if (size < 0)
		fail(path);
	printf(", \"xattrs\": {");
	for (char *name = names; name < names + size; name += strlen(name) + 1) {
		ssize_t length = lgetxattr(path, name, value, sizeof(value));
		if (length < 0)
			fail(name);
		printf("%s", comma);
		hex(name, strlen(name));
		printf(": ");
		hex(value, (size_t)length);
		comma = ", ";
	}
	printf("}");
}

static void list(const char *path)
{
	struct stat st;

	for (char **out = left_out; *out; out++)
		if (!strcmp(path, *out))
			return;
	if (lstat(path, &st) < 0)
		fail(path);
	/* The engine's tars have whole seconds, the nearest. */
	long long mtime = (long long)st.st_mtim.tv_sec + (st.st_mtim.tv_nsec >= 500000000);
	printf("{\"path\": ");
	hex(path, strlen(path));
	printf(", \"mode\": %u, \"uid\": %u, \"gid\": %u, \"size\": %lld, \"mtime\": %lld", st.st_mode,
	       st.st_uid, st.st_gid, (long long)st.st_size, mtime);
	printf(", \"inode\": %llu, \"links\": %llu", (unsigned long long)st.st_ino,
	       (unsigned long long)st.st_nlink);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		printf(", \"device\": [%u, %u]", major(st.st_rdev), minor(st.st_rdev));
	if (S_ISLNK(st.st_mode)) {
		static char target[65536];
		ssize_t length = readlink(path, target, sizeof(target));
		if (length < 0)
			fail(path);
		printf(", \"target\": ");
		hex(target, (size_t)length);
	}
	attributes(path);
	printf("}\n");
	if (!S_ISDIR(st.st_mode))
		return;

	DIR *directory = opendir(path);
	if (!directory)
		fail(path);
	for (struct dirent *entry; (entry = readdir(directory));) {
		char *child;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (asprintf(&child, "%s/%s", strcmp(path, "/") ? path : "", entry->d_name) < 0)
			fail(path);
		list(child);
		free(child);
	}
	closedir(directory);
}

int main(int argc, char **argv)
{
	(void)argc;
	left_out = argv + 1;
	list("/");
	return 0;
}
