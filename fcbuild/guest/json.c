/* JSON text for the event lines. Pure. */
#include "json.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/*
 * The length of the UTF-8 character at `s`, or 0 when there is none (RFC 3629: no overlong form,
 * no surrogate, nothing above U+10FFFF). `s` is NUL-terminated, so a cut character is no overrun.
 */
static size_t utf8_length(const unsigned char *s)
{
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	for (size_t i = 1; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	bool outside = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
		       (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f);
	return outside ? 0 : length;
}

/* Write the piece of JSON for the character at `s`, which is not NUL. Returns how many bytes it stands for. */
static size_t encode(const unsigned char *s, char piece[8])
{
	size_t taken = utf8_length(s);
	if (taken == 0) {
		strcpy(piece, "\\ufffd");
		return 1;
	}
	if (*s == '"' || *s == '\\') {
		snprintf(piece, 8, "\\%c", *s);
	} else if (*s < 0x20 || *s == 0x7f) {
		snprintf(piece, 8, "\\u%04x", *s);
	} else {
		memcpy(piece, s, taken);
		piece[taken] = '\0';
	}
	return taken;
}

size_t json_string(const char *text, char *out, size_t size)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t at = 0;

	out[at++] = '"';
	while (*s != '\0') {
		char piece[8];
		size_t taken = encode(s, piece), length = strlen(piece);
		if (at + length + 2 > size) /* room for the quote and the NUL */
			break;
		memcpy(out + at, piece, length);
		at += length;
		s += taken;
	}
	out[at++] = '"';
	out[at] = '\0';
	return at;
}

size_t json_tail(const char *text, char *out, size_t size)
{
	const unsigned char *s = (const unsigned char *)text;
	char piece[8];
	size_t length = 3; /* the quotes and the NUL */
	for (const unsigned char *c = s; *c != '\0'; length += strlen(piece))
		c += encode(c, piece);
	while (length > size) {
		s += encode(s, piece);
		length -= strlen(piece);
	}
	return json_string((const char *)s, out, size);
}
