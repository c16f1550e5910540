/* The machine's name, and the files of /etc that names are looked up in. */
#include "names.h"

#include "console.h"
#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOSTNAME "/etc/hostname"
#define HOSTS "/etc/hosts"
#define RESOLVER "/etc/resolv.conf"

/*
 * Open the file `path` to be written from its start, root's and readable by all. The engine covers an
 * image's own file in the same way. A symbolic link is left alone, also when it dangles, unless there
 * is something to say that was asked for: whoever made it decided where that file is to come from.
 * Returns -1 when the file stays as it is.
 */
static int open_new(const char *path, bool asked)
{
	struct stat found;
	bool there = lstat(path, &found) == 0, regular = there && S_ISREG(found.st_mode);
	if (there && !regular && !asked)
		return -1;
	int flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
	/* Not when there is nothing to cut: ext4 writes a file that was truncated as soon as it is closed. */
	if (there && (!regular || found.st_size != 0))
		flags |= O_TRUNC;
	/* A link that a read-only root does not let go of may lead to where it can be written: /run. */
	if (there && !regular && unlink(path) != 0 && errno == EROFS)
		flags &= ~O_NOFOLLOW;
	int fd = open(path, flags, 0644);
	if (fd < 0)
		console_say("%s: %s", path, strerror(errno));
	else if (regular && (found.st_uid != 0 || found.st_gid != 0) && fchown(fd, 0, 0) != 0)
		console_say("%s: %s", path, strerror(errno));
	else if (regular && (found.st_mode & 07777) != 0644 && fchmod(fd, 0644) != 0)
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
	const struct network_config *network = &config->network;
	int fd = open_new(HOSTS, network->hostc > 0);
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
	for (size_t i = 0; i < network->hostc; i++)
		dprintf(fd, "%s\n", network->hosts[i]);
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
	write_resolver(&config->network);
	return 0;
}
