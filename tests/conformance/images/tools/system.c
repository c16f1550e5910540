/* What is around the program: mounts, devices, files, the network. */
#include "json.h"
#include "report.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum { MOUNTS = 64 };

static const char *result(int value)
{
	return value < 0 ? strerror(errno) : "ok";
}

/* The mounts that programs rely on; of several at one place the last hides the others. */
void report_mounts(void)
{
	static const char *const wanted[] = {
		"/",	    "/proc",	  "/proc/sys",	    "/sys", "/sys/fs/cgroup", "/dev",
		"/dev/pts", "/dev/shm",	  "/dev/mqueue",    "/run", "/tmp",	      "/etc/hosts",
		"/etc/hostname", "/etc/resolv.conf", "/volume",
	};
	static char lines[MOUNTS][1024];
	int count = 0;
	FILE *file = fopen("/proc/self/mounts", "re");
	if (file == NULL)
		exit(99);
	while (count < MOUNTS && fgets(lines[count], sizeof lines[count], file) != NULL)
		count++;
	fclose(file);
	json_open("mounts", '{');
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		char where[256], type[64], options[512];
		for (int at = count; at-- > 0;) {
			if (sscanf(lines[at], "%*s %255s %63s %511s", where, type, options) == 3 &&
			    strcmp(where, wanted[i]) == 0) {
				json_open(wanted[i], '{');
				json_text("type", type);
				for (char *word = strtok(options, ","); word != NULL; word = strtok(NULL, ",")) {
					char *value = word + strcspn(word, "=");
					bool with_value = *value == '=';
					*value = '\0';
					json_text(word, with_value ? value + 1 : "yes");
				}
				json_close();
				break;
			}
		}
	}
	json_close();
}

/* "c 1:3 0666 0:0", "d 1777 0:0", "-> /proc/self/fd". */
static void node(const char *key, const char *path)
{
	struct stat found;
	char target[PATH_MAX] = "";
	if (lstat(path, &found) != 0) {
		json_text(key, strerror(errno));
		return;
	}
	mode_t mode = found.st_mode;
	if (S_ISLNK(mode)) {
		if (readlink(path, target, sizeof target - 1) < 0)
			strcpy(target, "?");
		json_format(key, "-> %.900s", target);
	} else if (S_ISCHR(mode) || S_ISBLK(mode)) {
		json_format(key, "%c %u:%u %04o %u:%u", S_ISCHR(mode) ? 'c' : 'b', major(found.st_rdev),
			    minor(found.st_rdev), mode & 07777, found.st_uid, found.st_gid);
	} else {
		json_format(key, "%c %04o %u:%u", S_ISDIR(mode) ? 'd' : 'f', mode & 07777, found.st_uid, found.st_gid);
	}
}

void report_devices(void)
{
	json_open("devices", '{');
	DIR *directory = opendir("/dev");
	struct dirent *entry;
	while (directory != NULL && (entry = readdir(directory)) != NULL) {
		char path[PATH_MAX];
		snprintf(path, sizeof path, "/dev/%s", entry->d_name);
		if (entry->d_name[0] != '.')
			node(path, path);
	}
	if (directory != NULL)
		closedir(directory);
	node("/dev/pts/ptmx", "/dev/pts/ptmx");
	json_close();
}

static void content(const char *key, const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text);
	if (length < 0)
		json_text(key, strerror(errno));
	else
		json_bytes(key, text, (size_t)length);
	if (fd >= 0)
		close(fd);
}

void report_files(void)
{
	static const char *const wanted[] = {
		"/proc", "/sys",      "/dev",	       "/dev/shm",	   "/dev/mqueue", "/run", "/tmp",
		"/etc",	 "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab",
	};
	json_open("files", '{');
	node("the working directory", ".");
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
		node(wanted[i], wanted[i]);
	json_close();
	char name[256] = "";
	gethostname(name, sizeof name - 1);
	json_open("cgroup", '{');
	content("of the program", "/proc/self/cgroup");
	content("controllers", "/sys/fs/cgroup/cgroup.controllers");
	json_close();
	json_open("host", '{');
	json_text("name", name);
	content("/etc/hostname", "/etc/hostname");
	content("/proc/sys/kernel/hostname", "/proc/sys/kernel/hostname");
	content("/proc/sys/kernel/domainname", "/proc/sys/kernel/domainname");
	char line[1024];
	FILE *hosts = fopen("/etc/hosts", "re");
	json_open("hosts", '{');
	while (hosts != NULL && fgets(line, sizeof line, hosts) != NULL) {
		char *names = line + strcspn(line, " \t\n");
		if (line[0] == '#' || *names == '\n' || *names == '\0')
			continue;
		*names++ = '\0';
		names[strcspn(names, "\n")] = '\0';
		json_text(line, names + strspn(names, " \t"));
	}
	json_close();
	if (hosts != NULL)
		fclose(hosts);
	json_close();
}

/* Listen on an address and reach it from the same machine. */
static const char *reach(int family, const void *address, socklen_t size)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} bound;
	socklen_t length = sizeof bound;
	int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), client = -1;
	int done = listener < 0 ? -1 : bind(listener, address, size);
	if (done == 0)
		done = listen(listener, 1);
	if (done == 0)
		done = getsockname(listener, &bound.any, &length);
	if (done == 0 && (done = client = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0)
		done = connect(client, &bound.any, length);
	const char *text = result(done);
	close(listener);
	close(client);
	return text;
}

void report_network(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	json_open("network", '{');
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ioctl(fd, SIOCGIFFLAGS, &request) == 0)
		json_bool("lo is up", request.ifr_flags & IFF_UP);
	close(fd);
	json_text("127.0.0.1", reach(AF_INET, &v4, sizeof v4));
	json_text("::1", reach(AF_INET6, &v6, sizeof v6));
	v4.sin_port = htons(80);
	json_text("listening on port 80", reach(AF_INET, &v4, sizeof v4));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);
	json_text("a ping socket", result(fd));
	close(fd);
	json_close();
}

static const char *opens(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	const char *text = result(fd);
	if (fd >= 0)
		close(fd);
	return text;
}

static const char *reads(const char *path)
{
	static char text[32];
	char bytes[16];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
	if (fd >= 0)
		close(fd);
	if (got < 0)
		return strerror(errno);
	snprintf(text, sizeof text, "%zd bytes", got);
	return text;
}

static const char *writes(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	const char *text = result(fd < 0 ? -1 : (int)write(fd, "x", 1));
	if (fd >= 0)
		close(fd);
	return text;
}

void report_works(void)
{
	char bytes[32], *slave;
	json_open("works", '{');
	json_text("reading standard input", reads("/proc/self/fd/0"));
	json_text("reading /dev/null", reads("/dev/null"));
	json_text("writing /dev/null", writes("/dev/null"));
	json_text("reading /dev/zero", reads("/dev/zero"));
	json_text("writing /dev/full", writes("/dev/full"));
	json_text("reading /dev/urandom", reads("/dev/urandom"));
	json_text("reading /dev/random", reads("/dev/random"));
	json_text("opening /dev/tty", opens("/dev/tty", O_RDWR));
	json_text("opening /dev/console", opens("/dev/console", O_WRONLY));
	json_text("opening /dev/stdin", opens("/dev/stdin", O_RDONLY));
	json_text("opening /dev/stdout", opens("/dev/stdout", O_WRONLY));
	json_text("opening /dev/stderr", opens("/dev/stderr", O_WRONLY));
	json_text("opening /dev/fd/1", opens("/dev/fd/1", O_WRONLY));
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	slave = fd < 0 || unlockpt(fd) != 0 ? NULL : ptsname(fd);
	json_text("a pseudo-terminal", slave == NULL ? strerror(errno) : opens(slave, O_RDWR));
	close(fd);
	fd = shm_open("/probe", O_RDWR | O_CREAT | O_EXCL, 0600);
	json_text("shared memory", result(fd));
	close(fd);
	shm_unlink("/probe");
	mqd_t messages = mq_open("/probe", O_RDWR | O_CREAT | O_EXCL, 0600, NULL);
	json_text("a message queue", result((int)messages));
	if (messages >= 0)
		mq_close(messages);
	mq_unlink("/probe");
	json_text("writing into /tmp", opens("/tmp", O_RDWR | O_TMPFILE));
	json_text("writing into /run", opens("/run", O_RDWR | O_TMPFILE));
	json_text("writing into /", opens("/", O_RDWR | O_TMPFILE));
	json_text("writing into /volume", opens("/volume", O_RDWR | O_TMPFILE));
	json_text("writing into the working directory", opens(".", O_RDWR | O_TMPFILE));
	json_text("changing the kernel's settings", opens("/proc/sys/kernel/domainname", O_WRONLY));
	json_text("getrandom without waiting",
		  getrandom(bytes, sizeof bytes, GRND_NONBLOCK) == sizeof bytes ? "ok" : strerror(errno));
	json_close();
	json_number("clock", time(NULL));
}
