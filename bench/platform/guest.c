/*
 * /init of the guests that bench/kernel.py measures: says when it ran, and what memory was free.
 *
 * Its first act is one byte on the console, '@', which the host notes. Then, a line each:
 *
 *     guest: tsc N           the time-stamp counter, read before anything else
 *     guest: free KIB        MemFree of /proc/meminfo
 *     guest| ...             the kernel's log, where the command line has bench_log=1
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

static char text[1 << 19];

int main(void)
{
	unsigned long long ticks = __rdtsc();
	const char *free;
	FILE *file;
	int size;

	if (write(1, "@", 1) != 1)
		return 1;
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	file = fopen("/proc/meminfo", "r");
	if (file)
		fread(text, 1, sizeof text - 1, file);
	free = strstr(text, "MemFree:");
	printf("\nguest: tsc %llu\nguest: free %ld\n", ticks, free ? atol(free + 8) : 0);
	if (getenv("bench_log")) {
		size = klogctl(3, text, sizeof text - 1);
		text[size > 0 ? size : 0] = 0;
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
			printf("guest| %s\n", line);
	}
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	return 1;
}
