/* The loopback interface, the machine's name, and the files that resolvers read. */
#include "network.h"

#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int loopback_up(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno == EAFNOSUPPORT ? 0 : -1;
	struct ifreq request = {.ifr_name = "lo"};
	int result = ioctl(fd, SIOCGIFFLAGS, &request);
	if (result == 0) {
		request.ifr_flags |= IFF_UP | IFF_RUNNING;
		result = ioctl(fd, SIOCSIFFLAGS, &request);
	}
	int why = errno;
	close(fd);
	errno = why;
	return result;
}

/*
 * Write `text` as the file `path` unless the image has one with content. A symbolic link counts as
 * content even when it dangles: whoever made it decided where that file is to come from.
 */
static void file_default(const char *path, const char *text)
{
	struct stat found;
	int flags = O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
	if (lstat(path, &found) != 0)
		flags |= O_CREAT | O_EXCL;
	else if (!S_ISREG(found.st_mode) || found.st_size != 0)
		return;
	int fd = open(path, flags, 0644);
	if (fd < 0)
		return; /* a read-only root: the program runs without it */
	if (write(fd, text, strlen(text)) < 0)
		console_say("%s: %s", path, strerror(errno));
	close(fd);
}

int network_up(const char *hostname, char *error, size_t error_size)
{
	if (loopback_up() != 0) {
		snprintf(error, error_size, "lo: %s", strerror(errno));
		return -1;
	}
	if (sethostname(hostname, strlen(hostname)) != 0) {
		snprintf(error, error_size, "host name: %s", strerror(errno));
		return -1;
	}

	char text[512];
	mkdir("/etc", 0755);
	snprintf(text, sizeof text, "%s\n", hostname);
	file_default("/etc/hostname", text);
	snprintf(text, sizeof text,
		 "127.0.0.1\tlocalhost\n"
		 "::1\tlocalhost ip6-localhost ip6-loopback\n"
		 "127.0.1.1\t%s\n",
		 hostname);
	file_default("/etc/hosts", text);
	file_default("/etc/resolv.conf", "# This machine has no name server.\n");
	return 0;
}
