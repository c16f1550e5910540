/*
 * A program to run under PID 1 in tests: it shows what it was given, and misbehaves on request.
 * Usage: probe MODE [ARGUMENT...]
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void show(const char *key, const char *text)
{
	printf("%s ", key);
	for (; *text != '\0'; text++)
		printf("%02x", (unsigned char)*text);
	printf("\n");
}

static void show_number(const char *key, long number)
{
	char text[32];
	snprintf(text, sizeof text, "%ld", number);
	show(key, text);
}

static void show_file(const char *key, const char *path)
{
	char text[4096] = "";
	int fd = open(path, O_RDONLY);
	ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	text[length < 0 ? 0 : length] = '\0';
	if (fd >= 0)
		close(fd);
	show(key, text);
}

static int show_all(int argc, char **argv)
{
	char text[4096];
	gid_t groups[64];
	for (int i = 0; i < argc; i++)
		show("argv", argv[i]);
	for (char **entry = environ; *entry != NULL; entry++)
		show("env", *entry);
	show("cwd", getcwd(text, sizeof text));
	show_number("uid", getuid());
	show_number("euid", geteuid());
	show_number("gid", getgid());
	show_number("egid", getegid());
	int count = getgroups(64, groups);
	for (int i = 0; i < count; i++)
		show_number("group", groups[i]);
	show_number("umask", umask(0));
	struct rlimit limit;
	getrlimit(RLIMIT_CORE, &limit);
	show_number("core-unlimited", limit.rlim_cur == RLIM_INFINITY && limit.rlim_max == RLIM_INFINITY);
	getrlimit(RLIMIT_NPROC, &limit);
	show_number("nproc-unlimited", limit.rlim_cur == RLIM_INFINITY && limit.rlim_max == RLIM_INFINITY);
	show_number("session", getsid(0) == getpid());
	gethostname(text, sizeof text);
	show("hostname", text);
	for (int fd = 0; fd < 1024; fd++) {
		struct stat file;
		if (fstat(fd, &file) == 0)
			show_number("fd", fd);
	}
	show_file("status", "/proc/self/status");
	show_file("oom", "/proc/self/oom_score_adj");
	show_file("mounts", "/proc/self/mounts");
	show_file("controllers", "/sys/fs/cgroup/cgroup.controllers");
	show_file("controllers-below", "/sys/fs/cgroup/cgroup.subtree_control");
	show_file("etc-hostname", "/etc/hostname");
	show_file("etc-hosts", "/etc/hosts");
	show_file("etc-resolv", "/etc/resolv.conf");
	struct stat file;
	if (stat("/tmp", &file) == 0)
		show_number("tmp-mode", file.st_mode & 07777);
	return 0;
}

static int append(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0 || write(fd, "x", 1) != 1)
		return -1;
	return close(fd);
}

/* Do what the arguments say one after the other, and print how each went: see below. */
static int do_all(int argc, char **argv)
{
	for (int i = 2; i + 1 < argc; i += 2) {
		const char *what = argv[i], *path = argv[i + 1];
		int result = 0;
		if (strcmp(what, "append") == 0)
			result = append(path);
		else if (strcmp(what, "from") == 0) /* for the one behind it */
			result = access(path, F_OK);
		else if (strcmp(what, "rename") == 0)
			result = rename(argv[i - 1], path);
		else if (strcmp(what, "link") == 0)
			result = link(argv[i - 1], path);
		else if (strcmp(what, "file") == 0) {
			struct stat file;
			result = lstat(path, &file);
			if (result == 0) {
				printf("%s %o %u %u %u ", path, (unsigned)file.st_mode, file.st_uid, file.st_gid,
				       (unsigned)file.st_nlink);
				show_file("content", path);
				continue;
			}
		}
		printf("%s %s: %s\n", what, path, result == 0 ? "ok" : strerror(errno));
	}
	return 0;
}

/* Leave twenty orphans that end at once, and count the zombies a moment later. */
static int orphans(void)
{
	for (int i = 0; i < 20; i++) {
		if (fork() == 0) {
			if (fork() == 0) {
				usleep(20000);
				_exit(7);
			}
			_exit(0);
		}
		wait(NULL);
	}
	usleep(300000);
	int zombies = 0;
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	while (processes != NULL && (entry = readdir(processes)) != NULL) {
		char path[300], text[512] = "";
		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		FILE *file = atoi(entry->d_name) > 0 ? fopen(path, "r") : NULL;
		if (file != NULL && fgets(text, sizeof text, file) != NULL && strstr(text, ") Z ") != NULL)
			zombies++;
		if (file != NULL)
			fclose(file);
	}
	printf("zombies %d\n", zombies);
	return 0;
}

static void trapped(int number)
{
	static const char text[] = "trapped\n";
	(void)number;
	if (write(1, text, sizeof text - 1) < 0)
		_exit(1);
	_exit(42);
}

/* A TCP server that reads to the end and then answers, in upper case; "hello" for an empty request. */
static int serve(const char *address, int port)
{
	int listener;
	if (strcmp(address, "6") == 0) {
		struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port),
					  .sin6_addr = IN6ADDR_LOOPBACK_INIT};
		listener = socket(AF_INET6, SOCK_STREAM, 0);
		if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0)
			return 1;
	} else {
		struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port),
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		listener = socket(AF_INET, SOCK_STREAM, 0);
		if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0)
			return 1;
	}
	signal(SIGCHLD, SIG_IGN);
	listen(listener, 128);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int client = accept(listener, NULL, NULL);
		if (client < 0 || fork() != 0) {
			close(client);
			continue;
		}
		static char bytes[1 << 22];
		size_t length = 0;
		ssize_t got;
		while (length < sizeof bytes && (got = read(client, bytes + length, sizeof bytes - length)) > 0)
			length += (size_t)got;
		for (size_t i = 0; i < length; i++)
			if (bytes[i] >= 'a' && bytes[i] <= 'z')
				bytes[i] = (char)(bytes[i] - 'a' + 'A');
		if (length == 0)
			length = strlen(strcpy(bytes, "hello"));
		for (size_t at = 0; at < length; at += (size_t)got)
			if ((got = write(client, bytes + at, length - at)) < 0)
				_exit(1);
		_exit(0);
	}
}

/* A health check that misbehaves in its own way. */
static int check(const char *how, const char *argument)
{
	char text[64] = "";
	if (strcmp(how, "state") == 0) { /* the code is in the file ARGUMENT */
		int fd = open(argument, O_RDONLY);
		if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
			return 99;
		dprintf(1, "state %d\n", atoi(text));
		dprintf(2, "on stderr\n");
		return atoi(text);
	}
	if (strcmp(how, "show") == 0) { /* into the file ARGUMENT, which appears whole */
		char *arguments[] = {"check"};
		snprintf(text, sizeof text, "%s.new", argument);
		if (freopen(text, "w", stdout) == NULL)
			return 1;
		show_all(1, arguments);
		fflush(stdout);
		return rename(text, argument) != 0;
	}
	if (strcmp(how, "hang") == 0 || strcmp(how, "leave") == 0) { /* with a child that holds the output */
		if (fork() == 0) {
			if (strcmp(how, "hang") == 0)
				setpgid(0, 0);
			for (;;)
				pause();
		}
		dprintf(1, "and now\n");
		while (strcmp(how, "hang") == 0)
			pause();
		return 0;
	}
	if (strcmp(how, "print") == 0) { /* far too much, which ends with ARGUMENT */
		for (int i = 0; i < 20000; i++)
			dprintf(1, "%d ", i);
		dprintf(1, "%s", argument);
		return 1;
	}
	/* Another result each time, and much output; the file ARGUMENT remembers. */
	for (int i = 0; i < 1024; i++)
		dprintf(1, "\x01");
	if (unlink(argument) == 0)
		return 1;
	return close(open(argument, O_WRONLY | O_CREAT, 0600)) != 0;
}

/* Say something by sd_notify(3). */
static int notify(const char *message)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	if (path == NULL || path[0] != '@')
		return -1;
	memcpy(address.sun_path + 1, path + 1, strlen(path) - 1);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ssize_t sent = sendto(fd, message, strlen(message), 0, (struct sockaddr *)&address,
			      offsetof(struct sockaddr_un, sun_path) + (socklen_t)strlen(path));
	close(fd);
	return sent < 0 ? -1 : 0;
}

/*
 * An init: it ends the machine on SIGINT, "deaf" excepted, or at once if it is to "leave". A "slow" one
 * is ready on SIGUSR1.
 */
static int init(const char *how, int argc, char **argv)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	show_all(argc, argv);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (fork() == 0) {
		if (setuid(1000) != 0)
			_exit(1);
		_exit(notify("READY=1"));
	}
	int status = 1, number;
	wait(&status);
	/* None of these is it, but for the last ones. */
	notify("STATUS=READY=1\nREADY=10\nXREADY=1");
	notify("");
	printf("unprivileged %d\n", status);
	fflush(stdout);
	if (strcmp(how, "slow") == 0)
		sigwait(&signals, &number);
	notify("STATUS=well\nREADY=1\n");
	notify("READY=1");
	if (strcmp(how, "deaf") == 0)
		for (;;)
			pause();
	if (strcmp(how, "leave") != 0)
		sigwait(&signals, &number);
	printf("ending\n");
	fflush(stdout);
	kill(-1, SIGTERM);
	while (wait(NULL) > 0) /* every process is a child of the init once its parent is gone */
		;
	reboot(RB_AUTOBOOT);
	return 1;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "show";
	int number = argc > 2 ? atoi(argv[2]) : 0;
	if (strcmp(mode, "exit") == 0)
		return number;
	if (strcmp(mode, "kill") == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		raise(number);
		return 0;
	}
	if (strcmp(mode, "orphans") == 0)
		return orphans();
	if (strcmp(mode, "hold") == 0) { /* a child keeps the output open for ever */
		if (fork() == 0)
			for (;;)
				pause();
		printf("held\n");
		return 3;
	}
	if (strcmp(mode, "big") == 0) { /* ARGUMENT MiB of numbered lines on both streams */
		static char bytes[1 << 20];
		for (size_t i = 0; i < sizeof bytes; i++)
			bytes[i] = (char)(i % 251);
		for (int i = 0; i < number; i++)
			for (size_t at = 0; at < sizeof bytes;) {
				ssize_t put = write(1, bytes + at, sizeof bytes - at);
				if (put < 0)
					return 1;
				at += (size_t)put;
			}
		return 0;
	}
	if (strcmp(mode, "do") == 0)
		return do_all(argc, argv);
	if (strcmp(mode, "memory") == 0) { /* take ARGUMENT MiB, and use them */
		for (int i = 0; i < number; i++) {
			char *taken = malloc(1 << 20);
			if (taken == NULL)
				return 1;
			memset(taken, i, 1 << 20);
		}
		return 0;
	}
	if (strcmp(mode, "trap") == 0 || strcmp(mode, "ignore") == 0) {
		signal(number, strcmp(mode, "trap") == 0 ? trapped : SIG_IGN);
		printf("ready\n");
		fflush(stdout);
		for (;;)
			pause();
	}
	if (strcmp(mode, "serve") == 0)
		return serve(argc > 3 ? argv[3] : "4", number);
	if (strcmp(mode, "reopen") == 0) {
		FILE *again = fopen("/dev/stdout", "w"), *errors = fopen("/dev/stderr", "w");
		if (again == NULL || errors == NULL)
			return 1;
		fprintf(again, "again\n");
		fprintf(errors, "wrong\n");
		return 0;
	}
	if (strcmp(mode, "check") == 0)
		return check(argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "");
	if (strcmp(mode, "init") == 0)
		return init(argc > 2 ? argv[2] : "", argc, argv);
	return show_all(argc, argv);
}
