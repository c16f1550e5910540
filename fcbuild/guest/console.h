/* The console: where PID 1 complains, and where output goes when no host listens. */
#ifndef FCBUILD_CONSOLE_H
#define FCBUILD_CONSOLE_H

/* Open /dev/console, or what PID 1 was given as its standard error. May be called again. */
void console_open(void);

/* The console's descriptor (non-blocking), or -1 when this machine has none. */
int console_fd(void);

/* Print one line, with the name of this program before it. Never blocks: what does not fit is lost. */
__attribute__((format(printf, 1, 2))) void console_say(const char *format, ...);

/* Wait until the console's line has sent what was written to it; one second at most. */
void console_drain(void);

#endif
