/* The image's HEALTHCHECK: it is run, watched and reported here; health.h has the rules. */
#include "check.h"

#include "clock.h"
#include "events.h"
#include "health.h"
#include "json.h"
#include "launch.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	TAIL_BYTES = 1024,
	/* As JSON a byte can take six; with the rest of the event this stays below an event's size. */
	JSON_BYTES = 3840,
	READ_BYTES = 4096,
	/* What a pipe holds (pipe(7)), in reads: more comes only from a process that still writes. */
	DRAIN_READS = 65536 / READ_BYTES + 1,
};

static const struct config *config;
static struct health health = {.due = UINT64_MAX};
static pid_t running; /* the check's process, the leader of its session; 0: none */
static int output = -1;
static char tail[TAIL_BYTES];
static size_t tail_length;
static bool tail_cut;

static void tail_add(const char *bytes, size_t length)
{
	if (length > sizeof tail) {
		bytes += length - sizeof tail;
		length = sizeof tail;
		tail_cut = true;
	}
	size_t kept = tail_length;
	if (kept > sizeof tail - length) {
		kept = sizeof tail - length;
		tail_cut = true;
	}
	memmove(tail, tail + tail_length - kept, kept);
	memcpy(tail + kept, bytes, length);
	tail_length = kept + length;
}

/* Read once. Returns whether there may be more. */
static bool read_output(void)
{
	char bytes[READ_BYTES];
	ssize_t got = read(output, bytes, sizeof bytes);
	if (got > 0)
		tail_add(bytes, (size_t)got);
	if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
		return got > 0;
	close(output);
	output = -1;
	return false;
}

/* Take what is in the pipe and let go of it: a process that the check has left behind may hold it for ever. */
static void end_output(void)
{
	for (int i = 0; i < DRAIN_READS && output >= 0; i++)
		if (!read_output())
			break;
	if (output >= 0)
		close(output);
	output = -1;
}

/* Report the status if the end of a check, with `code`, has changed it. */
static void report(enum health_status before, int code)
{
	char text[TAIL_BYTES + 1], json[JSON_BYTES];
	if (health.status == before)
		return;
	size_t start = 0;
	/* The cut may have gone through a UTF-8 character: leave out its rest. */
	while (tail_cut && start < 3 && start < tail_length && ((unsigned char)tail[start] & 0xc0) == 0x80)
		start++;
	for (size_t i = start; i < tail_length; i++)
		text[i - start] = tail[i] != '\0' ? tail[i] : '\xff'; /* which JSON shows as U+FFFD */
	text[tail_length - start] = '\0';
	json_tail(text, json, sizeof json);
	events_offer("health", clock_now(), ",\"status\":\"%s\",\"failing\":%u,\"code\":%d,\"output\":%s",
		     health_word(health.status), health.failing, code, json);
}

static void ended(int code)
{
	enum health_status before = health.status;
	health_ended(&health, code, clock_now());
	report(before, code);
}

/* A check that PID 1 cannot start has failed. */
static void refused(const char *what)
{
	char text[128];
	int length = snprintf(text, sizeof text, "fcbuild: %s: %s\n", what, strerror(errno));
	tail_add(text, (size_t)length);
	ended(LAUNCH_NOT_EXECUTABLE);
}

/* In a child of its own: become the check, or say in its output why not. */
static _Noreturn void become_check(int writing)
{
	struct refusal refusal;
	int code = launch_exec(&(struct launch){config, config->health, writing, writing}, &refusal);
	/* If nobody hears it, the exit code is still seen. */
	if (write(writing, refusal.message, strlen(refusal.message)) < 0) {
	}
	_exit(code);
}

static void start(void)
{
	struct ends ends;
	tail_length = 0;
	tail_cut = false;
	if (launch_output_pipe(config, &ends) != 0) {
		refused("pipe");
		return;
	}
	pid_t pid = fork();
	if (pid == 0)
		become_check(ends.writing);
	close(ends.writing);
	output = ends.reading;
	if (pid > 0) {
		running = pid;
		return;
	}
	refused("fork");
	end_output();
}

void check_open(const struct config *image)
{
	if (image->healthc == 0)
		return;
	config = image;
	health_begin(&health, &config->health_times, clock_now());
	events_offer("health", clock_now(), ",\"status\":\"%s\",\"failing\":0", health_word(health.status));
}

int check_watch(struct pollfd slots[CHECK_SLOTS])
{
	slots[0] = (struct pollfd){.fd = output, .events = POLLIN};
	return health.due == UINT64_MAX ? -1 : clock_left(health.due);
}

void check_step(const struct pollfd slots[CHECK_SLOTS])
{
	if (output >= 0 && slots[0].fd == output && slots[0].revents != 0)
		read_output();
	enum health_status before = health.status;
	switch (health_step(&health, clock_now())) {
	case HEALTH_WAIT:
		return;
	case HEALTH_START:
		start();
		return;
	case HEALTH_KILL:
		process_kill_session(running);
		end_output();
		report(before, HEALTH_TIMED_OUT);
		return;
	}
}

bool check_ended(pid_t pid, int status)
{
	if (pid != running)
		return false;
	running = 0;
	end_output();
	ended(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	return true;
}

void check_stop(void)
{
	health_stop(&health);
	if (running > 0)
		process_kill_session(running);
	end_output();
}
