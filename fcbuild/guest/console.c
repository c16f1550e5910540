/* The console: where PID 1 complains, and where output goes when no host listens. */
#include "console.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

static int console = -1;
static bool opened; /* it is /dev/console, not just what we were given */

void console_open(void)
{
	if (opened)
		return;
	int fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		if (console >= 0)
			close(console);
		console = fd;
		opened = true;
	} else if (console < 0) {
		/* Without /dev this early, the kernel's own descriptor of the console may still be there. */
		int mode = fcntl(STDERR_FILENO, F_GETFL);
		if (mode < 0 || (mode & O_PATH) != 0 || (mode & O_ACCMODE) == O_RDONLY)
			return;
		console = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
		if (console >= 0)
			fcntl(console, F_SETFL, mode | O_NONBLOCK);
	}
}

int console_fd(void)
{
	return console;
}

void console_say(const char *format, ...)
{
	char line[1024] = "fcbuild: ";
	const int prefix = 9;
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line + prefix, sizeof line - (size_t)prefix - 1, format, arguments);
	va_end(arguments);
	if (console < 0 || length < 0)
		return;
	length += prefix;
	if (length > (int)sizeof line - 2)
		length = (int)sizeof line - 2;
	line[length++] = '\n';
	if (write(console, line, (size_t)length) < 0)
		return; /* there is no one else to tell */
}

static void wake(int number)
{
	(void)number;
}

void console_drain(void)
{
	if (console < 0)
		return;
	/* tcdrain knows no deadline, but a signal with a handler ends it. */
	sigset_t alarms;
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	sigaction(SIGALRM, &(struct sigaction){.sa_handler = wake}, NULL);
	sigprocmask(SIG_UNBLOCK, &alarms, NULL);
	alarm(1);
	tcdrain(console);
	alarm(0);
	sigprocmask(SIG_BLOCK, &alarms, NULL);
}
