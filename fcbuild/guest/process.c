/* What the kernel is told and asked about processes: PID 1 itself, and what its children inherit. */
#include "process.h"

#include "values.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From <linux/close_range.h>; Linux 5.11 has the flag, 5.9 the call. */
#define CLOSE_RANGE_CLOEXEC (1U << 2)

/* PID 1 holds a few dozen descriptors; this bounds the loops that stand in for close_range. */
#define DESCRIPTORS 1024

static void oom_score_adj(const char *value)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* Without it the kernel merely has one candidate more. */
	if (write(fd, value, strlen(value)) < 0) {
	}
	close(fd);
}

void process_never_oom(void)
{
	oom_score_adj("-1000");
}

void process_normal_oom(void)
{
	oom_score_adj("0");
}

uint64_t process_oom_kills(void)
{
	static const char name[] = "\noom_kill ";
	char text[16384]; /* about 5,000 bytes now; the kernel adds a few lines a year */
	size_t length = 0;
	ssize_t got;
	int fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (length < sizeof text - 1 && (got = read(fd, text + length, sizeof text - 1 - length)) > 0)
		length += (size_t)got;
	close(fd);
	text[length] = '\0';
	const char *line = strstr(text, name);
	uint64_t kills = 0;
	if (line == NULL)
		return 0;
	line += strlen(name);
	return decimal_parse(line, strcspn(line, "\n"), 0, UINT64_MAX, &kills) == 0 ? kills : 0;
}

static int close_range_from(unsigned first, unsigned last, unsigned flags)
{
	return first > last ? 0 : (int)syscall(SYS_close_range, first, last, flags);
}

void process_keep_only(int fd)
{
	if (close_range_from(3, (unsigned)fd - 1, 0) == 0 && close_range_from((unsigned)fd + 1, UINT_MAX, 0) == 0)
		return;
	for (int other = 3; other < DESCRIPTORS; other++)
		if (other != fd)
			close(other);
}

void process_close_on_exec(void)
{
	if (close_range_from(3, UINT_MAX, CLOSE_RANGE_CLOEXEC) == 0)
		return;
	for (int fd = 3; fd < DESCRIPTORS; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void process_default_signals(void)
{
	/* SIGKILL, SIGSTOP and the libc's own signals refuse; they have no other disposition anyway. */
	for (int number = 1; number < _NSIG; number++)
		signal(number, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}
