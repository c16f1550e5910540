/* The only program of the emulated KVM host: it starts Firecracker and carries its unix sockets,
 * its output, its logs and its exit status to the real host. LINK.md has the protocol.
 *
 *   /init                        as PID 1 of the emulated host: reads /agent.conf
 *   agent --link FD --config F   as an ordinary process, for tests: no mounts, no reboot
 *   agent --tsc-khz              prints the rate of this machine's time-stamp counter
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "mux.h"

#define CONFIG_PATH "/agent.conf"
#define LINK_PORT "vport0p1"

/* Firecracker opens its log without blocking and drops what does not fit: the most a pipe may hold
 * by default (/proc/sys/fs/pipe-max-size). */
#define LOG_PIPE_BYTES 1048576

/* As Firecracker's own backlog for its sockets. */
#define BACKLOG 128

/* Two descriptors for each of 256 streams (ours and Firecracker's) and as much again for drives
 * and KVM. */
#define OPEN_FILES 4096

/* How long between two tries to connect where no event tells that it could work now: between
 * bind() and listen() of Firecracker, and while its backlog is full. */
#define KNOCK_MS 1

/* <linux/if_tun.h>, which is no part of this C library. */
#define TUNSETIFF _IOW('T', 202, int)
#define TUNSETPERSIST _IOW('T', 203, int)
#define IFF_TAP 0x0002
#define IFF_NO_PI 0x1000
#define IFF_VNET_HDR 0x4000

static struct config config;
static bool is_init;
static pid_t firecracker = -1;
static int status; /* Firecracker's exit status, once firecracker is -1 again */

static int signals = -1, inotify = -1, console = -1;
static int logs[CONFIG_PATHS], listeners[CONFIG_PATHS];

_Noreturn static void finish(void)
{
	if (firecracker > 0)
		kill(firecracker, SIGKILL);
	if (is_init) {
		reboot(RB_AUTOBOOT);
		pause();
	}
	_exit(0);
}

_Noreturn __attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fprintf(stderr, "agent: %s\n", text);
	mux_trouble(text);
	finish();
}

static void mount_at(const char *type, const char *path)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		fail("cannot make %s: %s", path, strerror(errno));
	if (mount(type, path, type, MS_NOSUID, NULL) < 0 && errno != EBUSY)
		fail("cannot mount %s: %s", path, strerror(errno));
}

static char *read_whole(const char *path, size_t most, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = malloc(most + 1);
	if (fd < 0 || text == NULL)
		fail("cannot open %s: %s", path, strerror(errno));
	*length = 0;
	for (;;) {
		ssize_t n = read(fd, text + *length, most + 1 - *length);
		if (n < 0)
			fail("cannot read %s: %s", path, strerror(errno));
		if (n == 0)
			break;
		*length += (size_t)n;
		if (*length > most)
			fail("%s is larger than %zu bytes", path, most);
	}
	close(fd);
	return text;
}

static void read_config(const char *path)
{
	size_t length;
	char *text = read_whole(path, CONFIG_BYTES, &length);
	const char *wrong = config_parse(&config, text, length);
	if (wrong != NULL)
		fail("%s: %s", path, wrong);
}

/* Find the block device by its serial: the order in which devices appear is nobody's promise. */
static bool find_disk(const char *serial, char *device, size_t size)
{
	DIR *blocks = opendir("/sys/block");
	if (blocks == NULL)
		fail("cannot open /sys/block: %s", strerror(errno));
	bool found = false;
	for (struct dirent *entry; !found && (entry = readdir(blocks)) != NULL;) {
		char path[PATH_MAX], text[32];
		if (strncmp(entry->d_name, "vd", 2) != 0)
			continue;
		snprintf(path, sizeof path, "/sys/block/%s/serial", entry->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
		close(fd);
		if (n < 0)
			continue;
		text[n] = '\0';
		text[strcspn(text, "\n")] = '\0';
		if (strcmp(text, serial) == 0) {
			snprintf(device, size, "/dev/%s", entry->d_name);
			found = true;
		}
	}
	closedir(blocks);
	return found;
}

static void link_disks(void)
{
	for (size_t i = 0; i < config.disk.count; i++) {
		char serial[32], device[PATH_MAX];
		snprintf(serial, sizeof serial, "disk%zu", i);
		if (!find_disk(serial, device, sizeof device))
			fail("no block device has the serial %s", serial);
		if (symlink(device, config.disk.path[i]) < 0)
			fail("cannot link %s: %s", config.disk.path[i], strerror(errno));
	}
}

/* Firecracker would make the device too, but nobody would bring it up, and each packet of the
 * microVM's would be an error in Firecracker's log. Nothing is behind it. */
static void make_tap(void)
{
	struct ifreq interface = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	strcpy(interface.ifr_name, config.tap);
	int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (tun < 0 || ioctl(tun, TUNSETIFF, &interface) < 0 || ioctl(tun, TUNSETPERSIST, 1) < 0)
		fail("cannot make %s: %s", config.tap, strerror(errno));
	close(tun);
	int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	interface.ifr_flags = IFF_UP;
	if (any < 0 || ioctl(any, SIOCSIFFLAGS, &interface) < 0)
		fail("cannot bring %s up: %s", config.tap, strerror(errno));
	close(any);
}

static void make_logs(void)
{
	for (size_t i = 0; i < config.log.count; i++) {
		const char *path = config.log.path[i];
		if (mkfifo(path, 0600) < 0)
			fail("cannot make the FIFO %s: %s", path, strerror(errno));
		/* For writing too, so that it neither blocks here nor ends when a writer closes it. */
		logs[i] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (logs[i] < 0)
			fail("cannot open the FIFO %s: %s", path, strerror(errno));
		fcntl(logs[i], F_SETPIPE_SZ, LOG_PIPE_BYTES);
	}
}

static void make_listeners(void)
{
	for (size_t i = 0; i < config.listen.count; i++) {
		const char *path = config.listen.path[i];
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		if (strlen(path) >= sizeof address.sun_path)
			fail("%s is too long for a unix socket", path);
		strcpy(address.sun_path, path);
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
		    listen(fd, BACKLOG) < 0)
			fail("cannot listen on %s: %s", path, strerror(errno));
		listeners[i] = fd;
	}
}

static void watch_targets(void)
{
	inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (inotify < 0)
		fail("cannot watch for sockets: %s", strerror(errno));
	for (size_t i = 0; i < config.connect.count; i++) {
		char directory[PATH_MAX];
		snprintf(directory, sizeof directory, "%s", config.connect.path[i]);
		char *slash = strrchr(directory, '/');
		slash[slash == directory] = '\0';
		if (inotify_add_watch(inotify, directory, IN_CREATE | IN_MOVED_TO) < 0)
			fail("cannot watch %s: %s", directory, strerror(errno));
	}
}

static void start_firecracker(void)
{
	int output[2];
	sigset_t mask, before;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, &before);
	signals = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signals < 0 || pipe2(output, O_CLOEXEC) < 0)
		fail("cannot make a pipe: %s", strerror(errno));
	pid_t parent = getpid();
	firecracker = fork();
	if (firecracker < 0)
		fail("cannot fork: %s", strerror(errno));
	if (firecracker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(127);
		sigprocmask(SIG_SETMASK, &before, NULL);
		int null = open("/dev/null", O_RDONLY);
		if (null < 0 || dup2(null, 0) < 0 || dup2(output[1], 1) < 0 || dup2(output[1], 2) < 0)
			_exit(127);
		if (null > 2)
			close(null);
		signal(SIGPIPE, SIG_DFL);
		execv(config.argv[0], config.argv);
		fprintf(stderr, "agent: cannot execute %s: %s\n", config.argv[0], strerror(errno));
		_exit(127);
	}
	close(output[1]);
	console = output[0];
	fcntl(console, F_SETFL, O_NONBLOCK);
}

/* Carry what a pipe holds now; false at its end. */
static bool carry(int pipe, uint32_t index)
{
	static uint8_t bytes[FRAME_BYTES];
	ssize_t n = read(pipe, bytes, sizeof bytes);
	if (n > 0)
		mux_log(index, bytes, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void accept_all(size_t index)
{
	int fd;
	while ((fd = accept4(listeners[index], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		mux_open(fd, (uint32_t)index);
}

/* Reap; as PID 1 also strangers. */
static void reap(void)
{
	struct signalfd_siginfo ignored;
	while (read(signals, &ignored, sizeof ignored) > 0)
		;
	int how;
	for (pid_t pid; (pid = waitpid(-1, &how, WNOHANG)) > 0;) {
		if (pid != firecracker)
			continue;
		firecracker = -1;
		status = WIFSIGNALED(how) ? -WTERMSIG(how) : WEXITSTATUS(how);
		if (is_init)
			kill(-1, SIGKILL); /* nothing else may keep its sockets open */
		for (size_t i = 0; i < config.listen.count; i++) {
			accept_all(i); /* connections that it made just before it ended */
			close(listeners[i]);
			listeners[i] = -1;
		}
		mux_drain();
	}
}

static bool logs_are_empty(void)
{
	for (size_t i = 0; i < config.log.count; i++) {
		struct pollfd p = {.fd = logs[i], .events = POLLIN};
		if (poll(&p, 1, 0) == 1)
			return false;
	}
	return true;
}

enum { SIGNALS, INOTIFY, CONSOLE, LOGS, LISTENERS = LOGS + CONFIG_PATHS,
       MUX = LISTENERS + CONFIG_PATHS, POLLS = MUX + MUX_POLLS };

static void run_once(void)
{
	static struct pollfd polls[POLLS];
	bool room = mux_has_room();
	polls[SIGNALS] = (struct pollfd){.fd = signals, .events = POLLIN};
	polls[INOTIFY] = (struct pollfd){.fd = inotify, .events = POLLIN};
	polls[CONSOLE] = (struct pollfd){.fd = room ? console : -1, .events = POLLIN};
	for (size_t i = 0; i < CONFIG_PATHS; i++) {
		bool log = room && i < config.log.count, listener = i < config.listen.count;
		polls[LOGS + i] = (struct pollfd){.fd = log ? logs[i] : -1, .events = POLLIN};
		polls[LISTENERS + i] =
			(struct pollfd){.fd = listener ? listeners[i] : -1, .events = POLLIN};
	}
	size_t count = mux_poll(polls + MUX);
	if (poll(polls, MUX + count, mux_knocking() ? KNOCK_MS : -1) < 0 && errno != EINTR)
		fail("poll: %s", strerror(errno));

	if (polls[INOTIFY].revents != 0) {
		char events[4096];
		while (read(inotify, events, sizeof events) > 0)
			;
		mux_retry();
	} else if (mux_knocking()) {
		mux_retry();
	}
	if (polls[CONSOLE].revents != 0 && !carry(console, 0)) {
		close(console);
		console = -1;
	}
	for (size_t i = 0; i < config.log.count; i++)
		if (polls[LOGS + i].revents != 0)
			carry(logs[i], (uint32_t)i + 1);
	for (size_t i = 0; i < config.listen.count; i++)
		if (polls[LISTENERS + i].revents != 0)
			accept_all(i);
	switch (mux_run(polls + MUX, count)) {
	case LINK_OPEN:
		break;
	case LINK_VIOLATED:
		fail("the host broke the link's rules");
	default:
		finish();
	}
	if (polls[SIGNALS].revents != 0)
		reap();
}

#ifdef __x86_64__
struct instant {
	uint64_t ns, ticks;
};

/* Read both clocks as near to each other as can be had in a few tries. */
static struct instant now(void)
{
	struct instant best = {0};
	for (uint64_t shortest = UINT64_MAX, i = 0; i < 32; i++) {
		struct timespec t;
		uint64_t before = __builtin_ia32_rdtsc();
		clock_gettime(CLOCK_MONOTONIC_RAW, &t);
		uint64_t took = __builtin_ia32_rdtsc() - before;
		if (took >= shortest)
			continue;
		shortest = took;
		best.ticks = before + took / 2;
		best.ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	}
	return best;
}

/* 20 ms between two readings that are each off by less than a microsecond: within 100 ppm. */
static int print_tsc_khz(void)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	struct instant from = now();
	nanosleep(&pause, NULL);
	struct instant to = now();
	printf("%lu\n", (unsigned long)((to.ticks - from.ticks) * 1000000 / (to.ns - from.ns)));
	return 0;
}
#else
static int print_tsc_khz(void)
{
	fprintf(stderr, "agent: this machine has no time-stamp counter\n");
	return 1;
}
#endif

static int open_port(void)
{
	int watch = inotify_init1(IN_CLOEXEC);
	inotify_add_watch(watch, "/dev", IN_CREATE);
	for (;;) {
		int fd = open("/dev/" LINK_PORT, O_RDWR | O_CLOEXEC);
		if (fd >= 0) {
			close(watch);
			return fd;
		}
		char event[4096];
		if (errno != ENOENT || read(watch, event, sizeof event) < 0)
			fail("cannot open /dev/" LINK_PORT ": %s", strerror(errno));
	}
}

static void start_as_init(void)
{
	is_init = true;
	mount_at("devtmpfs", "/dev");
	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
	struct rlimit files = {OPEN_FILES, OPEN_FILES};
	setrlimit(RLIMIT_NOFILE, &files);
	read_config(CONFIG_PATH);
	link_disks();
	if (config.tap != NULL)
		make_tap();
}

int main(int argc, char **argv)
{
	int link = -1;
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && strcmp(argv[1], "--tsc-khz") == 0)
		return print_tsc_khz();
	if (argc == 5 && strcmp(argv[1], "--link") == 0 && strcmp(argv[3], "--config") == 0) {
		link = atoi(argv[2]);
		fcntl(link, F_SETFD, FD_CLOEXEC);
		read_config(argv[4]);
	} else if (getpid() == 1) {
		start_as_init();
	} else {
		fprintf(stderr, "usage: agent --link FD --config FILE | --tsc-khz\n");
		return 2;
	}
	make_logs();
	make_listeners();
	watch_targets();
	/* Before the link, which may take longer: what happens meanwhile waits in the kernel. */
	start_firecracker();
	if (link < 0)
		link = open_port();
	mux_start(link, &config.connect);
	if (is_init && access("/dev/kvm", R_OK | W_OK) < 0)
		fail("the emulated host has no KVM: /dev/kvm: %s", strerror(errno));

	while (firecracker > 0 || console >= 0 || !mux_drained() || !logs_are_empty())
		run_once();
	/* What the guest wrote to its drives is still in this kernel's cache. */
	if (is_init)
		sync();
	mux_exit(status);
	for (;;)
		run_once(); /* until the host says STOP, or the link ends */
}
