/*
 * The guest's PID 1: it makes a Linux system around the image's program, connects the program to
 * the host, and ends the machine with it. BOOT_CONTRACT.md says what it does; main() says in which
 * order.
 */
#include "check.h"
#include "clock.h"
#include "console.h"
#include "control.h"
#include "documents.h"
#include "events.h"
#include "files.h"
#include "forward.h"
#include "handover.h"
#include "json.h"
#include "link.h"
#include "mounts.h"
#include "names.h"
#include "network.h"
#include "output.h"
#include "process.h"
#include "program.h"
#include "root.h"
#include "shutdown.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTRACT 2

/* Large, and PID 1 has one of each for its whole life: hence not on the stack. */
static struct documents documents;
static struct config *const config = &documents.config;
static struct program program;
static struct link link_sockets;

static bool stopping;
static uint64_t kill_at; /* while stopping: when SIGKILL follows */
static bool killed;      /* PID 1 itself has sent it SIGKILL */
static uint64_t oom_kills; /* before the program ran; in a machine of its own: none */

/* PID 1 cannot go on: say so everywhere and end the machine. `reason` is one of the contract's. */
__attribute__((format(printf, 2, 3))) static _Noreturn void fail(const char *reason, const char *format, ...)
{
	char error[512], text[3 * sizeof error];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error, sizeof error, format, arguments);
	va_end(arguments);
	console_say("%s: %s", events_stage(), error);
	json_string(error, text, sizeof text);
	events_put("fail", clock_now(), ",\"stage\":\"%s\",\"reason\":\"%s\",\"error\":%s", events_stage(), reason,
		   text);
	shutdown_processes();
	shutdown_disks();
	events_put("end", clock_now(), "");
	shutdown_machine(&link_sockets);
}

/* Descriptors 0 to 2 may be closed where the image has no /dev/console: nothing else may get them. */
static void occupy_standard_descriptors(void)
{
	int fd;
	do
		fd = open("/", O_PATH | O_CLOEXEC);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
}

/* Block all signals for good, and return a descriptor for those that mean something to PID 1. */
static int receive_signals(void)
{
	sigset_t signals;
	sigfillset(&signals);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	return signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Returns 0 or an errno. */
static int send_signal(int signal)
{
	killed |= signal == SIGKILL;
	return kill(program.pid, signal) == 0 ? 0 : errno;
}

static void stop(const char *by)
{
	send_signal(config->stop_signal);
	if (stopping)
		return; /* asked again: the program hears it again, but gets no more time */
	stopping = true;
	check_stop();
	kill_at = clock_deadline(config->stop_grace_ms);
	events_put("stopping", clock_now(), ",\"signal\":%d,\"by\":\"%s\"", config->stop_signal, by);
}

/* A control request; signal 0 is "stop". */
static int controlled(int signal)
{
	if (signal != 0)
		return send_signal(signal);
	stop("control");
	return 0;
}

/* Reap whatever has ended. Returns whether the program is among it, and then its wait status. */
static bool reap(int *status)
{
	bool program_ended = false;
	int ended_status;
	pid_t pid;
	while ((pid = waitpid(-1, &ended_status, WNOHANG)) > 0) {
		if (pid == program.pid) {
			program_ended = true;
			*status = ended_status;
		} else if (!check_ended(pid, ended_status)) {
			forward_ended(pid);
		}
	}
	return program_ended;
}

/* The earlier of two timeouts for poll(2); -1 is never. */
static int earlier(int timeout, int other)
{
	return timeout < 0 || (other >= 0 && other < timeout) ? other : timeout;
}

/* Milliseconds until the grace period is over, or -1. */
static int until_kill(void)
{
	return stopping && kill_at != UINT64_MAX ? clock_left(kill_at) : -1;
}

/* Say how the program ended, and that nothing else follows. */
static void report_end(uint64_t ended, int code, int signal, bool oom)
{
	events_put("exit", ended,
		   ",\"code\":%d,\"signal\":%d,\"oom\":%s,\"stdout\":%" PRIu64 ",\"stderr\":%" PRIu64, code, signal,
		   oom ? "true" : "false", output_sent(OUTPUT_STDOUT), output_sent(OUTPUT_STDERR));
	events_put("end", clock_now(), "");
}

/* The program has ended: deliver what it left behind, report how it ended, end the machine. */
static _Noreturn void finish(uint64_t ended, int code, int signal)
{
	bool oom = signal == SIGKILL && !killed && process_oom_kills() > oom_kills;
	/* First the processes: one of them could hold the pipes open for ever. */
	shutdown_processes();
	output_drain();
	shutdown_disks();
	report_end(ended, code, signal, oom);
	shutdown_machine(&link_sockets);
}

/* The image's init ends everything, this process included, and the machine after that. */
static _Noreturn void leave(void)
{
	uint64_t ended = clock_now();
	check_stop();
	output_drain();
	report_end(ended, 0, 0, false);
	shutdown_link(&link_sockets);
	_exit(0);
}

/* The grace period is over. */
static void stop_now(void)
{
	kill_at = UINT64_MAX;
	send_signal(SIGKILL);
	/* The kernel does not let that kill process 1. It can be left alone in a machine that restarts. */
	if (config->handover)
		finish(clock_now(), 128 + SIGKILL, SIGKILL);
}

/* Serve the host and the program's output until the program has ended. Returns its wait status. */
static int serve(int signals)
{
	enum {
		AT_SIGNALS,
		AT_EVENTS,
		AT_FORWARD,
		AT_HANDOVER,
		AT_CONTROL,
		AT_OUTPUT = AT_CONTROL + CONTROL_SLOTS,
		AT_CHECK = AT_OUTPUT + OUTPUT_SLOTS,
		SLOTS = AT_CHECK + CHECK_SLOTS
	};
	struct pollfd slots[SLOTS];
	bool leaving = false;
	for (;;) {
		slots[AT_SIGNALS] = (struct pollfd){.fd = signals, .events = POLLIN};
		slots[AT_EVENTS] = (struct pollfd){.fd = events_waiting() ? events_fd() : -1, .events = POLLOUT};
		slots[AT_FORWARD] = (struct pollfd){.fd = link_sockets.forward, .events = POLLIN};
		slots[AT_HANDOVER] = (struct pollfd){.fd = handover_fd(), .events = POLLIN};
		int timeout = earlier(until_kill(), control_watch(slots + AT_CONTROL));
		timeout = earlier(timeout, check_watch(slots + AT_CHECK));
		output_watch(slots + AT_OUTPUT);
		if (poll(slots, SLOTS, timeout) < 0 && errno != EINTR)
			fail("guest", "poll: %s", strerror(errno));

		struct signalfd_siginfo signal;
		while (read(signals, &signal, sizeof signal) == (ssize_t)sizeof signal) {
			int status = 0;
			leaving |= signal.ssi_signo == SIGTERM && config->handover;
			if (signal.ssi_signo == SIGINT)
				stop("ctrl-alt-del");
			if (signal.ssi_signo == SIGCHLD && reap(&status))
				return status;
		}
		if (until_kill() == 0)
			stop_now();
		if (slots[AT_EVENTS].revents != 0)
			events_flush();
		if (slots[AT_FORWARD].revents != 0)
			forward_accept(link_sockets.forward);
		control_step(slots + AT_CONTROL);
		output_step(slots + AT_OUTPUT);
		check_step(slots + AT_CHECK);
		if ((slots[AT_HANDOVER].revents != 0 || leaving) && handover_ready())
			events_put("ready", clock_now(), "");
		if (leaving)
			leave();
	}
}

int main(int argc, char **argv)
{
	uint64_t start = clock_now();
	char error[512];
	if (getpid() != 1 || argc < 1) {
		fprintf(stderr, "fcbuild: this is a virtual machine's PID 1 and nothing else\n");
		return 1;
	}
	umask(022);
	occupy_standard_descriptors();
	console_open();
	int signals = receive_signals();

	link_open(&link_sockets);
	events_open(link_sockets.events);
	events_put("init", clock_now(), ",\"contract\":%d,\"start\":%" PRIu64, CONTRACT, start);
	if (signals < 0)
		fail("guest", "signalfd: %s", strerror(errno));
	if (documents_read_image(&documents, error, sizeof error) != 0)
		fail("boot-config", "%s", error);

	if (mounts_kernel(error, sizeof error) != 0)
		fail("root", "%s", error);
	console_open();
	if (documents_read_instance(&documents, error, sizeof error) != 0)
		fail("instance-config", "%s", error);
	if (root_make(config, documents.command_line.overlay_drive, error, sizeof error) != 0)
		fail("root", "%s", error);
	if (!config->handover) /* an init makes the mounts that it wants */
		mounts_program();
	if (network_up(&config->network, error, sizeof error) != 0 || names_set(config, error, sizeof error) != 0)
		fail("network", "%s", error);
	/* Instead of restarting at once the kernel sends SIGINT. Without a keyboard there is nothing to set. */
	reboot(RB_DISABLE_CAD);
	if (files_write(&documents.drive, error, sizeof error) != 0)
		fail("file", "%s", error);
	events_put("mounted", clock_now(), "");

	output_open(link_sockets.output, link_sockets.errors);
	int started = config->handover ? handover_start(config, &program, argv[0], error, sizeof error)
				       : program_start(config, &program, error, sizeof error);
	if (started != 0)
		fail("guest", "%s", error);
	output_take(OUTPUT_STDOUT, program.output);
	output_take(OUTPUT_STDERR, program.errors);
	if (program.refusal.code != 0) {
		output_say(OUTPUT_STDERR, program.refusal.message);
		finish(clock_now(), program.refusal.code, 0);
	}
	events_put("exec", clock_now(), ",\"pid\":%d", (int)program.pid);
#ifdef SHARED_KERNEL /* tests outside of a virtual machine */
	oom_kills = process_oom_kills();
#endif

	check_open(config);
	control_open(link_sockets.control, controlled);
	int status = serve(signals);
	uint64_t ended = clock_now();
	if (WIFSIGNALED(status))
		finish(ended, 128 + WTERMSIG(status), WTERMSIG(status));
	finish(ended, WEXITSTATUS(status), 0);
}
