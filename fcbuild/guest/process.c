/* What the kernel is told and asked about processes: PID 1 itself, what its children inherit, their end. */
#include "process.h"

#include "values.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From <linux/close_range.h>; Linux 5.11 has the flag, 5.9 the call. */
#define CLOSE_RANGE_CLOEXEC (1U << 2)

/* PID 1 holds a few dozen descriptors; this bounds the loops that stand in for close_range. */
#define DESCRIPTORS 1024

static bool spared; /* this process and those that it forks */

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
	spared = true;
	oom_score_adj("-1000");
}

void process_normal_oom(void)
{
	if (spared)
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

void process_unblock_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Kill those of the session that are in /proc now. readdir(3) would allocate memory, this does not. */
static void kill_listed(int proc, pid_t leader)
{
	_Alignas(struct dirent) char entries[4096];
	long length;
	while ((length = syscall(SYS_getdents64, proc, entries, sizeof entries)) > 0) {
		for (long at = 0; at < length;) {
			/* On 64 bits the libc's entry is the kernel's. */
			const struct dirent *entry = (const struct dirent *)(entries + at);
			pid_t pid = (pid_t)atoi(entry->d_name);
			if (pid > 0 && getsid(pid) == leader)
				kill(pid, SIGKILL);
			at += entry->d_reclen;
		}
	}
}

void process_kill_session(pid_t leader)
{
	/* The group at once. It is all there is, unless timeout(1) or a job control shell made others. */
	kill(-leader, SIGKILL);
	/* It may have no session of its own yet. */
	kill(leader, SIGKILL);
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		return;
	/* Twice: a process may have forked after the first look at its child's number. */
	for (int i = 0; i < 2; i++) {
		lseek(proc, 0, SEEK_SET);
		kill_listed(proc, leader);
	}
	close(proc);
}
