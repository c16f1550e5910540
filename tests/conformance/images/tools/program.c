/* The program itself: its words, its user, its rights, its descriptors. */
#include "json.h"
#include "report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void words(const char *key, char **list)
{
	json_open(key, '[');
	for (; *list != NULL; list++)
		json_text(NULL, *list);
	json_close();
}

static void link_target(const char *key, const char *link)
{
	char target[PATH_MAX];
	ssize_t length = readlink(link, target, sizeof target);
	if (length < 0)
		json_text(key, strerror(errno));
	else
		json_bytes(key, target, (size_t)length);
}

/* The value of a line of /proc/self/status. */
static void status_line(const char *key, const char *name)
{
	char line[512];
	FILE *status = fopen("/proc/self/status", "re");
	size_t length = strlen(name);
	while (status != NULL && fgets(line, sizeof line, status) != NULL)
		if (strncmp(line, name, length) == 0 && line[length] == ':') {
			line[strcspn(line, "\n")] = '\0';
			json_text(key, line + length + 1 + strspn(line + length + 1, " \t"));
		}
	if (status != NULL)
		fclose(status);
}

void report_program(int argc, char **argv, char **env)
{
	char cwd[PATH_MAX];
	gid_t groups[64];
	json_number("argc", argc);
	words("argv", argv);
	words("env", env);
	json_text("cwd", getcwd(cwd, sizeof cwd) != NULL ? cwd : strerror(errno));
	link_target("exe", "/proc/self/exe");

	json_open("user", '{');
	uid_t uids[3];
	gid_t gids[3];
	if (getresuid(uids, uids + 1, uids + 2) != 0 || getresgid(gids, gids + 1, gids + 2) != 0)
		exit(99);
	json_format("uid", "%u, effective %u, saved %u", uids[0], uids[1], uids[2]);
	json_format("gid", "%u, effective %u, saved %u", gids[0], gids[1], gids[2]);
	json_open("groups", '[');
	int count = getgroups(64, groups);
	for (int i = 0; i < count; i++)
		json_number(NULL, groups[i]);
	json_close();
	json_close();

	json_open("caps", '{');
	status_line("inheritable", "CapInh");
	status_line("permitted", "CapPrm");
	status_line("effective", "CapEff");
	status_line("bounding", "CapBnd");
	status_line("ambient", "CapAmb");
	json_close();
	json_number("securebits", prctl(PR_GET_SECUREBITS));
	json_number("dumpable", prctl(PR_GET_DUMPABLE));
	json_number("secure exec", (long long)getauxval(AT_SECURE));
	status_line("no new privileges", "NoNewPrivs");
	status_line("seccomp", "Seccomp");

	json_open("signals", '{');
	status_line("blocked", "SigBlk");
	status_line("ignored", "SigIgn");
	status_line("caught", "SigCgt");
	json_close();
}

/* Some number, where only its being one of these two means anything. */
static void small_pid(const char *key, pid_t pid)
{
	if (pid <= 1)
		json_number(key, pid);
	else
		json_text(key, "another");
}

void report_process(void)
{
	char text[32] = "";
	mode_t mask = umask(0);
	umask(mask);
	json_format("umask", "%04o", mask);
	json_open("process", '{');
	json_bool("is process 1", getpid() == 1);
	small_pid("parent", getppid());
	json_bool("leads its session", getsid(0) == getpid());
	json_bool("leads its group", getpgrp() == getpid());
	errno = 0;
	json_number("nice", getpriority(PRIO_PROCESS, 0));
	FILE *score = fopen("/proc/self/oom_score_adj", "re");
	if (score != NULL && fgets(text, sizeof text, score) != NULL)
		json_number("oom score adjustment", strtol(text, NULL, 10));
	if (score != NULL)
		fclose(score);
	json_close();
}

static void limit(const char *name, rlim_t value)
{
	if (value == RLIM_INFINITY)
		json_text(name, "unlimited");
	else
		json_number(name, (long long)value);
}

void report_limits(void)
{
	static const struct {
		int resource;
		const char *name;
	} limits[] = {
		{RLIMIT_AS, "as"},	     {RLIMIT_CORE, "core"},	{RLIMIT_CPU, "cpu"},
		{RLIMIT_DATA, "data"},	     {RLIMIT_FSIZE, "fsize"},	{RLIMIT_LOCKS, "locks"},
		{RLIMIT_MEMLOCK, "memlock"}, {RLIMIT_MSGQUEUE, "msgqueue"}, {RLIMIT_NICE, "nice"},
		{RLIMIT_NOFILE, "nofile"},   {RLIMIT_NPROC, "nproc"},	{RLIMIT_RSS, "rss"},
		{RLIMIT_RTPRIO, "rtprio"},   {RLIMIT_RTTIME, "rttime"}, {RLIMIT_SIGPENDING, "sigpending"},
		{RLIMIT_STACK, "stack"},
	};
	json_open("limits", '{');
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
		struct rlimit found;
		if (getrlimit(limits[i].resource, &found) != 0)
			continue;
		json_open(limits[i].name, '{');
		limit("soft", found.rlim_cur);
		limit("hard", found.rlim_max);
		json_close();
	}
	json_close();
}

void report_descriptors(void)
{
	json_open("descriptors", '{');
	DIR *open_ones = opendir("/proc/self/fd");
	if (open_ones == NULL)
		exit(99);
	struct dirent *entry;
	while ((entry = readdir(open_ones)) != NULL) {
		int fd = atoi(entry->d_name);
		if (entry->d_name[0] == '.' || fd == dirfd(open_ones))
			continue;
		struct stat file;
		int flags = fcntl(fd, F_GETFL);
		if (flags < 0 || fstat(fd, &file) != 0)
			continue;
		static const char *const modes[] = {"read", "write", "read and write", "?"};
		json_open(entry->d_name, '{');
		json_text("mode", modes[flags & O_ACCMODE]);
		json_bool("append", flags & O_APPEND);
		json_bool("non-blocking", flags & O_NONBLOCK);
		if (S_ISFIFO(file.st_mode))
			json_format("what", "a pipe of the user %s", file.st_uid == getuid() ? "itself" : "of others");
		else if (S_ISCHR(file.st_mode))
			json_format("what", "device %u:%u", (unsigned)(file.st_rdev >> 8), (unsigned)(file.st_rdev & 255));
		else
			json_format("what", "%o", file.st_mode & S_IFMT);
		json_close();
	}
	closedir(open_ones);
	json_close();
}

/* Orphan a process and see who gets it. */
void report_orphan(void)
{
	int to_orphan[2], from_orphan[2];
	pid_t facts[2] = {0, 0}; /* its own pid, and its parent's once it is an orphan */
	if (pipe2(to_orphan, O_CLOEXEC) != 0 || pipe2(from_orphan, O_CLOEXEC) != 0)
		exit(99);
	pid_t child = fork();
	if (child == 0) {
		if (fork() == 0) {
			char go;
			if (read(to_orphan[0], &go, 1) != 1)
				_exit(1);
			facts[0] = getpid();
			facts[1] = getppid();
			if (write(from_orphan[1], facts, sizeof facts) < 0)
				_exit(1);
		}
		_exit(0);
	}
	waitpid(child, NULL, 0);
	close(from_orphan[1]);
	if (write(to_orphan[1], "", 1) != 1 || read(from_orphan[0], facts, sizeof facts) != sizeof facts)
		exit(99);
	char nothing, path[64];
	while (read(from_orphan[0], &nothing, 1) > 0)
		;
	/* It has ended by now or is about to. That somebody else has reaped it is told by nothing. */
	int there = 1;
	snprintf(path, sizeof path, "/proc/%d", facts[0]);
	for (int tries = 0; there && tries < 50; tries++) {
		there = access(path, F_OK) == 0;
		poll(NULL, 0, there ? 10 : 0);
	}
	json_open("orphan", '{');
	small_pid("parent", facts[1]);
	json_bool("stays a zombie", there);
	json_bool("is for the program to reap", waitpid(-1, NULL, WNOHANG) == facts[0]);
	json_close();
}
