/*
 * Everything written is ASCII, whatever the program meets: a byte that is not printable is \u00XX,
 * so that the reader gets bytes back by decoding to Latin-1.
 */
#include "json.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH = 16 };

static char brackets[DEPTH];
static int depth;
static bool follows; /* something stands before, at this depth */

static void quoted(const void *bytes, size_t length)
{
	const unsigned char *at = bytes;
	putchar('"');
	for (size_t i = 0; i < length; i++) {
		if (at[i] < 0x20 || at[i] > 0x7e || at[i] == '"' || at[i] == '\\')
			printf("\\u%04x", at[i]);
		else
			putchar(at[i]);
	}
	putchar('"');
}

static void begin(const char *key)
{
	if (follows)
		putchar(',');
	follows = true;
	if (key != NULL) {
		quoted(key, strlen(key));
		putchar(':');
	}
}

void json_open(const char *key, char bracket)
{
	begin(key);
	putchar(bracket);
	brackets[depth++] = bracket;
	follows = false;
}

void json_close(void)
{
	putchar(brackets[--depth] == '{' ? '}' : ']');
	follows = true;
}

void json_bytes(const char *key, const void *bytes, size_t length)
{
	begin(key);
	quoted(bytes, length);
}

void json_text(const char *key, const char *text)
{
	json_bytes(key, text, strlen(text));
}

void json_number(const char *key, long long number)
{
	begin(key);
	printf("%lld", number);
}

void json_bool(const char *key, int value)
{
	begin(key);
	fputs(value ? "true" : "false", stdout);
}

void json_format(const char *key, const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	json_text(key, text);
}
