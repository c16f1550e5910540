/*
 * Starts Firecracker and says when things happened, for bench/counted.py.
 *
 * As /init it is process 1 of the counted KVM host, with all files in its initramfs: nothing comes
 * from a disk or a network, whose speed would be the machine's. As `host DIRECTORY` it runs beside
 * real KVM. Either way it finds ./firecracker and ./vm.json, and prints:
 *
 *     host: program NS       when the guest's process 1 wrote its first byte, a '@'
 *     host: end NS           when Firecracker ended
 *     host| ...              what the guest wrote to its console, then Firecracker's log
 *
 * NS is CLOCK_REALTIME, as are the time stamps in Firecracker's log.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOG "firecracker.log"

static char text[1 << 20];

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void show(size_t size)
{
	int start = 1;

	for (size_t i = 0; i < size; i++) {
		if (start)
			fputs("host| ", stdout);
		putchar(text[i]);
		start = text[i] == '\n';
	}
	putchar('\n');
}

/* Reads to the end; returns the size, and in *seen when the guest's sign came. */
static size_t fill(int fd, long long *seen)
{
	size_t size = 0;
	ssize_t got;

	while (size < sizeof text && (got = read(fd, text + size, sizeof text - size)) > 0) {
		if (seen && !*seen && memchr(text + size, '@', got))
			*seen = now();
		size += got;
	}
	return size;
}

int main(int argc, char **argv)
{
	char *firecracker[] = { "./firecracker", "--no-api", "--config-file", "vm.json", "--log-path", LOG,
				"--level", "Debug", NULL };
	long long program = 0;
	size_t size;
	int out[2];
	pid_t pid;

	if (argc > 1) {
		if (chdir(argv[1]) < 0)
			return 1;
	} else {
		mount("proc", "/proc", "proc", 0, NULL);
		mount("dev", "/dev", "devtmpfs", 0, NULL);
	}
	close(open(LOG, O_CREAT | O_WRONLY | O_TRUNC, 0644));
	if (pipe(out) < 0)
		return 1;
	pid = fork();
	if (pid == 0) {
		dup2(out[1], 1);
		dup2(out[1], 2);
		execv(firecracker[0], firecracker);
		_exit(127);
	}
	close(out[1]);
	size = fill(out[0], &program);
	waitpid(pid, NULL, 0);
	printf("host: program %lld\nhost: end %lld\n", program, now());
	show(size);
	show(fill(open(LOG, O_RDONLY), NULL));
	fflush(stdout);
	if (argc == 1)
		reboot(RB_AUTOBOOT);
	return 0;
}
