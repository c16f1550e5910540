/* The machine's name, and the files of /etc that names are looked up in. */
#include "names.h"

#include "console.h"
#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOSTNAME "/etc/hostname"
#define HOSTS "/etc/hosts"
#define RESOLVER "/etc/resolv.conf"

/*
 * Open the file `path` to be written from its start: always when it is to be replaced, else where the
 * image has none or an empty one. A symbolic link counts as content even when it dangles: whoever made
 * it decided where that file is to come from. Returns -1 when the file stays as it is.
 */
static int open_new(const char *path, bool replace)
{
	struct stat found;
	bool there = lstat(path, &found) == 0, regular = there && S_ISREG(found.st_mode);
	if (there && !replace && (!regular || found.st_size != 0))
		return -1;
	int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
	/* A link that a read-only root does not let go of may lead to where it can be written: /run. */
	if (there && !regular && unlink(path) != 0 && errno == EROFS)
		flags &= ~O_NOFOLLOW;
	int fd = open(path, flags, 0644);
	if (fd < 0)
		console_say("%s: %s", path, strerror(errno));
	return fd;
}

static void write_hostname(const struct config *config)
{
	int fd = open_new(HOSTNAME, config->instance_hostname);
	if (fd < 0)
		return;
	dprintf(fd, "%s\n", config->hostname);
	close(fd);
}

static void write_hosts(const struct config *config)
{
	int fd = open_new(HOSTS, false);
	if (fd < 0)
		return;
	dprintf(fd,
		"127.0.0.1\tlocalhost\n"
		"::1\tlocalhost ip6-localhost ip6-loopback\n"
		"fe00::0\tip6-localnet\n"
		"ff00::0\tip6-mcastprefix\n"
		"ff02::1\tip6-allnodes\n"
		"ff02::2\tip6-allrouters\n"
		"127.0.1.1\t%s\n",
		config->hostname);
	close(fd);
}

static bool has_line(const char *text, size_t length, const char *line)
{
	size_t wanted = strlen(line);
	while (length > 0) {
		const char *newline = memchr(text, '\n', length);
		size_t found = newline != NULL ? (size_t)(newline - text) : length;
		if (found == wanted && memcmp(text, line, wanted) == 0)
			return true;
		found += newline != NULL;
		text += found;
		length -= found;
	}
	return false;
}

static void append_lines(int fd, const char *text, size_t length, const struct network_config *network)
{
	bool ends_inside_line = length > 0 && text[length - 1] != '\n';
	for (size_t i = 0; i < network->hostc; i++) {
		if (has_line(text, length, network->hosts[i]))
			continue;
		dprintf(fd, "%s%s\n", ends_inside_line ? "\n" : "", network->hosts[i]);
		ends_inside_line = false;
	}
}

/* Add the host lines that the file does not have. */
static void append_hosts(const struct network_config *network)
{
	struct stat file;
	int fd = open(HOSTS, O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &file) != 0 || !S_ISREG(file.st_mode)) {
		console_say(HOSTS ": %s", fd < 0 ? strerror(errno) : "not a file");
	} else if (file.st_size == 0) {
		append_lines(fd, "", 0, network);
	} else {
		size_t length = (size_t)file.st_size;
		char *text = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
		if (text == MAP_FAILED) {
			console_say(HOSTS ": %s", strerror(errno));
		} else {
			append_lines(fd, text, length, network);
			munmap(text, length);
		}
	}
	if (fd >= 0)
		close(fd);
}

static void write_resolver(const struct network_config *network)
{
	bool wanted = network->dnsc > 0 || network->searchc > 0;
	int fd = open_new(RESOLVER, wanted);
	if (fd < 0)
		return;
	if (!wanted)
		dprintf(fd, "# This machine has no name server.\n");
	for (size_t i = 0; i < network->searchc; i++)
		dprintf(fd, "%s%s", i == 0 ? "search " : " ", network->search[i]);
	if (network->searchc > 0)
		dprintf(fd, "\n");
	for (size_t i = 0; i < network->dnsc; i++)
		dprintf(fd, "nameserver %s\n", network->dns[i]);
	close(fd);
}

int names_set(const struct config *config, char *error, size_t error_size)
{
	if (sethostname(config->hostname, strlen(config->hostname)) != 0) {
		snprintf(error, error_size, "host name: %s", strerror(errno));
		return -1;
	}
	directory_make("/etc", strlen("/etc"), 0, 0);
	write_hostname(config);
	write_hosts(config);
	if (config->network.hostc > 0)
		append_hosts(&config->network);
	write_resolver(&config->network);
	return 0;
}
