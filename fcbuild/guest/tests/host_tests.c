/* Unit tests of the pure parts of PID 1. Prints each failure; exits 1 when there was one. */
#include "config.h"
#include "health.h"
#include "interpreter.h"
#include "json.h"
#include "requests.h"
#include "search.h"

#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures;

#define CHECK(condition) \
	((condition) ? (void)0 : (void)(failures++, printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition)))

static void check_text(int line, const char *is, const char *expected)
{
	if (strcmp(is, expected) != 0) {
		failures++;
		printf("%s:%d: it is <%s>, expected <%s>\n", __FILE__, line, is, expected);
	}
}

#define CHECK_TEXT(is, expected) check_text(__LINE__, is, expected)

static struct config config;

#define HEAD "fcbuild-boot 1\n"
#define REST \
	"workdir 1\n/\nuid 1\n0\ngid 1\n0\nhostname 2\nvm\nstop-signal 2\n15\nstop-grace-ms 5\n10000\n"
#define END "end 0\n\n"

/* Parse a copy of exactly `length` bytes. Returns the error, or "". */
static const char *parse(const char *text, size_t length)
{
	static char error[256];
	static char *copy;
	free(copy);
	copy = malloc(length + 1);
	if (copy == NULL)
		abort();
	memcpy(copy, text, length);
	error[0] = '\0';
	int result = config_parse(copy, length, &config, error, sizeof error);
	CHECK((result == 0) == (error[0] == '\0'));
	return error;
}

#define PARSE(text) parse(text, sizeof(text) - 1)

static void test_config(void)
{
	CHECK_TEXT(PARSE(HEAD "argv 3\n/a \nargv 0\n\nargv 5\na\n\nb\n\nenv 3\nB=\n\nenv 3\nA=1\ngroup 1\n5\n" REST END), "");
	CHECK(config.argc == 3 && config.argv[3] == NULL);
	CHECK_TEXT(config.argv[0], "/a ");
	CHECK_TEXT(config.argv[1], "");
	CHECK_TEXT(config.argv[2], "a\n\nb\n");
	CHECK(config.envc == 2 && config.env[2] == NULL);
	CHECK_TEXT(config.env[0], "B=\n");
	CHECK_TEXT(config.env[1], "A=1");
	CHECK(config.groupc == 1 && config.groups[0] == 5);
	CHECK_TEXT(config.workdir, "/");
	CHECK_TEXT(config.hostname, "vm");
	CHECK(config.uid == 0 && config.gid == 0 && config.stop_signal == 15 && config.stop_grace_ms == 10000);

	CHECK_TEXT(PARSE(""), "this is not a boot config");
	CHECK_TEXT(PARSE("fcbuild-boot 1"), "the header line has no end");
	CHECK_TEXT(PARSE("fcbuild-boot 2\n" END), "its version is not 1");
	CHECK_TEXT(PARSE("fcbuild-boot 10\n" END), "its version is not 1");
	CHECK_TEXT(PARSE(HEAD), "record 1: the document ends without an end record");
	CHECK_TEXT(PARSE(HEAD END), "argv is missing");
	CHECK_TEXT(PARSE(HEAD REST END), "argv is missing");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" END), "workdir is missing");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" REST END "\n"), "record 8: there are bytes behind the end record");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" REST "end 1\nx\n"), "record 8: the end record has a value");
	CHECK_TEXT(PARSE(HEAD "argv 1\na\n" REST REST END), "record 8: workdir is there twice");
	CHECK_TEXT(PARSE(HEAD "argw 1\na\n" END), "record 1: unknown key argw");
	CHECK_TEXT(PARSE(HEAD "arg 1\na\n" END), "record 1: unknown key arg");
	CHECK_TEXT(PARSE(HEAD "Argv 1\na\n" END), "record 1: it does not start with a key and a space");
	CHECK_TEXT(PARSE(HEAD "aaaaaaaabbbbbbbbccccccccdddddddd 1\na\n" END),
		   "record 1: it does not start with a key and a space");
	CHECK_TEXT(PARSE(HEAD "argv 01\na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv -1\na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv \na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv 99999999999999999999\na\n" END), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv 1"), "record 1: argv has no valid length");
	CHECK_TEXT(PARSE(HEAD "argv 1\n"), "record 1: argv is longer than the document");
	CHECK_TEXT(PARSE(HEAD "argv 1\na"), "record 1: argv is longer than the document");
	CHECK_TEXT(PARSE(HEAD "argv 2\na\n" END), "record 1: argv does not end where its length says");
	CHECK_TEXT(PARSE(HEAD "argv 3\na\0b\n" END), "record 1: argv holds a NUL byte");
	CHECK_TEXT(PARSE(HEAD "env 1\na\n" END), "record 1: env is not NAME=value");
	CHECK_TEXT(PARSE(HEAD "env 2\n=a\n" END), "record 1: env is not NAME=value");
	CHECK_TEXT(PARSE(HEAD "workdir 1\na\n" END), "record 1: workdir is not an absolute path");
	CHECK_TEXT(PARSE(HEAD "workdir 0\n\n" END), "record 1: workdir is not an absolute path");
	CHECK_TEXT(PARSE(HEAD "uid 10\n4294967295\n" END), "record 1: uid is not a number from 0 to 4294967294");
	CHECK_TEXT(PARSE(HEAD "gid 2\n1 \n" END), "record 1: gid is not a number from 0 to 4294967294");
	CHECK_TEXT(PARSE(HEAD "stop-signal 2\n65\n" END), "record 1: stop-signal is not a number from 1 to 64");
	CHECK_TEXT(PARSE(HEAD "stop-signal 1\n0\n" END), "record 1: stop-signal is not a number from 1 to 64");
	CHECK_TEXT(PARSE(HEAD "hostname 3\na\nb\n" END), "record 1: hostname is not 1 to 63 of a-z A-Z 0-9 . - _");
	CHECK_TEXT(PARSE(HEAD "hostname 0\n\n" END), "record 1: hostname is not 1 to 63 of a-z A-Z 0-9 . - _");
}

static void test_config_limits(void)
{
	const char record[] = "argv 1\nx\n";
	size_t room = sizeof HEAD + sizeof REST + sizeof END + (CONFIG_RECORDS_MAX + 1) * sizeof record;
	char *text = malloc(room);
	if (text == NULL)
		abort();
	for (int extra = 0; extra < 2; extra++) {
		strcpy(text, HEAD REST);
		char *end = text + strlen(text);
		for (int i = 0; i < CONFIG_RECORDS_MAX - 6 + extra; i++, end += strlen(record))
			strcpy(end, record);
		strcpy(end, END);
		CHECK_TEXT(parse(text, strlen(text)),
			   extra == 0 ? "" : "record 4097: there are more than 4096 records");
	}
	CHECK(config.argc == CONFIG_RECORDS_MAX - 6);
	free(text);

	text = malloc(CONFIG_BYTES_MAX + 1);
	if (text == NULL)
		abort();
	memset(text, 'x', CONFIG_BYTES_MAX + 1);
	int used = sprintf(text, HEAD REST "argv %d\n", 262000);
	text[used] = 'x'; /* sprintf put its NUL there */
	text[used + 262000] = '\n';
	strcpy(text + used + 262001, END);
	CHECK_TEXT(parse(text, (size_t)used + 262001 + strlen(END)), "");
	CHECK(strlen(config.argv[0]) == 262000);
	CHECK_TEXT(parse(text, CONFIG_BYTES_MAX + 1), "it is larger than 262144 bytes");
	free(text);
}

typedef size_t json_function(const char *text, char *out, size_t size);

static void check_json(int line, json_function *function, const char *text, size_t size, const char *expected)
{
	char out[256];
	memset(out, '~', sizeof out);
	size_t length = function(text, out, size);
	check_text(line, out, expected);
	CHECK(length == strlen(out) && out[size] == '~');
}

#define CHECK_JSON(text, size, expected) check_json(__LINE__, json_string, text, size, expected)
#define CHECK_TAIL(text, size, expected) check_json(__LINE__, json_tail, text, size, expected)

static void test_json(void)
{
	CHECK_JSON("", 100, "\"\"");
	CHECK_JSON("a\"b\\c/\n\x01\x7f", 100, "\"a\\\"b\\\\c/\\u000a\\u0001\\u007f\"");
	CHECK_JSON("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 100, "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"");
	CHECK_JSON("\xff|\xc0\x80|\xed\xa0\x80|\xe2\x82", 100,
		   "\"\\ufffd|\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd\"");
	CHECK_JSON("\xf4\x90\x80\x80", 100, "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
	CHECK_JSON("abcdef", 3, "\"\"");
	CHECK_JSON("abcdef", 6, "\"abc\"");
	CHECK_JSON("abc\xe2\x82\xac", 8, "\"abc\"");
	CHECK_JSON("abc\xe2\x82\xac", 9, "\"abc\xe2\x82\xac\"");
	CHECK_TAIL("", 3, "\"\"");
	CHECK_TAIL("abc", 6, "\"abc\"");
	CHECK_TAIL("abcdef", 6, "\"def\"");
	CHECK_TAIL("abcdef", 3, "\"\"");
	CHECK_TAIL("ab\xe2\x82\xac", 6, "\"\xe2\x82\xac\"");
	CHECK_TAIL("ab\xe2\x82\xac", 5, "\"\"");
	CHECK_TAIL("a\n\xff\"", 12, "\"\\ufffd\\\"\"");
}

static void test_requests(void)
{
	int signal = -1;
	uint16_t port = 0;
	CHECK(request_control("stop", 4, &signal) && signal == 0);
	CHECK(request_control("signal 9", 8, &signal) && signal == 9);
	CHECK(request_control("signal 64", 9, &signal) && signal == 64);
	CHECK(!request_control("signal 65", 9, &signal));
	CHECK(!request_control("signal 0", 8, &signal));
	CHECK(!request_control("signal", 6, &signal));
	CHECK(!request_control("signal ", 7, &signal));
	CHECK(!request_control("stop ", 5, &signal));
	CHECK(!request_control("", 0, &signal));
	CHECK(request_forward("tcp 1", 5, &port) && port == 1);
	CHECK(request_forward("tcp 65535", 9, &port) && port == 65535);
	CHECK(!request_forward("tcp 65536", 9, &port));
	CHECK(!request_forward("tcp 0", 5, &port));
	CHECK(!request_forward("tcp 080", 7, &port));
	CHECK(!request_forward("tcp 80\r", 7, &port));
	CHECK(!request_forward("tcp 99999999999999999999", 24, &port));
	CHECK(!request_forward("udp 80", 6, &port));
	CHECK(!request_forward("tcp -1", 6, &port));
}

static enum request_state read_from(const char *text, size_t length, struct request *request, size_t *line)
{
	int ends[2];
	if (pipe(ends) != 0 || write(ends[1], text, length) != (ssize_t)length)
		abort();
	close(ends[1]);
	memset(request, 0, sizeof *request);
	enum request_state state = request_read(request, ends[0], line);
	close(ends[0]);
	return state;
}

static void test_request_lines(void)
{
	struct request request;
	size_t line = 0;
	char full[128];
	CHECK(read_from("tcp 80\nGET", 10, &request, &line) == REQUEST_WHOLE && line == 6 && request.length == 10);
	CHECK(read_from("tcp 80", 6, &request, &line) == REQUEST_GONE);
	memset(full, 'x', sizeof full);
	CHECK(read_from(full, sizeof full, &request, &line) == REQUEST_TOO_LONG);
	full[64] = '\n';
	CHECK(read_from(full, sizeof full, &request, &line) == REQUEST_TOO_LONG);
	full[63] = '\n';
	CHECK(read_from(full, sizeof full, &request, &line) == REQUEST_WHOLE && line == 63);
}

/* All candidates, joined by spaces. */
static const char *candidates(const char *path, const char *name)
{
	static char all[512];
	char candidate[64];
	all[0] = '\0';
	while (search_next(&path, name, candidate, sizeof candidate)) {
		strcat(all, candidate);
		strcat(all, " ");
	}
	return all;
}

static void test_search(void)
{
	char *env[] = {"PATHS=/no", "PATH=/a:/b", "PATH=/c", NULL};
	char *empty[] = {"PATH=", NULL};
	char *none[] = {NULL};
	CHECK_TEXT(search_path(env), "/a:/b");
	CHECK_TEXT(search_path(none), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	CHECK_TEXT(search_path(empty), search_path(none));
	CHECK_TEXT(candidates("/a:/b", "x"), "/a/x /b/x ");
	CHECK_TEXT(candidates("/a::b:", "x"), "/a/x x b/x x ");
	CHECK_TEXT(candidates("/a:/b", "./x"), "./x ");
	CHECK_TEXT(candidates("/a:/b", ""), " ");
	CHECK_TEXT(candidates("/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:/b", "x"),
		   "/b/x ");
}

static void test_interpreter(void)
{
	char path[64] = "";
	CHECK(interpreter_of("#!/bin/sh -e\n", 13, path, sizeof path));
	CHECK_TEXT(path, "/bin/sh");
	CHECK(interpreter_of("#! /x\n", 6, path, sizeof path));
	CHECK_TEXT(path, "/x");
	CHECK(!interpreter_of("#!/bin/sh", 9, path, sizeof path));
	CHECK(!interpreter_of("#!\n", 3, path, sizeof path));
	CHECK(!interpreter_of("hello\n", 6, path, sizeof path));
	CHECK(!interpreter_of("", 0, path, sizeof path));

	struct {
		Elf64_Ehdr file;
		Elf64_Phdr part;
		char text[16];
	} elf = {
		.file = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64},
			 .e_phoff = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 1},
		.part = {.p_type = PT_INTERP, .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), .p_filesz = 7},
		.text = "/ld.so",
	};
	CHECK(interpreter_of((char *)&elf, sizeof elf, path, sizeof path));
	CHECK_TEXT(path, "/ld.so");
	for (size_t length = 0; length < sizeof elf - 16; length++)
		CHECK(!interpreter_of((char *)&elf, length, path, sizeof path));
	elf.part.p_offset = UINT64_MAX;
	CHECK(!interpreter_of((char *)&elf, sizeof elf, path, sizeof path));
	elf.file.e_phoff = UINT64_MAX - 8;
	CHECK(!interpreter_of((char *)&elf, sizeof elf, path, sizeof path));
}

/* Points in time of the health tests. */
#define MS(n) ((uint64_t)(n)*1000000u)

/* The check that is due at `at` starts then, not earlier, and ends with `code` one millisecond later. */
static void check_at(int line, struct health *health, uint64_t at, int code)
{
	if (health->due != at || health_step(health, at - 1) != HEALTH_WAIT || health_step(health, at) != HEALTH_START) {
		failures++;
		printf("%s:%d: no check is due at %llu but at %llu\n", __FILE__, line, (unsigned long long)at,
		       (unsigned long long)health->due);
	}
	health_ended(health, code, at + MS(1));
}

#define CHECK_AT(at, code) check_at(__LINE__, &health, at, code)

static void test_health(void)
{
	const struct health_times times = {.interval_ms = 30000, .timeout_ms = 500, .retries = 3, .start_interval_ms = 5000};
	struct health health;

	/* Without a start period every failure counts, and the third in a row makes it unhealthy. */
	health_begin(&health, &times, MS(1000));
	CHECK(health.status == HEALTH_STARTING && health.failing == 0);
	CHECK_AT(MS(31000), 1);
	CHECK(health.status == HEALTH_STARTING && health.failing == 1);
	CHECK_AT(MS(61001), 255);
	CHECK(health.status == HEALTH_STARTING && health.failing == 2);
	CHECK_AT(MS(91002), 127);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 3);
	CHECK_AT(MS(121003), 1);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 4);
	/* One success is enough, and the count starts again. */
	CHECK_AT(MS(151004), 0);
	CHECK(health.status == HEALTH_HEALTHY && health.failing == 0);
	CHECK_AT(MS(181005), 1);
	CHECK_AT(MS(211006), 1);
	CHECK_AT(MS(241007), 0);
	CHECK_AT(MS(271008), 1);
	CHECK_AT(MS(301009), 1);
	CHECK(health.status == HEALTH_HEALTHY && health.failing == 2);
	CHECK_AT(MS(331010), 1);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 3);
}

static void test_health_start_period(void)
{
	struct health_times times = {.interval_ms = 30000, .timeout_ms = 500, .retries = 1,
				     .start_period_ms = 12000, .start_interval_ms = 5000};
	struct health health;

	/* Failures in it do not count. The check that starts before its end is still forgiven. */
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 1);
	CHECK_AT(MS(10001), 1);
	CHECK(health.status == HEALTH_STARTING && health.failing == 0);
	CHECK(health.due == MS(15002));
	CHECK(health_step(&health, MS(15002)) == HEALTH_START);
	health_ended(&health, 1, MS(15003));
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 1);
	CHECK(health.due == MS(45003));

	/* Started within it, ended outside. */
	times.timeout_ms = 60000;
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 1);
	CHECK(health_step(&health, MS(10001)) == HEALTH_START);
	health_ended(&health, 1, MS(13000));
	CHECK(health.status == HEALTH_STARTING && health.failing == 0);
	CHECK(health.due == MS(43000));

	/* A success in it ends "starting": from there on failures count and the interval is the long one. */
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 0);
	CHECK(health.status == HEALTH_HEALTHY);
	CHECK(health.due == MS(35001));
	times.interval_ms = 1000;
	health_begin(&health, &times, 0);
	CHECK_AT(MS(5000), 0);
	CHECK_AT(MS(6001), 1);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 1);
}

static void test_health_timeout(void)
{
	const struct health_times times = {.interval_ms = 1000, .timeout_ms = 500, .retries = 1};
	struct health health;

	health_begin(&health, &times, 0);
	CHECK(health_step(&health, MS(1010)) == HEALTH_START); /* PID 1 was late */
	CHECK(health.due == MS(1510));
	CHECK(health_step(&health, MS(1510) - 1) == HEALTH_WAIT);
	CHECK(health_step(&health, MS(1510)) == HEALTH_KILL);
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 1);
	/* Nothing starts before it has ended, and its end is not another result. */
	CHECK(health.due == UINT64_MAX && health_step(&health, MS(99000)) == HEALTH_WAIT);
	health_ended(&health, 137, MS(99000));
	CHECK(health.failing == 1 && health.due == MS(100000));
	/* It may even say that all is well: too late. */
	CHECK(health_step(&health, MS(100000)) == HEALTH_START);
	CHECK(health_step(&health, MS(100500)) == HEALTH_KILL);
	health_ended(&health, 0, MS(100501));
	CHECK(health.status == HEALTH_UNHEALTHY && health.failing == 2);

	/* After a stop there is no result and no check. */
	CHECK(health_step(&health, MS(101501)) == HEALTH_START);
	health_stop(&health);
	CHECK(health.due == UINT64_MAX && health_step(&health, MS(200000)) == HEALTH_WAIT);
	health_ended(&health, 0, MS(200000));
	CHECK(health.status == HEALTH_UNHEALTHY && health.due == UINT64_MAX);
}

int main(void)
{
	test_config();
	test_config_limits();
	test_json();
	test_requests();
	test_request_lines();
	test_search();
	test_interpreter();
	test_health();
	test_health_start_period();
	test_health_timeout();
	printf("%d failures\n", failures);
	return failures != 0;
}
