/*
 * The program of the conformance tests: it prints what it sees as one line of JSON, and then ends,
 * or waits to be ended, as PROBE in its environment says. PROBE is words, done in this order:
 *
 *   silent          no document
 *   tree=PATH,PATH  the document lists these trees
 *   orphan          the document says who gets an orphan
 *   write=N         write N bytes of all values to standard output
 *   errors=N        the same to standard error, backwards
 *   leave           leave children behind that hold both open
 *   await           say "ready", and then what signal comes
 *   ignore          say "ready" and block all signals, for ever
 *   idle            say "ready" and wait with all signals at their default, for ever
 *   fault           access memory that is not there
 *   raise=N         send itself signal N
 *   exit=N          end with status N; without it, with 0
 */
#include "json.h"
#include "report.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORDS = 16 };

static char *words[WORDS + 1];

static void read_words(void)
{
	static char text[1024];
	const char *probe = getenv("PROBE");
	int count = 0;
	snprintf(text, sizeof text, "%s", probe != NULL ? probe : "");
	for (char *word = strtok(text, " "); word != NULL && count < WORDS; word = strtok(NULL, " "))
		words[count++] = word;
}

/* What follows the word and its "=", or NULL when PROBE has no such word. */
static char *asked(const char *name)
{
	size_t length = strlen(name);
	for (char **word = words; *word != NULL; word++)
		if (strncmp(*word, name, length) == 0) {
			if ((*word)[length] == '=')
				return *word + length + 1;
			if ((*word)[length] == '\0')
				return *word + length;
		}
	return NULL;
}

static long number(const char *name)
{
	const char *value = asked(name);
	return value != NULL ? strtol(value, NULL, 10) : 0;
}

static void write_bytes(FILE *to, long count, bool backwards)
{
	for (long i = 0; i < count; i++)
		putc((int)((backwards ? 255 - i : i) & 255), to);
	fflush(to);
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
}

static void block_signals(sigset_t *all)
{
	sigfillset(all);
	sigprocmask(SIG_SETMASK, all, NULL);
}

static void await(const sigset_t *signals)
{
	int got;
	if (sigwait(signals, &got) != 0)
		exit(99);
	printf("received %d\n", got);
	fflush(stdout);
}

/* Children that would outlive the program, and say so when they are asked to end. */
static void leave_children(void)
{
	sigset_t all;
	for (int i = 0; i < 3; i++) {
		if (fork() == 0) {
			if (i == 1)
				setsid();
			block_signals(&all);
			await(&all);
			_exit(0);
		}
	}
}

static void wait_for_ever(void)
{
	ready();
	for (;;)
		pause();
}

static void end(void)
{
	sigset_t all;
	write_bytes(stdout, number("write"), false);
	write_bytes(stderr, number("errors"), true);
	if (asked("leave") != NULL)
		leave_children();
	if (asked("await") != NULL) {
		block_signals(&all);
		ready();
		await(&all);
	}
	if (asked("ignore") != NULL) {
		block_signals(&all);
		wait_for_ever();
	}
	if (asked("idle") != NULL)
		wait_for_ever();
	if (asked("fault") != NULL) {
		volatile int *volatile nowhere = NULL;
		*nowhere = 1;
	}
	if (asked("raise") != NULL)
		kill(getpid(), (int)number("raise"));
}

static void report(int argc, char **argv, char **env)
{
	json_open(NULL, '{');
	/* Before anything here opens a file. */
	report_descriptors();
	report_program(argc, argv, env);
	report_process();
	report_limits();
	report_mounts();
	report_devices();
	report_files();
	report_network();
	report_works();
	if (asked("tree") != NULL)
		report_trees(asked("tree"));
	if (asked("orphan") != NULL)
		report_orphan();
	json_close();
	putchar('\n');
	fflush(stdout);
}

int main(int argc, char **argv, char **env)
{
	read_words();
	if (asked("silent") == NULL)
		report(argc, argv, env);
	end();
	return (int)number("exit");
}
