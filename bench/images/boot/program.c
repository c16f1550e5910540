/*
 * The program whose start and end are measured. It says on the kernel's log when it runs and when it
 * is about to end; in between, what only the guest knows: when the kernel started PID 1, and PID 1's
 * memory. As process 1 it ends the machine, because nobody else does.
 *
 * Lines of level 0 reach the console of a kernel that was started with `quiet`.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

/* A line on the kernel's log, with the clock that the guest's events have. */
static void say(int log, const char *what, const char *value)
{
	char line[256];
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	int length = snprintf(line, sizeof line, "<0>bench: %s %s boottime %jd%09ld\n", what, value,
			      (intmax_t)now.tv_sec, now.tv_nsec);
	if (write(log, line, (size_t)length) < 0)
		_exit(1);
}

/*
 * When the kernel started process 1, and when that became the one that is measured: lines that were
 * logged before, "6,SEQUENCE,MICROSECONDS,-;Run /x as init process" and "15,..;bench: start".
 */
static void say_start(int log)
{
	char record[8192];
	ssize_t length;
	while ((length = read(log, record, sizeof record - 1)) > 0) {
		uintmax_t microseconds;
		char text[32];
		record[length] = '\0';
		const char *line = strchr(record, ';');
		if (line == NULL || sscanf(record, "%*d,%*d,%ju", &microseconds) != 1)
			continue;
		snprintf(text, sizeof text, "%ju", microseconds);
		if (strncmp(line, ";Run /", 6) == 0)
			say(log, "init", text);
		if (strncmp(line, ";bench: start", 13) == 0)
			say(log, "start", text);
		if (strncmp(line, ";bench: exec", 12) == 0)
			return; /* what follows are the lines that are said here */
	}
}

/* PID 1's memory, in KiB. Without /proc there is nobody but this program. */
static void say_memory(int log)
{
	char line[256];
	FILE *status = fopen("/proc/1/status", "r");
	while (status != NULL && fgets(line, sizeof line, status) != NULL) {
		char text[32];
		if (sscanf(line, "VmHWM: %31[0-9]", text) == 1)
			say(log, "peak", text);
		if (sscanf(line, "VmRSS: %31[0-9]", text) == 1)
			say(log, "resident", text);
	}
}

int main(void)
{
	int log = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (log < 0)
		return 1;
	say(log, "exec", "");
	say_start(log);
	say_memory(log);
	say(log, "exit", "");
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	return 0;
}
